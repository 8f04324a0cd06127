//! Events on their way to the history, as every engine has them. The newest are kept in memory as well, so that a reader
//! that keeps up reads nothing from the database; in the database one row has many.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use mail::Event;
use parking_lot::Mutex;
use tokio::sync::watch;

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

/// A row takes so many events, or so many octets of them and the one that goes beyond.
pub(crate) const PACK_EVENTS: usize = 64;
pub(crate) const PACK_BYTES: usize = 32 << 10;

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
