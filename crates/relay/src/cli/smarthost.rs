//! `posthouse smarthost`.

use std::path::{Path, PathBuf};

use api::types::{HostLoginNew, OAuthNew, Probe, SmartHost, SmartHostNew};
use clap::{Args, Subcommand};
use hyper::Method;

use super::accounts::{all, at, remove, show};
use super::client::NOTHING;
use super::context::{CliError, Context};
use super::output::{self, list};
use super::routing::{read_secret, source};

/// What a smart host is.
#[derive(Debug, Args)]
pub(super) struct SmartHostArgs {
    /// Its name.
    name: String,
    /// A host and port, such as smtp.example.com:587, with its weight if that is not 1: a.example:587=3 (again for more).
    #[arg(long, value_name = "HOST:PORT[=WEIGHT]", required = true)]
    host: Vec<String>,
    /// Which host is tried first: `ordered` (as given), `weighted`, or `sticky` (a sender always by the same one).
    #[arg(long, default_value = "ordered")]
    order: String,
    /// `required` (STARTTLS, verified), `opportunistic`, `implicit` (port 465) or `none`.
    #[arg(long, default_value = "required")]
    tls: String,
    /// The login.
    #[arg(long)]
    username: Option<String>,
    /// Read the password from this file; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// A login for some of the mail, before the other: "username=brand senders=*@brand.example domains=example.org
    /// password_file=FILE"; several senders or domains with commas (again for more). By access token, in place of a
    /// password: "username=brand oauth_token_url=URL oauth_client_id=ID oauth_client_secret_file=FILE
    /// oauth_refresh_token_file=FILE oauth_scope=SCOPE".
    #[arg(long, value_name = "KEY=VALUE …", value_parser = login)]
    login: Vec<HostLoginNew>,
    /// Access tokens instead of a password (XOAUTH2): where they come from.
    #[arg(long, value_name = "URL", requires_all = ["username", "oauth_client_id"], conflicts_with = "password_file")]
    oauth_token_url: Option<String>,
    /// The id of the application as the provider knows it.
    #[arg(long, value_name = "ID", requires = "oauth_token_url")]
    oauth_client_id: Option<String>,
    /// Read the application's secret from this file.
    #[arg(long, value_name = "FILE", requires = "oauth_token_url")]
    oauth_client_secret_file: Option<PathBuf>,
    /// A file with a refresh token, which the relay keeps up to date; an absolute path.
    #[arg(long, value_name = "FILE", requires = "oauth_token_url")]
    oauth_refresh_token_file: Option<String>,
    /// What the token is to be good for.
    #[arg(
        long,
        value_name = "SCOPE",
        requires = "oauth_token_url",
        default_value = "",
        hide_default_value = true
    )]
    oauth_scope: String,
    /// A certificate to show to the hosts, PEM; an absolute path.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<String>,
    /// Its private key, PEM; an absolute path.
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<String>,
}

/// A login of `--login`.
fn login(text: &str) -> Result<HostLoginNew, String> {
    let mut login = HostLoginNew::default();
    let list = |value: &str| value.split(',').map(str::to_owned).collect();
    for pair in text.split_whitespace() {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not KEY=VALUE"))?;
        match key {
            "username" => login.username = value.to_owned(),
            "senders" => login.senders = list(value),
            "domains" => login.domains = list(value),
            "password_file" => {
                login.password = Some(read_secret(Path::new(value)).map_err(|e| e.to_string())?);
            }
            _ if key.starts_with("oauth_") => {
                token(login.oauth.get_or_insert_default(), key, value)?;
            }
            _ => {
                let keys = "username, senders, domains, password_file and oauth_…";
                return Err(format!("{key:?} is none of {keys}"));
            }
        }
    }
    if login.username.is_empty() { Err("a login needs a username=…".into()) } else { Ok(login) }
}

