//! Events on their way to the history. The newest are kept in memory as well, so that a reader that keeps up reads
//! nothing from the database.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use mail::Event;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::watch;

use crate::codec;

/// How many events are kept in memory.
const RECENT_MAX: usize = 2048;

#[derive(Debug)]
pub(crate) struct Outbox {
    recent: Mutex<VecDeque<(u64, Event)>>,
    last: watch::Sender<u64>,
    /// Events up to here are safe elsewhere,
    done: AtomicU64,
    /// and up to here deleted.
    deleted: AtomicU64,
}

impl Outbox {
    /// `last` is the last number given, `done` the last one handed on.
    pub(crate) fn new(last: u64, done: u64) -> Self {
        Self {
            recent: Mutex::default(),
            last: watch::Sender::new(last),
            done: AtomicU64::new(done),
            deleted: AtomicU64::new(done),
        }
    }

    /// Makes committed events known; they come in order of their numbers.
    pub(crate) fn publish(&self, events: impl Iterator<Item = (u64, Event)>) {
        let last = {
            let mut recent = self.recent.lock();
            recent.extend(events);
            let over = recent.len().saturating_sub(RECENT_MAX);
            recent.drain(..over);
            recent.back().map(|(seq, _)| *seq)
        };
        if let Some(last) = last
            && last > *self.last.borrow()
        {
            self.last.send_replace(last);
        }
    }

    /// What is in memory of the events behind `after`; none when the database has to be asked. They are handed out once.
    pub(crate) fn recent(&self, after: u64, n: usize) -> Option<Vec<(u64, Event)>> {
        if *self.last.borrow() <= after {
            return Some(Vec::new());
        }
        let mut recent = self.recent.lock();
        let gap = recent.front().is_none_or(|(first, _)| *first > after + 1);
        if gap {
            return None;
        }
        let passed = recent.iter().take_while(|(seq, _)| *seq <= after).count();
        recent.drain(..passed);
        let n = n.min(recent.len());
        (n > 0).then(|| recent.drain(..n).collect())
    }

    pub(crate) fn last(&self) -> u64 {
        *self.last.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    pub(crate) fn set_done(&self, up_to: u64) {
        self.done.fetch_max(up_to.min(self.last()), Ordering::Relaxed);
    }

    /// Up to where the next group shall delete, if there is anything.
    pub(crate) fn to_delete(&self) -> Option<u64> {
        let done = self.done.load(Ordering::Relaxed);
        (done > self.deleted.load(Ordering::Relaxed)).then_some(done)
    }

    pub(crate) fn set_deleted(&self, up_to: u64) {
        self.deleted.store(up_to, Ordering::Relaxed);
    }

    /// How many events nobody has taken over.
    pub(crate) fn len(&self) -> u64 {
        self.last().saturating_sub(self.done.load(Ordering::Relaxed))
    }
}

/// Events of a group on their way into a row: one row for many costs a fraction of a row for each.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    bytes: Vec<u8>,
    events: usize,
}

/// A row takes so many events, or so many octets of them and the one that goes beyond.
const PACK_EVENTS: usize = 64;
const PACK_BYTES: usize = 32 << 10;

impl Pack {
    /// Adds an event whose number is `seq`; a full row is written.
    pub(crate) fn add(
        &mut self,
        conn: &Connection,
        seq: u64,
        event: &Event,
        scratch: &mut Vec<u8>,
    ) -> rusqlite::Result<()> {
        codec::encode(event, scratch);
        codec::pack(&mut self.bytes, scratch);
        self.events += 1;
        if self.events >= PACK_EVENTS || self.bytes.len() >= PACK_BYTES {
            self.write(conn, seq)
        } else {
            Ok(())
        }
    }

    /// Writes what there is as a row; `seq` is the number of the last event.
    pub(crate) fn write(&mut self, conn: &Connection, seq: u64) -> rusqlite::Result<()> {
        if self.events == 0 {
            return Ok(());
        }
        conn.prepare_cached("INSERT INTO outbox (seq, event) VALUES (?1, ?2)")?
            .execute((seq.cast_signed(), &self.bytes))?;
        self.clear();
        Ok(())
    }

    /// Forgets what a transaction that failed had told.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.events = 0;
    }
}

/// Events behind `after` from the database. A row's number is that of its last event.
pub(crate) fn stored(conn: &Connection, after: u64, n: usize) -> rusqlite::Result<Vec<(u64, Event)>> {
    let mut found = Vec::new();
    let mut select = conn.prepare_cached("SELECT seq, event FROM outbox WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = select.query([after.cast_signed()])?;
    while found.len() < n
        && let Some(row) = rows.next()?
    {
        let last = row.get::<_, i64>(0)?.cast_unsigned();
        let events = codec::unpack(row.get_ref(1)?.as_blob()?)?;
        let first = last + 1 - events.len() as u64;
        let behind = (first..).zip(events).filter(|(seq, _)| *seq > after);
        found.extend(behind.take(n - found.len()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{EventKind, MessageId, Timestamp};

    fn event(n: u64) -> (u64, Event) {
        let kind = EventKind::Released { by: "test".into() };
        (n, Event { at: Timestamp(0), message: MessageId(n), kind })
    }

    fn numbers(events: Option<Vec<(u64, Event)>>) -> Option<Vec<u64>> {
        events.map(|e| e.into_iter().map(|(seq, _)| seq).collect())
    }

    #[test]
    fn packed_events_come_back_one_by_one() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute("CREATE TABLE outbox (seq INTEGER PRIMARY KEY, event BLOB NOT NULL)", []).unwrap();
        let (mut pack, mut scratch) = (Pack::default(), Vec::new());
        // What was written before rows were shared.
        codec::encode(&event(1).1, &mut scratch);
        conn.execute("INSERT INTO outbox VALUES (1, ?1)", [&scratch]).unwrap();
        for n in 2..=200 {
            pack.add(&conn, n, &event(n).1, &mut scratch).unwrap();
        }
        pack.write(&conn, 200).unwrap();
        let rows: i64 = conn.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1 + 199_i64.div_euclid(64) + 1);
        for (after, n) in [(0, 1), (0, 1000), (1, 3), (63, 5), (64, 64), (100, 1000), (199, 9), (200, 9)] {
            let expected: Vec<_> = (after + 1..=200).take(n).map(event).collect();
            assert_eq!(stored(&conn, after, n).unwrap(), expected, "{n} behind {after}");
        }
    }

    #[test]
    fn a_reader_that_keeps_up_reads_memory_and_one_that_lags_the_database() {
        let outbox = Outbox::new(7, 7);
        assert_eq!(numbers(outbox.recent(7, 10)), Some(vec![]));
        assert_eq!(numbers(outbox.recent(3, 10)), None, "older than this process");
        outbox.publish((8..=12).map(event));
        assert_eq!(outbox.last(), 12);
        assert_eq!(numbers(outbox.recent(7, 3)), Some(vec![8, 9, 10]));
        assert_eq!(numbers(outbox.recent(7, 3)), None, "handed out before: the database has them");
        assert_eq!(numbers(outbox.recent(11, 3)), Some(vec![12]));
        assert_eq!(numbers(outbox.recent(12, 3)), Some(vec![]));
        outbox.publish((13..13 + RECENT_MAX as u64 + 5).map(event));
        assert_eq!(numbers(outbox.recent(12, 3)), None);
        outbox.set_done(15);
        assert_eq!(outbox.to_delete(), Some(15));
        outbox.set_deleted(15);
        assert_eq!(outbox.to_delete(), None);
    }
}
