//! The handle.
use std::path::Path;
use std::time::Duration;
use std::sync::Arc;

use mail::{Clock, Event};

use crate::error::HistoryError;
use crate::query::TraceQuery;
use crate::timeline::Timeline;

/// How much is kept, and in which pieces.
#[derive(Clone, Debug)]
pub struct Config {
    /// `history.keep`: files whose last event is older are dropped.
    pub keep: Duration,
    /// A file is closed at this size in bytes, or at the end of its day in UTC.
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
    /// Events committed to the outbox that history does not have yet.
    pub lag: u64,
    /// Files.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// What became of every message. Clones share one writer thread.
#[derive(Clone, Debug)]
pub struct History(Arc<()>);

impl History {
    /// Opens `data_dir/history`. Blocking.
    ///
    /// # Errors
    /// When the directory cannot be read or made. A damaged file is no error: it is set aside.
    pub fn open(data_dir: &Path, config: Config, clock: Clock) -> Result<Self, HistoryError> {
        let _ = (data_dir, config, clock);
        todo!()
    }

    /// Appends a batch in one transaction; ready when it is on stable storage. Events with numbers that are there
    /// already are passed over.
    ///
    /// # Errors
    /// Nothing of the batch was written.
    pub async fn append(&self, events: Vec<(u64, Event)>) -> Result<(), HistoryError> {
        let _ = events;
        todo!()
    }

    /// What became of the messages that the query finds, newest first.
    ///
    /// # Errors
    /// A query that makes no sense, or the disk.
    pub async fn trace(&self, query: TraceQuery) -> Result<Vec<Timeline>, HistoryError> {
        let _ = query;
        todo!()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Waits for what was appended and closes the files.
    pub async fn close(&self) {}
}
