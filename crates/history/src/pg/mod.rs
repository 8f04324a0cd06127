//! The history in PostgreSQL, shared by the nodes of a cluster.
//!
//! `append` writes a batch, `runs` how its messages are found by address; `days` makes and drops the partitions, `sweep`
//! decides which and keeps what must outlive them; `search` finds messages and `story` reads what is told of them;
//! `transfer` carries rows to and from the other engine; `upkeep` is what is done beside the work.

mod append;
mod days;
mod runs;
mod search;
mod story;
mod sweep;
mod transfer;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use mail::{Clock, Event};
use parking_lot::Mutex;
use postgres::{PgError, Pool};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::HistoryError;
use crate::history::{Config, MaySweep, Stats};
use crate::query::Plan;
use crate::raw::{Mark, Record};
use crate::record::Bad;
use crate::trust::Trust;
use crate::view::Timeline;

/// One file a step; its place is the version it leads to.
const STEPS: &[&str] = &[include_str!("../../migrations/postgres/0001.sql")];

/// The tables, and what is done with them beside the work.
pub(crate) struct Tables(Arc<Shared>);

/// What the upkeep shares.
struct Shared {
    pool: Pool,
    node: u16,
    config: Config,
    may_sweep: MaySweep,
    clock: Clock,
    trust: Mutex<Trust>,
    /// How far the history has the outbox of this node, as far as it knows. Who has it writes.
    turn: tokio::sync::Mutex<u64>,
    /// One sweep at a time.
    sweeping: tokio::sync::Mutex<()>,
    /// The last event of this node.
    last: AtomicU64,
    /// The last day that partitions were made on.
    made_on: AtomicI32,
    days: AtomicU64,
    bytes: AtomicU64,
    /// Runs were written and may be merged.
    written: Notify,
    closed: CancellationToken,
}

impl Tables {
    pub(crate) async fn open(
        pool: Pool,
        node: u16,
        config: Config,
        may_sweep: MaySweep,
        clock: Clock,
    ) -> Result<Self, HistoryError> {
        postgres::migrate(&pool, "history", STEPS).await?;
        let last = append::last(&pool, node).await?;
        let shared = Arc::new(Shared {
            pool,
            node,
            config,
            may_sweep,
            trust: Mutex::new(Trust::new(&clock)),
            clock,
            turn: tokio::sync::Mutex::new(last),
            sweeping: tokio::sync::Mutex::default(),
            last: AtomicU64::new(last),
            made_on: AtomicI32::new(i32::MIN),
            days: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            written: Notify::new(),
            closed: CancellationToken::new(),
        });
        shared.make_days().await;
        upkeep::figures(&shared).await?;
        tokio::spawn(upkeep::run(Arc::downgrade(&shared), shared.closed.clone()));
        Ok(Self(shared))
    }

    pub(crate) fn node(&self) -> u16 {
        self.0.node
    }

    pub(crate) async fn append(&self, node: u16, events: Vec<(u64, Event)>) -> Result<(), HistoryError> {
        append::append(&self.0, node, events).await
    }

    pub(crate) async fn trace(&self, plan: Plan) -> Result<Vec<Timeline>, HistoryError> {
        search::run(&self.0.pool, &plan).await
    }

    pub(crate) async fn sweep(&self) -> Result<(), HistoryError> {
        upkeep::turn(&self.0).await
    }

    pub(crate) async fn export(&self, after: Option<Mark>, n: usize) -> Result<Vec<Record>, HistoryError> {
        transfer::export(&self.0.pool, after, n).await
    }

    pub(crate) async fn import(&self, records: Vec<Record>) -> Result<(), HistoryError> {
        self.0.open()?;
        transfer::import(&self.0, records).await
    }

    pub(crate) fn stats(&self) -> Stats {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Stats { last: read(&self.0.last), lag: 0, files: read(&self.0.days), bytes: read(&self.0.bytes) }
    }

    pub(crate) async fn close(&self) {
        self.0.closed.cancel();
        // What is being written has its turn until then.
        let _ = self.0.turn.lock().await;
        let _ = self.0.sweeping.lock().await;
    }

    pub(crate) async fn rewind(&self) -> Result<(), HistoryError> {
        self.0.open()?;
        append::rewind(&self.0).await
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.0.closed.cancel();
    }
}

impl Shared {
    fn open(&self) -> Result<(), HistoryError> {
        if self.closed.is_cancelled() { Err(HistoryError::Closed) } else { Ok(()) }
    }

    fn today(&self) -> i32 {
        crate::day::of(self.clock.now())
    }

    /// Makes the partitions of today and the days to come, once a day. Without them there is one for all other days.
    async fn make_days(&self) {
        let today = self.today();
        if self.made_on.load(Ordering::Relaxed) == today {
            return;
        }
        for day in today - 1..=today + days::AHEAD {
            // What would be dropped at once is not made.
            if !sweep::is_over(day, self.config.keep, self.clock.now())
                && let Err(error) = days::make(&self.pool, day).await
            {
                tracing::info!(day, %error, "a partition of the history is not made");
                return;
            }
        }
        self.made_on.store(today, Ordering::Relaxed);
    }
}

impl From<Bad> for PgError {
    fn from(bad: Bad) -> Self {
        PgError::Damaged(format!("history: {}", bad.0))
    }
}

/// In the columns, ids and numbers are signed.
fn signed(id: mail::MessageId) -> i64 {
    id.0.cast_signed()
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
