//! `posthouse check`: looks at everything that a relay needs before it can work, changes nothing, and says what to do.

mod database;
mod local;
mod outgoing;
mod remote;

pub(crate) use local::too_few_files;

use std::process::ExitCode;
use std::sync::Arc;

use api::Problem;
use api::types::{Probe, ProbeStep};
use clap::Args;
use directory::{Directory, Snapshot};
use mail::{Clock, Destination};
use serde::Serialize;

use crate::cli::client::Client;
use crate::cli::context::{CliError, Context};
use crate::cli::output;
use crate::cli::stopped::become_owner;
use crate::config::Config;

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Look at nothing that needs the network: no DNS, no port 25, no smart hosts.
    #[arg(long)]
    offline: bool,
    /// The domain whose mail exchangers are asked whether port 25 can be reached from here.
    #[arg(long, value_name = "DOMAIN", default_value = "gmail.com")]
    reach: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// The relay works, but somebody will trip over it.
    Warn,
    /// It cannot work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    level: Level,
    /// What was looked at: `config`, `tls`, `data_dir`, `dns`, …
    about: &'static str,
    /// What was found.
    text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

/// Everything that was found; told as soon as it is known.
pub(crate) struct Findings {
    is_told: bool,
    all: Vec<Finding>,
}

impl Findings {
    /// What is found side by side with other things; told when it is [`taken in`](Self::take_in).
    fn aside() -> Self {
        Self { is_told: false, all: Vec::new() }
    }

    fn take_in(&mut self, aside: Self) {
        aside.all.into_iter().for_each(|finding| self.push(finding));
    }

    fn add(&mut self, level: Level, about: &'static str, text: impl Into<String>, help: Option<&str>) {
        self.push(Finding { level, about, text: text.into(), help: help.map(str::to_owned) });
    }

    fn push(&mut self, finding: Finding) {
        if self.is_told {
            let word = match finding.level {
                Level::Ok => "ok  ",
                Level::Warn => "warn",
                Level::Fail => "FAIL",
            };
            output::line(&output::clean(&format!("{word}  {:<10} {}", finding.about, finding.text)));
            if let Some(help) = &finding.help {
                output::line(&output::clean(&format!("      {:<10} -> {help}", "")));
            }
        }
        self.all.push(finding);
    }

    pub(crate) fn ok(&mut self, about: &'static str, text: impl Into<String>) {
        self.add(Level::Ok, about, text, None);
    }

    pub(crate) fn warn(&mut self, about: &'static str, text: impl Into<String>, help: &str) {
        self.add(Level::Warn, about, text, Some(help));
    }

    pub(crate) fn fail(&mut self, about: &'static str, text: impl Into<String>, help: &str) {
        self.add(Level::Fail, about, text, Some(help));
    }

    fn count(&self, level: Level) -> usize {
        self.all.iter().filter(|f| f.level == level).count()
    }
}

