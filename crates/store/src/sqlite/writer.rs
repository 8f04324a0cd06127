//! The one thread that writes `queue.db` and the current segment. It takes whatever waits, puts all content into the
//! segment with one write and one fdatasync, all rows into one transaction, and answers everybody.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::MessageId;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use super::fresh::Fresh;
use super::inbox::Op;
use super::item::{Item, Outcome, Placement};
use super::outbox::Pack;
use super::sums::Effects;
use super::write::{Queues, Tx, holder};
use super::{Shared, notes, schema, schema::fact, sql_error};
use crate::content::{ContentRef, HEADER, Header, Place, Sealed, SegmentId};
use crate::error::StoreError;

/// How long settlements wait before they are tried again on a full disk.
const FULL_WAIT: Duration = Duration::from_millis(500);
/// A buffer for content that grew beyond this is given back.
const BUFFER_KEEP: usize = 1 << 20;

/// The segment that the writer appends to.
struct Open {
    id: SegmentId,
    file: File,
    size: u64,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    conn: Connection,
    segment: Option<Open>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    queues: Queues,
    fresh: Fresh,
    pack: Pack,
    /// What a full disk kept from being done.
    carried: Vec<Item>,
}

impl Writer {
    /// Opens the first segment, so that a first admission needs no more than the others.
    pub(crate) fn new(shared: Arc<Shared>, conn: Connection) -> Result<Self, StoreError> {
        let mut writer = Self {
            shared,
            conn,
            segment: None,
            buffer: Vec::new(),
            scratch: Vec::new(),
            queues: Queues::default(),
            fresh: Fresh::default(),
            pack: Pack::default(),
            carried: Vec::new(),
        };
        // On a full disk the store opens all the same: what is queued can be delivered.
        match writer.open_segment() {
            Ok(()) | Err(StoreError::NoSpace) => Ok(writer),
            Err(error) => Err(error),
        }
    }

    /// Works until the inbox is closed and empty, then leaves the store clean.
    pub(crate) fn run(mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let mut ops = Vec::new();
        loop {
            let tick = self.has_leftovers() || !self.carried.is_empty();
            let open = shared.inbox.take(&mut ops, tick);
            if !open && self.carried.is_empty() {
                break;
            }
            let carried = std::mem::take(&mut self.carried);
            if !carried.is_empty() {
                self.group(carried);
                if !open && !self.carried.is_empty() {
                    self.carried.drain(..).for_each(|item| item.refuse(&StoreError::NoSpace));
                    return Err(StoreError::NoSpace);
                }
                if !self.carried.is_empty() {
                    shared.checkpoint.ask();
                    std::thread::sleep(FULL_WAIT);
                }
            }
            let items = self.prepare(ops.drain(..));
            self.group(items);
        }
        self.finish()
    }

    /// Sorts out what was withdrawn and what has been admitted before.
    fn prepare(&self, ops: impl Iterator<Item = Op>) -> Vec<Item> {
        ops.filter_map(Item::new).collect()
    }

    /// Does everything in one commit, or what fails of it alone; answers everybody.
    fn group(&mut self, mut items: Vec<Item>) {
        if items.is_empty() && !self.has_leftovers() {
            return;
        }
        // Settlements that wait for space go first, in their order.
        if !self.carried.is_empty() {
            let (later, now): (Vec<_>, Vec<_>) = items.into_iter().partition(Item::must_happen);
            self.carried.extend(later);
            items = now;
        }
        let done = self
            .shared
            .health
            .check()
            .and_then(|()| self.place(&mut items))
            .and_then(|()| self.commit(&items));
        match done {
            Ok((outcomes, effects, first)) => self.publish(items, outcomes, effects, first),
            Err(StoreError::Invalid(_)) if items.len() > 1 => {
                // One of them brought along what cannot be stored: the others shall not suffer for it. Their content is
                // placed again, as one may have counted on another that fails now.
                items.into_iter().for_each(|item| self.group(vec![item]));
            }
            Err(error) => self.refuse(items, &error),
        }
    }

    /// Whether there is something to write for which nobody waits.
    fn has_leftovers(&self) -> bool {
        self.shared.outbox.to_delete().is_some() || !self.shared.notes.is_empty()
    }

