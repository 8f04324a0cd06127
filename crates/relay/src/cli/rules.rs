//! `posthouse source | pool | egress | shape | ceiling | tls-policy`: one set of commands for all kinds.

use clap::{Args, Subcommand};
use directory::rule::{self, Entry, Rule};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::accounts::{all, at, remove, show};
use super::context::{CliError, Context};
use super::output::list;
use super::routing::read_secret;

/// What a kind of rule is on the command line.
pub(super) trait RuleArgs: Args {
    /// What it says.
    type Rule: Rule;
    /// Where the API has it.
    const PATH: &'static str;
    /// The heads of the columns between `ID` and `KEPT`.
    const HEAD: &'static [&'static str];

    /// The rule as the API takes it.
    fn body(self) -> Result<Value, CliError>;

    /// A row for people.
    fn cells(rule: &Self::Rule) -> Vec<String>;
}

/// A rule with its name.
#[derive(Debug, Args)]
pub(super) struct Named<A: Args> {
    /// Its name.
    name: String,
    #[command(flatten)]
    rule: A,
}

/// A rule with its place.
#[derive(Debug, Args)]
pub(super) struct Placed<A: Args> {
    #[command(flatten)]
    rule: A,
    /// Put it before this one, by its id; else it comes last.
    #[arg(long, value_name = "ID")]
    before: Option<String>,
}

/// A rule by its number.
#[derive(Debug, Args)]
pub(super) struct Numbered<A: Args> {
    /// Its id.
    id: String,
    #[command(flatten)]
    rule: A,
}

/// Commands for rules that have names.
#[derive(Debug, Subcommand)]
pub(super) enum NamedCommand<A: Args> {
    /// Add one.
    Add(Named<A>),
    /// List all; those from config come first and are changed there.
    List,
    /// Show one.
    Show {
        /// Its name.
        name: String,
    },
    /// Say anew what one is: what is not given is no more.
    Set(Named<A>),
    /// Remove one that nothing names.
    Remove {
        /// Its name.
        name: String,
    },
}

/// Commands for rules that are asked in their order.
#[derive(Debug, Subcommand)]
pub(super) enum ListedCommand<A: Args> {
    /// Add one behind the others.
    Add(Placed<A>),
    /// List all in the order in which they are asked; those from config come first and are changed there.
    List,
    /// Show one.
    Show {
        /// Its id.
        id: String,
    },
    /// Make one say something else: what is not given is no more. It keeps its place.
    Set(Numbered<A>),
    /// Remove one.
    Remove {
        /// Its id.
        id: String,
    },
}

/// What all kinds have in common.
enum Do<A> {
    Add { rule: A, name: Option<String>, before: Option<String> },
    List,
    Show(String),
    Set(String, A),
    Remove(String),
}

pub(super) fn named<A: RuleArgs>(context: &Context, command: NamedCommand<A>) -> Result<(), CliError> {
    run(
        context,
        match command {
            NamedCommand::Add(Named { name, rule }) => Do::Add { rule, name: Some(name), before: None },
            NamedCommand::List => Do::List,
            NamedCommand::Show { name } => Do::Show(name),
            NamedCommand::Set(Named { name, rule }) => Do::Set(name, rule),
            NamedCommand::Remove { name } => Do::Remove(name),
        },
    )
}

pub(super) fn listed<A: RuleArgs>(context: &Context, command: ListedCommand<A>) -> Result<(), CliError> {
    run(
        context,
        match command {
            ListedCommand::Add(Placed { rule, before }) => Do::Add { rule, name: None, before },
            ListedCommand::List => Do::List,
            ListedCommand::Show { id } => Do::Show(id),
            ListedCommand::Set(Numbered { id, rule }) => Do::Set(id, rule),
            ListedCommand::Remove { id } => Do::Remove(id),
        },
    )
}

