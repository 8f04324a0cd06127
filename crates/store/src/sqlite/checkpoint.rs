//! Checkpoints of the write-ahead log, on a thread of their own: the writer never waits for them, except that past 64 MB
//! of log it lets one finish between two groups, so that the log begins anew instead of growing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use super::{Shared, sql_error};
use crate::error::StoreError;

/// SQLite's page size here.
pub(crate) const PAGE: u64 = 4096;
/// A checkpoint is made each time the log has grown by this many pages (16 MiB).
const STEP: u64 = (16 << 20) / PAGE;
/// With this many pages (64 MiB) the writer waits for it.
const LARGE: u64 = (64 << 20) / PAGE;

#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    /// Pages in the log after the last commit.
    pages: AtomicU64,
    /// The same when the last checkpoint ended.
    seen: AtomicU64,
    /// Held by the writer during a transaction, and by the checkpointer when it wants none.
    turn: Mutex<()>,
    wanted: AtomicBool,
    state: Mutex<Ask>,
    asked: Condvar,
    pub(crate) made: AtomicU64,
}

#[derive(Debug, Default)]
struct Ask {
    asked: bool,
    stop: bool,
}

/// The writer's turn.
pub(crate) struct Turn<'a> {
    guard: Option<MutexGuard<'a, ()>>,
    wanted: &'a AtomicBool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(guard) = self.guard.take() else { return };
        if self.wanted.load(Ordering::Relaxed) {
            MutexGuard::unlock_fair(guard);
        }
    }
}

impl Checkpoint {
    /// For the writer, for the length of a transaction.
    pub(crate) fn writing(&self) -> Turn<'_> {
        Turn { guard: Some(self.turn.lock()), wanted: &self.wanted }
    }

    /// Tells how many pages the log has.
    pub(crate) fn note(&self, pages: u64) {
        self.pages.store(pages, Ordering::Relaxed);
    }

    pub(crate) fn wal_bytes(&self) -> u64 {
        self.pages.load(Ordering::Relaxed) * PAGE
    }

    pub(crate) fn ask_if_large(&self) {
        let (pages, seen) = (self.pages.load(Ordering::Relaxed), self.seen.load(Ordering::Relaxed));
        // Fewer pages than before: the log has begun anew.
        if pages < seen {
            self.seen.store(0, Ordering::Relaxed);
        }
        if pages.saturating_sub(if pages < seen { 0 } else { seen }) >= STEP {
            self.ask();
        }
    }

    pub(crate) fn ask(&self) {
        self.state.lock().asked = true;
        self.asked.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.asked.notify_one();
    }

    /// The checkpointer's thread.
    pub(crate) fn run(shared: &Arc<Shared>, conn: &Connection) {
        let this = &shared.checkpoint;
        loop {
            let mut state = this.state.lock();
            while !state.asked && !state.stop {
                this.asked.wait(&mut state);
            }
            if state.stop {
                return;
            }
            state.asked = false;
            drop(state);
            if let Err(error) = this.make(conn) {
                match error {
                    // It is tried again when the log has grown further, or when the writer asks.
                    StoreError::NoSpace => tracing::warn!("no space for a checkpoint"),
                    StoreError::Invalid(reason) => tracing::debug!(reason, "checkpoint"),
                    other => drop(shared.health.fail(&other.to_string())),
                }
            }
        }
    }

    fn make(&self, conn: &Connection) -> Result<(), StoreError> {
        let passive = || {
            conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE)
                .map_err(|e| sql_error("writing the checkpoint", &e))
        };
        let (log, _) = passive()?;
        self.made.fetch_add(1, Ordering::Relaxed);
        self.seen.store(u64::try_from(log).unwrap_or(0), Ordering::Relaxed);
        if u64::try_from(log).unwrap_or(0) >= LARGE {
            // Little is left by now; without the writer it becomes nothing, and the next commit begins the log anew.
            self.wanted.store(true, Ordering::Relaxed);
            let turn = self.turn.lock();
            let result = passive();
            drop(turn);
            self.wanted.store(false, Ordering::Relaxed);
            result?;
        }
        Ok(())
    }
}
