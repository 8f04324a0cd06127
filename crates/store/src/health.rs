//! Whether the store still works, and the one place that calls fsync: a file whose fsync failed is never tried again,
//! because the kernel forgets the error after telling it once. The store stops and a restart recovers.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

use crate::error::StoreError;

#[derive(Debug)]
pub(crate) struct Health {
    failed: watch::Sender<Option<String>>,
    /// The same as a flag, so that the hot path takes no lock.
    is_failed: AtomicBool,
    pub(crate) fsyncs: AtomicU64,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            failed: watch::Sender::new(None),
            is_failed: AtomicBool::new(false),
            fsyncs: AtomicU64::new(0),
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Stops the store for good; the first reason stays.
    pub(crate) fn fail(&self, reason: &str) -> StoreError {
        let was = self.failed.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(reason.to_owned());
            }
            first
        });
        if was {
            tracing::error!(reason, "the store has failed; restart after looking at the disk");
        }
        self.is_failed.store(true, Ordering::Release);
        StoreError::Failed(self.failed.borrow().clone().unwrap_or_default())
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.is_failed.load(Ordering::Acquire) {
            return Err(StoreError::Failed(self.failed.borrow().clone().unwrap_or_default()));
        }
        Ok(())
    }

    /// fdatasync; a failure is the end of the store.
    pub(crate) fn sync_data(&self, file: &File, what: &str) -> Result<(), StoreError> {
        self.synced(what, || file.sync_data())
    }

    /// fsync, for directories.
    pub(crate) fn sync_all(&self, file: &File, what: &str) -> Result<(), StoreError> {
        self.synced(what, || file.sync_all())
    }

    fn synced(&self, what: &str, sync: impl FnOnce() -> io::Result<()>) -> Result<(), StoreError> {
        self.check()?;
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        sync().map_err(|e| self.fail(&format!("fsync of {what} failed: {e}")))
    }
}
