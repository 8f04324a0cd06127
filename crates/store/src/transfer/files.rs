//! The embedded store as one side of a transfer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mail::{MessageId, Timestamp};
use parking_lot::Mutex;
use rusqlite::{Connection, Row, params};

use super::marks::{mark_of_dir, set_mark_of_dir};
use super::{Carried, Delivery, Key, Last, Mark, Queue, Recipient, Told, events_from, not_in_hand};
use crate::content::{CHUNK, ContentRef, HEADER, Header, SegmentId, Segments, make_dir};
use crate::error::StoreError;
use crate::health::Health;
use crate::lock::Lock;
use crate::memory::MemoryBudget;
use crate::sqlite::{open_writer, sql_error, stored_events};
use crate::{codec, sqlite};

type Result<T> = std::result::Result<T, StoreError>;
type Sql<T> = rusqlite::Result<T>;

/// A content file is closed at this size.
const SEGMENT: u64 = 64 << 20;
/// Events handed on at a time.
const EVENTS: usize = 1000;

pub(super) struct Files {
    dir: PathBuf,
    conn: Locked,
    segments: Segments,
    /// The content file that is written: its number, the file, its size.
    open: Mutex<Option<(SegmentId, File, u64)>>,
    _lock: Lock,
}

/// A connection that may be asked through a shared reference.
struct Locked(Mutex<Connection>);

impl Locked {
    /// One transaction, or a look.
    fn with<T>(&self, what: &str, work: impl FnOnce(&Connection) -> Sql<T>) -> Result<T> {
        let conn = self.0.lock();
        let tx = conn.unchecked_transaction().map_err(|e| sql_error(what, &e))?;
        let done = work(&tx).map_err(|e| sql_error(what, &e))?;
        tx.commit().map_err(|e| sql_error(what, &e))?;
        Ok(done)
    }
}

impl Files {
    pub(super) fn open(dir: &Path, aside: Option<(&str, &[&str])>) -> Result<Self> {
        make_dir(dir)?;
        let lock = Lock::take(dir)?;
        if let Some((name, others)) = aside {
            set_aside(dir, name, others)?;
        }
        let health = Arc::new(Health::new());
        let segments = Segments::open(dir.join(sqlite::CONTENT), MemoryBudget::new(64 << 20), health)?;
        let conn = open_writer(&dir.join(sqlite::DATABASE))?;
        // Here is nobody else who would move the log into the database.
        conn.execute_batch("PRAGMA wal_autocheckpoint = 1000;").map_err(|e| sql_error("the queue", &e))?;
        let conn = Locked(Mutex::new(conn));
        Ok(Self { dir: dir.to_owned(), conn, segments, open: Mutex::default(), _lock: lock })
    }

    pub(super) fn mark(&self) -> Result<Option<Mark>> {
        mark_of_dir(&self.dir)
    }

    pub(super) fn set_mark(&self, mark: Option<&Mark>) -> Result<()> {
        set_mark_of_dir(&self.dir, mark)
    }

