//! What the scheduler and its driver say to each other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mail::{DeliveryId, Destination, Mono, Outcome, QueueKey, Site, SourceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// Where a connection leaves and where it ends: a source and a site. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path {
    /// The outgoing address.
    pub source: SourceName,
    /// Where it ends.
    pub site: Site,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.source, self.site)
    }
}

/// A delivery as the scheduler has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which one.
    pub id: DeliveryId,
    /// The credential or key it was submitted with, as `message.origin` names it.
    pub credential: Option<Arc<str>>,
    /// Recipients that are not final. They count in the turns: see [`Item::cost`].
    pub recipients: u16,
}

impl Item {
    /// What a delivery costs its organisation in the round robin: 9, and 1 for each recipient, at most 100. What is shared is time on
    /// a connection, and a transaction takes about as long as ten further recipients do. By message alone, who
    /// puts a hundred recipients into each would get many times the share of others; by recipient alone, who writes to
    /// one at a time would.
    pub fn cost(recipients: u16) -> u8 {
        u8::try_from(recipients.max(1).saturating_add(9).min(100)).unwrap_or(100)
    }
}

/// What the driver shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Attempt this delivery. It holds a slot on its path until [`crate::Scheduler::attempted`] says that the
    /// connection is gone.
    Deliver {
        /// What to deliver.
        id: DeliveryId,
        /// The queue it is in.
        queue: QueueKey,
        /// Where the connection leaves and ends.
        path: Path,
        /// Give it to a worker that waits with an open connection on this path (there is one). Otherwise start a new
        /// worker.
        on_open: bool,
    },
    /// Do not connect: the site can't be reached at the moment from any source that this mail may use. Settle the delivery as if this
    /// had been the outcome of an attempt for each of its recipients, then say [`crate::Scheduler::attempted`] and
    /// [`crate::Scheduler::finished`] as always.
    Answer {
        /// What to settle.
        id: DeliveryId,
        /// The queue it is in.
        queue: QueueKey,
        /// The failure that closed the path.
        outcome: Arc<Outcome>,
        /// The source of that path.
        source: SourceName,
    },
    /// Read rows of this queue that are due, smallest (due, id) first, and bring them by [`crate::Scheduler::paged`].
    Page {
        /// The queue.
        queue: QueueKey,
        /// How many rows. Those that are in memory already are among them, and are ignored when they come.
        n: usize,
    },
    /// Find out which site this destination is at, and say it by [`crate::Scheduler::located`]. Only for `mx:`. When DNS
    /// fails, say [`Site::Alone`] with a short validity: the attempt itself meets the error. Asked again when no answer came within a
    /// minute.
    Locate {
        /// The destination.
        destination: Destination,
    },
    /// Close one idle connection on this path: another site needs the slot, or the source is gone. The slot is gone already;
    /// [`crate::Scheduler::release_slot`] must not be called for it.
    CloseIdle {
        /// The path.
        path: Path,
    },
    /// Its credential is over its ceiling: settle it as parked until `due` (its state, attempts and recipients stay as they are), then say
    /// [`crate::Scheduler::finished`] with that time. [`crate::Scheduler::attempted`] is not said.
    PutBack {
        /// What to put back.
        id: DeliveryId,
        /// The queue it is in.
        queue: QueueKey,
        /// Its time.
        due: Timestamp,
    },
    /// Ask the store which queues have rows that are due after this time, earliest first, and bring them by
    /// [`crate::Scheduler::horizon`]; or say [`crate::Scheduler::horizon_failed`]. One at a time.
    Horizon {
        /// Rows due at or before this time are known already.
        after: Timestamp,
        /// How many queues at most.
        n: usize,
    },
    /// Ask [`crate::Scheduler::wishes`] soon, and not only when a second is over: something waits for a limit that all nodes
    /// share.
    Borrow,
    /// The loan that this attempt was made on has run out: cut it off, now. It is settled as deferred, and its connection
    /// reported as closed.
    Cut {
        /// What is attempted.
        id: DeliveryId,
    },
    /// Call [`crate::Scheduler::tick`] at this moment. Replaces the wake-up asked for before.
    Wake {
        /// When. Never more than half a minute away, as the wall clock may be set meanwhile.
        at: Mono,
    },
}

/// The answer to [`crate::Scheduler::reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// There is room in memory: store it without `due`; a place is kept until it is admitted or cancelled.
    Active,
    /// Store it as due then, to be paged in. Nothing is kept.
    Parked {
        /// Now, when there is no room in memory; later, when organisation, credential or route are over their rate: this is its own turn.
        due: Timestamp,
    },
}

/// What is known after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What became of the connection.
    pub link: Link,
    /// How long the site took to answer: of a message that went through, from its first command to the final reply. None when
    /// nothing can be learned from it. For big messages leave the time out that the content took to send.
    pub latency: Option<Duration>,
    /// What the replies said about the path, each kind once.
    pub signals: Vec<Signal>,
}

impl Report {
    /// A report that says no more than this.
    pub fn of(link: Link) -> Self {
        Self { link, latency: None, signals: Vec::new() }
    }
}

/// What became of the connection an attempt was made on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is open; the worker keeps its slot and asks [`crate::Scheduler::next_for`] at once.
    Kept,
    /// It is closed, but the site did answer. The slot is free.
    Closed,
    /// No connection could be made, or the site turned us away before the first message. The slot is free, and the
    /// path is left alone for a while; until then this outcome answers for it, unless other sources can go on.
    Unreachable(Arc<Outcome>),
}

/// The answer to [`crate::Scheduler::next_for`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Deliver this on the same connection.
    Deliver(DeliveryId),
    /// Nothing now. The worker is idle with its connection and its slot, until an [`Effect::Deliver`] with `on_open`
    /// or an [`Effect::CloseIdle`] reaches it, or it gives up and says [`crate::Scheduler::release_slot`].
    Wait,
    /// Close the connection: others need it, or the path is to have fewer, or is closed. The slot is gone already.
    Close,
}

/// What is left on disk behind a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There may be more rows that are due: as many came as were asked for.
    Due,
    /// Nothing more is due; the earliest row that waits for its time is due then.
    Later(Timestamp),
    /// Nothing else waits in this queue.
    Nothing,
}

/// The answer to [`crate::Scheduler::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It was in memory, and is forgotten; or it was not in memory.
    Gone,
    /// It is being attempted, or its settlement is under way: it will end as it ends.
    InFlight,
}
