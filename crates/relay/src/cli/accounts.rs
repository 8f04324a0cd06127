//! `posthouse org | credential | key | domain`.

use std::io::{IsTerminal, Read};

use api::types::{
    Credential, CredentialChange, CredentialMade, CredentialNew, Domain, DomainNew, Key, KeyChange, KeyMade,
    KeyNew, Org, OrgChange, OrgNew, Paging,
};
use clap::{Args, Subcommand};
use hyper::Method;

use super::client::{Client, NOTHING, encode};
use super::context::{CliError, Context};
use super::output::{self, Rows, list, yes};

/// Longest password that is read.
const PASSWORD_MAX: u64 = 1024;

#[derive(Debug, Subcommand)]
pub(super) enum OrgCommand {
    /// Add an organisation.
    Add {
        /// Its name.
        name: String,
        /// It may use any sender domain; else only those given to it by `domain add`.
        #[arg(long)]
        trusted: bool,
    },
    /// List organisations.
    List,
    /// Show one.
    Show {
        /// Its name.
        name: String,
    },
    /// Change one.
    Set {
        /// Its name.
        name: String,
        /// Another name.
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
        /// Whether it may use any sender domain.
        #[arg(long, value_name = "true|false")]
        trusted: Option<bool>,
        /// `active`, or `suspended`: its new mail is refused.
        #[arg(long)]
        state: Option<String>,
        /// The pool that its mail leaves by where no `egress` rule says otherwise; "" is that of the relay.
        #[arg(long, value_name = "NAME")]
        pool: Option<String>,
    },
    /// Remove one that has nothing any more.
    Remove {
        /// Its name.
        name: String,
    },
}

pub(super) fn org(context: &Context, command: OrgCommand) -> Result<(), CliError> {
    let json = context.json;
    context.with_client(async |client| match command {
        OrgCommand::Add { name, trusted } => {
            let made: Org = client.call(Method::POST, "/api/orgs", Some(&OrgNew { name, trusted })).await?;
            show_orgs(json, vec![made], true);
            Ok(())
        }
        OrgCommand::List => {
            let all = all(&client, "/api/orgs", None).await?;
            show_orgs(json, all, false);
            Ok(())
        }
        OrgCommand::Show { name } => {
            show_orgs(json, vec![client.get(&at("orgs", &name)).await?], true);
            Ok(())
        }
        OrgCommand::Set { name, rename, trusted, state, pool } => {
            let change = OrgChange { name: rename, trusted, state, pool };
            let made: Org = client.call(Method::PATCH, &at("orgs", &name), Some(&change)).await?;
            show_orgs(json, vec![made], true);
            Ok(())
        }
        OrgCommand::Remove { name } => remove(&client, "orgs", &name).await,
    })
}

fn show_orgs(json: bool, orgs: Vec<Org>, one: bool) {
    show(json, orgs, one, &["NAME", "TRUSTED", "STATE", "POOL", "CREATED"], |org| {
        let pool = org.pool.clone().unwrap_or_else(|| "-".into());
        vec![org.name.clone(), yes(org.trusted).into(), org.state.clone(), pool, org.created.clone()]
    });
}