    pub(super) fn is_empty(&self) -> Result<bool> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM message) AND NOT EXISTS (SELECT 1 FROM dedupe) \
            AND NOT EXISTS (SELECT 1 FROM outbox)";
        self.conn.with("reading the queue", |conn| conn.query_row(sql, [], |row| row.get(0)))
    }

    pub(super) fn clear(&self) -> Result<()> {
        *self.open.lock() = None;
        self.conn.with("clearing the queue", |conn| {
            conn.execute_batch(
                "DELETE FROM message; DELETE FROM delivery; DELETE FROM recipient; DELETE FROM queue; \
                 DELETE FROM segment; DELETE FROM dedupe; DELETE FROM note; DELETE FROM outbox;",
            )
        })?;
        self.segments.adopt(BTreeMap::new()).map(drop)
    }

    pub(super) fn outbox(&self) -> Result<Option<Told>> {
        let found = self.conn.with("reading the outbox", |conn| stored_events(conn, 0, EVENTS))?;
        Ok((!found.is_empty()).then_some((0, found)))
    }

    pub(super) fn outbox_done(&self, up_to: u64) -> Result<()> {
        let up_to = up_to.cast_signed();
        self.conn.with("emptying the outbox", |conn| {
            // A row of many goes when the last of them is handed on.
            conn.execute("DELETE FROM outbox WHERE seq <= ?1", [up_to])?;
            set_fact(conn, "outbox_done", up_to)
        })
    }

    pub(super) fn messages(&self, after: Option<MessageId>, n: usize) -> Result<Vec<Carried>> {
        let after = after.map_or(i64::MIN, codec::id);
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.conn.with("reading messages", |conn| {
            let mut found: Vec<Carried> = conn
                .prepare_cached(
                    "SELECT id, received_at, sender, segment, offset, length, crc, detail FROM message \
                     WHERE id > ?1 ORDER BY id LIMIT ?2",
                )?
                .query_map([after, n], message)?
                .collect::<Sql<_>>()?;
            let (Some(first), Some(last)) = (found.first(), found.last()) else { return Ok(found) };
            let span = [codec::id(first.id), codec::id(last.id)];
            add_deliveries(conn, span, &mut found)?;
            add_recipients(conn, span, &mut found)?;
            Ok(found)
        })
    }

    pub(super) fn count(&self) -> Result<u64> {
        let count = |conn: &Connection| {
            conn.query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0))
        };
        Ok(self.conn.with("counting messages", count)?.cast_unsigned())
    }

    pub(super) fn content(&self, of: &Carried) -> Result<Option<Vec<u8>>> {
        let content = match self.segments.read(&of.at) {
            Ok(Some(content)) => content,
            Ok(None) | Err(StoreError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        while (all.len() as u64) < of.length {
            let piece = content
                .chunk_blocking(all.len() as u64, CHUNK)
                .map_err(|e| StoreError::io("reading content", &e))?;
            all.extend_from_slice(&piece);
        }
        Ok(Some(all))
    }

    pub(super) fn last(&self) -> Result<Option<MessageId>> {
        let last = |conn: &Connection| {
            conn.query_row("SELECT max(id) FROM message", [], |r| r.get::<_, Option<i64>>(0))
        };
        Ok(self.conn.with("reading the last message", last)?.map(codec::message_id))
    }

    pub(super) fn put(&self, messages: &[(Carried, Option<Vec<u8>>)]) -> Result<()> {
        let places = self.write_content(messages)?;
        self.conn.with("writing messages", |conn| {
            for ((message, _), (segment, offset)) in messages.iter().zip(&places) {
                conn.prepare_cached(
                    "INSERT INTO message (id, received_at, sender, segment, offset, length, crc, detail) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    codec::id(message.id),
                    message.received_at,
                    message.sender,
                    segment.cast_signed(),
                    offset.cast_signed(),
                    message.length.cast_signed(),
                    message.crc,
                    message.detail
                ])?;
                for delivery in &message.deliveries {
                    put_delivery(conn, codec::id(message.id), delivery)?;
                }
            }
            Ok(())
        })
    }

    /// Puts content on stable storage; returns where it is.
    fn write_content(&self, messages: &[(Carried, Option<Vec<u8>>)]) -> Result<Vec<(SegmentId, u64)>> {
        let mut open = self.open.lock();
        let mut places = Vec::with_capacity(messages.len());
        let failed = |e: std::io::Error| StoreError::io("writing content", &e);
        for (message, content) in messages {
            if let Some((_, file, _)) = open.take_if(|(_, _, size)| *size >= SEGMENT) {
                file.sync_all().map_err(failed)?;
            }
            let (id, file, size) = match &mut *open {
                Some(open) => open,
                none => {
                    let (id, file) = self.segments.create_file()?;
                    self.segments.sync_dir()?;
                    none.insert((id, file, 0))
                }
            };
            let header = Header { message: message.id, length: message.length, crc: message.crc };
            file.write_all(&header.encode()).map_err(failed)?;
            match content {
                Some(content) => file.write_all(content).map_err(failed)?,
                // What cannot be read is found out again: the checksum says so.
                None => {
                    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), message.length), file)
                        .map_err(failed)?;
                }
            }
            places.push((*id, *size + HEADER as u64));
            *size += HEADER as u64 + message.length;
        }
        if let Some((_, file, _)) = &*open {
            file.sync_all().map_err(failed)?;
        }
        Ok(places)
    }

    pub(super) fn keys(&self, after: Option<&Key>, n: usize) -> Result<Vec<Key>> {
        let (org, key) = after.map_or((i64::MIN, &[][..]), |k| (k.org, &k.key));
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.conn.with("reading dedupe keys", |conn| {
            conn.prepare_cached(
                "SELECT org, key, expires, message FROM dedupe WHERE (org, key) > (?1, ?2) ORDER BY org, key LIMIT ?3",
            )?
            .query_map(params![org, key, n], |row| {
                Ok(Key { org: row.get(0)?, key: row.get(1)?, expires: row.get(2)?, message: row.get(3)? })
            })?
            .collect()
        })
    }

    pub(super) fn put_keys(&self, keys: &[Key]) -> Result<()> {
        self.conn.with("writing dedupe keys", |conn| {
            let mut put = conn
                .prepare_cached("REPLACE INTO dedupe (org, key, expires, message) VALUES (?1, ?2, ?3, ?4)")?;
            keys.iter().try_for_each(|k| put.execute(params![k.org, k.key, k.expires, k.message]).map(drop))
        })
    }

    pub(super) fn notes(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.conn.with("reading notes", |conn| {
            conn.prepare("SELECT name, value FROM note ORDER BY name")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
    }

    pub(super) fn put_notes(&self, notes: &[(String, Vec<u8>)]) -> Result<()> {
        self.conn.with("writing notes", |conn| {
            let mut put = conn.prepare("REPLACE INTO note (name, value) VALUES (?1, ?2)")?;
            notes.iter().try_for_each(|(name, value)| put.execute(params![name, value]).map(drop))
        })
    }

    pub(super) fn finish(&self, last: &Last, now: Timestamp) -> Result<()> {
        let known = last.events.get(&0).copied().unwrap_or(0);
        let events = events_from(known, now).cast_signed();
        self.conn.with("summing up the queue", |conn| {
            // As migrations/0002.sql made them for the first time.
            conn.execute_batch(
                "DELETE FROM segment;
                 INSERT INTO segment (id, records, live, reach, first, last)
                   SELECT segment, count(*), sum(length) + 24 * count(*), max(offset + length), min(id), max(id)
                   FROM message GROUP BY segment;
                 UPDATE meta SET value = (SELECT count(*) FROM delivery WHERE state = CASE name WHEN 'active' THEN 0
                     WHEN 'waiting' THEN 1 WHEN 'held' THEN 2 WHEN 'sandboxed' THEN 3 ELSE 4 END)
                   WHERE name IN ('active', 'waiting', 'held', 'sandboxed', 'quarantined');
                 UPDATE queue SET
                   waiting = (SELECT count(*) FROM delivery d WHERE d.queue = queue.id AND d.due IS NOT NULL),
                   due = (SELECT min(due) FROM delivery d WHERE d.queue = queue.id AND d.due IS NOT NULL);",
            )?;
            set_fact(conn, "outbox_done", events)?;
            set_fact(conn, "run", 1)?;
            set_fact(conn, "clean", 1)?;
            last.id.map_or(Ok(()), |id| set_fact(conn, "last_id", codec::id(id)))
        })
    }
}

fn set_fact(conn: &Connection, name: &str, value: i64) -> Sql<()> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
    conn.execute(sql, params![name, value]).map(drop)
}

