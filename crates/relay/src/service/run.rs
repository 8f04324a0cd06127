//! The life of a running relay: open, bind, serve, stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::types::ListenerStatus;
use arc_swap::ArcSwap;
use directory::{Directory, DirectoryError};
use history::{History, HistoryError};
use mail::Clock;
use net::{Activation, Listener, NetError};
use receive::{Connections, ListenerConfig};
use sd_notify::NotifyState;
use store::{MemoryBudget, Store, StoreError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::tell::tell;
use super::{Gate, Relay, RelayControl, Security, convert, convert_forward, logging, metrics, tls_reports};
use crate::config::Config;
use crate::driver::Driver;
use crate::driver::attempts::{self, Attempts};
use crate::pipeline::Pipeline;

/// How long a stop waits for sessions and deliveries that are under way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the relay did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The operator: a value that can't be used.
    #[error("{0}")]
    Configuration(String),
    /// The operator: we can't become this user.
    #[error("cannot become user {user:?}: {reason}")]
    User { user: String, reason: String },
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    History(#[from] HistoryError),
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
    let relay = open_all(config, config_path, Some(doors.status())).await?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let told = CancellationToken::new();
    let telling = tokio::spawn(tell(relay.store.clone(), relay.history.clone(), told.clone()));
    relay.driver.start().await?;
    let mut signals = Signals::new()?;
    doors.serve(&relay, &stop, &tasks)?;
    tasks.spawn(tls_reports::run(Arc::clone(&relay), stop.clone()));
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!(hostname = %relay.config.load().hostname, version = env!("CARGO_PKG_VERSION"), "ready");

    let failure = signals.wait(&relay).await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tracing::info!("stopping");
    stop.cancel();
    tasks.close();
    if failure.is_none() {
        if tokio::time::timeout(PATIENCE, tasks.wait()).await.is_err() {
            tracing::warn!("sessions were cut off");
        }
        relay.driver.stop(PATIENCE).await;
    }
    let _ = std::fs::remove_file(relay.config.load().socket());
    // Last, as all that happened until now is to be told.
    told.cancel();
    let _ = tokio::time::timeout(PATIENCE, telling).await;
    let closed = relay.close().await;
    match failure {
        Some(reason) => Err(ServeError::DiskFailed(reason)),
        None => Ok(closed?),
    }
}

/// Opens the stores of a relay that does not run, for the command line. The lock keeps others out meanwhile;
/// [`Relay::close`] gives it back.
///
/// # Errors
/// See [`ServeError`]; [`StoreError::Locked`] when a relay runs after all.
pub(crate) async fn open(config: Config, path: Option<PathBuf>) -> Result<Arc<Relay>, ServeError> {
    open_all(config, path, None).await
}

/// Opens the stores and wires everything together.
async fn open_all(
    config: Config,
    config_path: Option<PathBuf>,
    listening: Option<Vec<ListenerStatus>>,
) -> Result<Arc<Relay>, ServeError> {
    let clock = Clock::system();
    let memory = MemoryBudget::new(config.limits.memory);
    let (store, recovery) = {
        let (mut config, clock) = (convert::store(&config, memory), clock.clone());
        config.attempted = attempts::left(&config.dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was being attempted can't be read: all that was in memory is suspected");
            None
        });
        blocking(move || Store::open(config, clock)).await?
    };
    let attempts = note_attempts(&config.data_dir, recovery.clean);
    tracing::info!(
        clean = recovery.clean,
        deliveries = recovery.deliveries,
        requeued = recovery.requeued,
        held = recovery.held.len(),
        quarantined = recovery.quarantined.len(),
        "the queue is open"
    );
    let directory = Directory::open(&config.data_dir, clock.clone())?;
    let routes = convert::routes(&config).map_err(ServeError::Configuration)?;
    directory.set_config(routes, convert::config_smarthosts(&config)).await?;
    directory.set_config_rules(config.rules()).await?;
    let history = History::open(&config.data_dir, convert::history(&config), clock.clone())?;
    let tls = net::ServerTls::open(convert::server_tls(&config), clock.clone())?;
    let snapshot = directory.snapshot();
    let keys = convert_forward::keys(&config.data_dir).map_err(ServeError::Configuration)?;
    let forwarding =
        convert_forward::forwarding(&config, &snapshot, &keys).map_err(ServeError::Configuration)?;
    let forwarding = Arc::new(forwarding);
    let mut settings = convert::delivering(&config, &snapshot, &clock)?;
    let security = Security::open(&config, &settings, &clock)?;
    security.rule(&config, &mut settings);
    let engine = deliver::Engine::new(deliver::EngineConfig { settings, clock: clock.clone() });
    let seed = store.ids().next().0;
    let driver = Driver::new(
        store.clone(),
        directory.clone(),
        history.clone(),
        Arc::clone(&engine),
        clock.clone(),
        convert::driving(&config, &snapshot, &forwarding, seed, clock.now())
            .map_err(ServeError::Configuration)?,
        attempts,
    );
    let gate = Gate::new(&config, clock.clone()).map_err(ServeError::Configuration)?;
    let policy = ArcSwap::from_pointee(convert::policy(&config, &tls, &snapshot));
    Ok(Arc::new(Relay {
        started: clock.mono(),
        is_serving: listening.is_some(),
        listening: listening.unwrap_or_default(),
        clock,
        config: ArcSwap::from_pointee(config),
        config_path,
        store,
        directory,
        history,
        engine,
        driver,
        tls,
        policy,
        gate,
        forwarding: ArcSwap::new(forwarding),
        keys,
        security,
        connections: Connections::new(),
        reloading: tokio::sync::Mutex::new(()),
    }))
}

