//! The state of one queue, and where each delivery in memory stands.

use std::collections::VecDeque;

use mail::{DeliveryId, Mono, QueueKey, Timestamp};

/// Index of a queue in the scheduler's slab.
pub(crate) type QueueIx = usize;

/// No index: not attached to anything.
pub(crate) const NONE: usize = usize::MAX;

/// A queue that has, or lately had, something in it.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) key: QueueKey,
    /// Its organisation.
    pub(crate) org: usize,
    /// Its destination, once something of it is in memory; until then it takes up nothing else.
    pub(crate) dest: usize,
    /// Its number among the destination's queues.
    pub(crate) dest_at: usize,
    /// Its organisation's place in the round robin, once the site is known; none while it is suspended.
    pub(crate) turn: usize,
    /// In memory, waiting for a slot.
    pub(crate) ready: VecDeque<DeliveryId>,
    /// Reserved and not yet admitted.
    pub(crate) reserved: u32,
    /// Being attempted, answered or settled.
    pub(crate) flying: u32,
    /// Set aside because of their credentials' ceilings.
    pub(crate) aside: u32,
    /// Of those in memory, how many have a row on disk that a page shows.
    pub(crate) from_disk: u32,
    /// The page that is under way.
    pub(crate) page: Option<Box<Page>>,
    /// When the earliest row that waits for its time is due; it stands in the scheduler's list of due times.
    pub(crate) due: Option<Timestamp>,
    /// With a backlog: since when something in it is due.
    pub(crate) since: Timestamp,
    /// Since when nothing is in it.
    pub(crate) idle_since: Option<Mono>,
    /// The suspension that stops it, by its number in the policy.
    pub(crate) suspended: Option<u32>,
    /// Rows that are due wait on disk, more than the page under way is known to bring.
    pub(crate) backlog: bool,
    /// It stands in the line for a page.
    pub(crate) hungry: bool,
    /// It stands in its organisation's round robin.
    pub(crate) listed: bool,
    /// It waits for its destination's ceiling.
    pub(crate) blocked: bool,
    /// It stands in the line for eviction.
    pub(crate) idle_listed: bool,
}

/// A page that was asked for and has not come yet.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Places kept for what it brings.
    pub(crate) places: usize,
    /// Left memory since it was asked for: the page may still show them as they were.
    pub(crate) gone: Vec<DeliveryId>,
}

impl Queue {
    pub(crate) fn new(key: QueueKey, org: usize) -> Self {
        Self {
            key,
            org,
            dest: NONE,
            dest_at: 0,
            turn: NONE,
            ready: VecDeque::new(),
            reserved: 0,
            flying: 0,
            aside: 0,
            from_disk: 0,
            page: None,
            due: None,
            since: Timestamp(i64::MAX),
            idle_since: None,
            suspended: None,
            backlog: false,
            hungry: false,
            listed: false,
            blocked: false,
            idle_listed: false,
        }
    }

    /// Places taken in its window.
    pub(crate) fn held(&self) -> usize {
        let places = self.page.as_ref().map_or(0, |p| p.places);
        self.reserved as usize + self.ready.len() + self.flying as usize + self.aside as usize + places
    }

    /// Whether nothing of it is in memory or about to be.
    pub(crate) fn is_empty(&self) -> bool {
        self.held() == 0 && self.page.is_none()
    }
}

/// A delivery in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) queue: QueueIx,
    /// The path it is attempted on, or answered for.
    pub(crate) path: usize,
    /// Its credential, if that has a ceiling.
    pub(crate) credential: usize,
    /// When the attempt began.
    pub(crate) began: Mono,
    pub(crate) cost: u8,
    pub(crate) from_disk: bool,
    pub(crate) stage: Stage,
}

/// How far a delivery in memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for a slot.
    Ready,
    /// Waits for its credential's ceiling.
    Aside,
    /// Attempted on a connection that was made for it.
    OnNew,
    /// Attempted on a connection that was open already.
    OnOpen,
    /// Answered for by the path's last failure.
    Answered,
    /// Its settlement is under way.
    Settling,
}