/// A key of `--login` about access tokens.
fn token(oauth: &mut OAuthNew, key: &str, value: &str) -> Result<(), String> {
    match key {
        "oauth_token_url" => oauth.token_url = value.to_owned(),
        "oauth_client_id" => oauth.client_id = value.to_owned(),
        "oauth_client_secret_file" => {
            oauth.client_secret = Some(read_secret(Path::new(value)).map_err(|e| e.to_string())?);
        }
        "oauth_refresh_token_file" => oauth.refresh_token_file = Some(value.to_owned()),
        "oauth_scope" => oauth.scope = value.to_owned(),
        _ => {
            let keys = "token_url, client_id, client_secret_file, refresh_token_file and scope";
            return Err(format!("{key:?}: after oauth_ come {keys}"));
        }
    }
    Ok(())
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
        let oauth = match self.oauth_token_url {
            None => None,
            Some(token_url) => Some(OAuthNew {
                token_url,
                client_id: self.oauth_client_id.unwrap_or_default(),
                client_secret: self.oauth_client_secret_file.as_deref().map(read_secret).transpose()?,
                refresh_token: None,
                refresh_token_file: self.oauth_refresh_token_file,
                scope: self.oauth_scope,
            }),
        };
        let (hosts, weights) = weighted(self.host)?;
        Ok(SmartHostNew {
            name: self.name,
            hosts,
            weights,
            order: Some(self.order),
            tls: Some(self.tls),
            username: self.username,
            password,
            logins: self.login,
            oauth,
            client_certificate: self.client_certificate,
            client_key: self.client_key,
        })
    }
}

/// Hosts, and their weights where any has one.
fn weighted(texts: Vec<String>) -> Result<(Vec<String>, Vec<u32>), CliError> {
    let any = texts.iter().any(|text| text.contains('='));
    let mut weights = Vec::new();
    let mut hosts = Vec::new();
    for text in texts {
        let (host, weight) = text.split_once('=').unwrap_or((&text, "1"));
        let bad = |_| CliError::Usage(format!("{weight:?} is no weight: a number such as 3"));
        weights.push(weight.parse().map_err(bad)?);
        hosts.push(host.to_owned());
    }
    Ok((hosts, if any { weights } else { Vec::new() }))
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
            let host: SmartHost = client.get(&at("smarthosts", &name)).await?;
            show_hosts(json, vec![host.clone()], true);
            if !json {
                show_health(&host);
            }
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
    let head = ["NAME", "HOSTS", "ORDER", "TLS", "USERNAME", "LOGIN BY", "LOGINS", "SOURCE"];
    show(json, all, one, &head, |h| {
        let weights = h.weights.iter().map(|w| format!("={w}")).chain(std::iter::repeat(String::new()));
        let hosts: Vec<String> =
            h.hosts.iter().zip(weights).map(|(host, weight)| format!("{host}{weight}")).collect();
        let by = match (&h.token_url, h.has_password) {
            (Some(_), _) => "token",
            (None, true) => "password",
            (None, false) => "-",
        };
        vec![
            h.name.clone(),
            hosts.join(" "),
            h.order.clone(),
            h.tls.clone(),
            h.username.clone().unwrap_or_default(),
            by.into(),
            h.logins.len().to_string(),
            source(h.source),
        ]
    });
}

/// What a table has no room for.
fn show_health(host: &SmartHost) {
    let say = |text: &str| output::line(&output::clean(text));
    for login in &host.logins {
        let (senders, domains) = (list(&login.senders, "anyone"), list(&login.domains, "anyone"));
        let by = login.token_url.as_ref().map_or(String::new(), |url| format!(", access tokens from {url}"));
        say(&format!("login {} for mail from {senders} to {domains}{by}", login.username));
    }
    if let Some(url) = &host.token_url {
        say(&format!("access tokens from {url}"));
    }
    for it in &host.health {
        let word = if it.ok { "ok" } else { "rests" };
        let failures =
            if it.failures > 0 { format!(", {} failures in a row", it.failures) } else { String::new() };
        let until = it.until.as_ref().map_or(String::new(), |until| format!(", tried again at {until}"));
        let why = it.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        say(&format!("{}: {word}{failures}{until}{why}", it.host));
    }
}