fn message(row: &Row<'_>) -> Sql<Carried> {
    let id = codec::message_id(row.get(0)?);
    let (length, crc): (i64, u32) = (row.get(5)?, row.get(6)?);
    let length = length.cast_unsigned();
    let (segment, offset): (i64, i64) = (row.get(3)?, row.get(4)?);
    let (segment, offset) = (segment.cast_unsigned(), offset.cast_unsigned());
    Ok(Carried {
        id,
        received_at: row.get(1)?,
        sender: row.get(2)?,
        length,
        crc,
        detail: row.get(7)?,
        deliveries: Vec::new(),
        at: ContentRef { message: id, segment, offset, length, crc },
    })
}

/// Who a row belongs to, in a page that is in order.
fn owner(page: &mut [Carried], id: i64) -> Option<&mut Carried> {
    let id = codec::message_id(id);
    page.binary_search_by_key(&id, |m| m.id).ok().and_then(|at| page.get_mut(at))
}

fn add_deliveries(conn: &Connection, span: [i64; 2], page: &mut [Carried]) -> Sql<()> {
    let mut select = conn.prepare_cached(
        "SELECT d.message, d.idx, q.org, q.stream, q.destination, d.state, d.due, d.attempts, d.crashes, d.warned, \
         d.reason, d.n, d.address, d.status, d.detail, d.outcome FROM delivery d JOIN queue q ON q.id = d.queue \
         WHERE d.message BETWEEN ?1 AND ?2 ORDER BY d.message, d.idx",
    )?;
    let mut rows = select.query(span)?;
    while let Some(row) = rows.next()? {
        let Some(message) = owner(page, row.get(0)?) else { continue };
        let (state, due) = not_in_hand(row.get(5)?, row.get(6)?, message.received_at);
        // PostgreSQL keeps no text with a NUL in it.
        let reason = row.get::<_, Option<String>>(10)?.map(|text| text.replace('\0', "\u{fffd}"));
        let only = row.get::<_, Option<String>>(12)?;
        let only = only.map(|address| {
            Ok(Recipient {
                number: row.get(11)?,
                address,
                status: row.get(13)?,
                detail: row.get(14)?,
                outcome: row.get(15)?,
            })
        });
        message.deliveries.push(Delivery {
            index: row.get(1)?,
            queue: Queue { org: row.get(2)?, stream: row.get(3)?, destination: row.get(4)? },
            state,
            due,
            attempts: row.get(7)?,
            crashes: row.get(8)?,
            warned: row.get(9)?,
            reason,
            recipients: only.transpose_one()?,
        });
    }
    Ok(())
}

