//! This process as a node of a cluster: its membership, and what it does when another node dies.

use std::sync::{Arc, OnceLock};

use cluster::{Elected, Ended, Member, NodeConfig, Takeover, Token};
use deliver::Permit;
use mail::Clock;
use postgres::Pool;
use store::{Fence, Store};
use tokio::sync::watch;

use super::ServeError;
use crate::config::Config;
use crate::driver::Driver;

/// What only one node does at a time: history that is too old goes, events of nodes that are gone are handed on.
const HOUSEKEEPING: &str = "housekeeping";

/// A node's place in its cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The database that all nodes share.
    pub(crate) pool: Pool,
    /// This life of this node.
    pub(crate) member: Member,
    /// Whether this node does what only one does.
    pub(crate) housekeeping: Elected,
    heir: Heir,
    ended: watch::Receiver<Option<Ended>>,
}

impl Cluster {
    /// Joins, and beats from then on.
    ///
    /// # Errors
    /// [`ServeError::Cluster`] and [`ServeError::Postgres`], in words for the operator.
    pub(super) async fn join(config: &Config, clock: &Clock) -> Result<Self, ServeError> {
        let pool = Pool::connect(super::convert::postgres(config)).await?;
        let node = NodeConfig {
            name: config.cluster.node.clone(),
            address: config.cluster.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (member, beats) = Member::join(&pool, node, clock.clone()).await?;
        let (tell, ended) = watch::channel(None);
        let heir = Heir::default();
        let beating = beats.run(heir.clone());
        tokio::spawn(async move { tell.send_replace(Some(beating.await)) });
        let housekeeping = member.elect(HOUSEKEEPING);
        Ok(Self { pool, member, housekeeping, heir, ended })
    }

    /// What this node writes is fenced by this.
    pub(super) fn fence(&self) -> Fence {
        let Token { node, epoch } = self.member.token();
        Fence { node, epoch }
    }

    /// From now on what dead nodes had in hand can be given back.
    pub(super) fn may_inherit(&self, store: &Store, driver: &Driver) {
        let _ = self.heir.0.set((store.clone(), driver.clone()));
    }

    /// Asked before a message becomes the peer's.
    pub(super) fn permit(&self) -> Permit {
        let lease = self.member.lease().clone();
        Permit::when(move || lease.may_finish() && crate::driver::may_complete())
    }

    /// Whether this node was declared dead. What it had in hand is another's.
    pub(crate) fn is_deposed(&self) -> bool {
        matches!(*self.ended.borrow(), Some(Ended::Deposed))
    }

    /// Ready when this node has been declared dead.
    pub(super) async fn deposed(&self) {
        let mut ended = self.ended.clone();
        let deposed = |ended: &Option<Ended>| matches!(ended, Some(Ended::Deposed));
        if ended.wait_for(deposed).await.is_err() {
            std::future::pending().await
        }
    }

    /// Leaves in order; the store is closed by then.
    pub(super) async fn leave(&self) {
        if self.is_deposed() {
            return;
        }
        if let Err(error) = self.member.leave().await {
            tracing::warn!(%error, "the cluster was not left in order; the others will find out");
        }
    }
}

/// Gives back what dead nodes had in hand, once the store is open.
#[derive(Clone, Default)]
struct Heir(Arc<OnceLock<(Store, Driver)>>);

impl Takeover for Heir {
    async fn take_over(&self, dead: Token) -> Result<(), String> {
        let Some((store, driver)) = self.0.get() else { return Err("the store is not open yet".into()) };
        let fence = Fence { node: dead.node, epoch: dead.epoch };
        let found = store.requeue(fence).await.map_err(|error| error.to_string())?;
        tracing::warn!(node = dead.node, deliveries = found, "what a dead node had in hand is due again");
        driver.look_again();
        Ok(())
    }
}
