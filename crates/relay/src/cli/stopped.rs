//! The management API of a relay that does not run: this process takes the lock of the data directory and answers
//! itself.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use tokio_util::sync::CancellationToken;

use super::context::CliError;
use crate::config::Config;
use crate::service::{Relay, RelayControl, ServeError, open, tell};

/// The relay's parts, opened, but not at work.
pub(crate) struct Stopped {
    relay: Arc<Relay>,
    router: Router,
}

impl Stopped {
    /// Takes the lock and opens everything.
    pub(crate) async fn open(config: Config, path: Option<PathBuf>) -> Result<Self, CliError> {
        become_owner(&config, true)?;
        let relay = open(config, path).await.map_err(|error| match error {
            ServeError::Store(store::StoreError::Locked { .. }) => CliError::Temporary(format!(
                "{error}, which does not answer on its socket: it may just be starting"
            )),
            error => CliError::Failed(error.to_string()),
        })?;
        let router = api::router(RelayControl(Arc::clone(&relay)));
        let stopped = Self { relay, router };
        stopped.tell().await;
        Ok(stopped)
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    /// Brings what has happened into the history.
    async fn tell(&self) {
        let at_once = CancellationToken::new();
        at_once.cancel();
        tell(self.relay.store.clone(), self.relay.history.clone(), at_once).await;
    }

    /// Writes what is left to write and lets go of the lock.
    pub(crate) async fn close(&self) {
        self.tell().await;
        if let Err(error) = self.relay.close().await {
            super::output::error(&format!("the store could not be closed: {error}"));
        }
    }
}

/// As root, becomes the user whose data it is: files that root makes there would be closed to the relay. `make`s the data
/// directory for that user where it is not there yet.
pub(crate) fn become_owner(config: &Config, make: bool) -> Result<(), CliError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let fail = |e: &dyn std::fmt::Display| CliError::failed("the owner of data_dir could not be taken on", e);
    let (uid, gid) = match std::fs::metadata(&config.data_dir) {
        Ok(meta) => (meta.uid().into(), meta.gid().into()),
        Err(_) if config.user.is_empty() => return Ok(()),
        Err(_) => {
            let user = nix::unistd::User::from_name(&config.user).map_err(|e| fail(&e))?;
            let user = user.ok_or_else(|| CliError::Failed(format!("there is no user {:?}", config.user)))?;
            if make {
                std::fs::create_dir_all(&config.data_dir).map_err(|e| fail(&e))?;
                nix::unistd::chown(&config.data_dir, Some(user.uid), Some(user.gid)).map_err(|e| fail(&e))?;
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                std::fs::set_permissions(&config.data_dir, mode).map_err(|e| fail(&e))?;
            }
            (user.uid, user.gid)
        }
    };
    if uid.is_root() {
        return Ok(());
    }
    nix::unistd::setgroups(&[gid]).map_err(|e| fail(&e))?;
    nix::unistd::setgid(gid).map_err(|e| fail(&e))?;
    nix::unistd::setuid(uid).map_err(|e| fail(&e))
}
