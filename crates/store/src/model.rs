//! What goes into the store and what comes out of it.

use std::sync::Arc;

use mail::{
    DeliveryId, Event, Message, MessageId, OrgId, Outcome, QueueKey, Recipient, RecipientStatus, State,
    Timestamp,
};

use crate::content::{Content, ContentRef, Sealed};

/// A message to be accepted: all of it gets on stable storage, or nothing.
#[derive(Debug)]
pub struct Admission {
    /// The message; its id is the one its sink was opened with.
    pub message: Message,
    /// Its content.
    pub content: Sealed,
    /// Its recipients, grouped by queue. A delivery's index is its place here.
    pub deliveries: Vec<NewDelivery>,
    /// What makes a second admission of the same thing answer [`Admitted::Duplicate`].
    pub dedupe: Option<Dedupe>,
    /// What to tell; normally one `Accepted`.
    pub events: Vec<Event>,
}

/// A key that is admitted once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// Whose key.
    pub org: OrgId,
    /// The key.
    pub key: Vec<u8>,
    /// When it may be used again.
    pub expires: Timestamp,
}

/// One delivery of a message to be accepted.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// Where it waits.
    pub queue: QueueKey,
    /// Its recipients with their numbers within the message.
    pub recipients: Vec<(u16, Recipient)>,
    /// The state it begins in.
    pub state: NewState,
}

/// The state a delivery begins in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewState {
    /// In memory from the start: the scheduler reserved a place.
    Active,
    /// Parked until it is paged in.
    Waiting {
        /// When.
        due: Timestamp,
    },
    /// Held by a policy.
    Held {
        /// Why.
        reason: String,
    },
    /// Caught.
    Sandboxed,
}

/// The answer to an admission.
#[derive(Debug)]
pub enum Admitted {
    /// It is on stable storage. One entry for each delivery, in order, with the content still in memory where it was.
    New(Vec<Waiting>),
    /// The dedupe key was used before, by this message. Nothing was stored.
    Duplicate(MessageId),
}

/// A recipient that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRecipient {
    /// Its number within the message.
    pub number: u16,
    /// Who.
    pub recipient: Recipient,
    /// The outcome of the last attempt.
    pub last: Option<Outcome>,
}

/// A delivery with all that is needed to attempt it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its name.
    pub id: DeliveryId,
    /// Where it waits.
    pub queue: QueueKey,
    /// The message.
    pub message: Arc<Message>,
    /// Where its content is.
    pub content: ContentRef,
    /// Its content, while it is in memory since it was admitted.
    pub body: Option<Content>,
    /// The recipients that are not final.
    pub recipients: Vec<PendingRecipient>,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is due; none unless it is waiting.
    pub due: Option<Timestamp>,
    /// Unclean stops in a row in which it was active.
    pub crashes: u32,
    /// Whether the delay warning was sent.
    pub warned: bool,
    /// Its state.
    pub state: State,
    /// Why it is held or quarantined.
    pub reason: Option<String>,
}

/// What became of an attempt: one commit, reports and all.
#[derive(Debug)]
pub struct Settlement {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Recipients whose status changed, by number.
    pub recipients: Vec<(u16, RecipientStatus)>,
    /// What happens to the delivery.
    pub next: Next,
    /// Whether the delay warning has been sent by now.
    pub warned: bool,
    /// Reports to be queued in the same commit.
    pub reports: Vec<Admission>,
    /// What to tell.
    pub events: Vec<Event>,
}

/// What happens to a delivery next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is over: the delivery goes, and with the last one of a message its content.
    Done,
    /// Try again.
    Deferred {
        /// When.
        due: Timestamp,
        /// Attempts so far.
        attempts: u32,
    },
    /// Put back untouched.
    Parked {
        /// When to look again.
        due: Timestamp,
    },
    /// Hold it.
    Held {
        /// Why.
        reason: String,
    },
    /// Its content is damaged.
    Quarantined {
        /// What was found.
        reason: String,
    },
    /// It was caught by the sandbox.
    Sandboxed,
}

/// The answer to a settlement.
#[derive(Debug, Default)]
pub struct Settled {
    /// The reports that were queued, in the order of [`Settlement::reports`]. Empty when the delivery was gone, as nobody
    /// is to be told about a message that an operator removed.
    pub reports: Vec<Admitted>,
    /// Whether the delivery was there. False: an operator removed it meanwhile.
    pub found: bool,
    /// The state it has now; none when it is gone. Held when an operator held it while it was attempted.
    pub state: Option<State>,
}

/// A queue with deliveries that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// Which.
    pub queue: QueueKey,
    /// How many wait.
    pub waiting: u64,
    /// The earliest due time.
    pub due: Timestamp,
}

