//! Clients that commit row after row through the pool, and the account of what each commit came to.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mail::Clock;
use postgres::{CommitError, PgError, Pool};
use posthouse_tests::wait::eventually;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::journal::Journal;

/// How a commit came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged,
    /// With the promise that nothing was stored.
    NotCommitted(String),
    Unknown(String),
}

/// One call of the pool, by the writer's clock.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) id: i64,
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
    pub(crate) outcome: Outcome,
}

struct Book {
    clock: Clock,
    journal: Journal,
    commits: Mutex<Vec<Commit>>,
    next: AtomicI64,
    stop: AtomicBool,
}

/// Clients at work.
pub(crate) struct Writer {
    book: Arc<Book>,
    clients: Vec<JoinHandle<()>>,
}

/// A retry has to write, and to do no harm when the first try was committed after all.
const INSERT: &str = "INSERT INTO kept (id, body, tries) VALUES ($1, repeat($1::bigint::text || ' ', 200), 1) \
                      ON CONFLICT (id) DO UPDATE SET tries = kept.tries + 1";

impl Writer {
    /// Starts so many clients.
    pub(crate) fn start(runtime: &Runtime, pool: &Pool, clients: usize) -> Self {
        let book = Arc::new(Book {
            clock: Clock::system(),
            journal: Journal::new(),
            commits: Mutex::default(),
            next: AtomicI64::new(1),
            stop: AtomicBool::new(false),
        });
        let client = || runtime.spawn(client(Arc::clone(&book), pool.clone()));
        Self { clients: (0..clients).map(|_| client()).collect(), book }
    }

    /// This moment by the writer's clock.
    pub(crate) fn now(&self) -> Duration {
        self.book.clock.mono().0
    }

    /// The commits that have ended, in the order in which they did.
    pub(crate) fn commits(&self) -> Vec<Commit> {
        self.book.commits.lock().unwrap().clone()
    }

    /// What was promised to be stored, and what was promised not to be.
    pub(crate) fn promises(&self) -> (BTreeSet<i64>, BTreeSet<i64>) {
        let not = |c: Commit| matches!(c.outcome, Outcome::NotCommitted(_)).then_some(c.id);
        (self.book.journal.read(), self.commits().into_iter().filter_map(not).collect())
    }

    /// How many commits were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged_since(Duration::ZERO)
    }

    /// How many commits that began at `since` or later were acknowledged.
    pub(crate) fn acknowledged_since(&self, since: Duration) -> usize {
        let commits = self.book.commits.lock().unwrap();
        commits.iter().filter(|c| c.outcome == Outcome::Acknowledged && c.begun >= since).count()
    }

    /// Waits until `n` commits that began at `since` or later were acknowledged.
    pub(crate) fn wait_acknowledged(&self, what: &str, since: Duration, n: usize, within: Duration) {
        eventually(what, within, || {
            assert!(self.clients.iter().all(|c| !c.is_finished()), "{what}: a client has panicked");
            (self.acknowledged_since(since) >= n).then_some(())
        });
    }

    /// The longest time without an acknowledgement since `since`, counting from the last one before it.
    pub(crate) fn longest_gap(&self, since: Duration) -> Duration {
        let commits = self.commits();
        let ends: Vec<Duration> =
            commits.iter().filter(|c| c.outcome == Outcome::Acknowledged).map(|c| c.ended).collect();
        let before = ends.iter().rposition(|t| *t <= since).unwrap_or(0);
        ends[before..].windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
    }

    /// From `since` to the first acknowledgement after it.
    pub(crate) fn first_after(&self, since: Duration) -> Duration {
        let commits = self.commits();
        let first = commits.iter().find(|c| c.outcome == Outcome::Acknowledged && c.ended > since);
        first.expect("an acknowledgement after it").ended - since
    }

    /// Lets every client finish its commit.
    pub(crate) fn stop(&mut self, runtime: &Runtime) {
        self.book.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            runtime.block_on(client).expect("a client of the writer");
        }
    }
}

async fn client(book: Arc<Book>, pool: Pool) {
    while !book.stop.load(Ordering::Relaxed) {
        let id = book.next.fetch_add(1, Ordering::Relaxed);
        let begun = book.clock.mono().0;
        let done = pool.commit_idempotent(|tx| async move { tx.execute(INSERT, &[&id]).await }).await;
        // The moment of the answer, not that of the journal: the disk may be busy.
        let ended = book.clock.mono().0;
        let outcome = match done {
            Ok(_) => Outcome::Acknowledged,
            Err(CommitError::NotCommitted(bug @ PgError::Bug(_))) => panic!("row {id}: {bug}"),
            Err(CommitError::NotCommitted(why)) => Outcome::NotCommitted(why.to_string()),
            Err(CommitError::Unknown(why)) => Outcome::Unknown(why),
            Err(refused @ CommitError::Refused { .. }) => panic!("row {id}: {refused}"),
        };
        let failed = outcome != Outcome::Acknowledged;
        if !failed {
            book.journal.acknowledged(id);
        }
        book.commits.lock().unwrap().push(Commit { id, begun, ended, outcome });
        if failed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
