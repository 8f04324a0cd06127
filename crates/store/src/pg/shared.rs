//! What the engine, its committer and its upkeep share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mail::{Clock, IdGenerator, QueueKey, State};
use parking_lot::Mutex;
use postgres::{PgError, Pool, Session};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::claim::Marks;
use super::errors::read_error;
use super::group::Turn;
use super::inbox::{Inbox, Op, Reply, Task};
use super::objects::Side;
use super::sums::{Effects, Totals};
use crate::config::{Fence, PostgresConfig};
use crate::content::Segments;
use crate::error::StoreError;
use crate::health::Health;
use crate::lock::Lock;
use crate::model::{Counts, Latency, ObjectStats, Stats, Waiting};
use crate::notes::Notes;
use crate::outbox::Outbox;
use crate::room::Room;
use crate::settle::put_back;

type Result<T> = std::result::Result<T, StoreError>;

/// So many queues are remembered by number; the rest is looked up.
const QUEUES_MAX: usize = 50_000;

pub(crate) struct Shared {
    pub(crate) config: PostgresConfig,
    pub(crate) pool: Pool,
    pub(crate) me: Fence,
    pub(crate) clock: Clock,
    pub(crate) ids: IdGenerator,
    pub(crate) health: Arc<Health>,
    /// Content on its way, too large for memory.
    pub(crate) spool: Arc<Segments>,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) notes: Notes,
    pub(crate) room: Room,
    pub(crate) counters: Counters,
    pub(crate) queues: Queues,
    pub(crate) marks: Marks,
    pub(crate) objects: Option<Side>,
    pub(crate) orphans: Orphans,
    /// What had been told before this life of the node; none once somebody listens.
    pub(crate) told_before: Mutex<Option<HashSet<i64>>>,
    /// Who has it writes.
    pub(crate) turn: Arc<tokio::sync::Mutex<Turn>>,
    /// Large messages that are sent at the same time.
    pub(crate) aside: Semaphore,
    /// For threads that are none of the runtime's.
    pub(crate) runtime: Handle,
    /// The database could not be used when it was tried last.
    pub(crate) down: AtomicBool,
    /// The last clone of the store went without closing it.
    pub(crate) abandoned: AtomicBool,
    pub(crate) lock: Mutex<Option<Lock>>,
}

/// Where active deliveries go whose caller has gone away.
pub(crate) type Orphans =
    (mpsc::UnboundedSender<Vec<Waiting>>, Mutex<Option<mpsc::UnboundedReceiver<Vec<Waiting>>>>);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) admitted: AtomicU64,
    pub(crate) settled: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) group_size: AtomicU64,
    pub(crate) due_writes: AtomicU64,
    pub(crate) content_bytes: AtomicU64,
    pub(crate) content_reads: AtomicU64,
    pub(crate) database_bytes: AtomicU64,
    /// Content in object storage, of all nodes: messages and octets.
    pub(crate) placed: Mutex<(u64, u64)>,
    pub(crate) claims: AtomicU64,
    pub(crate) claimed: AtomicU64,
    pub(crate) commits: Mutex<Latency>,
    totals: Mutex<(Totals, Totals)>,
}

/// The numbers of queues that were used lately.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<HashMap<QueueKey, (i64, mail::Mono)>>);

impl Counters {
    /// What a commit changed, and where this node's sums stand after it.
    pub(crate) fn apply(&self, effects: &Effects, own: Totals) {
        self.admitted.fetch_add(effects.admitted, Ordering::Relaxed);
        self.settled.fetch_add(effects.settled, Ordering::Relaxed);
        self.due_writes.fetch_add(effects.due_writes, Ordering::Relaxed);
        self.content_bytes.fetch_add(effects.content_bytes, Ordering::Relaxed);
        self.set_own(own);
    }

    pub(crate) fn set_own(&self, own: Totals) {
        self.totals.lock().0 = own;
    }

    /// The sums of all other nodes, as they stood a moment ago.
    pub(crate) fn set_others(&self, others: Totals) {
        self.totals.lock().1 = others;
    }

    fn totals(&self) -> Totals {
        let totals = self.totals.lock();
        totals.0.plus(totals.1)
    }
}

