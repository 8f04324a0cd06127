//! The door to the store: one API, whichever engine is behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mail::{Actor, Clock, DeliveryId, Event, IdGenerator, MessageId, QueueKey, Timestamp};
use tokio::sync::{mpsc, watch};

use crate::config::{Config, Fence, PostgresConfig};
use crate::content::{Content, ContentRef, Sealed, Sink};
use crate::error::{NoRoom, StoreError};
use crate::filter::{Action, Changed, ChangedDelivery, QueueEntry, QueueFilter};
use crate::model::{
    Admission, Admitted, BackupReport, Counts, Horizon, QueueStats, Recovery, RestoreReport, Settled,
    Settlement, Stats, VerifyReport, Waiting,
};
use crate::{pg, sqlite, transfer};

/// The store. Cheap to clone. When the last clone goes without [`Store::close`], the next start is an unclean one.
#[derive(Clone, Debug)]
pub struct Store(Arc<Engine>);

/// Which engine: the embedded one, or the one that the nodes of a cluster share.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one, behind an Arc")]
enum Engine {
    Sqlite(sqlite::Engine),
    Postgres(pg::Engine),
}

/// The same call to whichever engine it is.
macro_rules! to {
    ($store:expr, $engine:ident => $call:expr) => {
        match &*$store.0 {
            Engine::Sqlite($engine) => $call,
            Engine::Postgres($engine) => $call,
        }
    };
}

impl Store {
    /// Opens the store in `config.dir`, recovers what the last process left, and takes the lock. Blocks.
    ///
    /// # Errors
    /// `Locked` when another process uses the directory, `Newer` when a newer Posthouse wrote it, `Io`, `NoSpace`, `Failed`.
    pub fn open(config: Config, clock: Clock) -> Result<(Store, Recovery), StoreError> {
        let dir = config.dir.clone();
        transfer::refuse_dir(&dir)?;
        let (engine, recovery) = sqlite::Engine::open(config, clock)?;
        transfer::stays_in_dir(&dir)?;
        Ok((Store(Arc::new(Engine::Sqlite(engine))), recovery))
    }

    /// Opens the store in PostgreSQL for a node of a cluster: brings the schema up to date, and requeues what earlier
    /// lives of this node left. What other nodes do goes on meanwhile.
    ///
    /// # Errors
    /// `Fenced` when this epoch is over already; `Server` when the operator has to do something about the database;
    /// `Unavailable` when it cannot be reached; `Locked` when another process uses the spool; `Io`, `NoSpace`.
    pub async fn open_postgres(
        config: PostgresConfig,
        clock: Clock,
    ) -> Result<(Store, Recovery), StoreError> {
        transfer::refuse_postgres(&config.pool).await?;
        let (engine, recovery) = pg::Engine::open(config, clock).await?;
        Ok((Store(Arc::new(Engine::Postgres(engine))), recovery))
    }

    /// Takes over from a node that is dead: what it had in its hands up to this epoch is due at once, for whichever node
    /// comes first, and nothing that it still writes counts. Returns how many deliveries were requeued. Safe to do again.
    ///
    /// # Errors
    /// `Invalid` for the embedded store, which has no other nodes; `Unavailable`, `Closed`, `Failed`.
    pub async fn requeue(&self, dead: Fence) -> Result<u64, StoreError> {
        match &*self.0 {
            Engine::Sqlite(_) => Err(no_others()),
            Engine::Postgres(engine) => engine.requeue(dead).await,
        }
    }

    /// Makes message ids, all of them past everything stored.
    pub fn ids(&self) -> &IdGenerator {
        to!(self, engine => engine.ids())
    }

    /// Where the content of a message goes while it is received.
    pub fn sink(&self, id: MessageId) -> Sink {
        to!(self, engine => engine.sink(id))
    }

    /// Content that has just been composed, such as a report; it counts towards the memory budget even when that is spent.
    pub fn sealed(&self, id: MessageId, bytes: Vec<u8>) -> Sealed {
        to!(self, engine => engine.sealed(id, bytes))
    }

