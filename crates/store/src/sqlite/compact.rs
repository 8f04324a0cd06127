//! Compaction: when too much of the disk is held by segments with little left in them, what is left is moved together.
//! Copy, fdatasync, fsync of the directory, commit of the references, and only then the old files go.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use mail::MessageId;
use rusqlite::Connection;

use super::inbox::Op;
use super::write::{Tx, content_ref};
use super::{Shared, read, upkeep};
use crate::codec;
use crate::content::{CHUNK, ContentRef, HEADER, Header, Segment, SegmentId, record_size};
use crate::error::StoreError;

/// References are committed so many at a time.
const COMMIT: usize = 1000;
/// Rows looked up in one transaction.
const LOOK_UP: usize = 2000;
/// Dead bytes below so many segments' worth are left alone.
const SLACK_SEGMENTS: u64 = 4;

/// A record that has been copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    from: ContentRef,
    segment: SegmentId,
    offset: u64,
}

/// Moves stragglers while more than a fifth of the disk space is dead, beyond some slack.
pub(crate) fn run(shared: &Arc<Shared>) -> Result<(), StoreError> {
    while let Some(victims) = choose(shared) {
        if shared.upkeep.is_stopped() || shared.room.check(shared.written()).is_err() {
            return Ok(());
        }
        compact(shared, &victims)?;
        shared.segments.remove_dead();
    }
    Ok(())
}

/// Segments whose live records together make one segment at most, the emptiest first; none when all is well.
fn choose(shared: &Shared) -> Option<BTreeMap<SegmentId, Segment>> {
    let totals = shared.segments.totals();
    if totals.size <= totals.live + totals.live / 4 + SLACK_SEGMENTS * shared.config.segment_size {
        return None;
    }
    let segments = shared.segments.snapshot();
    let mut sparse: Vec<_> =
        segments.into_iter().filter(|(_, s)| !s.open && !s.stuck && s.live * 5 < s.size * 4).collect();
    sparse.sort_by_key(|(_, s)| s.live * 1000 / s.size.max(1));
    let mut room = shared.config.segment_size;
    let mut victims = BTreeMap::new();
    for (id, segment) in sparse {
        if segment.live > room {
            break;
        }
        room -= segment.live;
        victims.insert(id, segment);
    }
    (!victims.is_empty()).then_some(victims)
}

fn compact(shared: &Arc<Shared>, victims: &BTreeMap<SegmentId, Segment>) -> Result<(), StoreError> {
    let mut records = Vec::new();
    for (id, segment) in victims {
        records.extend(live_records(shared, *id, segment)?);
    }
    let segments = &shared.segments;
    let (id, file) = segments.create_file()?;
    segments.begin(id);
    let copied = copy_all(shared, &file, id, &records).and_then(|moves| {
        shared.health.sync_data(&file, "a content segment")?;
        segments.sync_dir()?;
        Ok(moves)
    });
    let done = copied.and_then(|moves| {
        moves.chunks(COMMIT).try_for_each(|moves| {
            upkeep::ask(shared, |answer| Op::Relocate { moves: moves.to_vec(), answer })
        })
    });
    // With nothing referring to it, as after a failure, it is deleted like any other.
    segments.end(id);
    tracing::debug!(victims = victims.len(), records = records.len(), "content compacted");
    done
}

/// The records of a segment that rows refer to, in the order of the file. The file says which messages to look for: the
/// rows have no index by segment, and after some compactions a segment's messages are far apart.
fn live_records(shared: &Shared, id: SegmentId, segment: &Segment) -> Result<Vec<ContentRef>, StoreError> {
    let failed = |e: std::io::Error| StoreError::io("reading a content segment", &e);
    let file = File::open(shared.segments.path(id)).map_err(failed)?;
    let Some(written) = headers(&file).map_err(failed)? else {
        return shared.read_now(|conn| records_in(conn, id, segment));
    };
    let mut records = Vec::new();
    for part in written.chunks(LOOK_UP) {
        let found = shared.read_now(|conn| {
            part.iter()
                .map(|(message, offset)| record_at(conn, *message, id, *offset))
                .collect::<Result<Vec<_>, _>>()
        })?;
        records.extend(found.into_iter().flatten());
    }
    Ok(records)
}

