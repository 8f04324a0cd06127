//! The handle: the way to the writer, and questions answered beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mail::{Clock, Event};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::backup;
use crate::error::HistoryError;
use crate::files::Listed;
use crate::query::{Plan, TraceQuery};
use crate::view::Timeline;
use crate::writer::{Job, Writer};

/// How much is kept, and in which pieces.
#[derive(Clone, Debug)]
pub struct Config {
    /// `history.keep`: files of days that are over for so long are dropped.
    pub keep: Duration,
    /// A file is closed at this size in octets, or at the end of its day in UTC.
    pub file_size_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep: Duration::from_secs(30 * 86_400), file_size_max: 512 << 20 }
    }
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of the last event on disk.
    pub last: u64,
    /// Events in the outbox that the history does not have yet.
    pub lag: u64,
    /// Files.
    pub files: u64,
    /// Their size in octets.
    pub bytes: u64,
}

/// What became of every message. Clones share one writer thread.
#[derive(Clone)]
pub struct History(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What the writer publishes.
#[derive(Default)]
pub(crate) struct Shared {
    files: RwLock<Arc<[Listed]>>,
    last: AtomicU64,
    /// Follows the number of the last event in the outbox, once a drainer runs.
    committed: RwLock<Option<watch::Receiver<u64>>>,
}

impl Shared {
    pub(crate) fn publish(&self, files: Vec<Listed>, last: u64) {
        *self.files.write() = files.into();
        self.last.store(last, Ordering::Relaxed);
    }
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
        use std::os::unix::fs::DirBuilderExt;
        let dir = data_dir.join("history");
        let at_fault = |source| HistoryError::Io { path: dir.clone(), source };
        if !dir.is_dir() {
            std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(at_fault)?;
            std::fs::File::open(data_dir).and_then(|d| d.sync_all()).map_err(at_fault)?;
        }
        let shared = Arc::new(Shared::default());
        let writer = Writer::new(dir.clone(), config, clock, Arc::clone(&shared))?;
        let (jobs, receiver) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("posthouse-history".into())
            .spawn(move || writer.run(&receiver))
            .map_err(at_fault)?;
        Ok(Self(Arc::new(Handle { shared, jobs, thread: Mutex::new(Some(thread)) })))
    }

    /// Appends a batch in one transaction; ready when it is on stable storage. Numbers grow; events with numbers that
    /// are there already are passed over.
    ///
    /// # Errors
    /// Nothing of the batch was written, and it can be tried again.
    pub async fn append(&self, events: Vec<(u64, Event)>) -> Result<(), HistoryError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Append(events, done))?;
        wait.await.map_err(|_| HistoryError::Closed)?
    }

    /// What became of the messages that the query finds, newest first.
    ///
    /// # Errors
    /// A query that makes no sense.
    pub async fn trace(&self, query: TraceQuery) -> Result<Vec<Timeline>, HistoryError> {
        let plan = Plan::new(&query)?;
        let files = Arc::clone(&self.0.shared.files.read());
        tokio::task::spawn_blocking(move || plan.run(&files)).await.map_err(|_| HistoryError::Closed)
    }

    /// Drops what is older than what is kept. Happens by itself every ten minutes and with every new file.
    ///
    /// # Errors
    /// When the history is closed.
    pub async fn sweep(&self) -> Result<(), HistoryError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Sweep(done))?;
        wait.await.map_err(|_| HistoryError::Closed)
    }

    /// Writes a consistent copy of every file into the directory `to`, which must not be there, while everything goes
    /// on. How many octets it took.
    ///
    /// # Errors
    /// The disk.
    pub async fn backup(&self, to: PathBuf) -> Result<u64, HistoryError> {
        let files = Arc::clone(&self.0.shared.files.read());
        let copied = tokio::task::spawn_blocking(move || backup::copy(&files, &to));
        copied.await.map_err(|_| HistoryError::Closed)?
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        let files = shared.files.read();
        let last = shared.last.load(Ordering::Relaxed);
        let committed = shared.committed.read().as_ref().map_or(0, |committed| *committed.borrow());
        Stats {
            last,
            lag: committed.saturating_sub(last),
            files: files.len() as u64,
            bytes: files.iter().map(|f| f.bytes).sum(),
        }
    }

    /// Waits for what was asked and closes the files. Later appends are refused; reading goes on.
    pub async fn close(&self) {
        let _ = self.0.jobs.send(Job::Close);
        let thread = self.0.thread.lock().take();
        if let Some(thread) = thread
            && !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(())))
        {
            tracing::error!("the history's writer has died");
        }
    }

    /// Forgets which events are there, after the outbox was put back to an earlier state.
    pub(crate) fn rewind(&self) -> Result<(), HistoryError> {
        self.0.shared.last.store(0, Ordering::Relaxed);
        self.send(Job::Rewind)
    }

    /// Tells where to see how far the outbox is.
    pub(crate) fn follow(&self, committed: watch::Receiver<u64>) {
        *self.0.shared.committed.write() = Some(committed);
    }

    fn send(&self, job: Job) -> Result<(), HistoryError> {
        self.0.jobs.send(job).map_err(|_| HistoryError::Closed)
    }
}