    fn refuse(&mut self, items: Vec<Item>, error: &StoreError) {
        let passes = error.is_no_space_or_busy();
        if passes {
            tracing::warn!(%error, "the queue cannot be written at the moment");
        }
        for item in items {
            if passes && item.must_happen() {
                self.carried.push(item);
            } else {
                item.refuse(error);
            }
        }
    }

    /// Puts the content of all new messages on stable storage, and notes where it is.
    fn place(&mut self, items: &mut [Item]) -> Result<(), StoreError> {
        let mut taken: HashMap<(i64, Vec<u8>), MessageId> = HashMap::new();
        let now = self.shared.clock.now();
        // Not before the last group is committed and counted: a closed segment without live records is deleted.
        if self.segment.as_ref().is_none_or(|s| s.size >= self.shared.config.segment_size) {
            self.close_segment();
            self.open_segment()?;
        }
        let Some(segment) = &self.segment else { return Err(StoreError::NoSpace) };
        let (id, start) = (segment.id, segment.size);
        self.buffer.clear();
        for (admission, placement) in items.iter_mut().flat_map(Item::admissions) {
            if let Some(dedupe) = &admission.dedupe {
                let key = (dedupe.org.0, dedupe.key.clone());
                let earlier = match taken.get(&key) {
                    Some(earlier) => Some(*earlier),
                    None => holder(&self.conn, dedupe, now).map_err(|e| sql_error("reading", &e))?,
                };
                if let Some(earlier) = earlier {
                    *placement = Placement::Duplicate(earlier);
                    continue;
                }
                taken.insert(key, admission.message.id);
            }
            let at =
                append(&mut self.buffer, id, start, &admission.content, !admission.deliveries.is_empty());
            *placement = Placement::At(at);
        }
        self.write_buffer()
    }

