//! One file of history: its tables, what is appended to it, and what is read from it.

use std::fs::{File as OsFile, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mail::{Event, MessageId, Timestamp};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use super::runs;
use crate::batch::{Batch, EventRow};
use crate::error::HistoryError;
use crate::key;
use crate::record;

/// The form of the tables. A file with a larger number was written by a newer version and is left alone.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta (name, value) VALUES ('last', 0), ('first_at', 9223372036854775807), ('last_at', 0);
    -- One row a message. open: recipients whose delivery is not in the row.
    CREATE TABLE message (id INTEGER PRIMARY KEY, open INTEGER NOT NULL, body BLOB NOT NULL);
    -- What does not fit into that row.
    CREATE TABLE event (row INTEGER PRIMARY KEY, message INTEGER NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
        transcript BLOB);
    CREATE INDEX event_message ON event (message);
";

/// A file that is open for writing or for reading.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) db: Connection,
}

/// When the messages of a file were accepted, and the number of its last event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) last: u64,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
}

impl File {
    /// Makes a new file; only the relay's own user may read it.
    pub(crate) fn create(path: &Path) -> Result<Self, HistoryError> {
        let at_fault = |source| HistoryError::Io { path: path.to_owned(), source };
        let made =
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).map_err(at_fault)?;
        made.sync_all().map_err(at_fault)?;
        let db = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let file = Self { path: path.to_owned(), db };
        file.sql(|db| {
            db.execute_batch("BEGIN")?;
            db.execute_batch(SCHEMA)?;
            db.execute_batch(runs::SCHEMA)?;
            db.pragma_update(None, "user_version", FORMAT)?;
            db.execute_batch("COMMIT")
        })?;
        // The file's name has to be as safe as what will be in it.
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        OsFile::open(parent).and_then(|d| d.sync_all()).map_err(at_fault)?;
        Ok(file)
    }

    /// Opens a file to append to it.
    pub(crate) fn open(path: &Path) -> Result<Self, HistoryError> {
        Self::existing(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// Opens a file to read from it.
    pub(crate) fn read(path: &Path) -> Result<Self, HistoryError> {
        Self::existing(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn existing(path: &Path, flags: OpenFlags) -> Result<Self, HistoryError> {
        let file = Self { path: path.to_owned(), db: Self::connect(path, flags)? };
        let format: i64 = file.sql(|db| db.pragma_query_value(None, "user_version", |row| row.get(0)))?;
        match format {
            FORMAT => Ok(file),
            0 => Err(file.damaged("it was never finished")),
            newer => Err(HistoryError::Newer { path: path.to_owned(), found: newer, known: FORMAT }),
        }
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, HistoryError> {
        let at_fault = |source| HistoryError::Disk { path: path.to_owned(), source };
        let db =
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(at_fault)?;
        db.busy_timeout(std::time::Duration::from_secs(5)).map_err(at_fault)?;
        if flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
            db.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 2000;",
            )
            .map_err(at_fault)?;
        }
        db.set_prepared_statement_cache_capacity(32);
        Ok(db)
    }

    /// Runs SQL, naming this file in the error.
    pub(crate) fn sql<T>(
        &self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, HistoryError> {
        run(&self.db).map_err(|source| HistoryError::Disk { path: self.path.clone(), source })
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> HistoryError {
        HistoryError::Damaged { path: self.path.clone(), what: what.into() }
    }

    /// When its messages were accepted.
    pub(crate) fn span(&self) -> Result<Span, HistoryError> {
        let value = |name: &str| {
            self.sql(|db| {
                db.prepare_cached("SELECT value FROM meta WHERE name = $1")?
                    .query_row([name], |row| row.get::<_, i64>(0))
            })
        };
        Ok(Span {
            last: u64::try_from(value("last")?).unwrap_or(0),
            first_at: Timestamp(value("first_at")?),
            last_at: Timestamp(value("last_at")?),
        })
    }

    /// Octets, without what is in the write-ahead log alone.
    pub(crate) fn size(&self) -> Result<u64, HistoryError> {
        let pages: i64 = self.sql(|db| db.pragma_query_value(None, "page_count", |row| row.get(0)))?;
        let page: i64 = self.sql(|db| db.pragma_query_value(None, "page_size", |row| row.get(0)))?;
        Ok(u64::try_from(pages * page).unwrap_or(0))
    }

    /// Appends a batch in one transaction, which is on stable storage when this returns.
    pub(crate) fn append(&mut self, batch: &Batch, last: u64) -> Result<(), HistoryError> {
        let path = self.path.clone();
        let at_fault = |source| HistoryError::Disk { path: path.clone(), source };
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(at_fault)?;
        write(&tx, batch, last).map_err(at_fault)?;
        tx.commit().map_err(at_fault)
    }

    /// Takes over rows from a file that is about to be dropped.
    pub(crate) fn adopt(&mut self, carried: &Carried) -> Result<(), HistoryError> {
        let path = self.path.clone();
        let at_fault = |source| HistoryError::Disk { path: path.clone(), source };
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(at_fault)?;
        let write = || {
            let (mut entries, mut folding) = (Vec::new(), String::new());
            for (id, open, body) in &carried.messages {
                let put = tx
                    .prepare_cached(
                        "INSERT INTO message (id, open, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                    )?
                    .execute(params![id, open, body])?;
                if let (1, Ok(accepted)) = (put, record::read_accepted(body)) {
                    key::add_keys(&accepted, &mut entries, &mut folding);
                }
            }
            for (message, seq, body, transcript) in &carried.events {
                insert_event(&tx, *message, *seq, body, transcript.as_deref())?;
            }
            runs::write(&tx, &mut entries)?;
            match carried.accepted {
                Some(span) => widen(&tx, span),
                None => Ok(()),
            }
        };
        write().map_err(at_fault)?;
        tx.commit().map_err(at_fault)
    }

    /// The row of a message.
    pub(crate) fn message(&self, id: MessageId) -> Result<Option<Vec<u8>>, HistoryError> {
        self.sql(|db| {
            db.prepare_cached("SELECT body FROM message WHERE id = $1")?
                .query_row([number(id)], |row| row.get(0))
                .optional()
        })
    }

    /// The events of a message that have rows of their own.
    pub(crate) fn events(&self, id: MessageId, into: &mut Vec<(u64, Event)>) -> Result<(), HistoryError> {
        let rows: Vec<(i64, Vec<u8>, Option<Vec<u8>>)> = self.sql(|db| {
            db.prepare_cached("SELECT seq, body, transcript FROM event WHERE message = $1")?
                .query_map([number(id)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        for (seq, body, transcript) in rows {
            let event =
                record::read_event(&body, transcript.as_deref()).map_err(|bad| self.damaged(bad.0))?;
            into.push((seq.cast_unsigned(), event));
        }
        Ok(())
    }
}

/// An event's row: message, number, body, transcript.
pub(crate) type Columns = (i64, i64, Vec<u8>, Option<Vec<u8>>);

/// Rows that go from one file into another.
#[derive(Default)]
pub(crate) struct Carried {
    /// Message, open, body.
    pub(crate) messages: Vec<(i64, i64, Vec<u8>)>,
    pub(crate) events: Vec<Columns>,
    /// The earliest and the latest acceptance among them.
    pub(crate) accepted: Option<(Timestamp, Timestamp)>,
}

/// Ids have 63 bits.
pub(crate) fn number(id: MessageId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}

fn write(tx: &Transaction<'_>, batch: &Batch, last: u64) -> rusqlite::Result<()> {
    {
        let mut insert = tx.prepare_cached(
            "INSERT INTO message (id, open, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )?;
        for row in &batch.rows {
            if insert.execute(params![number(row.id), row.open, row.body])? == 1 {
                continue;
            }
            for (sign, tail, recipients) in row.folds() {
                add_fold(tx, row.id, tail, sign, recipients)?;
            }
        }
    }
    for loose in &batch.loose {
        if !add_fold(tx, loose.id, &loose.tail, loose.sign(), loose.event.delivered)? {
            insert_row(tx, &loose.event)?;
        }
    }
    batch.events.iter().try_for_each(|row| insert_row(tx, row))?;
    runs::write(tx, &mut batch.entries.clone())?;
    tx.prepare_cached("UPDATE meta SET value = $1 WHERE name = 'last'")?.execute([last.cast_signed()])?;
    batch.accepted.map_or(Ok(()), |span| widen(tx, span))
}

fn widen(tx: &Transaction<'_>, (first, last): (Timestamp, Timestamp)) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE meta SET value = min(value, $1) WHERE name = 'first_at'")?
        .execute([first.millis()])?;
    tx.prepare_cached("UPDATE meta SET value = max(value, $1) WHERE name = 'last_at'")?
        .execute([last.millis()])?;
    Ok(())
}

fn insert_row(tx: &Transaction<'_>, row: &EventRow) -> rusqlite::Result<()> {
    insert_event(tx, number(row.message), row.number.cast_signed(), &row.body, row.transcript.as_deref())
}

/// Adds an attempt to a message's row, unless the row tells of it already. False when there is no such row, or one of an
/// older form.
fn add_fold(
    tx: &Transaction<'_>,
    id: MessageId,
    tail: &[u8],
    told: &[u8],
    recipients: i32,
) -> rusqlite::Result<bool> {
    let updated = tx
        .prepare_cached(
            "UPDATE message SET body = CASE WHEN instr(body, $1) > 0 THEN body ELSE CAST(body || $2 AS BLOB) END, \
             open = CASE WHEN instr(body, $1) > 0 THEN open ELSE open - $3 END \
             WHERE id = $4 AND substr(body, 1, 1) = $5",
        )?
        .execute(params![told, tail, recipients, number(id), [record::VERSION]])?;
    Ok(updated == 1)
}

fn insert_event(
    tx: &Transaction<'_>,
    message: i64,
    seq: i64,
    body: &[u8],
    transcript: Option<&[u8]>,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO event (message, seq, body, transcript) VALUES ($1, $2, $3, $4)")?
        .execute(params![message, seq, body, transcript])?;
    Ok(())
}
