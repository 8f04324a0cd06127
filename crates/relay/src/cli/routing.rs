//! `posthouse route | smarthost`.

use std::io::Read;
use std::path::PathBuf;

use api::types::{Probe, Route, RouteNew, SmartHost, SmartHostNew, Source};
use clap::{Args, Subcommand};
use hyper::Method;

use super::accounts::{all, at, remove, show};
use super::client::NOTHING;
use super::context::{CliError, Context};
use super::output::{self, list, yes};

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

fn source(source: Source) -> String {
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

/// What a smart host is.
#[derive(Debug, Args)]
pub(super) struct SmartHostArgs {
    /// Its name.
    name: String,
    /// A host and port, such as smtp.example.com:587 (again for more, tried in order).
    #[arg(long, value_name = "HOST:PORT", required = true)]
    host: Vec<String>,
    /// `required` (STARTTLS, verified), `opportunistic`, `implicit` (port 465) or `none`.
    #[arg(long, default_value = "required")]
    tls: String,
    /// The login.
    #[arg(long)]
    username: Option<String>,
    /// Read the password from this file; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum SmartHostCommand {
    /// Add a smart host.
    Add(SmartHostArgs),
    /// List smart hosts.
    List,
    /// Show one.
    Show {
        /// Its name.
        name: String,
    },
    /// Connect and log in to one as a delivery would; sends nothing.
    Test {
        /// Its name.
        name: String,
        /// Show the dialogues.
        #[arg(long)]
        verbose: bool,
    },
    /// Say anew what one is. Without a password it keeps the one it has.
    Set(SmartHostArgs),
    /// Remove one.
    Remove {
        /// Its name.
        name: String,
    },
}

impl SmartHostArgs {
    fn into_new(self) -> Result<SmartHostNew, CliError> {
        let password = self.password_file.as_deref().map(read_secret).transpose()?;
        Ok(SmartHostNew {
            name: self.name,
            hosts: self.host,
            tls: Some(self.tls),
            username: self.username,
            password,
        })
    }
}

fn read_secret(path: &std::path::Path) -> Result<String, CliError> {
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

pub(super) fn smarthost(context: &Context, command: SmartHostCommand) -> Result<(), CliError> {
    let json = context.json;
    context.with_client(async |client| match command {
        SmartHostCommand::Add(args) => {
            let made: SmartHost =
                client.call(Method::POST, "/api/smarthosts", Some(&args.into_new()?)).await?;
            show_hosts(json, vec![made], true);
            Ok(())
        }
        SmartHostCommand::List => {
            show_hosts(json, all(&client, "/api/smarthosts", None).await?, false);
            Ok(())
        }
        SmartHostCommand::Show { name } => {
            show_hosts(json, vec![client.get(&at("smarthosts", &name)).await?], true);
            Ok(())
        }
        SmartHostCommand::Test { name, verbose } => {
            let probe: Probe =
                client.call(Method::POST, &format!("{}/probe", at("smarthosts", &name)), NOTHING).await?;
            tell(json, &probe, verbose)
        }
        SmartHostCommand::Set(args) => {
            let new = args.into_new()?;
            let made: SmartHost = client.call(Method::PUT, &at("smarthosts", &new.name), Some(&new)).await?;
            show_hosts(json, vec![made], true);
            Ok(())
        }
        SmartHostCommand::Remove { name } => remove(&client, "smarthosts", &name).await,
    })
}

/// An error unless one of its hosts works.
fn tell(json: bool, probe: &Probe, verbose: bool) -> Result<(), CliError> {
    if json {
        output::json(probe);
    } else {
        for step in &probe.steps {
            let word = if step.ok { "ok  " } else { "FAIL" };
            output::line(&output::clean(&format!("{word}  {}  {}", step.host, step.text)));
            for line in output::clean_lines(&step.transcript).filter(|_| verbose || !step.ok) {
                output::line(&format!("      | {line}"));
            }
        }
    }
    if probe.steps.iter().any(|step| step.ok) {
        return Ok(());
    }
    Err(CliError::Failed(format!("no host of {} takes mail from us", probe.name)))
}

fn show_hosts(json: bool, all: Vec<SmartHost>, one: bool) {
    show(json, all, one, &["NAME", "HOSTS", "TLS", "USERNAME", "PASSWORD", "SOURCE"], |h| {
        vec![
            h.name.clone(),
            h.hosts.join(" "),
            h.tls.clone(),
            h.username.clone().unwrap_or_default(),
            yes(h.has_password).into(),
            source(h.source),
        ]
    });
}