/// Where a password comes from.
#[derive(Debug, Default, Args)]
pub(super) struct PasswordArgs {
    /// Read a chosen password from standard input; else one is made and printed.
    #[arg(long)]
    password_stdin: bool,
    /// A chosen password serves SCRAM-SHA-256, too; its stored form is then easier to guess from.
    #[arg(long, requires = "password_stdin")]
    scram: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum CredentialCommand {
    /// Add a login. The password is printed once, alone on the last line, when Posthouse made it.
    Add {
        /// The login.
        name: String,
        /// Whose mail it sends.
        #[arg(long, default_value = "default")]
        org: String,
        #[command(flatten)]
        password: PasswordArgs,
        /// A sender domain that it may use (again for more); without any, those its organisation may.
        #[arg(long, value_name = "DOMAIN")]
        from_domain: Vec<String>,
        /// A network that it may be used from (again for more); without any, from anywhere.
        #[arg(long, value_name = "NETWORK")]
        network: Vec<String>,
        /// What kind of mail comes by it: transactional, or bulk, which lets transactional mail pass.
        #[arg(long, default_value = "transactional")]
        stream: String,
    },
    /// List logins.
    List {
        /// Only this organisation's.
        #[arg(long)]
        org: Option<String>,
    },
    /// Show one.
    Show {
        /// The login.
        name: String,
    },
    /// Change one.
    Set {
        /// The login.
        name: String,
        /// Make a new password, printed alone on the last line.
        #[arg(long, conflicts_with = "password_stdin")]
        new_password: bool,
        #[command(flatten)]
        password: PasswordArgs,
        /// Sender domains, instead of those before.
        #[arg(long, value_name = "DOMAIN", conflicts_with = "any_from_domain")]
        from_domain: Vec<String>,
        /// It may use any sender that its organisation may.
        #[arg(long)]
        any_from_domain: bool,
        /// Networks, instead of those before.
        #[arg(long, value_name = "NETWORK", conflicts_with = "any_network")]
        network: Vec<String>,
        /// It may be used from anywhere.
        #[arg(long)]
        any_network: bool,
        /// What kind of mail comes by it: transactional or bulk.
        #[arg(long)]
        stream: Option<String>,
        /// Whether it may be used at all.
        #[arg(long, value_name = "true|false")]
        enabled: Option<bool>,
    },
    /// Remove one.
    Remove {
        /// The login.
        name: String,
    },
}

pub(super) fn credential(context: &Context, command: CredentialCommand) -> Result<(), CliError> {
    let json = context.json;
    context.with_client(async |client| match command {
        CredentialCommand::Add { name, org, password, from_domain, network, stream } => {
            let new = CredentialNew {
                name,
                org: Some(org),
                scram: password.scram,
                password: read_password(&password)?,
                from_domains: from_domain,
                networks: network,
                stream: Some(stream),
            };
            let made: CredentialMade = client.call(Method::POST, "/api/credentials", Some(&new)).await?;
            show_made(json, &made);
            Ok(())
        }
        CredentialCommand::List { org } => {
            show_credentials(json, all(&client, "/api/credentials", org).await?, false);
            Ok(())
        }
        CredentialCommand::Show { name } => {
            show_credentials(json, vec![client.get(&at("credentials", &name)).await?], true);
            Ok(())
        }
        CredentialCommand::Set {
            name,
            new_password,
            password,
            from_domain,
            any_from_domain,
            network,
            any_network,
            stream,
            enabled,
        } => {
            let some = |values: Vec<String>, any: bool| (any || !values.is_empty()).then_some(values);
            let change = CredentialChange {
                scram: password.scram,
                password: read_password(&password)?,
                new_password,
                from_domains: some(from_domain, any_from_domain),
                networks: some(network, any_network),
                enabled,
                stream,
            };
            let made: CredentialMade =
                client.call(Method::PATCH, &at("credentials", &name), Some(&change)).await?;
            show_made(json, &made);
            Ok(())
        }
        CredentialCommand::Remove { name } => remove(&client, "credentials", &name).await,
    })
}

fn read_password(args: &PasswordArgs) -> Result<Option<String>, CliError> {
    if !args.password_stdin {
        return Ok(None);
    }
    if std::io::stdin().is_terminal() {
        output::note(
            "password (shown as you type; better: posthouse credential add NAME --password-stdin < FILE):",
        );
    }
    let mut text = String::new();
    let read = std::io::stdin().take(PASSWORD_MAX + 1).read_to_string(&mut text);
    read.map_err(|e| CliError::failed("the password could not be read", &e))?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() || text.len() as u64 > PASSWORD_MAX || text.lines().count() > 1 {
        return Err(CliError::Usage(format!("a password is one line of 1 to {PASSWORD_MAX} octets")));
    }
    Ok(Some(password.to_owned()))
}

fn show_made(json: bool, made: &CredentialMade) {
    if json {
        return output::json(made);
    }
    show_credentials(false, vec![made.credential.clone()], true);
    if let Some(password) = &made.password {
        output::note("The password is shown this once:");
        output::line(password);
    }
}

fn show_credentials(json: bool, all: Vec<Credential>, one: bool) {
    let head = ["NAME", "ORG", "STREAM", "ENABLED", "SCRAM", "FROM", "NETWORKS", "CREATED"];
    show(json, all, one, &head, |c| {
        vec![
            c.name.clone(),
            c.org.clone(),
            c.stream.clone(),
            yes(c.enabled).into(),
            yes(c.scram).into(),
            list(&c.from_domains, "any"),
            list(&c.networks, "any"),
            c.created.clone(),
        ]
    });
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Add a key. It is printed once, alone on the last line.
    Add {
        /// Its name.
        name: String,
        /// For whom it works.
        #[arg(long, default_value = "default")]
        org: String,
        /// What it may do: `send`, `read`, `manage` or `admin`; each includes the ones before.
        #[arg(long, default_value = "send")]
        scope: String,
        /// A sender domain that it may use (again for more); without any, those its organisation may.
        #[arg(long, value_name = "DOMAIN")]
        from_domain: Vec<String>,
    },
    /// List keys.
    List {
        /// Only this organisation's.
        #[arg(long)]
        org: Option<String>,
    },
    /// Show one.
    Show {
        /// Its name.
        name: String,
    },
    /// Change one.
    Set {
        /// Its name.
        name: String,
        /// Whether it may be used at all.
        #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
        enabled: bool,
    },
    /// Remove one.
    Remove {
        /// Its name.
        name: String,
    },
}

pub(super) fn key(context: &Context, command: KeyCommand) -> Result<(), CliError> {
    let json = context.json;
    context.with_client(async |client| match command {
        KeyCommand::Add { name, org, scope, from_domain } => {
            let new = KeyNew { name, org: Some(org), scope: Some(scope), from_domains: from_domain };
            let made: KeyMade = client.call(Method::POST, "/api/keys", Some(&new)).await?;
            if json {
                output::json(&made);
            } else {
                show_keys(false, vec![made.key], true);
                output::note("The key is shown this once:");
                output::line(&made.secret);
            }
            Ok(())
        }
        KeyCommand::List { org } => {
            show_keys(json, all(&client, "/api/keys", org).await?, false);
            Ok(())
        }
        KeyCommand::Show { name } => {
            show_keys(json, vec![client.get(&at("keys", &name)).await?], true);
            Ok(())
        }
        KeyCommand::Set { name, enabled } => {
            let made: Key =
                client.call(Method::PATCH, &at("keys", &name), Some(&KeyChange { enabled })).await?;
            show_keys(json, vec![made], true);
            Ok(())
        }
        KeyCommand::Remove { name } => remove(&client, "keys", &name).await,
    })
}

fn show_keys(json: bool, all: Vec<Key>, one: bool) {
    show(json, all, one, &["NAME", "ORG", "SCOPE", "ENABLED", "FROM", "CREATED"], |k| {
        vec![
            k.name.clone(),
            k.org.clone(),
            k.scope.clone(),
            yes(k.enabled).into(),
            list(&k.from_domains, "any"),
            k.created.clone(),
        ]
    });
}

#[derive(Debug, Subcommand)]
pub(super) enum DomainCommand {
    /// Let an organisation use a domain as sender.
    Add {
        /// The domain.
        name: String,
        /// The organisation.
        #[arg(long, default_value = "default")]
        org: String,
    },
    /// List domains.
    List {
        /// Only this organisation's.
        #[arg(long)]
        org: Option<String>,
    },
    /// Show one.
    Show {
        /// The domain.
        name: String,
    },
    /// Take one away.
    Remove {
        /// The domain.
        name: String,
    },
}

pub(super) fn domain(context: &Context, command: DomainCommand) -> Result<(), CliError> {
    let json = context.json;
    context.with_client(async |client| match command {
        DomainCommand::Add { name, org } => {
            let new = DomainNew { name, org: Some(org) };
            let made: Domain = client.call(Method::POST, "/api/domains", Some(&new)).await?;
            show_domains(json, vec![made], true);
            Ok(())
        }
        DomainCommand::List { org } => {
            show_domains(json, all(&client, "/api/domains", org).await?, false);
            Ok(())
        }
        DomainCommand::Show { name } => {
            show_domains(json, vec![client.get(&at("domains", &name)).await?], true);
            Ok(())
        }
        DomainCommand::Remove { name } => remove(&client, "domains", &name).await,
    })
}

fn show_domains(json: bool, all: Vec<Domain>, one: bool) {
    show(json, all, one, &["NAME", "ORG", "CREATED"], |d| {
        vec![d.name.clone(), d.org.clone(), d.created.clone()]
    });
}

/// The path of one thing.
pub(crate) fn at(kind: &str, name: &str) -> String {
    format!("/api/{kind}/{}", encode(name))
}

/// All of a listing.
pub(super) async fn all<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    org: Option<String>,
) -> Result<Vec<T>, CliError> {
    let mut all = Vec::new();
    client.pages(path, &Paging { org, ..Paging::default() }, 0, |part| all.extend(part)).await?;
    Ok(all)
}

pub(super) async fn remove(client: &Client, kind: &str, name: &str) -> Result<(), CliError> {
    client.call::<()>(Method::DELETE, &at(kind, name), NOTHING).await
}

/// A table, or JSON: a list, or `one` thing.
pub(super) fn show<T: serde::Serialize>(
    json: bool,
    all: Vec<T>,
    one: bool,
    head: &[&str],
    cells: impl Fn(&T) -> Vec<String>,
) {
    match (json, one, all.first()) {
        (true, true, Some(only)) => output::json(only),
        (true, _, _) => output::json(&all),
        _ => {
            let mut rows = Rows::new(head);
            all.iter().for_each(|it| rows.row(&cells(it)));
            rows.print();
        }
    }
}
