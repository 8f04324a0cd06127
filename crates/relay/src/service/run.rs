//! The life of a running relay: bind, open, serve, stop. In a cluster there may be several lives: who was declared dead
//! while it was frozen or cut off begins anew, on the same ports.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterError;
use directory::DirectoryError;
use history::HistoryError;
use net::NetError;
use postgres::PgError;
use sd_notify::NotifyState;
use store::StoreError;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::doors::Doors;
use super::opening::open_all;
use super::privileges::become_user;
use super::tell::tell;
use super::{Relay, housekeeping, logging, metrics, tls_reports};
use crate::config::Config;

/// How long a stop waits for sessions and deliveries that are under way.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a node that was declared dead waits for what it had under way: it is another's by then.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// Before each further try to join.
const AGAIN: Duration = Duration::from_secs(1);

/// Why the relay did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The operator: a value that can't be used.
    #[error("{0}")]
    Configuration(String),
    /// The operator: we can't become this user.
    #[error("cannot become user {user:?}: {reason}")]
    User { user: String, reason: String },
    #[error("{0} cannot be made: {1}")]
    DataDir(PathBuf, std::io::Error),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Socket(#[from] api::ServeError),
    #[error("cannot listen for HTTP on {address}: {source}")]
    Http { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot handle signals: {0}")]
    Signals(std::io::Error),
    /// The disk: nothing may be trusted to it any more.
    #[error("stopped, as the disk failed: {0}; a restart recovers what is on it")]
    DiskFailed(String),
}

impl ServeError {
    /// Whether it is the database that is not there, and will be: machines come up in any order after a power cut.
    fn is_passing(&self) -> bool {
        match self {
            Self::Postgres(error)
            | Self::Cluster(ClusterError::Postgres(error))
            | Self::Directory(DirectoryError::Postgres(error))
            | Self::History(HistoryError::Postgres(error)) => {
                // What is unsafe is for the operator to mend.
                error.is_transient() && !matches!(error, PgError::Unsafe { .. })
            }
            Self::Store(StoreError::Unavailable(_) | StoreError::Fenced(_))
            | Self::Cluster(ClusterError::Unknown(_) | ClusterError::Deposed)
            | Self::Directory(DirectoryError::Unknown(_))
            | Self::History(HistoryError::Unknown(_)) => true,
            _ => false,
        }
    }
}

/// How a life of the relay ended.
enum End {
    /// It was told to stop.
    Stopped,
    /// The other nodes took it for dead.
    Deposed,
    /// Nothing may be trusted to the disk any more.
    DiskFailed(String),
}

/// Runs the relay until it is told to stop or its disk fails.
///
/// # Errors
/// See [`ServeError`].
pub(crate) async fn serve(config: Config, config_path: Option<PathBuf>) -> Result<(), ServeError> {
    logging::start(&config.log).map_err(ServeError::Configuration)?;
    // Before anything counts.
    metrics::install();
    let doors = Doors::open(&config)?;
    become_user(&config)?;
    let mut signals = Signals::new()?;
    let path = config_path.as_ref();
    let mut relay = match open_or_stop(&config, path, &doors, &mut signals).await {
        None => return Ok(()),
        Some(Ok(relay)) => relay,
        Some(Err(error)) if error.is_passing() => {
            tracing::error!(%error, "the database is not there yet; waiting for it");
            match again(&config, path, &doors, &mut signals).await {
                Some(relay) => relay,
                None => return Ok(()),
            }
        }
        Some(Err(error)) => return Err(error),
    };
    loop {
        match live(&relay, &doors, &mut signals).await? {
            End::Stopped => return Ok(()),
            End::DiskFailed(reason) => return Err(ServeError::DiskFailed(reason)),
            End::Deposed => {}
        }
        // What was reloaded since the start counts.
        let config = (*relay.config.load_full()).clone();
        drop(relay);
        match again(&config, path, &doors, &mut signals).await {
            Some(anew) => relay = anew,
            None => return Ok(()),
        }
    }
}

/// Opens everything, as often as it takes. None when it was told to stop meanwhile.
async fn again(
    config: &Config,
    config_path: Option<&PathBuf>,
    doors: &Doors,
    signals: &mut Signals,
) -> Option<Arc<Relay>> {
    loop {
        tokio::select! {
            () = signals.stop() => return None,
            () = tokio::time::sleep(AGAIN) => {}
        }
        // The one who started us has time.
        let patience = u32::try_from(2 * PATIENCE.as_micros()).unwrap_or(u32::MAX);
        let _ = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(patience)]);
        tracing::warn!("joining the cluster");
        match open_or_stop(config, config_path, doors, signals).await? {
            Ok(relay) => return Some(relay),
            Err(error) => tracing::error!(%error, "could not join the cluster; trying again"),
        }
    }
}

