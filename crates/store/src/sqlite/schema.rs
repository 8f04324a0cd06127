//! Opening `queue.db`: the SQLite version, its settings, the schema version and the numbered migrations.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::sql_error;
use crate::error::StoreError;

/// Older ones can corrupt the database when a writer and a checkpointer meet at a reset of the write-ahead log.
const SQLITE_MIN: i32 = 3_051_003;

/// One file a step; its place is the version it leads to.
const MIGRATIONS: &[&str] =
    &[include_str!("../../migrations/0001.sql"), include_str!("../../migrations/0002.sql")];

/// The newest schema version that this program knows.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// From this version on files are made so that pages can be given back.
const GIVES_BACK: u32 = 2;
/// An older file is written anew for that if it is no larger than this many pages (64 MiB): it delays the start.
const ANEW_MAX: i64 = 16 << 10;

/// Facts in the table `meta`.
pub(crate) mod fact {
    /// 1 after the store was closed, 0 while it is open.
    pub(crate) const CLEAN: &str = "clean";
    /// Counts the starts.
    pub(crate) const RUN: &str = "run";
    /// Events up to this number have been handed on.
    pub(crate) const OUTBOX_DONE: &str = "outbox_done";
    /// No id up to this one may be given again.
    pub(crate) const LAST_ID: &str = "last_id";
}

/// The writer's connection: makes the file if needed, refuses a newer schema, migrates an older one.
pub(crate) fn open_writer(file: &Path) -> Result<Connection, StoreError> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(StoreError::Invalid(format!(
            "SQLite {} is too old: 3.51.3 is the first that is safe here",
            rusqlite::version()
        )));
    }
    make_private(file).map_err(|e| StoreError::io("making the queue", &e))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(file, flags).map_err(|e| sql_error("opening the queue", &e))?;
    let found = version(&conn).map_err(|e| sql_error("reading the schema version", &e))?;
    if found > VERSION {
        return Err(StoreError::Newer { file: file.to_owned(), found, known: VERSION });
    }
    let prepare = || {
        if found == 0 {
            // What is freed can be given back to the disk. To be said before there is anything in the file.
            conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;")?;
        }
        settings(&conn)?;
        migrate(&conn, found)?;
        if found > 0 && found < GIVES_BACK { give_back(&conn) } else { Ok(()) }
    };
    prepare().map_err(|e| sql_error("preparing the queue", &e))?;
    Ok(conn)
}

/// Makes the file if it is not there, for nobody else to read. SQLite gives its log the same mode.
fn make_private(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file).map(drop)
}

/// A connection that only reads.
pub(crate) fn open_reader(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(file, flags)?;
        conn.busy_timeout(Duration::from_secs(10))?;
        conn.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -512; PRAGMA temp_store = MEMORY;")?;
        conn.set_prepared_statement_cache_capacity(32);
        Ok(conn)
    };
    open().map_err(|e| sql_error("opening the queue", &e))
}

/// The schema version in a database file; 0 for an empty one.
pub(crate) fn version(conn: &Connection) -> rusqlite::Result<u32> {
    let known = conn
        .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_version'", [], |_| {
            Ok(())
        })
        .optional()?;
    match known {
        None => Ok(0),
        Some(()) => conn.query_row("SELECT version FROM schema_version", [], |row| row.get(0)),
    }
}

pub(crate) fn fact(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(crate) fn set_fact(conn: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
    )?
    .execute((name, value))?;
    Ok(())
}

fn settings(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.set_prepared_statement_cache_capacity(64);
    // A commit is durable before anybody is told of it; checkpoints are made by a thread of their own.
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF;",
    )
}

/// Makes an older file one that gives pages back.
fn give_back(conn: &Connection) -> rusqlite::Result<()> {
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages > ANEW_MAX {
        tracing::info!("queue.db keeps its size: an older Posthouse made it");
        return Ok(());
    }
    conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")
}

fn migrate(conn: &Connection, found: u32) -> rusqlite::Result<()> {
    if found == VERSION {
        return Ok(());
    }
    let tx = conn.unchecked_transaction()?;
    if found == 0 {
        tx.execute_batch(
            "CREATE TABLE schema_version (version INTEGER NOT NULL); INSERT INTO schema_version VALUES (0);",
        )?;
    }
    for step in MIGRATIONS.iter().skip(found as usize) {
        tx.execute_batch(step)?;
    }
    tx.execute("UPDATE schema_version SET version = ?1", [VERSION])?;
    tx.commit()
}
