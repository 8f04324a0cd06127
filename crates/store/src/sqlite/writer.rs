//! The one thread that writes `queue.db`. It takes a group whose content is on stable storage, puts all its rows into one
//! transaction, and answers everybody, while the content of the next group is being written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::MessageId;
use parking_lot::Mutex;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use super::appender::Appender;
use super::fresh::Fresh;
use super::handover::{Group, Taken};
use super::inbox::IDLE;
use super::item::{Item, Outcome};
use super::outbox::Pack;
use super::sums::Effects;
use super::write::{Queues, Tx, holder};
use super::{Shared, notes, schema, schema::fact, sql_error};
use crate::content::SegmentId;
use crate::error::StoreError;

/// How long settlements wait before they are tried again on a full disk.
const FULL_WAIT: Duration = Duration::from_millis(500);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    conn: Connection,
    appender: Arc<Mutex<Appender>>,
    scratch: Vec<u8>,
    queues: Queues,
    fresh: Fresh,
    pack: Pack,
    /// What a full disk kept from being done.
    carried: Vec<Item>,
    /// Segments that nothing more is appended to, while something carried may have its content in them.
    ended: Vec<SegmentId>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, conn: Connection, appender: Arc<Mutex<Appender>>) -> Self {
        Self {
            shared,
            conn,
            appender,
            scratch: Vec::new(),
            queues: Queues::default(),
            fresh: Fresh::default(),
            pack: Pack::default(),
            carried: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Works until the last group has been handed over, then leaves the store clean.
    pub(crate) fn run(mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        loop {
            let taken = shared.handover.take((!self.carried.is_empty()).then_some(IDLE));
            let closed = matches!(taken, Taken::Closed);
            if !self.carried.is_empty() {
                self.retry();
                if closed && !self.carried.is_empty() {
                    self.carried.drain(..).for_each(|item| item.refuse(&StoreError::NoSpace));
                    return Err(StoreError::NoSpace);
                }
                if !self.carried.is_empty() {
                    shared.checkpoint.ask();
                    std::thread::sleep(FULL_WAIT);
                }
            }
            match taken {
                Taken::Group(group) => self.take(group),
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            self.end_segments();
        }
        self.finish()
    }

    fn take(&mut self, Group { items, placed, ended }: Group) {
        self.ended.extend(ended);
        match placed {
            Ok(()) => self.group(items),
            Err(error) => self.refuse(items, &error),
        }
    }

    /// Tries again what a full disk kept from being done: some of it may not even have its content on the disk.
    fn retry(&mut self) {
        let mut items = std::mem::take(&mut self.carried);
        let placed = self.appender.lock().place(&mut items);
        match placed {
            Ok(()) => self.group(items),
            Err(error) => self.refuse(items, &error),
        }
    }

    /// A segment without live records is deleted once it has ended: not before all that may be in it is committed and
    /// counted.
    fn end_segments(&mut self) {
        if self.carried.is_empty() && !self.ended.is_empty() {
            self.ended.drain(..).for_each(|id| self.shared.segments.end(id));
            self.shared.upkeep.wake();
        }
    }

    /// Does everything in one commit, or what fails of it alone; answers everybody.
    fn group(&mut self, mut items: Vec<Item>) {
        // Some were withdrawn while the content was written: it is as well not done.
        items.retain(|item| !item.is_withdrawn());
        if items.is_empty() && !self.shared.has_leftovers() {
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
            .and_then(|()| self.find_duplicates(&mut items))
            .and_then(|()| self.commit(&items));
        match done {
            Ok((outcomes, effects, first)) => self.publish(items, outcomes, effects, first),
            Err(StoreError::Invalid(_)) if items.len() > 1 => {
                // One of them brought along what cannot be stored: the others shall not suffer for it.
                items.into_iter().for_each(|item| self.group(vec![item]));
            }
            Err(error) => self.refuse(items, &error),
        }
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

    /// Finds the messages whose dedupe key belongs to another. Asked anew for each attempt at a commit: one may have counted
    /// on another that failed.
    fn find_duplicates(&self, items: &mut [Item]) -> Result<(), StoreError> {
        let mut taken: HashMap<(i64, &[u8]), MessageId> = HashMap::new();
        let now = self.shared.clock.now();
        for (admission, placement) in items.iter_mut().flat_map(Item::admissions) {
            placement.duplicate_of = None;
            let Some(dedupe) = &admission.dedupe else { continue };
            let key = (dedupe.org.0, dedupe.key.as_slice());
            placement.duplicate_of = match taken.get(&key) {
                Some(earlier) => Some(*earlier),
                None => holder(&self.conn, dedupe, now).map_err(|e| sql_error("reading", &e))?,
            };
            if placement.duplicate_of.is_none() {
                taken.insert(key, admission.message.id);
            }
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
            if let Item::Admit { admission, placement, .. } = item
                && let Some(at) = placement.admitted()
            {
                self.fresh.remember(admission, at, &self.queues);
            }
        }
        let told = items.iter_mut().zip(&mut outcomes).flat_map(|(item, outcome)| item.events(outcome));
        shared.outbox.publish((first..).zip(told));
        for (item, outcome) in items.into_iter().zip(outcomes) {
            item.answer(outcome, shared);
        }
        shared.checkpoint.ask_if_large();
    }

    fn finish(mut self) -> Result<(), StoreError> {
        self.shared.health.check()?;
        let last = self.appender.lock().close();
        self.ended.extend(last);
        self.end_segments();
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
