//! The start: what the last process left is looked at before anything new is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use mail::{DeliveryId, Event, EventKind, IdGenerator, MessageId, State, Timestamp};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use super::schema::{fact, set_fact};
use super::sums::{self, Effects, Standing};
use super::{outbox, schema, sql_error};
use crate::codec;
use crate::config::Config;
use crate::content::{Segment, SegmentId, list};
use crate::error::StoreError;
use crate::model::{Counts, Recovery};

/// What the start found, for the engine to begin with.
pub(crate) struct Start {
    pub(crate) conn: Connection,
    pub(crate) recovery: Recovery,
    pub(crate) counts: Counts,
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
    let mut segments: BTreeMap<_, _> = sums::segments(&conn).map_err(sql)?.into_iter().collect();
    for (id, segment) in &mut segments {
        segment.size = files.get(id).copied().unwrap_or(0);
    }
    let mut recovery = Recovery { clean: true, ..Recovery::default() };
    if schema::fact(&conn, fact::RUN).map_err(sql)?.is_some() {
        recovery.clean = schema::fact(&conn, fact::CLEAN).map_err(sql)? == Some(1);
    }
    let (last, done) = events(&conn, ids).map_err(sql)?;
    let tx = conn.unchecked_transaction().map_err(sql)?;
    let mut told = Told { conn: &tx, now, seq: last, scratch: Vec::new() };
    let mut effects = Effects::default();
    let run = recover(&tx, config, &mut recovery, &mut told, &mut effects)
        .and_then(|run| {
            quarantine_missing(&tx, &segments, &mut recovery, &mut told, &mut effects)?;
            effects.write_rows(&tx)?;
            Ok(run)
        })
        .map_err(sql)?;
    let counts = sums::counts(&tx).map_err(sql)?;
    recovery.deliveries = counts.all();
    let last_event = told.seq;
    tx.commit().map_err(sql)?;
    conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::TRUNCATE).map_err(sql)?;
    sync_dirs(&config.dir)?;
    advance_ids(&conn, ids).map_err(sql)?;
    Ok(Start { conn, recovery, counts, segments, run, last_event, events_done: done })
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

/// Settles what was active, counts crashes, and begins the run. Returns its number. What it looks at are the deliveries
/// that were in memory, found by indices of their own: never all that there are.
fn recover(
    conn: &Connection,
    config: &Config,
    recovery: &mut Recovery,
    told: &mut Told<'_>,
    effects: &mut Effects,
) -> rusqlite::Result<i64> {
    let now = told.now.0;
    let run = schema::fact(conn, fact::RUN)?.unwrap_or(0) + 1;
    let crash = i64::from(!recovery.clean);
    let mut crashed = Vec::new();
    let active = touched(
        conn,
        "UPDATE delivery INDEXED BY delivery_active SET state = 1, due = ?1, crashes = crashes + ?2 WHERE state = 0
         RETURNING message, idx, queue, crashes, due",
        (now, crash),
    )?;
    recovery.requeued = active.len() as u64;
    for found in active {
        effects.moved(Some((found.1, State::Active, None)), Some((found.1, State::Waiting, found.3)));
        crashed.push(found);
    }
    // Those that the last run paged in were waiting on disk all the same. Those of runs before it got away.
    let paged = touched(
        conn,
        "UPDATE delivery INDEXED BY delivery_claimed SET crashes = crashes + iif(claimed = ?1 AND state = 1, ?2, 0),
           claimed = NULL WHERE claimed IS NOT NULL RETURNING message, idx, queue, crashes, due",
        (run - 1, crash),
    )?;
    crashed.extend(paged.into_iter().filter(|(_, _, _, due)| due.is_some()));
    if crash == 1 {
        if let Some(attempted) = &config.attempted {
            acquit(conn, attempted, &mut crashed)?;
        }
        crashed.retain(|(_, _, crashes, _)| *crashes >= config.crashes_max);
        hold_crashers(conn, config.crashes_max, crashed, recovery, told, effects)?;
    }
    set_fact(conn, fact::RUN, run)?;
    set_fact(conn, fact::CLEAN, 0)?;
    Ok(run)
}

