//! What the relay lends to the management API.

mod members;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::types::{
    BackupReport, ClusterView, Envelope, ExplainRequest, Explanation, HostHealth, PathView, Probe,
    ProviderView, Reloaded, Status,
};
use api::{Control, Kind, Problem, Upload};
use directory::Directory;
use history::History;
use mail::{Actor, Clock, DeliveryId, Destination, MessageId, QueueKey, Reply, Site};
use store::{Action, ChangedDelivery, Store};

use super::Relay;
use super::reload::ReloadError;
use members::no_cluster;
pub(crate) use members::{Members, database};

/// A handle for the API.
#[derive(Clone)]
pub(crate) struct RelayControl(pub(crate) Arc<Relay>);

impl Control for RelayControl {
    fn store(&self) -> &Store {
        &self.0.store
    }

    fn directory(&self) -> &Directory {
        &self.0.directory
    }

    fn history(&self) -> &History {
        &self.0.history
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn status(&self) -> Status {
        self.0.status()
    }

    fn ready(&self) -> Result<(), String> {
        self.0.ready()
    }

    async fn directory_changed(&self) {
        let _one_at_a_time = self.0.reloading.lock().await;
        if let Err(error) = self.0.derive() {
            tracing::error!(%error, "a change of the directory is not in force");
        }
    }

    async fn reload(&self) -> Result<Reloaded, Problem> {
        self.0.reload().await.map_err(|error| match error {
            ReloadError::NoFile => Problem::new(Kind::Conflict, error.to_string()),
            ReloadError::Config(text) => Problem::new(Kind::Invalid, text),
        })
    }

    async fn explain(&self, ask: ExplainRequest) -> Result<Explanation, Problem> {
        self.0.explain(ask).await
    }

    async fn probe(&self, smarthost: &str) -> Result<Probe, Problem> {
        crate::check::probe(&self.0.engine, smarthost).await
    }

    async fn backup(&self, to: PathBuf) -> Result<BackupReport, Problem> {
        crate::backup::backup(&self.0, to).await
    }

    async fn submit(&self, by: Actor, envelope: Envelope, content: Upload) -> Result<MessageId, Reply> {
        Arc::clone(&self.0).submit(by, envelope, content).await
    }

    async fn apply(&self, action: Action, changed: Vec<ChangedDelivery>) -> u64 {
        // Nothing is delivered by a relay that does not run: what the store has now counts when it starts.
        if self.0.is_serving {
            return self.0.driver.apply(&changed);
        }
        if !matches!(action, Action::Hold { .. } | Action::Remove) && !changed.is_empty() {
            self.0.driver.forget_pauses().await;
        }
        0
    }

    fn paths(&self) -> Result<Vec<PathView>, Problem> {
        if !self.0.is_serving {
            return Err(Problem::new(Kind::NotRunning, "paths are there while the relay runs"));
        }
        Ok(self.0.paths())
    }

    fn why(&self, delivery: DeliveryId, queue: &QueueKey) -> Option<String> {
        self.0.why(delivery, queue)
    }

    fn site_of(&self, destination: &Destination) -> Option<Site> {
        self.0.site_of(destination)
    }

    fn smarthost_health(&self, smarthost: &str) -> Vec<HostHealth> {
        self.0.smarthost_health(smarthost)
    }

    fn providers(&self) -> Vec<ProviderView> {
        self.0.providers()
    }

    fn node(&self) -> Option<String> {
        let config = self.0.config.load();
        config.is_clustered().then(|| config.cluster.node.clone())
    }

    async fn cluster(&self) -> Result<ClusterView, Problem> {
        self.0.members()?.view().await
    }

    async fn drain(&self, node: &str, draining: bool, by: &Actor) -> Result<(), Problem> {
        self.0.members()?.drain(node, draining, by).await
    }

    async fn forget_node(&self, node: &str, by: &Actor) -> Result<(), Problem> {
        self.0.members()?.forget(node, by).await
    }

    async fn metrics(&self) -> String {
        super::metrics::render(&self.0).await
    }

    fn metrics_allowed(&self, client: IpAddr) -> bool {
        self.0.config.load().api.metrics_networks.iter().any(|network| network.contains(client))
    }
}

impl Relay {
    /// The cluster, for operators.
    fn members(&self) -> Result<Members, Problem> {
        let of = self.cluster.as_ref().ok_or_else(no_cluster)?;
        Ok(Members::new(of.pool.clone(), self.directory.clone(), &self.config.load()))
    }

    /// Whether mail is accepted; else why not, in words.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.may_act()?;
        if let Some(reason) = &*self.store.failed().borrow() {
            return Err(format!("the disk has failed: {reason}"));
        }
        self.store.room().map_err(|no_room| no_room.to_string())?;
        if self.history_is_behind() { Err("the history is too far behind".into()) } else { Ok(()) }
    }

    /// Whether this node may act at all; a relay alone always may.
    fn may_act(&self) -> Result<(), String> {
        let Some(of) = &self.cluster else { return Ok(()) };
        let lease = of.member.lease();
        if lease.is_draining() {
            return Err("this node drains: it takes in nothing more".into());
        }
        if lease.may_start() {
            return Ok(());
        }
        Err(match lease.age() {
            _ if lease.is_deposed() => {
                "this node was declared dead by the others, or has left; it joins anew".into()
            }
            Some(age) => format!(
                "the database has not taken a beat of this node for {} seconds: nothing can be stored",
                age.as_secs()
            ),
            None => "this node has not joined the cluster yet".into(),
        })
    }

    /// Events that the history does not have yet. Numbers of events have a gap after a restore: only what is in the outbox
    /// counts.
    pub(crate) fn history_lag(&self) -> u64 {
        let lag = self.history.stats().lag;
        if lag == 0 { 0 } else { lag.min(self.store.stats().outbox) }
    }

    /// Whether more waits to be recorded than may: mail that nobody could account for is not taken in.
    pub(crate) fn history_is_behind(&self) -> bool {
        let most = self.config.load().history.max_lag;
        // Asked for every message: the outbox is looked at only where the numbers alone say that it may be so.
        self.history.stats().lag > most && self.history_lag() > most
    }

    fn status(&self) -> Status {
        let config = self.config.load();
        let store = self.store.stats();
        let driver = self.driver.totals();
        let tally = self.driver.tally();
        Status {
            running: self.is_serving,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            hostname: config.hostname.clone(),
            data_dir: config.data_dir.display().to_string(),
            uptime_s: self.clock.mono().since(self.started).as_secs(),
            not_ready: self.ready().err(),
            listeners: self.listening.clone(),
            connections_in: self.connections.open() as u64,
            connections_out: driver.connections as u64,
            accepted: store.admitted,
            delivered: tally.delivered.load(Ordering::Relaxed),
            deferred: tally.deferred.load(Ordering::Relaxed),
            failed: tally.failed.load(Ordering::Relaxed),
            active: driver.active as u64,
            queued: store.deliveries,
            memory: store.memory,
            content_bytes: store.segment_bytes,
            history_lag: self.history_lag(),
        }
    }
}
