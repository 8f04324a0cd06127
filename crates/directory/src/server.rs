//! The directory on PostgreSQL, which several nodes share. Each node has everything in memory; one task changes the
//! database and follows what the other nodes change.
//!
//! The nodes take turns: a change first takes the one row of `directory.head`, reads what the others have touched since,
//! and is then made of that, so that no change is ever made of an old state. What a commit touched is written beside it,
//! so that the others read that and no more. Each commit has a name of its own, and that is how a node knows, after a
//! connection went while committing, whether its commit counts; and after a fail-over, whether the state that it has in
//! memory is one that still exists.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use mail::{Clock, Mono, Timestamp};
use parking_lot::Mutex;
use postgres::types::ToSql;
use postgres::{CommitError, Heard, Listener, PgError, Pool, Session, Tx};
use tokio::time::{Interval, MissedTickBehavior};

use crate::db::{Bad, Row, Value, Write};
use crate::draft::{Change, Draft, Failed, TAKE_TURN, Turn, Version};
use crate::error::DirectoryError;
use crate::load::{self, Ask, FAKE_KEY};
use crate::schema;
use crate::secret::random;
use crate::snapshot::Snapshot;
use crate::touched::Touched;
use crate::writer::{Job, Jobs, Published, gather};

/// How often a node looks whether another one has changed something. Notifications only make it faster.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a node reads again what was changed while it read, before it leaves the rest to the next look.
const ROUNDS_MAX: usize = 10;
/// What is notified after a change.
const CHANNEL: &str = "posthouse_directory";

const VERSION: &str = "SELECT version, batch FROM directory.head WHERE one = 1";
const CHANGES: &str =
    "SELECT version, batch, touched FROM directory.change WHERE version >= $1 ORDER BY version";

/// Makes or migrates the tables.
pub(crate) async fn migrate(pool: &Pool) -> Result<(), DirectoryError> {
    let steps = schema::for_postgres();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    postgres::migrate(pool, "directory", &steps).await?;
    Ok(())
}

/// Makes or migrates the tables, and reads all of it.
pub(crate) async fn open(pool: &Pool, now: Timestamp) -> Result<(Snapshot, hmac::Key), DirectoryError> {
    migrate(pool).await?;
    let founding = load::founding(now);
    let founding = &founding;
    pool.commit_idempotent(|tx| async move {
        // Also what another node has made a moment ago is then known to be kept: this commit waits behind it.
        query(&tx, TAKE_TURN, &[]).await?;
        for write in founding {
            execute(&tx, write).await?;
        }
        Ok(())
    })
    .await
    .map_err(|e| DirectoryError::Commit(e.to_string()))?;
    let key = rows(pool, FAKE_KEY, &[]).await?;
    let key: Option<String> = match key.first() {
        Some(row) => Row::Postgres(row).get(0).map_err(|bad| damaged(&bad))?,
        None => None,
    };
    let state = current(pool, Snapshot::default()).await?;
    Ok((state, load::fake_key(key.as_deref())))
}

/// Reads rows.
pub(crate) async fn rows(
    pool: &Pool,
    sql: &str,
    values: &[Value],
) -> Result<Vec<postgres::Row>, DirectoryError> {
    Ok(pool.read(|session| async move { query(&session, sql, values).await }).await?)
}

/// Runs a statement that may be run again, and returns the one text that it answers.
pub(crate) async fn kept(pool: &Pool, sql: &str, name: &str, made: &str) -> Result<String, DirectoryError> {
    let row = pool.commit_idempotent(|tx| async move { tx.query_one(sql, &[&name, &made]).await }).await;
    let row = row.map_err(|e| DirectoryError::Commit(e.to_string()))?;
    Row::Postgres(&row).get(0).map_err(|bad| damaged(&bad))
}

async fn query(session: &Session, sql: &str, values: &[Value]) -> Result<Vec<postgres::Row>, PgError> {
    let parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(Value::for_postgres).collect();
    session.query(sql, &parameters).await
}

async fn execute(session: &Session, write: &Write) -> Result<u64, PgError> {
    let parameters: Vec<&(dyn ToSql + Sync)> = write.values.iter().map(Value::for_postgres).collect();
    session.execute(write.sql, &parameters).await
}

/// Why the database could not be read: it, or what is in it.
enum Unread {
    Postgres(PgError),
    Bad(Bad),
}

impl From<PgError> for Unread {
    fn from(e: PgError) -> Self {
        Unread::Postgres(e)
    }
}

impl From<Bad> for Unread {
    fn from(bad: Bad) -> Self {
        Unread::Bad(bad)
    }
}

/// A row that cannot be read is no reason to ask another connection.
impl From<Unread> for PgError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Postgres(e) => e,
            Unread::Bad(bad) => PgError::Damaged(bad.0),
        }
    }
}