    /// Whether there is room for something new. Cheap: what the disk says is a second old at most.
    ///
    /// # Errors
    /// What is missing: answer 452 then, ahead of the disk being full.
    pub fn room(&self) -> Result<(), NoRoom> {
        to!(self, engine => engine.room())
    }

    /// Accepts a message. `Ok` means it is on stable storage: content, rows, and the directory entries that name them.
    /// Dropped before its group is built, the admission is withdrawn; after, the message stands, and its active
    /// deliveries come out of [`Store::orphans`].
    ///
    /// # Errors
    /// `NoSpace`, `Invalid`, `Closed`, `Failed`. Nothing was accepted then, except that after `Failed` a restart may find
    /// the message: the commit's fate is unknown.
    pub async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        to!(self, engine => engine.admit(admission).await)
    }

    /// Deliveries that were admitted as active while whoever asked had gone away. The driver takes this once and treats
    /// them as admitted; without a taker they are put back as waiting, due at once.
    pub fn orphans(&self) -> Option<mpsc::UnboundedReceiver<Vec<Waiting>>> {
        to!(self, engine => engine.orphans())
    }

    /// Records what became of an attempt. Settlements are done in the order they come and are never cancelled; a full disk
    /// delays them. `done` is called on the writer's thread after the commit and must be quick.
    pub fn settle(
        &self,
        settlement: Settlement,
        done: impl FnOnce(Result<Settled, StoreError>) + Send + 'static,
    ) {
        to!(self, engine => engine.settle(settlement, Box::new(done)));
    }

    /// [`Store::settle`], awaited. Dropping the future cancels nothing.
    ///
    /// # Errors
    /// `Closed`, `Failed`, `Invalid` for a report that makes no sense.
    pub async fn settled(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        to!(self, engine => engine.settled(settlement).await)
    }

    /// The `n` deliveries of a queue that have been due longest. They stay due until they are settled, so that those in
    /// memory come again. In a cluster they are in this node's hands from then on, and what is in another's is left out.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub async fn page(&self, queue: &QueueKey, now: Timestamp, n: usize) -> Result<Vec<Waiting>, StoreError> {
        to!(self, engine => engine.page(queue.clone(), now, n).await)
    }

    /// When the next delivery of a queue is due that is not due yet; none when nothing waits for its time.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub async fn next_due(&self, queue: &QueueKey, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        to!(self, engine => engine.next_due(queue.clone(), now).await)
    }

    /// The queues whose first delivery is due after `after`, the earliest first: about `n` of them (all that share the
    /// last one's time), and up to which time there are no others. Costs what it returns, however many queues there are
    /// and however much waits in them. In a cluster a queue is due when something is that this node could have: what is in
    /// the hands of others does not count, so that nobody pages for it in vain. [`Timestamp`]`(i64::MIN)` asks for the very first.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub async fn horizon(&self, after: Timestamp, n: usize) -> Result<Horizon, StoreError> {
        to!(self, engine => engine.horizon(after, n).await)
    }

    /// What was noted under a name.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub async fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        to!(self, engine => engine.note(name).await)
    }

    /// Notes something small under a name, in place of what was noted there before. Returns at once: it is on stable
    /// storage with the next group (a quarter of a second later at most), and when the store is closed.
    ///
    /// # Errors
    /// `Closed`, `Failed`.
    pub fn set_note(&self, name: &str, value: Vec<u8>) -> Result<(), StoreError> {
        to!(self, engine => engine.set_note(name, value))
    }

    /// The queues in which something waits.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub async fn queues(&self) -> Result<Vec<QueueStats>, StoreError> {
        to!(self, engine => engine.queues().await)
    }

    /// How many deliveries there are in each state, on all nodes. Costs nothing, or one small question to the database.
    ///
    /// # Errors
    /// `Failed`, `Unavailable`.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        match &*self.0 {
            Engine::Sqlite(engine) => engine.counts(),
            Engine::Postgres(engine) => engine.counts().await,
        }
    }

    /// One delivery, whatever its state.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub async fn load(&self, id: DeliveryId) -> Result<Option<Waiting>, StoreError> {
        to!(self, engine => engine.load(id).await)
    }

    /// The content of a message, its checksum compared.
    ///
    /// # Errors
    /// `Damaged` when it is not what was written: the message's deliveries have been quarantined then, and an event says
    /// so. `Invalid` when the message is gone. `Io`, `Closed`, `Failed`.
    pub async fn content(&self, at: &ContentRef) -> Result<Content, StoreError> {
        to!(self, engine => engine.content(*at).await)
    }

    /// Deliveries that match, in order of their ids, at most `limit` of them behind `after`.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub async fn search(
        &self,
        filter: QueueFilter,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<QueueEntry>, StoreError> {
        to!(self, engine => engine.search(filter, after, limit).await)
    }

    /// Does something to all deliveries that match, in commits of 1000 at most, with an event for each. A dry run says
    /// what would be done.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Closed`, `Failed`; earlier commits stand then.
    pub async fn change(
        &self,
        filter: QueueFilter,
        action: Action,
        by: Actor,
        dry_run: bool,
    ) -> Result<Changed, StoreError> {
        let (mut changed, mut after): (Vec<ChangedDelivery>, _) = (Vec::new(), None);
        loop {
            let (part, next) = self.change_part(&filter, &action, &by, dry_run, after).await?;
            changed.extend(part);
            after = next;
            if after.is_none() {
                let elsewhere = changed.iter().filter(|one| one.elsewhere.is_some()).count() as u64;
                return Ok(Changed { count: changed.len() as u64, elsewhere, changed });
            }
        }
    }

    /// One commit's worth of [`Store::change`] behind `after`: what it changed, and where to go on, none at the end. For
    /// changes that may concern more deliveries than should be held in memory at once.
    ///
    /// # Errors
    /// As for [`Store::change`].
    pub async fn change_part(
        &self,
        filter: &QueueFilter,
        action: &Action,
        by: &Actor,
        dry_run: bool,
        after: Option<DeliveryId>,
    ) -> Result<(Vec<ChangedDelivery>, Option<DeliveryId>), StoreError> {
        to!(self, engine => engine.change_part(filter.clone(), action, by, dry_run, after).await)
    }

    /// What operators change on *other* nodes of the cluster from the opening of the store on, within a second or so: a
    /// driver that has one of these deliveries in memory has to see to it. Comes once for each commit; the driver takes
    /// this once. None for the embedded store, and when it was taken.
    pub fn told(&self) -> Option<mpsc::UnboundedReceiver<Vec<ChangedDelivery>>> {
        match &*self.0 {
            Engine::Sqlite(_) => None,
            Engine::Postgres(engine) => engine.told(),
        }
    }

    /// The nodes whose life is over, be they dead or closed, and whose events nobody has handed on yet: none comes of
    /// them until they are back. Empty for the embedded store.
    ///
    /// # Errors
    /// `Unavailable`, `Closed`, `Failed`.
    pub async fn left_outboxes(&self) -> Result<Vec<u16>, StoreError> {
        match &*self.0 {
            Engine::Sqlite(_) => Ok(Vec::new()),
            Engine::Postgres(engine) => engine.left_outboxes().await,
        }
    }

    /// [`Store::outbox`] of another node, one of [`Store::left_outboxes`].
    ///
    /// # Errors
    /// `Invalid` for the embedded store; `Unavailable`, `Closed`, `Failed`.
    pub async fn outbox_of(&self, node: u16, after: u64, n: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        match &*self.0 {
            Engine::Sqlite(_) => Err(no_others()),
            Engine::Postgres(engine) => engine.outbox_of(node, after, n).await,
        }
    }

    /// Events of another node up to this number are safe elsewhere: they are gone from its outbox when this returns.
    ///
    /// # Errors
    /// `Fenced` when the node lives again and hands on its events itself: nothing was deleted, and what it hands on once
    /// more has the same numbers. `Invalid` for the embedded store; `Unavailable`, `Closed`, `Failed`.
    pub async fn outbox_done_of(&self, node: u16, up_to: u64) -> Result<(), StoreError> {
        match &*self.0 {
            Engine::Sqlite(_) => Err(no_others()),
            Engine::Postgres(engine) => engine.outbox_done_of(node, up_to).await,
        }
    }

    /// Events behind sequence number `after`, at most `n`, oldest first.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub async fn outbox(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        to!(self, engine => engine.outbox(after, n).await)
    }

    /// The same for a thread of its own. Blocks.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub fn outbox_blocking(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        to!(self, engine => engine.outbox_blocking(after, n))
    }

    /// Events up to this number are safe elsewhere: they are deleted with the next group. Returns at once; after a crash
    /// some may come again.
    ///
    /// # Errors
    /// `Closed`, `Failed`.
    #[allow(clippy::unused_async, reason = "an engine over a network has to wait here")]
    pub async fn outbox_done(&self, up_to: u64) -> Result<(), StoreError> {
        to!(self, engine => engine.outbox_done(up_to))
    }

    /// [`Store::outbox_done`] for a thread of its own.
    ///
    /// # Errors
    /// `Closed`, `Failed`.
    pub fn outbox_done_blocking(&self, up_to: u64) -> Result<(), StoreError> {
        to!(self, engine => engine.outbox_done(up_to))
    }

    /// The number of the last committed event, of this node.
    pub fn outbox_wait(&self) -> watch::Receiver<u64> {
        to!(self, engine => engine.outbox_wait())
    }

    /// Writes a consistent copy of the store into the empty or missing directory `to`, while everything goes on.
    ///
    /// # Errors
    /// `NotEmpty`, `NoSpace`, `Io`, `Closed`, `Failed`.
    pub async fn backup(&self, to: PathBuf) -> Result<BackupReport, StoreError> {
        match &*self.0 {
            Engine::Sqlite(engine) => engine.backup(to).await,
            Engine::Postgres(_) => Err(StoreError::Invalid(
                "the queue is in PostgreSQL: back it up there, with pg_basebackup or what your provider offers".into(),
            )),
        }
    }

    /// Brings a backup back into a data directory that has no store. Blocks.
    ///
    /// # Errors
    /// `NotEmpty`, `BadBackup`, `Newer`, `Locked`, `NoSpace`, `Io`.
    pub fn restore(from: &Path, dir: &Path) -> Result<RestoreReport, StoreError> {
        sqlite::restore(from, dir)
    }

    /// Reads everything and compares it with its checksums, while everything goes on. Damaged messages are reported, not
    /// quarantined.
    ///
    /// # Errors
    /// `Io`, `Closed`, `Failed`.
    pub async fn verify(&self) -> Result<VerifyReport, StoreError> {
        to!(self, engine => engine.verify().await)
    }

    /// Deletes what is in object storage, is older than a day, and belongs to no message: left by crashes. Every few hours
    /// one node does it by itself. Returns how many objects went.
    ///
    /// # Errors
    /// `Objects`, `Unavailable`, `Closed`, `Failed`.
    pub async fn sweep_objects(&self) -> Result<u64, StoreError> {
        match &*self.0 {
            Engine::Sqlite(_) => Ok(0),
            Engine::Postgres(engine) => engine.sweep_objects().await,
        }
    }

    /// Says why the store has stopped for good, once it has: an fsync failed. Nothing is accepted nor delivered any more.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        to!(self, engine => engine.failed())
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        to!(self, engine => engine.stats())
    }

    /// Finishes what was handed in, empties the write-ahead log and marks the store clean. Everything answers `Closed` after.
    ///
    /// # Errors
    /// `Failed`, `Io`, `NoSpace`: the next start will be an unclean one.
    pub async fn close(&self) -> Result<(), StoreError> {
        to!(self, engine => engine.close().await)
    }
}

fn no_others() -> StoreError {
    StoreError::Invalid("the embedded store has no other nodes".into())
}
