//! What the writer is asked to do, whichever engine it writes to.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::draft::Change;
use crate::snapshot::Snapshot;

/// The most changes in one commit.
const BATCH_MAX: usize = 256;

/// Sets what comes from the config file.
pub(crate) type SetConfig = Box<dyn FnOnce(&mut Snapshot) + Send>;

/// What the writer is asked to do.
pub(crate) enum Job {
    /// A change.
    Change(Box<dyn Change>),
    /// Something that only reads the file. PostgreSQL is read without asking the writer.
    Read(Box<dyn FnOnce(&Connection) + Send>),
    /// Another set of routes, smart hosts or rules from the config file.
    Config(SetConfig, oneshot::Sender<()>),
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

/// Takes what the config file says into the snapshot.
pub(crate) fn set_config(published: &Arc<ArcSwap<Snapshot>>, set: SetConfig, done: oneshot::Sender<()>) {
    let mut next = Snapshot::clone(&published.load());
    set(&mut next);
    published.store(Arc::new(next));
    // Whoever asked may be gone.
    let _ = done.send(());
}