fn damaged(bad: &Bad) -> DirectoryError {
    DirectoryError::Damaged { place: "the directory in PostgreSQL".into(), what: bad.to_string() }
}

/// The state as the database has it, from one that may be older.
async fn current(pool: &Pool, state: Snapshot) -> Result<Snapshot, DirectoryError> {
    let state = &state;
    let read = pool.read(|session| async move {
        let mut state = state.clone();
        for _ in 0..ROUNDS_MAX {
            let version = version(&session).await?;
            if state.version == version {
                return Ok(Ok(state));
            }
            // What is read may be newer than `version`; then the next round reads it once more.
            match follow(&session, &mut state, version).await {
                Ok(()) => {}
                Err(Unread::Postgres(e)) => return Err(e),
                Err(Unread::Bad(bad)) => return Ok(Err(bad)),
            }
        }
        Ok(Ok(state))
    });
    read.await?.map_err(|bad| damaged(&bad))
}

async fn version(session: &Session) -> Result<Version, PgError> {
    let row = session.query_one(VERSION, &[]).await?;
    Version::read(&Row::Postgres(&row)).map_err(|bad| PgError::Damaged(bad.0))
}

/// Brings the state to `version`.
async fn follow(session: &Session, state: &mut Snapshot, version: Version) -> Result<(), Unread> {
    match touched_since(session, &state.version).await? {
        Some(touched) => {
            for ask in touched.iter().filter_map(Touched::ask) {
                answer(session, ask, state).await?;
            }
        }
        None => {
            let mut fresh = Snapshot::default();
            fresh.take_config_of(state);
            for ask in load::everything() {
                answer(session, ask, &mut fresh).await?;
            }
            *state = fresh;
        }
    }
    state.version = version;
    Ok(())
}

/// What was touched since that version; none when nobody remembers it, or it never was (any more).
async fn touched_since(session: &Session, since: &Version) -> Result<Option<HashSet<Touched>>, Unread> {
    if since.is_none() {
        return Ok(None);
    }
    let mut touched = HashSet::new();
    let rows = query(session, CHANGES, &[since.number.into()]).await?;
    for (at, row) in rows.iter().enumerate() {
        let row = Row::Postgres(row);
        let version = Version::read(&row)?;
        if at == 0 {
            if version != *since {
                return Ok(None);
            }
            continue;
        }
        match serde_json::from_str::<Vec<Touched>>(&row.get::<String>(2)?) {
            Ok(more) => touched.extend(more),
            // Written by a newer version, during an upgrade.
            Err(_) => return Ok(None),
        }
    }
    Ok((!rows.is_empty()).then_some(touched))
}

async fn answer(session: &Session, mut ask: Ask, state: &mut Snapshot) -> Result<(), Unread> {
    let mut values = std::mem::take(&mut ask.values);
    loop {
        for row in query(session, &ask.sql, &values).await? {
            let taken = ask.take.row(&Row::Postgres(&row), state);
            taken.map_err(|bad| Bad(format!("table {}: {bad}", ask.table)))?;
        }
        match ask.take.more() {
            Some(more) => values = more,
            None => break,
        }
    }
    ask.take.end(state);
    Ok(())
}

/// The task that changes the database and follows it.
pub(crate) struct Server {
    pool: Pool,
    published: Arc<Published>,
    clock: Clock,
    seen: Seen,
    /// Whether the last look failed, so that it is told once.
    blind: bool,
}

/// When the database was last seen to say what is in memory.
#[derive(Clone, Debug)]
pub(crate) struct Seen(Arc<Mutex<Mono>>);

impl Seen {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self(Arc::new(Mutex::new(clock.mono())))
    }

    pub(crate) fn at(&self) -> Mono {
        *self.0.lock()
    }
}

/// What became of a try to commit.
enum Tried {
    /// It is committed, by this try or an earlier one; this is the state since.
    Done(Snapshot),
    /// There was nothing to commit; this is the state.
    Nothing(Snapshot),
}

impl Server {
    pub(crate) fn new(pool: Pool, published: Arc<Published>, clock: Clock, seen: Seen) -> Self {
        Self { pool, published, clock, seen, blind: false }
    }

    /// Runs until it is told to close or nobody is left to ask.
    pub(crate) async fn run(mut self, mut jobs: Jobs) {
        let mut hints = self.pool.listen(&[CHANNEL]);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: Option<Job> = None;
        loop {
            let job = match waiting.take() {
                Some(job) => job,
                None => tokio::select! {
                    biased;
                    job = jobs.recv() => match job {
                        Some(job) => job,
                        None => break,
                    },
                    // Ended by a job that comes: a change looks by itself, and waits longer for the database.
                    () = self.look_next(&mut hints, &mut look) => continue,
                },
            };
            match job {
                Job::Close => break,
                Job::Read(_) => {}
                Job::Change(first) => {
                    let batch;
                    (batch, waiting) = gather(first, &mut jobs);
                    self.commit(batch).await;
                }
            }
        }
    }

