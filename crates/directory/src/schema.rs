//! The file: how it is opened, and how an older one is brought up to date.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use crate::error::DirectoryError;

/// Each file is one step; a step that has been released is never changed.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];

/// Opens the database, makes it if it is not there, and migrates it.
pub(crate) fn open(path: &Path) -> Result<Connection, DirectoryError> {
    make_private(path)?;
    let mut db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    let damaged = |e: rusqlite::Error| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            DirectoryError::Damaged { path: path.to_owned(), what: e.to_string() }
        }
        _ => DirectoryError::Disk(e),
    };
    db.pragma_update(None, "journal_mode", "WAL").map_err(damaged)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut db, path)?;
    Ok(db)
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
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)", [])?;
    let found: i64 =
        tx.query_row("SELECT coalesce(max(version), 0) FROM schema_version", [], |row| row.get(0))?;
    if found > known {
        return Err(DirectoryError::Newer { path: path.to_owned(), found, known });
    }
    for (step, sql) in (1i64..).zip(MIGRATIONS).filter(|(step, _)| *step > found) {
        tx.execute_batch(sql)?;
        tx.execute("DELETE FROM schema_version", [])?;
        tx.execute("INSERT INTO schema_version (version) VALUES ($1)", params![step])?;
        tracing::info!(schema = step, "directory migrated");
    }
    tx.commit()?;
    Ok(())
}