fn run<A: RuleArgs>(context: &Context, what: Do<A>) -> Result<(), CliError> {
    let json = context.json;
    context.with_client(async |client| {
        let (entries, one): (Vec<Entry<A::Rule>>, bool) = match what {
            Do::Add { rule, name, before } => {
                let mut body = object(rule.body()?);
                body.extend(name.map(|name| ("name".into(), name.into())));
                body.extend(before.map(|before| ("before".into(), before.into())));
                let path = format!("/api/{}", A::PATH);
                (vec![client.call(Method::POST, &path, Some(&Value::Object(body))).await?], true)
            }
            Do::List => (all(&client, &format!("/api/{}", A::PATH), None).await?, false),
            Do::Show(id) => (vec![client.get(&at(A::PATH, &id)).await?], true),
            Do::Set(id, rule) => {
                let body = Value::Object(object(rule.body()?));
                (vec![client.call(Method::PUT, &at(A::PATH, &id), Some(&body)).await?], true)
            }
            Do::Remove(id) => return remove(&client, A::PATH, &id).await,
        };
        show_entries::<A>(json, entries, one);
        Ok(())
    })
}

pub(super) fn show_entries<A: RuleArgs>(json: bool, entries: Vec<Entry<A::Rule>>, one: bool) {
    let id = if A::Rule::NAMED { "NAME" } else { "ID" };
    let head: Vec<&str> = [id].into_iter().chain(A::HEAD.iter().copied()).chain(["KEPT"]).collect();
    show(json, entries, one, &head, |entry| {
        let mut cells = vec![entry.id.to_string()];
        cells.extend(A::cells(&entry.rule));
        cells.push(kept(entry.kept));
        cells
    });
}

/// The object without what is not given.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        _ => Map::new(),
    }
}

fn kept(source: directory::Source) -> String {
    match source {
        directory::Source::Config => "from config".into(),
        directory::Source::Directory => "directory".into(),
    }
}

/// A value that may not be there, for people.
fn shown(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "-".into(), ToString::to_string)
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// What an outgoing address is.
#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// The IPv4 address that connections come from.
    #[arg(long, value_name = "ADDRESS")]
    ipv4: Option<String>,
    /// The IPv6 address that connections come from.
    #[arg(long, value_name = "ADDRESS")]
    ipv6: Option<String>,
    /// The name in EHLO; without it, `hostname`.
    #[arg(long, value_name = "NAME")]
    ehlo: Option<String>,
    /// The proxy that connections leave through: socks5://user@127.0.0.1:1080, proxy://127.0.0.1:4000.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Read the SOCKS5 proxy's password from this file; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "proxy")]
    proxy_password_file: Option<std::path::PathBuf>,
    /// The first day of its warm-up, in UTC, such as 2026-11-24.
    #[arg(long, value_name = "DAY", requires = "warmup_plan")]
    warmup_start: Option<String>,
    /// Messages to one site on the first day of its warm-up, the second, and so on: 50,100,500.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', requires = "warmup_start")]
    warmup_plan: Vec<u32>,
}

impl RuleArgs for SourceArgs {
    type Rule = rule::Source;
    const PATH: &'static str = "sources";
    const HEAD: &'static [&'static str] = &["IPV4", "IPV6", "EHLO", "PROXY", "WARM-UP"];

    fn body(self) -> Result<Value, CliError> {
        let password = self.proxy_password_file.as_deref().map(read_secret).transpose()?;
        let warmup = self.warmup_start.map(|start| json!({ "start": start, "plan": self.warmup_plan }));
        Ok(json!({
            "ipv4": self.ipv4, "ipv6": self.ipv6, "ehlo": self.ehlo, "proxy": self.proxy,
            "proxy_password": password, "warmup": warmup,
        }))
    }

    fn cells(rule: &rule::Source) -> Vec<String> {
        let plan = |w: &rule::Warmup| format!("from {}, {} days", w.start, w.plan.len());
        vec![
            shown(rule.ipv4.as_ref()),
            shown(rule.ipv6.as_ref()),
            shown(rule.ehlo.as_ref()),
            shown(rule.proxy.as_ref()),
            rule.warmup.as_ref().map_or_else(|| "-".into(), plan),
        ]
    }
}

