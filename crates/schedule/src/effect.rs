//! What the scheduler and its driver say to each other.

use std::sync::Arc;

use mail::{DeliveryId, Destination, Mono, Outcome, QueueKey, Timestamp};

/// What the driver shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Attempt this delivery. It holds a slot at its site until [`crate::Scheduler::attempted`] says that the
    /// connection is gone.
    Deliver {
        /// What to deliver.
        id: DeliveryId,
        /// The queue it is in; its destination is where the connection goes.
        queue: QueueKey,
        /// Give it to a worker that waits with an open connection to the site (there is one). Otherwise start a new
        /// worker.
        on_open: bool,
    },
    /// Do not connect: the site can't be reached at the moment. Settle the delivery as if this had been the outcome
    /// of an attempt for each of its recipients, then say [`crate::Scheduler::attempted`] and
    /// [`crate::Scheduler::finished`] as always.
    Answer {
        /// What to settle.
        id: DeliveryId,
        /// The queue it is in.
        queue: QueueKey,
        /// The failure that closed the site.
        outcome: Arc<Outcome>,
    },
    /// Read rows of this queue that are due, smallest (due, id) first, and bring them by [`crate::Scheduler::paged`].
    Page {
        /// The queue.
        queue: QueueKey,
        /// How many rows. Those that are in memory already are among them, and are ignored when they come.
        n: usize,
    },
    /// Close one idle connection to this site: another site needs the slot. The slot is gone already;
    /// [`crate::Scheduler::release_slot`] must not be called for it.
    CloseIdle {
        /// The site.
        site: Destination,
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
    /// No room: store it as due now, to be paged in. Nothing is kept.
    Parked,
}

/// What became of the connection an attempt was made on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is open; the worker keeps its slot and asks [`crate::Scheduler::next_for`] at once.
    Kept,
    /// It is closed, but the site did answer. The slot is free.
    Closed,
    /// No connection could be made, or the site turned us away before the first message. The slot is free, and the
    /// site is left alone for a while; until then this outcome answers for it.
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
    /// Close the connection: other sites wait for a connection, and this one has more than its share. The slot is
    /// gone already.
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