/// The messages whose records stand in a file, and where. None when it cannot be read to its end.
fn headers(file: &File) -> std::io::Result<Option<Vec<(MessageId, u64)>>> {
    let size = file.metadata()?.len();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < size {
        let mut header = [0; HEADER];
        if size - at < HEADER as u64 || file.read_exact_at(&mut header, at).is_err() {
            return Ok(None);
        }
        let Some(header) = Header::decode(&header) else { return Ok(None) };
        found.push((header.message, at + HEADER as u64));
        at += record_size(header.length);
    }
    Ok(Some(found))
}

fn record_at(
    conn: &Connection,
    message: MessageId,
    segment: SegmentId,
    offset: u64,
) -> rusqlite::Result<Option<ContentRef>> {
    let found = read::locate(conn, message)?;
    Ok(found.filter(|at| (at.segment, at.offset) == (segment, offset)))
}

/// The same, by going through the rows of all messages that may be in it.
fn records_in(conn: &Connection, id: SegmentId, segment: &Segment) -> rusqlite::Result<Vec<ContentRef>> {
    let mut records = conn
        .prepare_cached(
            "SELECT segment, offset, length, crc, id FROM message WHERE id BETWEEN ?1 AND ?2 AND segment = ?3",
        )?
        .query_map((segment.first.cast_signed(), segment.last.cast_signed(), id.cast_signed()), |row| {
            content_ref(codec::message_id(row.get(4)?), row, 0)
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    records.sort_by_key(|at| at.offset);
    Ok(records)
}

/// Copies records as they are, headers included: a damaged one stays as damaged as it is, to be found when it is read.
fn copy_all(
    shared: &Shared,
    to: &File,
    id: SegmentId,
    records: &[ContentRef],
) -> Result<Vec<Move>, StoreError> {
    let failed = |e: std::io::Error| StoreError::io("moving content", &e);
    let mut moves = Vec::with_capacity(records.len());
    let mut source: Option<(SegmentId, File)> = None;
    let mut buffer = vec![0; CHUNK];
    let mut end = 0;
    for at in records {
        let from = match &source {
            Some((open, file)) if *open == at.segment => file,
            _ => {
                let file = File::open(shared.segments.path(at.segment)).map_err(failed)?;
                &source.insert((at.segment, file)).1
            }
        };
        let (start, length) = (at.offset - HEADER as u64, record_size(at.length));
        let mut done = 0;
        while done < length {
            let n = usize::try_from(length - done).unwrap_or(CHUNK).min(CHUNK);
            if let Err(error) = from.read_exact_at(&mut buffer[..n], start + done) {
                // It stays where it is, and so does its segment: reading it will tell.
                tracing::warn!(id = %at.message, segment = at.segment, %error, "cannot move content");
                shared.segments.set_stuck(at.segment);
                break;
            }
            to.write_all_at(&buffer[..n], end + done).map_err(failed)?;
            done += n as u64;
        }
        if done < length {
            continue;
        }
        moves.push(Move { from: *at, segment: id, offset: end + HEADER as u64 });
        end += length;
    }
    shared.segments.grown(id, end);
    shared.segments.written(end);
    Ok(moves)
}

impl Tx<'_> {
    /// Commits where records are now. Messages that have gone since are passed over: their copy is dead from the start.
    pub(crate) fn relocate(&mut self, moves: &[Move]) -> rusqlite::Result<()> {
        let mut update = self.conn.prepare_cached(
            "UPDATE message SET segment = ?4, offset = ?5 WHERE id = ?1 AND segment = ?2 AND offset = ?3",
        )?;
        for Move { from, segment, offset } in moves {
            let changed = update.execute((
                codec::id(from.message),
                from.segment.cast_signed(),
                from.offset.cast_signed(),
                segment.cast_signed(),
                offset.cast_signed(),
            ))?;
            if changed == 1 {
                self.fresh.forget_message(from.message);
                self.effects.removed.push(*from);
                self.effects.added.push(ContentRef { segment: *segment, offset: *offset, ..*from });
            }
        }
        Ok(())
    }
}