/// A delivery, its queue, its crashes and its due time.
type Touched = (DeliveryId, i64, u32, Option<i64>);

fn touched(conn: &Connection, sql: &str, values: (i64, i64)) -> rusqlite::Result<Vec<Touched>> {
    conn.prepare(sql)?
        .query_map(values, |row| {
            let id = DeliveryId { message: codec::message_id(row.get(0)?), index: row.get(1)? };
            Ok((id, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .collect()
}

/// Forgets the crashes of what only was in memory.
fn acquit(
    conn: &Connection,
    attempted: &BTreeSet<DeliveryId>,
    crashed: &mut Vec<Touched>,
) -> rusqlite::Result<()> {
    let mut forget = conn.prepare("UPDATE delivery SET crashes = 0 WHERE message = ?1 AND idx = ?2")?;
    for (id, ..) in crashed.iter().filter(|(id, ..)| !attempted.contains(id)) {
        forget.execute((codec::id(id.message), id.index))?;
    }
    crashed.retain(|(id, ..)| attempted.contains(id));
    Ok(())
}

fn hold_crashers(
    conn: &Connection,
    max: u32,
    crashers: Vec<Touched>,
    recovery: &mut Recovery,
    told: &mut Told<'_>,
    effects: &mut Effects,
) -> rusqlite::Result<()> {
    let reason = format!("the relay stopped {max} times in a row while this was being delivered");
    let mut hold = conn.prepare(
        "UPDATE delivery SET state = 2, due = NULL, reason = ?3 WHERE message = ?1 AND idx = ?2 AND state = 1",
    )?;
    for (id, queue, _, due) in crashers {
        if hold.execute((codec::id(id.message), id.index, &reason))? == 0 {
            continue;
        }
        effects.moved(Some((queue, State::Waiting, due)), Some((queue, State::Held, None)));
        told.tell(id.message, EventKind::Held { by: "posthouse".into(), reason: reason.clone() })?;
        recovery.held.push(id);
    }
    Ok(())
}

/// Rows whose content is behind the end of its file, or in no file, are damage: kept, and told of. Only where a file is
/// shorter than the rows say are they looked at.
fn quarantine_missing(
    conn: &Connection,
    segments: &BTreeMap<SegmentId, Segment>,
    recovery: &mut Recovery,
    told: &mut Told<'_>,
    effects: &mut Effects,
) -> rusqlite::Result<()> {
    for (id, segment) in segments.iter().filter(|(_, segment)| segment.size < segment.reach) {
        let range = (
            segment.first.cast_signed(),
            segment.last.cast_signed(),
            id.cast_signed(),
            segment.size.cast_signed(),
        );
        let missing: Vec<(i64, Standing)> = conn
            .prepare_cached(
                "SELECT d.message, d.queue, d.state, d.due FROM message m JOIN delivery d ON d.message = m.id
                 WHERE m.id BETWEEN ?1 AND ?2 AND m.segment = ?3 AND m.offset + m.length > ?4 AND d.state <> 4",
            )?
            .query_map(range, |row| {
                Ok((row.get(0)?, (row.get(1)?, codec::state(row.get(2)?)?, row.get(3)?)))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let reason =
            format!("the content is missing: {} is too short or gone", crate::content::file_name(*id));
        let mut set = conn.prepare_cached(
            "UPDATE delivery SET state = 4, due = NULL, reason = ?2, claimed = NULL WHERE message = ?1 AND state <> 4",
        )?;
        for (message, stood) in missing {
            // With the first of its deliveries all of them are.
            if set.execute((message, &reason))? > 0 {
                let message = codec::message_id(message);
                told.tell(message, EventKind::Damaged { reason: reason.clone() })?;
                recovery.quarantined.push(message);
            }
            effects.moved(Some(stood), Some((stood.0, State::Quarantined, None)));
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
    // Keys that outlive their message are behind the fact: the commit that takes one sets it.
    if let Some(last) =
        conn.query_row("SELECT max(id) FROM message", [], |row| row.get::<_, Option<i64>>(0))?
    {
        ids.advance_past(codec::message_id(last));
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
