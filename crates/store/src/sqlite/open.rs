//! The start: what the last process left is looked at before anything new is taken.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use mail::{DeliveryId, Event, EventKind, IdGenerator, MessageId, Timestamp};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use super::schema::{fact, set_fact};
use super::{codec, outbox, schema, sql_error};
use crate::config::Config;
use crate::content::{HEADER, Segment, SegmentId, list};
use crate::error::StoreError;
use crate::model::Recovery;

/// What the start found, for the engine to begin with.
pub(crate) struct Start {
    pub(crate) conn: Connection,
    pub(crate) recovery: Recovery,
    pub(crate) segments: BTreeMap<SegmentId, Segment>,
    /// The number of this start.
    pub(crate) run: i64,
    /// The last event's number, and up to where they have been handed on.
    pub(crate) last_event: u64,
    pub(crate) events_done: u64,
}

/// Name of the database in the data directory.
pub(crate) const DATABASE: &str = "queue.db";
/// Name of the directory with the content.
pub(crate) const CONTENT: &str = "content";

type Result<T> = std::result::Result<T, StoreError>;

/// Opens and recovers. The lock is held.
pub(crate) fn start(config: &Config, ids: &IdGenerator, now: Timestamp) -> Result<Start> {
    let conn = schema::open_writer(&config.dir.join(DATABASE))?;
    let sql = |e: rusqlite::Error| sql_error("recovering the queue", &e);
    // What the log holds is committed: into the database with it before anything is added.
    conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::TRUNCATE).map_err(sql)?;
    let files = list(&config.dir.join(CONTENT))?;
    let segments = segments(&conn, &files).map_err(sql)?;
    let mut recovery = Recovery { clean: true, ..Recovery::default() };
    if schema::fact(&conn, fact::RUN).map_err(sql)?.is_some() {
        recovery.clean = schema::fact(&conn, fact::CLEAN).map_err(sql)? == Some(1);
    }
    let (last, done) = events(&conn, ids).map_err(sql)?;
    let tx = conn.unchecked_transaction().map_err(sql)?;
    let mut told = Told { conn: &tx, now, seq: last, scratch: Vec::new() };
    let run = recover(&tx, config, &mut recovery, &mut told)
        .and_then(|run| quarantine_missing(&tx, &files, &segments, &mut recovery, &mut told).map(|()| run))
        .map_err(sql)?;
    let last_event = told.seq;
    tx.commit().map_err(sql)?;
    conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::TRUNCATE).map_err(sql)?;
    sync_dirs(&config.dir)?;
    advance_ids(&conn, ids).map_err(sql)?;
    Ok(Start { conn, recovery, segments, run, last_event, events_done: done })
}

/// Puts events into the outbox.
struct Told<'a> {
    conn: &'a Connection,
    now: Timestamp,
    seq: u64,
    scratch: Vec<u8>,
}

impl Told<'_> {
    fn tell(&mut self, message: MessageId, kind: EventKind) -> rusqlite::Result<()> {
        self.seq += 1;
        codec::encode(&Event { at: self.now, message, kind }, &mut self.scratch);
        self.conn
            .prepare_cached("INSERT INTO outbox (seq, event) VALUES (?1, ?2)")?
            .execute((self.seq.cast_signed(), &self.scratch))?;
        Ok(())
    }
}

/// Settles what was active, counts crashes, and begins the run. Returns its number.
fn recover(
    conn: &Connection,
    config: &Config,
    recovery: &mut Recovery,
    told: &mut Told<'_>,
) -> rusqlite::Result<i64> {
    let now = told.now.0;
    let run = schema::fact(conn, fact::RUN)?.unwrap_or(0) + 1;
    if recovery.clean {
        recovery.requeued =
            conn.execute("UPDATE delivery SET state = 1, due = ?1 WHERE state = 0", [now])? as u64;
        conn.execute("UPDATE delivery SET claimed = NULL WHERE claimed IS NOT NULL", [])?;
    } else {
        recovery.requeued = conn.execute(
            "UPDATE delivery SET state = 1, due = ?1, crashes = crashes + 1 WHERE state = 0",
            [now],
        )? as u64;
        // Those that the last run paged in were waiting on disk all the same.
        conn.execute(
            "UPDATE delivery SET crashes = crashes + 1, claimed = NULL WHERE claimed = ?1 AND state = 1",
            [run - 1],
        )?;
        hold_crashers(conn, config.crashes_max, recovery, told)?;
    }
    conn.execute("DELETE FROM queue WHERE id NOT IN (SELECT queue FROM delivery)", [])?;
    let all: i64 = conn.query_row("SELECT count(*) FROM delivery", [], |row| row.get(0))?;
    recovery.deliveries = all.cast_unsigned();
    set_fact(conn, fact::RUN, run)?;
    set_fact(conn, fact::CLEAN, 0)?;
    Ok(run)
}