/// After an unclean stop it is noted what is being attempted, so that a message that brings the relay down is found out.
fn note_attempts(data_dir: &Path, clean: bool) -> Option<Attempts> {
    let kept =
        if clean { attempts::forget(data_dir).map(|()| None) } else { Attempts::keep(data_dir).map(Some) };
    kept.unwrap_or_else(|error| {
        tracing::warn!(%error, "attempts can't be noted: after a crash all that was in memory is suspected");
        None
    })
}

async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Every port we listen on, bound before privileges are dropped.
struct Doors {
    smtp: Vec<(Listener, ListenerConfig)>,
    http: Vec<std::net::TcpListener>,
    acme: Option<net::acme::Acme>,
}

impl Doors {
    fn open(config: &Config) -> Result<Self, ServeError> {
        let mut activation = Activation::from_env()?;
        let mut smtp = Vec::new();
        for wanted in &config.listener {
            let given = activation.take(&wanted.name);
            let listener = if given.is_empty() {
                Listener::bind(&wanted.address)?
            } else {
                Listener::from_sockets(given)?
            };
            for address in listener.addresses() {
                tracing::info!(name = %wanted.name, mode = wanted.mode.as_str(), %address, "listening");
            }
            smtp.push((listener, convert::listener(wanted)));
        }
        for name in activation.left() {
            tracing::warn!(name, "a socket was handed over for which there is no listener of this name");
        }
        let bind = |address: &std::net::SocketAddr| -> Result<_, ServeError> {
            let listener = std::net::TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map_err(|source| ServeError::Http { address: *address, source })?;
            let address = listener.local_addr().unwrap_or(*address);
            tracing::info!(name = "api", mode = "http", %address, "listening");
            Ok(listener)
        };
        let http = config.api.listen.iter().map(bind).collect::<Result<_, _>>()?;
        let acme = convert::acme(config).map(net::acme::Acme::bind).transpose()?;
        Ok(Self { smtp, http, acme })
    }

    fn status(&self) -> Vec<ListenerStatus> {
        let of = |(listener, config): &(Listener, ListenerConfig)| ListenerStatus {
            name: config.name.to_string(),
            mode: match config.mode {
                receive::Mode::Smtp => "smtp",
                receive::Mode::Submission => "submission",
                receive::Mode::Submissions => "submissions",
            }
            .into(),
            addresses: listener.addresses().map(|address| address.to_string()).collect(),
        };
        self.smtp.iter().map(of).collect()
    }