impl Queues {
    /// How long a number is remembered. A queue that nobody has asked for in a day may be dropped: far longer than this.
    const KEEP: std::time::Duration = std::time::Duration::from_secs(3600);

    pub(crate) fn number(&self, queue: &QueueKey, now: mail::Mono) -> Option<i64> {
        self.0
            .lock()
            .get(queue)
            .filter(|(_, since)| now.since(*since) < Self::KEEP)
            .map(|(number, _)| *number)
    }

    pub(crate) fn learn(&self, found: impl IntoIterator<Item = (QueueKey, i64)>, now: mail::Mono) {
        let mut known = self.0.lock();
        if known.len() >= QUEUES_MAX {
            known.clear();
        }
        known.extend(found.into_iter().map(|(queue, number)| (queue, (number, now))));
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn node(&self) -> i32 {
        i32::from(self.me.node)
    }

    /// Whether anything is taken.
    pub(crate) fn open(&self) -> Result<()> {
        self.health.check()?;
        if self.inbox.is_closed() { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Why nothing is taken any more.
    pub(crate) fn why_closed(&self) -> StoreError {
        self.health.check().err().unwrap_or(StoreError::Closed)
    }

    pub(crate) fn hand_in(&self, task: Task, reply: Reply) -> Result<()> {
        self.inbox.push(Op::new(task, reply)).map_err(|_| self.why_closed())
    }

    /// Reads from the server that takes writes.
    pub(crate) async fn read<T, F, Fut>(&self, work: F) -> Result<T>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = std::result::Result<T, PgError>>,
    {
        self.open()?;
        self.pool.read(work).await.map_err(|e| read_error(&e))
    }

    /// This node has been taken for dead: it stops for good.
    pub(crate) fn fenced(&self) -> StoreError {
        let reason = format!(
            "node {} was taken for dead by another node, and its work was given to others (epoch {} is over)",
            self.me.node, self.me.epoch
        );
        self.health.fail(&reason);
        // The next life of the node may begin in this process, while somebody still holds the store of this one.
        self.lock.lock().take();
        StoreError::Fenced(reason)
    }

    /// Whether the database can be used, as the last group found.
    pub(crate) fn set_down(&self, error: Option<&StoreError>) {
        let was = self.down.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) => tracing::warn!(%error, "the queue cannot be written at the moment"),
            None if was => tracing::info!("the queue can be written again"),
            None => {}
        }
    }

    /// Active deliveries whose caller has gone away: to the driver if it listens, else back into the queue.
    pub(crate) fn adopt(&self, waiting: Vec<Waiting>) {
        let active: Vec<_> = waiting.into_iter().filter(|w| w.state == State::Active).collect();
        if active.is_empty() {
            return;
        }
        let somebody_listens = self.orphans.1.lock().is_none();
        let left = if somebody_listens {
            match self.orphans.0.send(active) {
                Ok(()) => return,
                Err(back) => back.0,
            }
        } else {
            active
        };
        for waiting in left {
            let settlement = Box::new(put_back(waiting.id, self.clock.now()));
            // Closing down: what is in hand is given back at the end.
            let _ = self.hand_in(Task::Settle(settlement), Reply::Nobody);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let c = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let totals = c.totals();
        Stats {
            admitted: read(&c.admitted),
            settled: read(&c.settled),
            groups: read(&c.groups),
            fsyncs: read(&c.groups),
            group_size: read(&c.group_size),
            content_bytes: read(&c.content_bytes),
            live_bytes: totals.live(),
            segment_bytes: totals.live(),
            deliveries: totals.counts().all(),
            outbox: self.outbox.len(),
            memory: self.config.memory.used(),
            counts: totals.counts(),
            content_reads: read(&c.content_reads),
            due_writes: read(&c.due_writes),
            database_bytes: read(&c.database_bytes),
            commits: *c.commits.lock(),
            held: self.inbox.held(),
            objects: self.object_stats(),
            claims: read(&c.claims),
            claimed: read(&c.claimed),
            ..Stats::default()
        }
    }

    fn object_stats(&self) -> ObjectStats {
        let (messages, bytes) = *self.counters.placed.lock();
        let since = self.objects.as_ref().map(|side| side.objects.stats()).unwrap_or_default();
        ObjectStats { messages, bytes, ..since }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counters.totals().counts()
    }
}
