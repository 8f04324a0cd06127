//! What every command needs: the configuration, a way to the API, and how things fail.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use api::Problem;

use super::client::Client;
use crate::config::{Config, ConfigErrors};

/// Where the configuration is when nothing is said, if it is there.
const DEFAULT_CONFIG: &str = "/etc/posthouse/posthouse.toml";
/// sysexits.h EX_TEMPFAIL: the same command may succeed later.
const TEMPORARY: u8 = 75;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The user: the command makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The user: the configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// What the API says.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    /// Anything else that may be over soon.
    #[error("{0}")]
    Temporary(String),
}

impl CliError {
    /// The exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            _ if self.is_temporary() => ExitCode::from(TEMPORARY),
            _ => ExitCode::FAILURE,
        }
    }

    /// Whether it may be over soon.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Temporary(_) => true,
            Self::Problem(problem) => problem.is_transient(),
            Self::Usage(_) | Self::Config(_) | Self::Failed(_) => false,
        }
    }

    /// Something failed, for the reason that an error gives.
    pub(crate) fn failed(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        use std::io::IsTerminal;
        Self::Config(errors.render(std::io::stderr().is_terminal()))
    }
}

/// What every command needs.
pub(crate) struct Context {
    config: Option<PathBuf>,
    /// Whether to answer as JSON.
    pub(crate) json: bool,
}

impl Context {
    pub(crate) fn new(config: Option<PathBuf>, json: bool) -> Self {
        // One that this user may not look at is there all the same: to go on without it would be to ask another relay.
        let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.try_exists().unwrap_or(true));
        Self { config: config.or_else(default), json }
    }

    /// The configuration file, if there is one.
    pub(crate) fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The configuration.
    pub(crate) fn config(&self) -> Result<Config, CliError> {
        Ok(match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::parse("", None)?,
        })
    }

    /// Runs a command that talks to the API.
    pub(crate) fn with_client<T, F: Future<Output = Result<T, CliError>>>(
        &self,
        command: impl FnOnce(Client) -> F,
    ) -> Result<T, CliError> {
        let config = self.config()?;
        let path = self.config.clone();
        self.block_on(async move {
            let client = Client::connect(config, path).await?;
            let closer = client.clone();
            let result = command(client).await;
            closer.close().await;
            result
        })
    }

    /// The same for a command that has no use for data that is not there: a wrong directory is told, not filled.
    pub(crate) fn with_data<T, F: Future<Output = Result<T, CliError>>>(
        &self,
        command: impl FnOnce(Client) -> F,
    ) -> Result<T, CliError> {
        let config = self.config()?;
        let data_dir = &config.data_dir;
        // That of a node in a cluster may be empty: its data is in PostgreSQL.
        if !config.is_clustered() && !data_dir.exists() {
            return Err(CliError::Failed(format!(
                "there is no {}: is this the right configuration (--config FILE), and was the relay ever started?",
                data_dir.display()
            )));
        }
        self.with_client(command)
    }

    /// Runs something asynchronous on this thread.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CliError::failed("the runtime could not start", &e))?;
        runtime.block_on(work)
    }
}
