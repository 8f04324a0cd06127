//! The one thread that writes: it takes whatever waits, commits it together, publishes the new snapshot, and only
//! then answers.

use std::sync::Arc;
use std::sync::mpsc;

use arc_swap::ArcSwap;
use mail::{Actor, Clock, Timestamp};
use rusqlite::{Connection, TransactionBehavior, params};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::error::DirectoryError;
use crate::snapshot::{Edit, Snapshot};

/// The most changes in one commit.
const BATCH_MAX: usize = 256;

/// Answers whoever asked, once the commit has succeeded or failed.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

/// A change, run within a transaction.
pub(crate) type Change = Box<dyn FnOnce(&mut Draft<'_>) -> Answer + Send>;

/// What the writer is asked to do.
pub(crate) enum Job {
    /// A change.
    Change(Change),
    /// Something that only reads the database.
    Read(Box<dyn FnOnce(&Connection) + Send>),
    /// Another set of routes and smart hosts from the config file.
    Config(Box<dyn FnOnce(&mut Snapshot) + Send>, oneshot::Sender<()>),
    /// Stop.
    Close,
}

/// What a change sees: the database within a transaction, and the state that it changes.
pub(crate) struct Draft<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) state: Snapshot,
    pub(crate) now: Timestamp,
}

impl Draft<'_> {
    /// Runs one change: all of it or nothing.
    pub(crate) fn run<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(T, Vec<Edit>), DirectoryError>,
    ) -> Result<T, DirectoryError> {
        self.db.execute_batch("SAVEPOINT change")?;
        match change(self) {
            Ok((value, edits)) => {
                self.db.execute_batch("RELEASE change")?;
                edits.into_iter().for_each(|edit| self.state.apply(edit));
                Ok(value)
            }
            Err(e) => {
                self.db.execute_batch("ROLLBACK TO change; RELEASE change")?;
                Err(e)
            }
        }
    }

    /// A number that was never given before.
    pub(crate) fn next_id(&self) -> Result<i64, DirectoryError> {
        self.db.execute("UPDATE counter SET value = value + 1 WHERE name = 'id'", [])?;
        Ok(self.db.query_row("SELECT value FROM counter WHERE name = 'id'", [], |row| row.get(0))?)
    }

    /// Puts a change on record. What is shown of `before` and `after` holds no secrets, because nothing serialises
    /// them.
    pub(crate) fn audit<T: Serialize>(
        &self,
        by: &Actor,
        action: &str,
        (what, name): (&str, &str),
        before: Option<&T>,
        after: Option<&T>,
    ) -> Result<(), DirectoryError> {
        let json = |value: Option<&T>| value.map(|v| serde_json::to_string(v).unwrap_or_default());
        let id: i64 =
            self.db.query_row("SELECT coalesce(max(id), 0) + 1 FROM audit", [], |row| row.get(0))?;
        self.db
            .prepare_cached(
                "INSERT INTO audit (id, at, actor, action, what, name, earlier, later) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )?
            .execute(params![id, self.now.millis(), by, action, what, name, json(before), json(after)])?;
        tracing::info!(%by, action, what, name, "directory changed");
        Ok(())
    }
}

/// Runs until it is told to close or nobody is left to ask.
pub(crate) fn run(
    mut db: Connection,
    jobs: &mpsc::Receiver<Job>,
    published: &Arc<ArcSwap<Snapshot>>,
    clock: &Clock,
) {
    let mut waiting: Option<Job> = None;
    while let Some(job) = waiting.take().or_else(|| jobs.recv().ok()) {
        match job {
            Job::Close => break,
            Job::Read(read) => read(&db),
            Job::Config(set, done) => {
                let mut next = Snapshot::clone(&published.load());
                set(&mut next);
                published.store(Arc::new(next));
                // Whoever asked may be gone.
                let _ = done.send(());
            }
            Job::Change(first) => {
                let mut batch = vec![first];
                while batch.len() < BATCH_MAX {
                    match jobs.try_recv() {
                        Ok(Job::Change(change)) => batch.push(change),
                        Ok(other) => {
                            waiting = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                commit(&mut db, batch, published, clock);
            }
        }
    }
}

fn commit(db: &mut Connection, batch: Vec<Change>, published: &Arc<ArcSwap<Snapshot>>, clock: &Clock) {
    let mut answers = Vec::with_capacity(batch.len());
    let tx = match db.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(tx) => tx,
        Err(e) => {
            // Dropping the changes answers them with `Closed`; say more in the log.
            tracing::error!(error = %e, "directory: no transaction can be begun");
            return;
        }
    };
    let state = Snapshot::clone(&published.load());
    let mut draft = Draft { db: &tx, state, now: clock.now() };
    for change in batch {
        answers.push(change(&mut draft));
    }
    let next = draft.state;
    let result = tx.commit().map_err(|e| e.to_string());
    match &result {
        Ok(()) => published.store(Arc::new(next)),
        Err(e) => tracing::error!(error = %e, "directory: a change was not committed"),
    }
    for answer in answers {
        answer(result.clone());
    }
}
