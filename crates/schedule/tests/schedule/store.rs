//! The store: rows that are active, wait or are held, and what can be asked about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mail::{DeliveryId, MessageId, QueueKey, Timestamp};
use schedule::{Item, Rest};

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) queue: QueueKey,
    /// None: active.
    pub(crate) due: Option<Timestamp>,
    pub(crate) held: bool,
    pub(crate) credential: Option<Arc<str>>,
    pub(crate) recipients: u16,
}

#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) all: BTreeMap<DeliveryId, Row>,
    /// The index over rows that wait.
    waiting: BTreeSet<(QueueKey, Timestamp, DeliveryId)>,
    pub(crate) made: u64,
}

const FIRST: DeliveryId = DeliveryId { message: MessageId(0), index: 0 };
const LAST: DeliveryId = DeliveryId { message: MessageId(u64::MAX), index: u16::MAX };

impl Rows {
    pub(crate) fn insert(&mut self, mut row: Row) -> DeliveryId {
        self.made += 1;
        let id = DeliveryId { message: MessageId(self.made), index: 0 };
        let due = row.due.take();
        self.all.insert(id, row);
        self.set(id, due, false);
        id
    }

    pub(crate) fn set(&mut self, id: DeliveryId, due: Option<Timestamp>, held: bool) {
        let row = self.all.get_mut(&id).unwrap();
        if let Some(old) = row.due.take() {
            self.waiting.remove(&(row.queue.clone(), old, id));
        }
        (row.due, row.held) = (due, held);
        if let Some(due) = due {
            self.waiting.insert((row.queue.clone(), due, id));
        }
    }

    pub(crate) fn delete(&mut self, id: DeliveryId) {
        self.set(id, None, false);
        self.all.remove(&id);
    }

    pub(crate) fn item(&self, id: DeliveryId) -> Item {
        let row = &self.all[&id];
        Item { id, credential: row.credential.clone(), recipients: row.recipients }
    }

    /// The process began anew: what was in memory waits now.
    pub(crate) fn recover(&mut self, now: Timestamp) {
        let active: Vec<DeliveryId> =
            self.all.iter().filter(|(_, row)| row.due.is_none() && !row.held).map(|(id, _)| *id).collect();
        active.into_iter().for_each(|id| self.set(id, Some(now), false));
    }

    pub(crate) fn page(&self, queue: &QueueKey, n: usize, now: Timestamp) -> (Vec<DeliveryId>, Rest) {
        let mut rows = self.waiting.range((queue.clone(), Timestamp(i64::MIN), FIRST)..);
        let (mut due, mut later) = (Vec::new(), None);
        while due.len() < n {
            match rows.next().filter(|row| row.0 == *queue) {
                Some((_, at, id)) if *at <= now => due.push(*id),
                found => {
                    later = found.map(|row| row.1);
                    break;
                }
            }
        }
        let rest = match later {
            _ if due.len() == n => Rest::Due,
            Some(later) => Rest::Later(later),
            None => Rest::Nothing,
        };
        (due, rest)
    }

    pub(crate) fn horizon(&self, after: Timestamp, n: usize) -> (Vec<(QueueKey, Timestamp)>, Timestamp) {
        let mut all = Vec::new();
        let mut next = self.waiting.first();
        while let Some((queue, due, _)) = next {
            if *due > after {
                all.push((queue.clone(), *due));
            }
            next = self.waiting.range((queue.clone(), Timestamp(i64::MAX), LAST)..).next();
        }
        all.sort_by_key(|found| found.1);
        if all.len() <= n {
            return (all, Timestamp(i64::MAX));
        }
        // All that share the last one's time belong to it.
        let until = all[n - 1].1;
        all.retain(|found| found.1 <= until);
        (all, until)
    }
}