    /// Lets clients in.
    fn serve(
        self,
        relay: &Arc<Relay>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<(), ServeError> {
        for (listener, config) in self.smtp {
            tasks.spawn(receive::serve(listener, config, Pipeline(Arc::clone(relay)), stop.clone()));
        }
        let control = RelayControl(Arc::clone(relay));
        let socket = api::bind_socket(&relay.config.load().socket())?;
        tasks.spawn(api::serve_socket(socket, api::router(control.clone()), stop.clone().cancelled_owned()));
        for listener in self.http {
            let address = listener.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
            let listener = tokio::net::TcpListener::from_std(listener)
                .map_err(|source| ServeError::Http { address, source })?;
            tasks.spawn(api::serve_tcp(
                listener,
                api::public(control.clone()),
                stop.clone().cancelled_owned(),
            ));
        }
        if let Some(acme) = self.acme {
            let client = relay.acme_client()?;
            tasks.spawn(acme.run(relay.tls.clone(), client, relay.clock.clone(), stop.clone()));
        }
        Ok(())
    }
}

impl Relay {
    /// Closes the stores, each after what it was asked for.
    ///
    /// # Errors
    /// When the queue could not be closed properly; the next start recovers it.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        self.history.close().await;
        self.directory.close().await;
        self.store.close().await
    }

    /// TLS towards the ACME server, with its own roots where they are configured.
    fn acme_client(&self) -> Result<net::ClientTls, NetError> {
        let config = self.config.load();
        let ca_file =
            config.acme.as_ref().and_then(|a| a.ca_file.clone()).or_else(|| config.tls.ca_file.clone());
        net::ClientTls::new(&net::ClientTlsConfig { ca_file }, self.clock.clone())
    }
}

/// Becomes `user` and `group`, once the ports are bound.
fn become_user(config: &Config) -> Result<(), ServeError> {
    if config.user.is_empty() {
        return Ok(());
    }
    let fail = |reason: String| ServeError::User { user: config.user.clone(), reason };
    if !nix::unistd::geteuid().is_root() {
        let name = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|u| u.name);
        if name.as_deref() == Some(config.user.as_str()) {
            return Ok(());
        }
        return Err(fail("only root can; start it as root or as that user".into()));
    }
    give_away(config).map_err(|error| fail(format!("data_dir: {error}")))?;
    let mut drop = privdrop::PrivDrop::default().user(&config.user);
    if !config.group.is_empty() {
        drop = drop.group(&config.group);
    }
    drop.apply().map_err(|error| fail(error.to_string()))?;
    tracing::info!(user = %config.user, "privileges dropped");
    Ok(())
}

/// A data directory that is made on first start belongs to the user that the relay becomes.
fn give_away(config: &Config) -> std::io::Result<()> {
    if config.data_dir.exists() {
        return Ok(());
    }
    let no_such =
        || std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such user on this machine");
    let user = nix::unistd::User::from_name(&config.user)?.ok_or_else(no_such)?;
    std::fs::create_dir_all(&config.data_dir)?;
    nix::unistd::chown(&config.data_dir, Some(user.uid), Some(user.gid))?;
    std::fs::set_permissions(&config.data_dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}

/// What the operating system and the disk tell us.
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

    /// Until it is time to stop; with the reason when the disk failed.
    async fn wait(&mut self, relay: &Arc<Relay>) -> Option<String> {
        let mut failed = relay.store.failed();
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return None,
                _ = self.interrupt.recv() => return None,
                _ = self.hangup.recv() => {
                    let _ = sd_notify::notify(&[NotifyState::Reloading]);
                    match relay.reload().await {
                        Ok(reloaded) => tracing::info!(changed = ?reloaded.changed, needs_restart = ?reloaded.needs_restart, "reloaded"),
                        Err(error) => tracing::error!(%error, "not reloaded; the old configuration stays"),
                    }
                    let _ = sd_notify::notify(&[NotifyState::Ready]);
                }
                reason = failed.wait_for(Option::is_some) => {
                    return Some(reason.ok().and_then(|r| r.clone()).unwrap_or_else(|| "unknown".into()));
                }
            }
        }
    }
}
