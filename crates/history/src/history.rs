//! The handle, the same for both engines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mail::{Clock, Event};
use parking_lot::RwLock;
use postgres::Pool;
use tokio::sync::watch;

use crate::embedded::Files;
use crate::error::HistoryError;
use crate::pg::Tables;
use crate::query::{Plan, TraceQuery};
use crate::raw::{Mark, Record};
use crate::view::Timeline;

/// How much is kept, and in which pieces.
#[derive(Clone, Debug)]
pub struct Config {
    /// `history.keep`: files (or partitions) of days that are over for so long are dropped.
    pub keep: Duration,
    /// A file is closed at this size in octets, or at the end of its day in UTC. PostgreSQL has no such limit.
    pub file_size_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep: Duration::from_secs(30 * 86_400), file_size_max: 512 << 20 }
    }
}

/// Whether this node is the one that drops what is old; asked each time.
pub type MaySweep = Arc<dyn Fn() -> bool + Send + Sync>;

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of the last event of this node that is on stable storage.
    pub last: u64,
    /// Events in this node's outbox that the history does not have yet.
    pub lag: u64,
    /// Files; in PostgreSQL, days that have partitions.
    pub files: u64,
    /// Their size in octets; in PostgreSQL as it was some minutes ago, indices and all.
    pub bytes: u64,
}

/// What became of every message. Clones share one writer.
#[derive(Clone)]
pub struct History(Arc<Handle>);

struct Handle {
    engine: Engine,
    /// Follows the number of the last event in the outbox, once a drainer runs.
    committed: RwLock<Option<watch::Receiver<u64>>>,
}

enum Engine {
    Files(Files),
    Postgres(Tables),
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("History")
    }
}

impl History {
    /// Opens `data_dir/history`, and makes it when it is not there. Blocking.
    ///
    /// # Errors
    /// When the directory cannot be read or made. A damaged file is no error: it is set aside.
    pub fn open(data_dir: &Path, config: Config, clock: Clock) -> Result<Self, HistoryError> {
        Ok(Self::of(Engine::Files(Files::open(data_dir, config, clock)?)))
    }

    /// Opens the history in PostgreSQL, which the nodes of a cluster share, as this node; brings its tables up to date.
    /// Only when `may_sweep` says so are partitions dropped here: one node of the cluster does it.
    ///
    /// # Errors
    /// What the server says; a schema that is newer than this program.
    pub async fn open_postgres(
        pool: Pool,
        node: u16,
        config: Config,
        may_sweep: MaySweep,
        clock: Clock,
    ) -> Result<Self, HistoryError> {
        Ok(Self::of(Engine::Postgres(Tables::open(pool, node, config, may_sweep, clock).await?)))
    }

    fn of(engine: Engine) -> Self {
        Self(Arc::new(Handle { engine, committed: RwLock::default() }))
    }

    /// Appends a batch of this node's outbox in one transaction; ready when it is on stable storage. Numbers grow; events
    /// with numbers that are there already are passed over.
    ///
    /// # Errors
    /// It can be tried again, whether anything was written or not.
    pub async fn append(&self, events: Vec<(u64, Event)>) -> Result<(), HistoryError> {
        match &self.0.engine {
            Engine::Files(files) => files.append(events).await,
            Engine::Postgres(tables) => tables.append(tables.node(), events).await,
        }
    }

    /// The same for the outbox that another node of the cluster has left behind.
    ///
    /// # Errors
    /// As [`append`](Self::append); [`HistoryError::Engine`] with files, which have one node.
    pub async fn append_of(&self, node: u16, events: Vec<(u64, Event)>) -> Result<(), HistoryError> {
        match &self.0.engine {
            Engine::Files(_) => {
                Err(HistoryError::Engine("the history in files has the events of one node only"))
            }
            Engine::Postgres(tables) => tables.append(node, events).await,
        }
    }

    /// What became of the messages that the query finds, newest first.
    ///
    /// # Errors
    /// A query that makes no sense; PostgreSQL that cannot be asked.
    pub async fn trace(&self, query: TraceQuery) -> Result<Vec<Timeline>, HistoryError> {
        let plan = Plan::new(&query)?;
        match &self.0.engine {
            Engine::Files(files) => files.trace(plan).await,
            Engine::Postgres(tables) => tables.trace(plan).await,
        }
    }

    /// Drops what is older than what is kept, in PostgreSQL if this node may; there it also tidies what this node wrote.
    /// Happens by itself every ten minutes, with files also whenever a new one begins.
    ///
    /// # Errors
    /// When the history is closed, or PostgreSQL cannot be asked.
    pub async fn sweep(&self) -> Result<(), HistoryError> {
        match &self.0.engine {
            Engine::Files(files) => files.sweep().await,
            Engine::Postgres(tables) => tables.sweep().await,
        }
    }

    /// Writes a consistent copy of every file into the directory `to`, which must not be there, while everything goes
    /// on. How many octets it took.
    ///
    /// # Errors
    /// The disk; [`HistoryError::Engine`] with PostgreSQL, which has its own means.
    pub async fn backup(&self, to: PathBuf) -> Result<u64, HistoryError> {
        match &self.0.engine {
            Engine::Files(files) => files.backup(to).await,
            Engine::Postgres(_) => Err(HistoryError::Engine(
                "the history is in PostgreSQL: back up the whole database with pg_basebackup or a tool that archives its log",
            )),
        }
    }

    /// Rows as they are stored, in an order that is the same for both engines: by day, then by message. At least `n` if
    /// there are so many behind `after`: a message's rows of one day are never parted. None at the end.
    ///
    /// # Errors
    /// The disk, or PostgreSQL that cannot be asked.
    pub async fn export(&self, after: Option<Mark>, n: usize) -> Result<Vec<Record>, HistoryError> {
        match &self.0.engine {
            Engine::Files(files) => files.export(after, n).await,
            Engine::Postgres(tables) => tables.export(after, n).await,
        }
    }

    /// Takes rows that [`export`](Self::export) gave, in its order; ready when they are on stable storage. What is there
    /// already is not taken twice, so that it can be done again. Into a history that nothing was appended to.
    ///
    /// # Errors
    /// Nothing is known of these records; they can be tried again.
    pub async fn import(&self, records: Vec<Record>) -> Result<(), HistoryError> {
        match &self.0.engine {
            Engine::Files(files) => files.import(records).await,
            Engine::Postgres(tables) => tables.import(records).await,
        }
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let stats = match &self.0.engine {
            Engine::Files(files) => files.stats(),
            Engine::Postgres(tables) => tables.stats(),
        };
        let committed = self.0.committed.read().as_ref().map_or(0, |committed| *committed.borrow());
        Stats { lag: committed.saturating_sub(stats.last), ..stats }
    }

    /// Waits for what was asked and closes the files. Later appends are refused; reading goes on.
    pub async fn close(&self) {
        match &self.0.engine {
            Engine::Files(files) => files.close().await,
            Engine::Postgres(tables) => tables.close().await,
        }
    }

    /// Forgets which events are there, after the outbox was put back to an earlier state.
    pub(crate) async fn rewind(&self) -> Result<(), HistoryError> {
        match &self.0.engine {
            Engine::Files(files) => files.rewind(),
            Engine::Postgres(tables) => tables.rewind().await,
        }
    }

    /// Tells where to see how far the outbox is.
    pub(crate) fn follow(&self, committed: watch::Receiver<u64>) {
        *self.0.committed.write() = Some(committed);
    }
}
