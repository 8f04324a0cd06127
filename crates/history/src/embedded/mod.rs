//! The history in files of a day each: the handle, with the way to the writer and questions answered beside it.
//!
//! `writer` owns the files; `file` is one of them, with `runs` (how its messages are found by address); `files` are
//! their names; `search` finds messages, `carry` keeps what must outlive its file, `backup` copies, `transfer` carries
//! rows to and from the other engine.

mod backup;
mod carry;
mod file;
mod files;
mod runs;
mod search;
mod transfer;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use mail::{Clock, Event};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use self::files::Listed;
use self::writer::{Job, Writer};
use crate::error::HistoryError;
use crate::history::{Config, Stats};
use crate::query::Plan;
use crate::raw::{Mark, Record};
use crate::view::Timeline;

/// The files and their writer.
pub(crate) struct Files {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What the writer publishes.
#[derive(Default)]
pub(crate) struct Shared {
    files: RwLock<Arc<[Listed]>>,
    last: AtomicU64,
}

impl Shared {
    fn publish(&self, files: Vec<Listed>, last: u64) {
        *self.files.write() = files.into();
        self.last.store(last, Ordering::Relaxed);
    }
}

impl Files {
    /// Opens `data_dir/history`, and makes it when it is not there.
    pub(crate) fn open(data_dir: &Path, config: Config, clock: Clock) -> Result<Self, HistoryError> {
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
        Ok(Self { shared, jobs, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) async fn append(&self, events: Vec<(u64, Event)>) -> Result<(), HistoryError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Append(events, done))?;
        wait.await.map_err(|_| HistoryError::Closed)?
    }

    pub(crate) async fn trace(&self, plan: Plan) -> Result<Vec<Timeline>, HistoryError> {
        let files = self.files();
        blocking(move || Ok(search::run(&plan, &files))).await
    }

    pub(crate) async fn sweep(&self) -> Result<(), HistoryError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Sweep(done))?;
        wait.await.map_err(|_| HistoryError::Closed)
    }

    pub(crate) async fn backup(&self, to: PathBuf) -> Result<u64, HistoryError> {
        let files = self.files();
        blocking(move || backup::copy(&files, &to)).await
    }

    pub(crate) async fn export(&self, after: Option<Mark>, n: usize) -> Result<Vec<Record>, HistoryError> {
        let files = self.files();
        blocking(move || transfer::export(&files, after, n)).await
    }

    pub(crate) async fn import(&self, records: Vec<Record>) -> Result<(), HistoryError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Import(records, done))?;
        wait.await.map_err(|_| HistoryError::Closed)?
    }

    pub(crate) fn stats(&self) -> Stats {
        let files = self.shared.files.read();
        Stats {
            last: self.shared.last.load(Ordering::Relaxed),
            lag: 0,
            files: files.len() as u64,
            bytes: files.iter().map(|f| f.bytes).sum(),
        }
    }

    pub(crate) async fn close(&self) {
        let _ = self.jobs.send(Job::Close);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(())))
        {
            tracing::error!("the history's writer has died");
        }
    }

    pub(crate) fn rewind(&self) -> Result<(), HistoryError> {
        self.shared.last.store(0, Ordering::Relaxed);
        self.send(Job::Rewind)
    }

    fn files(&self) -> Arc<[Listed]> {
        Arc::clone(&self.shared.files.read())
    }

    fn send(&self, job: Job) -> Result<(), HistoryError> {
        self.jobs.send(job).map_err(|_| HistoryError::Closed)
    }
}

/// Runs what reads files on a thread that may wait for them.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, HistoryError> {
    tokio::task::spawn_blocking(run).await.map_err(|_| HistoryError::Closed)?
}