/// The only recipient, or none.
trait TransposeOne {
    fn transpose_one(self) -> Sql<Vec<Recipient>>;
}

impl TransposeOne for Option<Sql<Recipient>> {
    fn transpose_one(self) -> Sql<Vec<Recipient>> {
        Ok(self.transpose()?.into_iter().collect())
    }
}

fn add_recipients(conn: &Connection, span: [i64; 2], page: &mut [Carried]) -> Sql<()> {
    let mut select = conn.prepare_cached(
        "SELECT message, delivery, n, address, status, detail, outcome FROM recipient \
         WHERE message BETWEEN ?1 AND ?2 ORDER BY message, delivery, n",
    )?;
    let mut rows = select.query(span)?;
    while let Some(row) = rows.next()? {
        let (message, index): (i64, u16) = (row.get(0)?, row.get(1)?);
        let message = owner(page, message);
        let Some(delivery) = message.and_then(|m| m.deliveries.iter_mut().find(|d| d.index == index)) else {
            continue;
        };
        delivery.recipients.push(Recipient {
            number: row.get(2)?,
            address: row.get(3)?,
            status: row.get(4)?,
            detail: row.get(5)?,
            outcome: row.get(6)?,
        });
    }
    Ok(())
}

fn put_delivery(conn: &Connection, message: i64, delivery: &Delivery) -> Sql<()> {
    let Queue { org, stream, destination } = &delivery.queue;
    conn.prepare_cached(
        "INSERT INTO queue (org, stream, destination) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?
    .execute(params![org, stream, destination])?;
    let queue: i64 = conn
        .prepare_cached("SELECT id FROM queue WHERE org = ?1 AND stream = ?2 AND destination = ?3")?
        .query_row(params![org, stream, destination], |row| row.get(0))?;
    let only = match delivery.recipients.as_slice() {
        [only] => Some(only),
        _ => None,
    };
    conn.prepare_cached(
        "INSERT INTO delivery (message, idx, queue, state, due, attempts, crashes, warned, reason, n, address, status, \
         detail, outcome) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        message,
        delivery.index,
        queue,
        delivery.state,
        delivery.due,
        delivery.attempts,
        delivery.crashes,
        delivery.warned,
        delivery.reason,
        only.map(|r| r.number),
        only.map(|r| &r.address),
        only.map_or(0, |r| r.status),
        only.and_then(|r| r.detail.as_ref()),
        only.and_then(|r| r.outcome.as_ref()),
    ])?;
    let several = if only.is_some() { &[][..] } else { &delivery.recipients };
    let mut put = conn.prepare_cached(
        "INSERT INTO recipient (message, delivery, n, address, status, detail, outcome) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    several.iter().try_for_each(|r| {
        put.execute(params![message, delivery.index, r.number, r.address, r.status, r.detail, r.outcome])
            .map(drop)
    })
}

/// Moves what was here before into a directory of its own, where it is kept until somebody deletes it.
fn set_aside(dir: &Path, name: &str, others: &[&str]) -> Result<()> {
    let to = dir.join(name);
    let failed = |e: std::io::Error| StoreError::io(format!("setting aside into {}", to.display()), &e);
    make_dir(&to)?;
    let own = [sqlite::DATABASE, "queue.db-wal", "queue.db-shm", sqlite::CONTENT];
    for file in own.iter().chain(others) {
        match fs::rename(dir.join(file), to.join(file)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(failed)?,
        }
    }
    File::open(&to).and_then(|f| f.sync_all()).and_then(|()| File::open(dir)?.sync_all()).map_err(failed)
}
