//! `posthouse serve | reload | verify | backup | restore | config | version`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use api::types::{BackupAsk, BackupReport, Reloaded, VerifyReport};
use clap::{Args, Subcommand};
use hyper::Method;

use super::client::{Client, NOTHING};
use super::context::{CliError, Context};
use super::output::{self, clean, size};
use super::stopped::become_owner;
use crate::config::{self, Config};

pub(super) fn serve(context: &Context) -> Result<(), CliError> {
    serve_with(context.config()?, context.config_path().map(Path::to_owned))
}

/// Raises the number of files that may be open to what the system allows: the usual 1024 is for programs that cannot
/// take more.
fn allow_files(config: &Config) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((now, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let allowed = match setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        Ok(()) => most,
        Err(error) => {
            output::note(&format!("the limit of open files stays at {now}: {error}"));
            now
        }
    };
    if let Some((text, help)) = crate::check::too_few_files(config, allowed) {
        output::note(&format!("{text}: {help}"));
    }
}

/// Runs the relay until it is told to stop.
pub(super) fn serve_with(config: Config, path: Option<PathBuf>) -> Result<(), CliError> {
    allow_files(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("posthouse")
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("the runtime could not start", &e))?;
    let ended = runtime.block_on(crate::service::serve(config, path));
    ended.map_err(|e| match e {
        crate::service::ServeError::Store(store::StoreError::Locked { .. }) => {
            CliError::Temporary(e.to_string())
        }
        e => CliError::Failed(e.to_string()),
    })
}

pub(super) fn reload(context: &Context) -> Result<(), CliError> {
    let config = context.config()?;
    let json = context.json;
    context.block_on(async {
        let Some(client) = Client::running(&config).await? else {
            return Err(CliError::Failed(
                "the relay is not running; it reads its configuration when it starts".into(),
            ));
        };
        let done: Reloaded = client.call(Method::POST, "/api/reload", NOTHING).await?;
        if json {
            output::json(&done);
            return Ok(());
        }
        match done.changed.as_slice() {
            [] => output::line("reloaded; nothing changed"),
            changed => output::line(&format!("reloaded; changed: {}", clean(&changed.join(", ")))),
        }
        if !done.needs_restart.is_empty() {
            output::note(&format!(
                "in force only after a restart: {}",
                clean(&done.needs_restart.join(", "))
            ));
        }
        Ok(())
    })
}

pub(super) fn verify(context: &Context) -> Result<ExitCode, CliError> {
    let json = context.json;
    context.with_data(async |client| {
        let found: VerifyReport = client.call(Method::POST, "/api/verify", NOTHING).await?;
        if json {
            output::json(&found);
        } else {
            output::line(&format!("{} messages read ({})", found.messages, size(found.bytes)));
            for damaged in &found.damaged {
                output::line(&clean(&format!("damaged: {}: {}", damaged.id, damaged.reason)));
            }
            for line in &found.database {
                output::line(&clean(&format!("database: {line}")));
            }
            output::line(if found.is_sound() {
                "all is well"
            } else {
                "damage was found; restore from a backup"
            });
        }
        Ok(if found.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The directory to write to, empty or not there. It will hold mail, passwords and keys: keep it safe.
    to: PathBuf,
}

pub(super) fn backup(context: &Context, args: &BackupArgs) -> Result<(), CliError> {
    let to = std::path::absolute(&args.to).map_err(|e| CliError::failed("the path", &e))?;
    let to = to.to_str().ok_or_else(|| CliError::Usage("the path has to be UTF-8".into()))?.to_owned();
    let json = context.json;
    context.with_data(async |client| {
        let done: BackupReport = client.call(Method::POST, "/api/backup", Some(&BackupAsk { to })).await?;
        tell_copy(json, &done, "backed up to");
        Ok(())
    })
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// What `posthouse backup` wrote.
    from: PathBuf,
}

pub(super) fn restore(context: &Context, args: &RestoreArgs) -> Result<(), CliError> {
    let config = context.config()?;
    if config.is_clustered() {
        return Err(CliError::Failed(
            "this is a node of a cluster: its mail is in PostgreSQL, which is restored with PostgreSQL's own tools; \
             `posthouse migrate` brings mail from a data_dir into it"
                .into(),
        ));
    }
    become_owner(&config, true)?;
    let running = context.block_on(Client::running(&config))?;
    if running.is_some() {
        return Err(CliError::Failed("the relay is running: stop it, and give it an empty data_dir".into()));
    }
    let done = crate::backup::restore(&args.from, &config.data_dir).map_err(CliError::Problem)?;
    tell_copy(context.json, &done, "restored to");
    Ok(())
}

fn tell_copy(json: bool, done: &BackupReport, what: &str) {
    if json {
        output::json(done);
    } else {
        output::line(&clean(&format!(
            "{} messages, {}, {what} {}",
            done.messages,
            size(done.bytes),
            done.path
        )));
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the reference of all keys, in Markdown.
    Reference,
    /// Print the JSON Schema, for editors.
    Schema,
    /// Print what is in force, defaults and all; secrets are left out.
    Show,
}

pub(super) fn config(context: &Context, command: &ConfigCommand) -> Result<(), CliError> {
    match command {
        ConfigCommand::Reference => output::write(config::reference().as_bytes()),
        ConfigCommand::Schema => output::json(&config::schema()),
        ConfigCommand::Show => {
            let config = context.config()?;
            if context.json {
                output::json(&config);
            } else {
                let text = toml::to_string(&config).map_err(|e| CliError::failed("the configuration", &e))?;
                output::write(text.as_bytes());
            }
        }
    }
    Ok(())
}

pub(super) fn version(context: &Context) {
    let version = env!("CARGO_PKG_VERSION");
    if context.json {
        output::json(&serde_json::json!({ "version": version }));
    } else {
        output::line(&format!("posthouse {version}"));
    }
}