/// Opens everything. None when it was told to stop meanwhile.
async fn open_or_stop(
    config: &Config,
    config_path: Option<&PathBuf>,
    doors: &Doors,
    signals: &mut Signals,
) -> Option<Result<Arc<Relay>, ServeError>> {
    tokio::select! {
        () = signals.stop() => None,
        opened = open_all(config.clone(), config_path.cloned(), Some(doors.status())) => Some(opened),
    }
}

/// One life: from open stores to closed ones.
async fn live(relay: &Arc<Relay>, doors: &Doors, signals: &mut Signals) -> Result<End, ServeError> {
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let told = CancellationToken::new();
    let telling = tokio::spawn(tell(relay.store.clone(), relay.history.clone(), told.clone()));
    if let Some(cluster) = &relay.cluster {
        relay.driver.join(&cluster.member, relay.config.load().cluster.share_limits);
        tasks.spawn(housekeeping::follow_directory(Arc::clone(relay), stop.clone()));
        tasks.spawn(housekeeping::hand_on(Arc::clone(relay), cluster.clone(), stop.clone()));
    }
    relay.driver.start().await?;
    doors.serve(relay, &stop, &tasks)?;
    tasks.spawn(tls_reports::run(Arc::clone(relay), stop.clone()));
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!(hostname = %relay.config.load().hostname, version = env!("CARGO_PKG_VERSION"), "ready");

    let end = signals.wait(relay).await;
    if matches!(end, End::Deposed) {
        tracing::error!(
            "the other nodes took this one for dead: what it had in hand is theirs, and it begins anew"
        );
        relay.driver.abandon();
    } else {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        tracing::info!("stopping");
    }
    stop.cancel();
    tasks.close();
    let patience = if matches!(end, End::Deposed) { IMPATIENCE } else { PATIENCE };
    if !matches!(end, End::DiskFailed(_)) {
        if tokio::time::timeout(patience, tasks.wait()).await.is_err() {
            tracing::warn!("sessions were cut off");
        }
        relay.driver.stop(patience).await;
    }
    let _ = std::fs::remove_file(relay.config.load().socket());
    // Last, as all that happened until now is to be told.
    told.cancel();
    let _ = tokio::time::timeout(patience, telling).await;
    let closed = relay.close().await;
    // A node that was declared dead, or whose disk failed, cannot close its store in order.
    if matches!(end, End::Stopped) {
        closed?;
    }
    Ok(end)
}

/// What the operating system, the disk and the cluster tell us.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, ServeError> {
        let on = |kind| signal(kind).map_err(ServeError::Signals);
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Until it is told to stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Until it is time to end.
    async fn wait(&mut self, relay: &Arc<Relay>) -> End {
        let mut failed = relay.store.failed();
        let deposed = async {
            match &relay.cluster {
                Some(cluster) => cluster.deposed().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deposed);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return End::Stopped,
                _ = self.interrupt.recv() => return End::Stopped,
                () = &mut deposed => return End::Deposed,
                _ = self.hangup.recv() => {
                    let _ = sd_notify::notify(&[NotifyState::Reloading]);
                    match relay.reload().await {
                        Ok(reloaded) => tracing::info!(changed = ?reloaded.changed, needs_restart = ?reloaded.needs_restart, "reloaded"),
                        Err(error) => tracing::error!(%error, "not reloaded; the old configuration stays"),
                    }
                    let _ = sd_notify::notify(&[NotifyState::Ready]);
                }
                reason = failed.wait_for(Option::is_some) => {
                    let reason = reason.ok().and_then(|r| r.clone()).unwrap_or_else(|| "unknown".into());
                    return why_failed(relay, reason).await;
                }
            }
        }
    }
}

/// A store that was fenced off has failed as well: its node was declared dead, which it may not have heard yet.
async fn why_failed(relay: &Arc<Relay>, reason: String) -> End {
    let Some(cluster) = &relay.cluster else { return End::DiskFailed(reason) };
    match tokio::time::timeout(2 * cluster::DEAD_AFTER, cluster.deposed()).await {
        Ok(()) => End::Deposed,
        Err(_) => End::DiskFailed(reason),
    }
}