    /// Takes in what other nodes have changed, when there may be something.
    async fn look_next(&mut self, hints: &mut Listener, look: &mut Interval) {
        tokio::select! {
            // Notified, or a notification may have been missed.
            Heard::Notification { .. } | Heard::Missed = hints.next() => {}
            _ = look.tick() => {}
        }
        self.look().await;
    }

    /// Takes in what other nodes have changed.
    async fn look(&mut self) {
        let before = self.published.load();
        let since = self.clock.mono();
        match current(&self.pool, Snapshot::clone(&before)).await {
            Ok(state) => {
                if std::mem::take(&mut self.blind) {
                    tracing::info!("the directory in PostgreSQL is followed again");
                }
                *self.seen.0.lock() = since;
                if state.version != before.version {
                    self.published.put(state);
                }
            }
            Err(e) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::warn!(error = %e, "what other nodes change in the directory is not seen");
                }
            }
        }
    }

    async fn commit(&mut self, batch: Vec<Box<dyn Change>>) {
        let mut single = vec![batch];
        while let Some(batch) = single.pop() {
            let since = self.clock.mono();
            let (batch, result) = self.try_commit(batch).await;
            let result = match result {
                Ok(Tried::Done(state) | Tried::Nothing(state)) => {
                    *self.seen.0.lock() = since;
                    self.published.put(state);
                    Ok(())
                }
                // What is wrong with one of them must not stop the others.
                Err(e) if batch.len() > 1 && is_about_one(&e) => {
                    tracing::error!(error = %e, "directory: changes are committed one by one");
                    single.extend(batch.into_iter().rev().map(|change| vec![change]));
                    continue;
                }
                Err(e) => {
                    tracing::error!(error = %e, "directory: a change was not committed");
                    Err(match e {
                        CommitError::Unknown(why) => Failed::Unknown(why),
                        e => Failed::Not(e.to_string()),
                    })
                }
            };
            for change in batch {
                change.answer(result.clone());
            }
        }
    }

    async fn try_commit(
        &self,
        batch: Vec<Box<dyn Change>>,
    ) -> (Vec<Box<dyn Change>>, Result<Tried, CommitError>) {
        let name = BASE64.encode(random::<12>());
        let asked = Batch { name, changes: Mutex::new(batch), tries: AtomicU32::new(0) };
        let before = self.published.load();
        let result = self
            .pool
            .commit_idempotent(|tx| {
                let (asked, before) = (&asked, Snapshot::clone(&before));
                async move { attempt(&tx, asked, before, self.clock.now()).await }
            })
            .await;
        (asked.changes.into_inner(), result)
    }
}

/// Whether it may be the fault of one change among several.
fn is_about_one(error: &CommitError) -> bool {
    matches!(error, CommitError::Refused { .. } | CommitError::NotCommitted(PgError::Bug(_)))
}

/// Changes that are committed together.
struct Batch {
    /// By which the commit is known again.
    name: String,
    changes: Mutex<Vec<Box<dyn Change>>>,
    /// How often it has been tried.
    tries: AtomicU32,
}

/// One try to commit, in a transaction: of the state as it is when nobody else can change it.
async fn attempt(tx: &Tx, batch: &Batch, mut state: Snapshot, now: Timestamp) -> Result<Tried, PgError> {
    let row = tx.query_one(TAKE_TURN, &[]).await?;
    let turn = Turn::read(&Row::Postgres(&row)).map_err(|bad| PgError::Damaged(bad.0))?;
    let is_first = batch.tries.fetch_add(1, Ordering::Relaxed) == 0;
    if state.version != turn.version {
        follow(tx, &mut state, turn.version.clone()).await?;
        if !is_first && is_committed(tx, &batch.name).await? {
            // An earlier try was committed although nobody could tell. This one has changed nothing but the turn, and
            // its commit waits for the standbys, and so for the earlier one.
            return Ok(Tried::Done(state));
        }
    }
    let finished = {
        let mut draft = Draft::new(state.clone(), turn, now);
        batch.changes.lock().iter_mut().for_each(|change| change.run(&mut draft));
        draft.finish(&batch.name)
    };
    let Some((next, writes)) = finished else {
        tx.abandon();
        return Ok(Tried::Nothing(state));
    };
    for write in &writes {
        execute(tx, write).await?;
    }
    tx.query("SELECT pg_notify($1, '')", &[&CHANNEL]).await?;
    Ok(Tried::Done(next))
}

async fn is_committed(session: &Session, name: &str) -> Result<bool, PgError> {
    let sql = "SELECT version FROM directory.change WHERE batch = $1";
    Ok(!query(session, sql, &[name.into()]).await?.is_empty())
}
