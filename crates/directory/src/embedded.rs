//! The directory in a file of its own: SQLite, and the one thread that writes to it. It takes whatever waits, commits it
//! together, publishes the new snapshot, and only then answers.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::hmac;
use mail::Clock;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params, params_from_iter};

use crate::db::{Bad, Row, Value, Write};
use crate::draft::{Change, Draft, Failed, TAKE_TURN, Turn};
use crate::error::DirectoryError;
use crate::load::{self, FAKE_KEY};
use crate::schema::{for_sqlite, sqlite};
use crate::snapshot::Snapshot;
use crate::writer::{Job, Jobs, Published, gather};

/// Opens the database, makes it if it is not there, and migrates it.
pub(crate) fn connect(path: &Path) -> Result<Connection, DirectoryError> {
    make_private(path)?;
    let mut db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    let unreadable = |e: rusqlite::Error| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            damaged(path, &e.to_string())
        }
        _ => DirectoryError::Disk(e),
    };
    db.pragma_update(None, "journal_mode", "WAL").map_err(unreadable)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut db, path)?;
    Ok(db)
}

/// The same, and reads all of it.
pub(crate) fn open(path: &Path, clock: &Clock) -> Result<(Connection, Snapshot, hmac::Key), DirectoryError> {
    let mut db = connect(path)?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for Write { sql, values } in load::founding(clock.now()) {
        tx.execute(&sqlite(sql), params_from_iter(values))?;
    }
    tx.commit()?;
    let key: Option<String> = db.query_row(&sqlite(FAKE_KEY), [], |row| row.get(0)).optional()?;
    let state = everything(&db, path)?;
    Ok((db, state, load::fake_key(key.as_deref())))
}

fn damaged(path: &Path, what: &str) -> DirectoryError {
    DirectoryError::Damaged { place: path.display().to_string(), what: what.to_owned() }
}

/// The file holds verifiers and smart host passwords: nobody else may read it. SQLite gives its `-wal` and `-shm`
/// files the same mode.
fn make_private(path: &Path) -> Result<(), DirectoryError> {
    let at_fault = |source| DirectoryError::Io { path: path.to_owned(), source };
    if path.exists() {
        return Ok(());
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(at_fault)?;
    file.sync_all().map_err(at_fault)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|d| d.sync_all()).map_err(at_fault)
}

fn migrate(db: &mut Connection, path: &Path) -> Result<(), DirectoryError> {
    let steps = for_sqlite();
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)", [])?;
    let found: i64 =
        tx.query_row("SELECT coalesce(max(version), 0) FROM schema_version", [], |row| row.get(0))?;
    if found > known {
        return Err(DirectoryError::Newer { path: path.to_owned(), found, known });
    }
    for (step, sql) in (1i64..).zip(&steps).filter(|(step, _)| *step > found) {
        tx.execute_batch(sql)?;
        tx.execute("DELETE FROM schema_version", [])?;
        tx.execute("INSERT INTO schema_version (version) VALUES ($1)", params![step])?;
        tracing::info!(schema = step, "directory migrated");
    }
    tx.commit()?;
    Ok(())
}

fn everything(db: &Connection, path: &Path) -> Result<Snapshot, DirectoryError> {
    let mut state = Snapshot::default();
    for mut ask in load::everything() {
        let unreadable = |bad: &Bad| damaged(path, &format!("table {}: {bad}", ask.table));
        let mut values = std::mem::take(&mut ask.values);
        loop {
            let mut take = |row: &Row<'_>| ask.take.row(row, &mut state);
            each(db, &ask.sql, &values, &mut take).map_err(|bad| unreadable(&bad))?;
            match ask.take.more() {
                Some(more) => values = more,
                None => break,
            }
        }
        ask.take.end(&mut state);
    }
    Ok(state)
}

/// Runs a question and hands over its rows.
pub(crate) fn each(
    db: &Connection,
    sql: &str,
    values: &[Value],
    take: &mut dyn FnMut(&Row<'_>) -> Result<(), Bad>,
) -> Result<(), Bad> {
    let bad = |e: rusqlite::Error| Bad(e.to_string());
    let mut statement = db.prepare_cached(&sqlite(sql)).map_err(bad)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(bad)?;
    while let Some(row) = rows.next().map_err(bad)? {
        take(&Row::Sqlite(row))?;
    }
    Ok(())
}

/// Runs until it is told to close or nobody is left to ask.
pub(crate) fn run(mut db: Connection, mut jobs: Jobs, published: &Published, clock: &Clock) {
    let mut waiting: Option<Job> = None;
    while let Some(job) = waiting.take().or_else(|| jobs.blocking_recv()) {
        match job {
            Job::Close => break,
            Job::Read(read) => read(&db),
            Job::Change(first) => {
                let batch;
                (batch, waiting) = gather(first, &mut jobs);
                commit(&mut db, batch, published, clock);
            }
        }
    }
}

fn commit(db: &mut Connection, mut batch: Vec<Box<dyn Change>>, published: &Published, clock: &Clock) {
    let result = try_commit(db, &mut batch, published, clock);
    if let Err(e) = &result {
        tracing::error!(error = %e, "directory: a change was not committed");
        // What is wrong with one of them must not stop the others.
        if batch.len() > 1 && e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) {
            return batch.into_iter().for_each(|change| commit(db, vec![change], published, clock));
        }
    }
    let result = result.map_err(|e| Failed::Not(e.to_string()));
    for change in batch {
        change.answer(result.clone());
    }
}

fn try_commit(
    db: &mut Connection,
    batch: &mut [Box<dyn Change>],
    published: &Published,
    clock: &Clock,
) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let turn = take_turn(&tx)?;
    let mut draft = Draft::new(Snapshot::clone(&published.load()), turn, clock.now());
    for change in batch {
        change.run(&mut draft);
    }
    // Nobody else writes to this file, so that a commit needs no name of its own.
    let Some((next, writes)) = draft.finish("") else { return Ok(()) };
    for Write { sql, values } in writes {
        tx.prepare_cached(&sqlite(sql))?.execute(params_from_iter(values))?;
    }
    tx.commit()?;
    published.put(next);
    Ok(())
}

fn take_turn(tx: &Transaction<'_>) -> rusqlite::Result<Turn> {
    let mut statement = tx.prepare_cached(&sqlite(TAKE_TURN))?;
    let read = |row: &rusqlite::Row<'_>| Turn::read(&Row::Sqlite(row));
    let turn = statement.query_row([], |row| Ok(read(row)))?;
    turn.map_err(|bad| rusqlite::Error::ToSqlConversionFailure(bad.to_string().into()))
}