/// What a pool is.
#[derive(Debug, Args)]
pub(super) struct PoolArgs {
    /// A source, with its weight if that is not 1: fast=3 (again for more).
    #[arg(long = "source", value_name = "NAME[=WEIGHT]", required = true)]
    sources: Vec<String>,
}

impl RuleArgs for PoolArgs {
    type Rule = rule::Pool;
    const PATH: &'static str = "pools";
    const HEAD: &'static [&'static str] = &["SOURCES"];

    fn body(self) -> Result<Value, CliError> {
        let mut sources = Map::new();
        for text in self.sources {
            let (name, weight) = text.split_once('=').unwrap_or((&text, "1"));
            let weight: u32 = weight
                .parse()
                .map_err(|_| CliError::Usage(format!("{weight:?} is no weight: a number such as 3")))?;
            if sources.insert(name.to_owned(), weight.into()).is_some() {
                return Err(CliError::Usage(format!("the source {name} is given twice")));
            }
        }
        Ok(json!({ "sources": sources }))
    }

    fn cells(rule: &rule::Pool) -> Vec<String> {
        let sources: Vec<String> =
            rule.sources.iter().map(|(name, weight)| format!("{name}={weight}")).collect();
        vec![sources.join(" ")]
    }
}

/// Which pool some mail leaves by.
#[derive(Debug, Args)]
pub(super) struct EgressArgs {
    /// Whose mail (again for more); without any, anyone's.
    #[arg(long = "org", value_name = "ORG")]
    orgs: Vec<String>,
    /// What kind of mail: transactional or bulk; without it, any.
    #[arg(long = "stream", value_name = "STREAM")]
    streams: Vec<String>,
    /// A recipient domain, such as example.com or "*.example.com" (again for more), for mail that goes to its mail
    /// exchangers; not for mail that a route sends elsewhere.
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// Where a route sends mail: smarthost:NAME, smtp://host:port (again for more). With neither domains nor
    /// destinations, all mail.
    #[arg(long = "destination", value_name = "DESTINATION")]
    destinations: Vec<String>,
    /// The pool.
    #[arg(long)]
    pool: String,
}

impl RuleArgs for EgressArgs {
    type Rule = rule::Egress;
    const PATH: &'static str = "egress";
    const HEAD: &'static [&'static str] = &["ORGS", "STREAMS", "TO", "POOL"];

    fn body(self) -> Result<Value, CliError> {
        Ok(json!({
            "orgs": self.orgs,
            "streams": self.streams,
            "domains": self.domains,
            "destinations": self.destinations,
            "pool": self.pool,
        }))
    }

    fn cells(rule: &rule::Egress) -> Vec<String> {
        let streams: Vec<String> = rule.streams.iter().map(|s| s.as_str().to_owned()).collect();
        vec![
            list(&rule.orgs, "any"),
            list(&streams, "any"),
            list(&[texts(&rule.domains), texts(&rule.destinations)].concat(), "any"),
            rule.pool.clone(),
        ]
    }
}

/// How much traffic some sites are given.
#[derive(Debug, Args)]
pub(super) struct ShapeArgs {
    /// A provider such as gmail, or a site as `queue sites` shows it (again for more).
    #[arg(long = "site", value_name = "SITE")]
    sites: Vec<String>,
    /// A recipient domain (again for more).
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// A source that it counts for (again for more); without any, all.
    #[arg(long = "source", value_name = "NAME")]
    sources: Vec<String>,
    /// Most connections at a time from one source.
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// Most messages on one connection.
    #[arg(long, value_name = "N")]
    messages_per_connection: Option<u32>,
    /// Most messages from one source, such as 100/1m.
    #[arg(long, value_name = "N/TIME")]
    rate: Option<String>,
    /// Most new connections from one source, such as 10/1m.
    #[arg(long, value_name = "N/TIME")]
    connection_rate: Option<String>,
}

