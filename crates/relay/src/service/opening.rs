//! Opens everything that a relay is made of, and wires it together; and closes it again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::types::ListenerStatus;
use arc_swap::ArcSwap;
use deliver::Permit;
use directory::Directory;
use history::History;
use mail::{Clock, DeliveryId};
use net::NetError;
use receive::Connections;
use store::{MemoryBudget, Recovery, Store, StoreError};

use super::cluster::Cluster;
use super::{Gate, Relay, Security, ServeError, convert, convert_forward};
use crate::config::Config;
use crate::driver::attempts::{self, Attempts};
use crate::driver::{Driver, Parts};

/// Opens the stores of a relay that does not run, for the command line. The lock keeps others out meanwhile;
/// [`Relay::close`] gives it back.
///
/// # Errors
/// See [`ServeError`]; [`StoreError::Locked`] when a relay runs after all.
pub(crate) async fn open(config: Config, path: Option<PathBuf>) -> Result<Arc<Relay>, ServeError> {
    open_all(config, path, None).await
}

/// What is kept, wherever that is.
struct Stores {
    store: Store,
    recovery: Recovery,
    directory: Directory,
    history: History,
    keys: forward::Keys,
    attempts: Option<Attempts>,
    cluster: Option<Cluster>,
}

/// Opens the stores and wires everything together.
pub(super) async fn open_all(
    config: Config,
    config_path: Option<PathBuf>,
    listening: Option<Vec<ListenerStatus>>,
) -> Result<Arc<Relay>, ServeError> {
    let clock = Clock::system();
    let memory = MemoryBudget::new(config.limits.memory);
    let stores = if config.is_clustered() {
        Stores::shared(&config, memory, &clock).await?
    } else {
        Stores::embedded(&config, memory, &clock).await?
    };
    let Stores { store, recovery, directory, history, keys, attempts, cluster } = stores;
    tracing::info!(
        clean = recovery.clean,
        deliveries = recovery.deliveries,
        requeued = recovery.requeued,
        held = recovery.held.len(),
        quarantined = recovery.quarantined.len(),
        "the queue is open"
    );
    lend(&directory, &config).await?;
    let tls = net::ServerTls::open(convert::server_tls(&config), clock.clone())?;
    let snapshot = directory.snapshot();
    let forwarding =
        convert_forward::forwarding(&config, &snapshot, &keys).map_err(ServeError::Configuration)?;
    let forwarding = Arc::new(forwarding);
    let mut settings = convert::delivering(&config, &snapshot, &clock)?;
    let security = Security::open(&config, &settings, &clock)?;
    security.rule(&config, &mut settings);
    let permit = cluster.as_ref().map_or(Permit::always(), Cluster::permit);
    let engine = deliver::Engine::new(deliver::EngineConfig { settings, clock: clock.clone(), permit });
    let seed = store.ids().next().0;
    let parts = Parts {
        store: store.clone(),
        directory: directory.clone(),
        history: history.clone(),
        engine: Arc::clone(&engine),
        clock: clock.clone(),
        attempts,
        member: cluster.as_ref().map(|cluster| cluster.member.clone()),
    };
    let driving = convert::driving(&config, &snapshot, &forwarding, seed, clock.now());
    let driver = Driver::new(parts, driving.map_err(ServeError::Configuration)?);
    if let Some(cluster) = &cluster {
        cluster.may_inherit(&store, &driver);
    }
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
        cluster,
    }))
}

/// Lends the directory what the configuration says of its things.
async fn lend(directory: &Directory, config: &Config) -> Result<(), ServeError> {
    let routes = convert::routes(config).map_err(ServeError::Configuration)?;
    directory.set_config(routes, convert::config_smarthosts(config)).await?;
    Ok(directory.set_config_rules(config.rules()).await?)
}

impl Stores {
    /// In `data_dir`.
    async fn embedded(config: &Config, memory: MemoryBudget, clock: &Clock) -> Result<Self, ServeError> {
        let (store, recovery) = {
            let (mut config, clock) = (convert::store(config, memory), clock.clone());
            config.attempted = attempted(&config.dir);
            blocking(move || Store::open(config, clock)).await?
        };
        let attempts = note_attempts(&config.data_dir, recovery.clean);
        let directory = Directory::open(&config.data_dir, clock.clone())?;
        let history = History::open(&config.data_dir, convert::history(config), clock.clone())?;
        let keys = convert_forward::keys(&config.data_dir).map_err(ServeError::Configuration)?;
        Ok(Self { store, recovery, directory, history, keys, attempts, cluster: None })
    }

    /// In the PostgreSQL of a cluster, which this process joins.
    async fn shared(config: &Config, memory: MemoryBudget, clock: &Clock) -> Result<Self, ServeError> {
        let cluster = Cluster::join(config, clock).await?;
        let opened = Self::of_node(config, memory, clock, &cluster).await;
        if opened.is_err() {
            cluster.leave().await;
        }
        opened
    }

    async fn of_node(
        config: &Config,
        memory: MemoryBudget,
        clock: &Clock,
        cluster: &Cluster,
    ) -> Result<Self, ServeError> {
        let pool = &cluster.pool;
        let mut kept = convert::shared_store(config, pool, cluster.fence(), memory)?;
        kept.attempted = attempted(&config.data_dir);
        make_private(&config.data_dir)
            .map_err(|source| ServeError::DataDir(config.data_dir.clone(), source))?;
        let (store, recovery) = Store::open_postgres(kept, clock.clone()).await?;
        let attempts = note_attempts(&config.data_dir, recovery.clean);
        let directory = Directory::open_postgres(pool.clone(), clock.clone()).await?;
        let housekeeping = cluster.housekeeping.clone();
        let may_sweep = Arc::new(move || housekeeping.term().is_some());
        let settings = convert::history(config);
        let node = cluster.fence().node;
        let history = History::open_postgres(pool.clone(), node, settings, may_sweep, clock.clone()).await?;
        let keys = convert_forward::shared_keys(&directory).await.map_err(ServeError::Configuration)?;
        let cluster = Some(cluster.clone());
        Ok(Self { store, recovery, directory, history, keys, attempts, cluster })
    }
}

/// Makes a directory that only its owner may enter, if it is not there.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// What the last process was attempting when it ended, where that is known.
fn attempted(data_dir: &Path) -> Option<BTreeSet<DeliveryId>> {
    attempts::left(data_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "what was being attempted can't be read: all that was in memory is suspected");
        None
    })
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

impl Relay {
    /// Closes the stores, each after what it was asked for, and leaves the cluster.
    ///
    /// # Errors
    /// When the queue could not be closed properly; the next start recovers it.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        self.history.close().await;
        self.directory.close().await;
        let closed = self.store.close().await;
        if let Some(cluster) = &self.cluster {
            cluster.leave().await;
        }
        closed
    }

    /// TLS towards the ACME server, with its own roots where they are configured.
    pub(super) fn acme_client(&self) -> Result<net::ClientTls, NetError> {
        let config = self.config.load();
        let ca_file =
            config.acme.as_ref().and_then(|a| a.ca_file.clone()).or_else(|| config.tls.ca_file.clone());
        net::ClientTls::new(&net::ClientTlsConfig { ca_file }, self.clock.clone())
    }
}