/// The queues in which something is due next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Which, and when the first delivery of each is due; the earliest first.
    pub queues: Vec<(QueueKey, Timestamp)>,
    /// Every queue whose first delivery is due up to this time (and after the time that was asked for) is among them.
    pub complete_until: Timestamp,
}

/// Deliveries by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In memory.
    pub active: u64,
    /// Waiting for their time.
    pub waiting: u64,
    /// Held.
    pub held: u64,
    /// Caught by the sandbox.
    pub sandboxed: u64,
    /// With damaged content.
    pub quarantined: u64,
}

impl Counts {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.active + self.waiting + self.held + self.sandboxed + self.quarantined
    }
}

/// What was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the last process closed the store.
    pub clean: bool,
    /// Deliveries in the store.
    pub deliveries: u64,
    /// Deliveries that were active and wait now, due at once.
    pub requeued: u64,
    /// Deliveries held now because they were active in too many crashes.
    pub held: Vec<DeliveryId>,
    /// Messages quarantined because their content is not there.
    pub quarantined: Vec<MessageId>,
    /// Content files removed because nothing refers to them.
    pub segments_removed: u64,
}

/// Figures since the start, and how things stand now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages admitted, reports included.
    pub admitted: u64,
    /// Deliveries settled.
    pub settled: u64,
    /// Commits of the writer.
    pub groups: u64,
    /// Calls of fsync and fdatasync, those of SQLite's commits included, those of its checkpoints not.
    pub fsyncs: u64,
    /// Checkpoints of the write-ahead log.
    pub checkpoints: u64,
    /// Size of the last group, in operations.
    pub group_size: u64,
    /// Content bytes written.
    pub content_bytes: u64,
    /// Content bytes that a message refers to.
    pub live_bytes: u64,
    /// Content bytes on disk.
    pub segment_bytes: u64,
    /// Content files.
    pub segments: u64,
    /// Deliveries in the store.
    pub deliveries: u64,
    /// Bytes of the write-ahead log in use.
    pub wal_bytes: u64,
    /// Events not yet taken over by the history.
    pub outbox: u64,
    /// Message bytes in memory.
    pub memory: u64,
    /// Deliveries by state.
    pub counts: Counts,
    /// Times that content was read back from disk.
    pub content_reads: u64,
    /// Times that a delivery was given a due time: each is an entry in an index, and one to be removed again.
    pub due_writes: u64,
    /// Bytes of `queue.db`.
    pub database_bytes: u64,
    /// Bytes of `queue.db` that nothing uses; they are given back little by little.
    pub database_free: u64,
    /// How long commits took, from the turn of their group to the server's answer, fail-overs included. Only in PostgreSQL.
    pub commits: Latency,
    /// Operations that wait for a commit or are in one that is under way; during a fail-over what is held. Only in
    /// PostgreSQL.
    pub held: u64,
    /// Pages that took deliveries in hand,
    pub claims: u64,
    /// and how many they took. Only in PostgreSQL.
    pub claimed: u64,
    /// Content in object storage.
    pub objects: ObjectStats,
}

/// How long something took, as a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many times it was done.
    pub count: u64,
    /// How long that took in all, in microseconds.
    pub micros: u64,
    /// The longest since the start, in microseconds.
    pub micros_max: u64,
    /// How many of them took no longer than each of [`Latency::BOUNDS_MS`], those of the bounds before included.
    pub within: [u64; 12],
}

impl Latency {
    /// Upper bounds, in milliseconds.
    pub const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000];

    pub(crate) fn add(&mut self, took: std::time::Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count += 1;
        self.micros = self.micros.saturating_add(micros);
        self.micros_max = self.micros_max.max(micros);
        for (within, bound) in self.within.iter_mut().zip(Self::BOUNDS_MS) {
            *within += u64::from(micros <= bound * 1_000);
        }
    }
}

/// What was done with object storage since the start, and what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectStats {
    /// Messages whose content was put there,
    pub puts: u64,
    /// and how many octets that was.
    pub put_bytes: u64,
    /// Times that content was read there.
    pub gets: u64,
    /// Objects deleted with the last delivery of their message.
    pub deletes: u64,
    /// Objects deleted because no message referred to them.
    pub swept: u64,
    /// Requests that failed for good. Content that could not be put there went into the database.
    pub failures: u64,
    /// Messages whose content is there, of all nodes; some minutes old,
    pub messages: u64,
    /// and their octets.
    pub bytes: u64,
}

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Messages in it.
    pub messages: u64,
    /// Content files in it.
    pub segments: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Messages restored.
    pub messages: u64,
    /// Content files restored.
    pub segments: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// A message whose content is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The message.
    pub message: MessageId,
    /// What was found.
    pub reason: String,
}

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Messages whose content was read and compared.
    pub messages: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Messages with damaged content.
    pub damaged: Vec<Damage>,
    /// What SQLite's own check says about the database; empty when all is well.
    pub database: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.database.is_empty()
    }
}