impl RuleArgs for ShapeArgs {
    type Rule = rule::Shape;
    const PATH: &'static str = "shapes";
    const HEAD: &'static [&'static str] =
        &["SITES", "DOMAINS", "SOURCES", "CONNECTIONS", "PER CONNECTION", "RATE", "CONNECTION RATE"];

    fn body(self) -> Result<Value, CliError> {
        Ok(json!({
            "sites": self.sites, "domains": self.domains, "sources": self.sources,
            "connections": self.connections, "messages_per_connection": self.messages_per_connection,
            "rate": self.rate, "connection_rate": self.connection_rate,
        }))
    }

    fn cells(rule: &rule::Shape) -> Vec<String> {
        let everywhere = if rule.domains.is_empty() { "all" } else { "-" };
        vec![
            list(&rule.sites, everywhere),
            list(&texts(&rule.domains), "-"),
            list(&rule.sources, "all"),
            shown(rule.connections.as_ref()),
            shown(rule.messages_per_connection.as_ref()),
            shown(rule.rate.as_ref()),
            shown(rule.connection_rate.as_ref()),
        ]
    }
}

/// How much somebody may take.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true))]
pub(super) struct CeilingArgs {
    /// For an organisation.
    #[arg(long, group = "whom")]
    org: Option<String>,
    /// For a credential.
    #[arg(long, group = "whom", value_name = "LOGIN")]
    credential: Option<String>,
    /// For a destination, as a route says it.
    #[arg(long, group = "whom", value_name = "DESTINATION")]
    to: Option<String>,
    /// Most connections at a time.
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// Most messages, such as 10000/1h. What comes faster waits its turn.
    #[arg(long, value_name = "N/TIME")]
    rate: Option<String>,
}

impl RuleArgs for CeilingArgs {
    type Rule = rule::Ceiling;
    const PATH: &'static str = "ceilings";
    const HEAD: &'static [&'static str] = &["FOR", "CONNECTIONS", "RATE"];

    fn body(self) -> Result<Value, CliError> {
        Ok(json!({
            "org": self.org, "credential": self.credential, "to": self.to,
            "connections": self.connections, "rate": self.rate,
        }))
    }

    fn cells(rule: &rule::Ceiling) -> Vec<String> {
        let whom = match rule.of() {
            Some(rule::CeilingOf::Org(name)) => format!("organisation {name}"),
            Some(rule::CeilingOf::Credential(name)) => format!("credential {name}"),
            Some(rule::CeilingOf::To(to)) => to.to_string(),
            None => "-".into(),
        };
        vec![whom, shown(rule.connections.as_ref()), shown(rule.rate.as_ref())]
    }
}

/// How connections to some recipient domains are protected.
#[derive(Debug, Args)]
pub(super) struct TlsPolicyArgs {
    /// A recipient domain, such as partner.example or "*.partner.example" (again for more).
    #[arg(long = "domain", value_name = "DOMAIN", required = true)]
    domains: Vec<String>,
    /// none, opportunistic, encrypt, verify or dane.
    #[arg(long, default_value = "verify")]
    level: String,
    /// For verify: a name that the certificate may bear instead of the MX host's (again for more).
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// For verify: the roots to trust instead of the system's, PEM; an absolute path.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// A certificate to show to the peer, PEM; an absolute path.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<String>,
    /// Its private key, PEM; an absolute path.
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<String>,
}

impl RuleArgs for TlsPolicyArgs {
    type Rule = rule::TlsPolicy;
    const PATH: &'static str = "tls-policies";
    const HEAD: &'static [&'static str] = &["DOMAINS", "LEVEL", "NAMES", "CA", "CLIENT CERTIFICATE"];

    fn body(self) -> Result<Value, CliError> {
        Ok(json!({
            "domains": self.domains, "level": self.level, "names": self.names, "ca_file": self.ca_file,
            "client_certificate": self.client_certificate, "client_key": self.client_key,
        }))
    }

    fn cells(rule: &rule::TlsPolicy) -> Vec<String> {
        let path = |p: &Option<std::path::PathBuf>| {
            p.as_ref().map_or_else(|| "-".into(), |p| p.display().to_string())
        };
        vec![
            texts(&rule.domains).join(" "),
            rule.level.as_str().to_owned(),
            list(&rule.names, "-"),
            path(&rule.ca_file),
            path(&rule.client_certificate),
        ]
    }
}