fn hold_crashers(
    conn: &Connection,
    max: u32,
    recovery: &mut Recovery,
    told: &mut Told<'_>,
) -> rusqlite::Result<()> {
    let reason = format!("the relay stopped {max} times in a row while this was being delivered");
    let held: Vec<DeliveryId> = conn
        .prepare(
            "UPDATE delivery SET state = 2, due = NULL, reason = ?2 WHERE state = 1 AND crashes >= ?1
             RETURNING message, idx",
        )?
        .query_map((max, &reason), |row| {
            Ok(DeliveryId { message: codec::message_id(row.get(0)?), index: row.get(1)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    for id in &held {
        told.tell(id.message, EventKind::Held { by: "posthouse".into(), reason: reason.clone() })?;
    }
    recovery.held = held;
    Ok(())
}

/// What the rows say about the segments.
fn segments(
    conn: &Connection,
    files: &HashMap<SegmentId, u64>,
) -> rusqlite::Result<BTreeMap<SegmentId, Segment>> {
    conn.prepare("SELECT segment, count(*), sum(length), min(id), max(id) FROM message GROUP BY segment")?
        .query_map([], |row| {
            let id = row.get::<_, i64>(0)?.cast_unsigned();
            let records = row.get::<_, i64>(1)?.cast_unsigned();
            let segment = Segment {
                size: files.get(&id).copied().unwrap_or(0),
                live: row.get::<_, i64>(2)?.cast_unsigned() + records * HEADER as u64,
                records,
                first: row.get::<_, i64>(3)?.cast_unsigned(),
                last: row.get::<_, i64>(4)?.cast_unsigned(),
                ..Segment::default()
            };
            Ok((id, segment))
        })?
        .collect()
}

/// Rows whose content is behind the end of its file, or in no file, are damage: kept, and told of.
fn quarantine_missing(
    conn: &Connection,
    files: &HashMap<SegmentId, u64>,
    segments: &BTreeMap<SegmentId, Segment>,
    recovery: &mut Recovery,
    told: &mut Told<'_>,
) -> rusqlite::Result<()> {
    for (id, segment) in segments {
        let size = files.get(id).copied().unwrap_or(0);
        let missing: Vec<i64> = conn
            .prepare_cached(
                "SELECT id FROM message WHERE id BETWEEN ?1 AND ?2 AND segment = ?3 AND offset + length > ?4",
            )?
            .query_map(
                (
                    segment.first.cast_signed(),
                    segment.last.cast_signed(),
                    id.cast_signed(),
                    size.cast_signed(),
                ),
                |row| row.get(0),
            )?
            .collect::<rusqlite::Result<_>>()?;
        for message in missing {
            let reason =
                format!("the content is missing: {} is too short or gone", crate::content::file_name(*id));
            let n = conn
                .prepare_cached(
                    "UPDATE delivery SET state = 4, due = NULL, reason = ?2 WHERE message = ?1 AND state <> 4",
                )?
                .execute((message, &reason))?;
            if n > 0 {
                let message = codec::message_id(message);
                told.tell(message, EventKind::Damaged { reason })?;
                recovery.quarantined.push(message);
            }
        }
    }
    Ok(())
}

/// The last event's number and the last one handed on; ids that the events name are not given again.
fn events(conn: &Connection, ids: &IdGenerator) -> rusqlite::Result<(u64, u64)> {
    let done = schema::fact(conn, fact::OUTBOX_DONE)?.unwrap_or(0).cast_unsigned();
    let mut last = done;
    loop {
        let events = outbox::stored(conn, last, 1000)?;
        let Some((seq, _)) = events.last() else { return Ok((last, done)) };
        last = *seq;
        events.iter().for_each(|(_, event)| ids.advance_past(event.message));
    }
}

fn advance_ids(conn: &Connection, ids: &IdGenerator) -> rusqlite::Result<()> {
    if let Some(last) = schema::fact(conn, fact::LAST_ID)? {
        ids.advance_past(codec::message_id(last));
    }
    for table in ["SELECT max(id) FROM message", "SELECT max(message) FROM dedupe"] {
        if let Some(last) = conn.query_row(table, [], |row| row.get::<_, Option<i64>>(0))? {
            ids.advance_past(codec::message_id(last));
        }
    }
    Ok(())
}

/// The names of what was made are on stable storage, too: files in the directory, the directory in its parent, and so on,
/// as parents may have been made with it.
fn sync_dirs(dir: &Path) -> Result<()> {
    let failed = |at: &Path, e: std::io::Error| StoreError::io(format!("fsync of {}", at.display()), &e);
    let whole = dir.canonicalize().map_err(|e| failed(dir, e))?;
    for (level, at) in whole.ancestors().enumerate() {
        match File::open(at).and_then(|dir| dir.sync_all()) {
            Ok(()) => {}
            Err(error) if level == 0 => return Err(failed(at, error)),
            // Above it may be directories that we may not read; we did not make those.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => break,
            Err(error) if level == 1 => return Err(failed(at, error)),
            Err(error) => {
                tracing::debug!(%error, dir = %at.display(), "fsync of a directory above the data");
                break;
            }
        }
    }
    Ok(())
}
