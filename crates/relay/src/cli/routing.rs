//! `posthouse route`.

use std::io::Read;

use api::types::{Route, RouteNew, Source};
use clap::{Args, Subcommand};
use hyper::Method;

use super::accounts::{all, at, remove, show};
use super::context::{CliError, Context};
use super::output::list;

/// What a route says.
#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    /// A recipient domain, such as example.com or "*.example.com" (again for more); without any, all.
    #[arg(long, value_name = "DOMAIN")]
    domain: Vec<String>,
    /// An envelope sender, such as "*@example.com" (again for more); without any, all.
    #[arg(long, value_name = "SENDER")]
    sender: Vec<String>,
    /// Where to: smtp://host:port, lmtp://host:port, lmtp:/socket, maildir:/path/{domain}/{user}, smarthost:NAME, mx,
    /// sandbox or discard.
    #[arg(long, value_name = "DESTINATION")]
    to: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum RouteCommand {
    /// Add a route behind the others.
    Add {
        #[command(flatten)]
        route: RouteArgs,
        /// Put it before this route, by its id.
        #[arg(long, value_name = "ID")]
        before: Option<String>,
    },
    /// List routes in the order in which they are asked; those from config come first.
    List,
    /// Show one.
    Show {
        /// Its id.
        id: String,
    },
    /// Make one say something else; it keeps its place.
    Set {
        /// Its id.
        id: String,
        #[command(flatten)]
        route: RouteArgs,
    },
    /// Remove one.
    Remove {
        /// Its id.
        id: String,
    },
}

impl RouteArgs {
    fn into_new(self, before: Option<String>) -> RouteNew {
        RouteNew { domains: self.domain, senders: self.sender, to: self.to, before }
    }
}

pub(super) fn route(context: &Context, command: RouteCommand) -> Result<(), CliError> {
    let json = context.json;
    context.with_client(async |client| match command {
        RouteCommand::Add { route, before } => {
            let made: Route = client.call(Method::POST, "/api/routes", Some(&route.into_new(before))).await?;
            show_routes(json, vec![made], true);
            Ok(())
        }
        RouteCommand::List => {
            show_routes(json, all(&client, "/api/routes", None).await?, false);
            Ok(())
        }
        RouteCommand::Show { id } => {
            show_routes(json, vec![client.get(&at("routes", &id)).await?], true);
            Ok(())
        }
        RouteCommand::Set { id, route } => {
            let made: Route =
                client.call(Method::PUT, &at("routes", &id), Some(&route.into_new(None))).await?;
            show_routes(json, vec![made], true);
            Ok(())
        }
        RouteCommand::Remove { id } => remove(&client, "routes", &id).await,
    })
}

pub(super) fn source(source: Source) -> String {
    match source {
        Source::Config => "from config".into(),
        Source::Directory => "directory".into(),
    }
}

fn show_routes(json: bool, all: Vec<Route>, one: bool) {
    show(json, all, one, &["ID", "DOMAINS", "SENDERS", "TO", "SOURCE"], |r| {
        vec![r.id.clone(), list(&r.domains, "any"), list(&r.senders, "any"), r.to.clone(), source(r.source)]
    });
}

/// A secret that stands alone in a file; `-` is standard input.
pub(super) fn read_secret(path: &std::path::Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if path == std::path::Path::new("-") {
        std::io::stdin().take(4096).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(4096).read_to_string(&mut text))
    };
    read.map_err(|e| CliError::failed(&format!("{} cannot be read", path.display()), &e))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.contains(['\r', '\n']) {
        return Err(CliError::Failed(format!(
            "{} does not hold a password alone on one line",
            path.display()
        )));
    }
    Ok(secret.to_owned())
}