    fn write_buffer(&mut self) -> Result<(), StoreError> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        if self.buffer.is_empty() {
            return Ok(());
        }
        // A write that failed half way is written over by the next one: the size has not grown.
        segment
            .file
            .write_all_at(&self.buffer, segment.size)
            .map_err(|e| StoreError::io("writing content", &e))?;
        self.shared.health.sync_data(&segment.file, "a content segment")?;
        segment.size += self.buffer.len() as u64;
        self.shared.segments.grown(segment.id, segment.size);
        self.shared.segments.written(self.buffer.len() as u64);
        if self.buffer.capacity() > BUFFER_KEEP {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// One transaction for all. Returns what each met, what changed, and the number of the first event.
    fn commit(&mut self, items: &[Item]) -> Result<(Vec<Outcome>, Effects, u64), StoreError> {
        let shared = self.shared.clone();
        let _turn = shared.checkpoint.writing();
        let first = shared.outbox.last() + 1;
        let result = self.transaction(items, first - 1);
        match result {
            Ok((outcomes, effects)) => {
                shared.health.fsyncs.fetch_add(1, Ordering::Relaxed);
                shared.counters.groups.fetch_add(1, Ordering::Relaxed);
                shared.counters.group_size.store(items.len() as u64, Ordering::Relaxed);
                Ok((outcomes, effects, first))
            }
            Err(error) => {
                self.queues.clear();
                self.fresh.clear();
                if !self.conn.is_autocommit()
                    && let Err(error) = self.conn.execute_batch("ROLLBACK")
                {
                    tracing::warn!(%error, "rolling back");
                }
                Err(self.judge(&error))
            }
        }
    }

    fn transaction(&mut self, items: &[Item], seq: u64) -> rusqlite::Result<(Vec<Outcome>, Effects)> {
        let shared = &self.shared;
        self.pack.clear();
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut tx = Tx {
            conn: &self.conn,
            queues: &mut self.queues,
            scratch: &mut self.scratch,
            fresh: &mut self.fresh,
            pack: &mut self.pack,
            effects: Effects::default(),
            seq,
            now: shared.clock.now(),
        };
        let mut outcomes = Vec::with_capacity(items.len());
        for item in items {
            outcomes.push(item.execute(&mut tx, shared.run)?);
        }
        tx.pack.write(tx.conn, tx.seq)?;
        let effects = tx.effects;
        effects.write(&self.conn, &shared.segments)?;
        let noted = notes::write(&shared.notes, &self.conn)?;
        let deleted = shared.outbox.to_delete();
        if let Some(up_to) = deleted {
            self.conn.prepare_cached("DELETE FROM outbox WHERE seq <= ?1")?.execute([up_to.cast_signed()])?;
            schema::set_fact(&self.conn, fact::OUTBOX_DONE, up_to.cast_signed())?;
        }
        if deleted.is_some() || effects.dedupe {
            schema::set_fact(&self.conn, fact::LAST_ID, shared.ids.next().0.cast_signed())?;
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        shared.notes.written(noted);
        if let Some(up_to) = deleted {
            shared.outbox.set_deleted(up_to);
        }
        Ok((outcomes, effects))
    }

    /// What an error of SQLite means: the disk is full, somebody asked for the impossible, or the store is at its end.
    fn judge(&self, error: &rusqlite::Error) -> StoreError {
        match sql_error("writing the queue", error) {
            passing if passing.is_no_space_or_busy() => passing,
            invalid @ StoreError::Invalid(_) => invalid,
            // Whether the commit is on disk is unknown, and the kernel will not say so twice.
            other => self.shared.health.fail(&other.to_string()),
        }
    }

    /// The commit stands: memory follows, then everybody is told.
    fn publish(&mut self, mut items: Vec<Item>, mut outcomes: Vec<Outcome>, effects: Effects, first: u64) {
        let shared = &self.shared;
        shared.counters.apply(&effects);
        if shared.segments.apply(&effects.added, &effects.removed) {
            shared.upkeep.wake();
        }
        for item in &mut items {
            if let Item::Admit { admission, placement: Placement::At(at), .. } = item {
                self.fresh.remember(admission, *at, &self.queues);
            }
        }
        let told = items.iter_mut().zip(&mut outcomes).flat_map(|(item, outcome)| item.events(outcome));
        shared.outbox.publish((first..).zip(told));
        for (item, outcome) in items.into_iter().zip(outcomes) {
            item.answer(outcome, shared);
        }
        shared.checkpoint.ask_if_large();
    }

    fn open_segment(&mut self) -> Result<(), StoreError> {
        let segments = &self.shared.segments;
        let (id, file) = segments.create_file()?;
        segments.sync_dir()?;
        segments.begin(id);
        self.segment = Some(Open { id, file, size: 0 });
        Ok(())
    }

    fn close_segment(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.shared.segments.end(segment.id);
            self.shared.upkeep.wake();
        }
    }

    fn finish(mut self) -> Result<(), StoreError> {
        self.shared.health.check()?;
        self.close_segment();
        if self.shared.abandoned.load(Ordering::Relaxed) {
            return Ok(());
        }
        let clean = || -> rusqlite::Result<()> {
            let tx = self.conn.unchecked_transaction()?;
            notes::write(&self.shared.notes, &tx)?;
            schema::set_fact(&tx, fact::LAST_ID, self.shared.ids.next().0.cast_signed())?;
            schema::set_fact(&tx, fact::CLEAN, 1)?;
            tx.commit()
        };
        clean().map_err(|e| self.judge(&e))?;
        // A reader in the way is no harm: the next start empties the log.
        if let Err(error) = self.conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::TRUNCATE) {
            tracing::info!(%error, "the write-ahead log was left as it is");
        }
        Ok(())
    }
}

/// Appends a record to the group's buffer, unless the content has a file of its own or nobody gets it.
fn append(
    buffer: &mut Vec<u8>,
    segment: SegmentId,
    start: u64,
    content: &Sealed,
    wanted: bool,
) -> ContentRef {
    let (message, crc, length) = (content.message, content.crc, content.len());
    let mut at = ContentRef { message, segment, offset: 0, length, crc };
    match &content.place {
        Place::File(own) => {
            at.segment = own.id;
            at.offset = HEADER as u64;
        }
        Place::Memory(bytes) if wanted => {
            buffer.extend_from_slice(&Header { message, length, crc }.encode());
            at.offset = start + buffer.len() as u64;
            buffer.extend_from_slice(bytes);
        }
        Place::Memory(_) => {}
    }
    at
}