/// Exit code 0 unless something fails.
pub(crate) fn run(context: &Context, args: &CheckArgs) -> Result<ExitCode, CliError> {
    let config = context.config()?;
    let mut found = Findings { is_told: !context.json, all: Vec::new() };
    match context.config_path() {
        Some(path) => found.ok("config", format!("{} can be used", path.display())),
        None => found.ok("config", "no file: everything is by default, on loopback"),
    }
    context.block_on(look(&config, args, &mut found))?;
    if context.json {
        output::json(&found.all);
    } else {
        let (warnings, failures) = (found.count(Level::Warn), found.count(Level::Fail));
        output::line(&format!("\n{warnings} warnings, {failures} failures"));
    }
    Ok(if found.count(Level::Fail) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(config: &Config, args: &CheckArgs, found: &mut Findings) -> Result<(), CliError> {
    let running = Client::running(config).await?;
    match &running {
        Some(_) => found.ok("relay", "it is running"),
        // Before this process becomes the owner of the data: low ports may need root.
        None => local::listeners(config, found),
    }
    local::user(config, found);
    // The one who starts the relay makes a data directory that is not there; one that is has to be its owner's.
    let is_new = !config.data_dir.exists();
    if is_new {
        local::data_dir(config, found);
    }
    become_owner(config, false)?;
    if !is_new {
        local::data_dir(config, found);
    }
    local::certificates(config, &Clock::system(), found);
    local::secrets(config, found);
    local::limits(config, found);
    let pool = match config.is_clustered() {
        true => database::look(config, running.is_some(), found).await,
        false => None,
    };
    let snapshot = directory(config, pool).await?;
    local::relaying(config, &snapshot, found);
    local::domains(config, &snapshot, found);
    outgoing::look(config, &snapshot, Clock::system().now(), found);
    if !args.offline {
        remote::look(config, &snapshot, running.as_ref(), &args.reach, found).await;
    }
    Ok(())
}

/// The directory with the file's routes and smart hosts. One that is not there yet, or whose database cannot be reached, is
/// made elsewhere: a check leaves nothing behind.
async fn directory(config: &Config, pool: Option<postgres::Pool>) -> Result<Arc<Snapshot>, CliError> {
    let fail = |e: &dyn std::fmt::Display| CliError::failed("the directory", e);
    if let Some(pool) = pool
        && database::has_directory(&pool).await
    {
        let directory = Directory::open_postgres(pool, Clock::system()).await.map_err(|e| fail(&e))?;
        return snapshot(config, directory).await;
    }
    let exists = !config.is_clustered() && config.data_dir.join("directory.db").exists();
    if exists {
        let directory = Directory::open(&config.data_dir, Clock::system()).map_err(|e| fail(&e))?;
        return snapshot(config, directory).await;
    }
    let elsewhere = std::env::temp_dir().join(format!("posthouse-check-{}", std::process::id()));
    std::fs::create_dir(&elsewhere).map_err(|e| CliError::failed(&format!("{}", elsewhere.display()), &e))?;
    let opened = match Directory::open(&elsewhere, Clock::system()) {
        Ok(directory) => snapshot(config, directory).await,
        Err(error) => Err(fail(&error)),
    };
    let _ = std::fs::remove_dir_all(&elsewhere);
    opened
}

async fn snapshot(config: &Config, directory: Directory) -> Result<Arc<Snapshot>, CliError> {
    let fail = |e: &dyn std::fmt::Display| CliError::failed("the directory", e);
    let routes = crate::service::config_routes(config).map_err(CliError::Failed)?;
    let hosts = crate::service::config_smarthosts(config);
    directory.set_config(routes, hosts).await.map_err(|e| fail(&e))?;
    directory.set_config_rules(config.rules()).await.map_err(|e| fail(&e))?;
    let snapshot = directory.snapshot();
    directory.close().await;
    Ok(snapshot)
}

/// Connects and logs in to a smart host as a delivery would, and sends nothing.
pub(crate) async fn probe(engine: &Arc<deliver::Engine>, name: &str) -> Result<Probe, Problem> {
    let host = engine.settings().smarthosts.get(name).cloned();
    let host = host.ok_or_else(|| Problem::not_found(format!("there is no smart host {name:?}")))?;
    let report = deliver::probe(engine, &host).await;
    let steps = report.steps.into_iter().map(|step| ProbeStep {
        host: step.host,
        ok: step.ok,
        text: step.text,
        tls: step.tls.map(|tls| format!("{} {} {}", tls.version, tls.cipher, tls.verified)),
        transcript: step.transcript,
    });
    Ok(Probe { name: name.to_owned(), steps: steps.collect() })
}

/// Whether any mail goes to the mail exchangers of its recipients' domains.
pub(crate) fn uses_mx(snapshot: &Snapshot) -> bool {
    let catches_all = |route: &directory::Route| {
        route.domains.is_empty() && route.senders.is_empty() && route.to != directory::RouteTarget::Mx
    };
    let before = snapshot.routes().take_while(|route| !catches_all(route));
    let mx = |route: &directory::Route| {
        matches!(route.to, directory::RouteTarget::Mx | directory::RouteTarget::To(Destination::Mx(_)))
    };
    let is_caught = snapshot.routes().any(|route| catches_all(route));
    !is_caught || before.into_iter().any(|route| mx(route))
}
