//! `posthouse quickstart`: a relay with everything on and nothing that leaves the machine.

use std::net::SocketAddr;

use api::types::{CredentialMade, CredentialNew, Org, OrgNew};
use api::{Kind, Problem};
use hyper::Method;

use super::accounts::at;
use super::client::{Client, NOTHING};
use super::context::{CliError, Context};
use super::output;
use crate::config::{Config, Mode, Route, RouteTo};

/// The demo organisation.
const ORG: &str = "demo";
/// The demo login.
const LOGIN: &str = "demo";

pub(super) fn run(context: &Context) -> Result<(), CliError> {
    let mut config = context.config()?;
    // All that is not routed by hand is caught. Routes of the file are left out: nothing is to leave the machine.
    config.route =
        vec![Route { domains: Vec::new(), senders: Vec::new(), to: RouteTo::To(mail::Destination::Sandbox) }];
    let password = context.block_on(prepare(&config, context))?;
    if context.json {
        output::json(&summary(&config, &password));
    } else {
        output::line(&welcome(&config, &password));
    }
    // Without a path, nothing of the file comes back by a reload: no route could lead out of the machine.
    super::operate::serve_with(config, None)
}

/// Makes the demo organisation and credential, with a new password each time.
async fn prepare(config: &Config, context: &Context) -> Result<String, CliError> {
    if Client::running(config).await?.is_some() {
        return Err(CliError::Failed(format!("a relay is running on {} already", config.data_dir.display())));
    }
    let path = context.config_path().map(std::path::Path::to_owned);
    let client = Client::connect(config.clone(), path).await?;
    let made = demo(&client).await;
    client.close().await;
    made
}

async fn demo(client: &Client) -> Result<String, CliError> {
    let org = OrgNew { name: ORG.into(), trusted: true };
    match client.call::<Org>(Method::POST, "/api/orgs", Some(&org)).await {
        Err(CliError::Problem(Problem { kind: Kind::Conflict, .. })) | Ok(_) => {}
        Err(error) => return Err(error),
    }
    match client.call::<()>(Method::DELETE, &at("credentials", LOGIN), NOTHING).await {
        Err(CliError::Problem(Problem { kind: Kind::NotFound, .. })) | Ok(()) => {}
        Err(error) => return Err(error),
    }
    let new = CredentialNew { name: LOGIN.into(), org: Some(ORG.into()), ..CredentialNew::default() };
    let made: CredentialMade = client.call(Method::POST, "/api/credentials", Some(&new)).await?;
    made.password.ok_or_else(|| CliError::Failed("no password was made".into()))
}

/// The first address of a listener of this mode, as a client on this machine reaches it.
pub(super) fn address(config: &Config, mode: Mode) -> Option<SocketAddr> {
    let listener = config.listener.iter().find(|l| l.mode == mode)?;
    listener.address.first().map(|address| local(*address))
}

/// An address that clients on this machine can connect to.
pub(super) fn local(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let ip = if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(ip);
    }
    address
}

fn summary(config: &Config, password: &str) -> serde_json::Value {
    let at = |mode| address(config, mode).map(|a| a.to_string());
    serde_json::json!({
        "smtp": at(Mode::Smtp),
        "submission": at(Mode::Submission),
        "submissions": at(Mode::Submissions),
        "login": LOGIN,
        "password": password,
        "organisation": ORG,
        "data_dir": config.data_dir,
    })
}

/// What is printed before the relay starts.
fn welcome(config: &Config, password: &str) -> String {
    let mut out = String::from(
        "Posthouse catches all mail that you send it and shows it to you; nothing leaves this machine.\n\n",
    );
    let modes = [
        (Mode::Submission, "with a login, STARTTLS"),
        (Mode::Submissions, "with a login, TLS from the start"),
        (Mode::Smtp, "from other servers"),
    ];
    for (mode, what) in modes {
        if let Some(at) = address(config, mode) {
            out.push_str(&format!(
                "  {:<12} host {}  port {}  ({what})\n",
                mode.as_str(),
                at.ip(),
                at.port()
            ));
        }
    }
    out.push_str(&format!("  login        {LOGIN}\n  password     {password}\n"));
    if let Some(at) = address(config, Mode::Submission).or_else(|| address(config, Mode::Smtp)) {
        out.push_str(&examples(at, password));
    }
    out.push_str(&look(config));
    out
}

fn examples(at: SocketAddr, password: &str) -> String {
    let (host, port) = (at.ip(), at.port());
    // A URL wants brackets around an IPv6 address.
    let url = format!("smtp://{at}");
    format!(
        "\nSend something:\n\
         \n  swaks --server {host} --port {port} --auth-user {LOGIN} --auth-password '{password}' \
         --from you@example.com --to someone@example.net\n\
         \n  printf 'Subject: Hello\\r\\n\\r\\nHello.\\r\\n' | curl {url} --user '{LOGIN}:{password}' \
         --mail-from you@example.com --mail-rcpt someone@example.net --upload-file -\n\
         \n  python3 -c \"import smtplib; s = smtplib.SMTP('{host}', {port}); s.login('{LOGIN}', '{password}'); \
         s.sendmail('you@example.com', ['someone@example.net'], 'Subject: Hello\\r\\n\\r\\nHello.\\r\\n')\"\n"
    )
}

fn look(config: &Config) -> String {
    let program =
        std::env::args().next().filter(|name| name.contains('/')).unwrap_or_else(|| "posthouse".into());
    let posthouse = match &config.source.path {
        Some(path) => format!("{program} --config {}", path.display()),
        None => program,
    };
    format!(
        "\nSee what became of it (in another terminal, in this directory):\n\
         \n  {posthouse} trace someone@example.net\
         \n  {posthouse} queue list\
         \n  {posthouse} queue show ID --raw\n\
         \nStop it with Ctrl-C. Mail and settings are in {}.\n",
        config.data_dir.display()
    )
}
