//! What the writer is asked to do, whichever engine it writes to, and where it publishes what has become of it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use crate::draft::Change;
use crate::snapshot::Snapshot;

/// The most changes in one commit.
const BATCH_MAX: usize = 256;

/// What the writer is asked to do.
pub(crate) enum Job {
    /// A change.
    Change(Box<dyn Change>),
    /// Something that only reads the file. PostgreSQL is read without asking the writer.
    Read(Box<dyn FnOnce(&Connection) + Send>),
    /// Stop.
    Close,
}

pub(crate) type Jobs = mpsc::UnboundedReceiver<Job>;

/// Takes the changes that wait behind the first one, and the other job that came after them.
pub(crate) fn gather(first: Box<dyn Change>, jobs: &mut Jobs) -> (Vec<Box<dyn Change>>, Option<Job>) {
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX {
        match jobs.try_recv() {
            Ok(Job::Change(change)) => batch.push(change),
            Ok(other) => return (batch, Some(other)),
            Err(_) => break,
        }
    }
    (batch, None)
}

/// The snapshot that everybody reads. What is in it of the database comes from the writer alone; what is in it of the
/// config file does not wait for the writer, which may be waiting for a database.
pub(crate) struct Published {
    state: ArcSwap<Snapshot>,
    /// Held while the snapshot is replaced.
    replacing: Mutex<()>,
    /// How often what is in it of the database has been replaced.
    changes: watch::Sender<u64>,
}

impl Published {
    pub(crate) fn new(state: Snapshot) -> Arc<Self> {
        let changes = watch::Sender::new(0);
        Arc::new(Self { state: ArcSwap::from_pointee(state), replacing: Mutex::new(()), changes })
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.state.load_full()
    }

    /// Publishes what the database says.
    pub(crate) fn put(&self, mut next: Snapshot) {
        let _replacing = self.replacing.lock();
        let before = self.state.load();
        next.take_config_of(&before);
        let is_new = next.version != before.version;
        self.state.store(Arc::new(next));
        if is_new {
            self.changes.send_modify(|n| *n += 1);
        }
    }

    /// Publishes what the config file says.
    pub(crate) fn configure(&self, set: impl FnOnce(&mut Snapshot)) {
        let _replacing = self.replacing.lock();
        let mut next = Snapshot::clone(&self.state.load());
        set(&mut next);
        self.state.store(Arc::new(next));
    }
}
