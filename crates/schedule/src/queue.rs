//! The state of one queue, and where each delivery in memory stands.

use std::collections::VecDeque;

use mail::{DeliveryId, Mono, QueueKey, Timestamp};

/// Index of a queue in the scheduler's slab.
pub(crate) type QueueIx = usize;

/// A queue that has, or lately had, something in it.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) key: QueueKey,
    pub(crate) site: usize,
    /// Its organisation's place in the round robin at the site.
    pub(crate) turn: usize,
    /// Reserved and not yet admitted.
    pub(crate) reserved: usize,
    /// In memory, waiting for a slot.
    pub(crate) ready: VecDeque<DeliveryId>,
    /// Being attempted, answered or settled.
    pub(crate) flying: usize,
    /// Of those in memory, how many have a row on disk that a page shows.
    pub(crate) from_disk: usize,
    /// The page that is under way.
    pub(crate) page: Option<Page>,
    /// Rows that are due wait on disk, more than the page under way is known to bring.
    pub(crate) backlog: bool,
    /// It stands in the line for a page.
    pub(crate) hungry: bool,
    /// When the earliest row that waits for its time is due; it stands in the scheduler's list of due times.
    pub(crate) due: Option<Timestamp>,
    /// It stands in its organisation's round robin.
    pub(crate) listed: bool,
    /// Since when nothing is in it.
    pub(crate) idle_since: Option<Mono>,
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
    pub(crate) fn new(key: QueueKey, site: usize, turn: usize) -> Self {
        Self {
            key,
            site,
            turn,
            reserved: 0,
            ready: VecDeque::new(),
            flying: 0,
            from_disk: 0,
            page: None,
            backlog: false,
            hungry: false,
            due: None,
            listed: false,
            idle_since: None,
            idle_listed: false,
        }
    }

    /// Places taken in its window.
    pub(crate) fn held(&self) -> usize {
        self.reserved + self.ready.len() + self.flying + self.page.as_ref().map_or(0, |p| p.places)
    }

    /// Whether nothing is in it and nothing is known to come.
    pub(crate) fn is_idle(&self) -> bool {
        self.held() == 0 && self.page.is_none() && !self.backlog && self.due.is_none()
    }
}

/// A delivery in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) queue: QueueIx,
    pub(crate) from_disk: bool,
    pub(crate) stage: Stage,
}

/// How far a delivery in memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for a slot.
    Ready,
    /// Attempted on a connection that was made for it.
    OnNew,
    /// Attempted on a connection that was open already.
    OnOpen,
    /// Answered for by the site's last failure.
    Answered,
    /// Its settlement is under way.
    Settling,
}
