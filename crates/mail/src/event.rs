//! What happened to messages; written to the outbox in the same commit as what it tells of.

use serde::{Deserialize, Serialize};

use crate::address::{Address, ReversePath};
use crate::attempt::{Attempt, Outcome};
use crate::bounce::BounceClass;
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::message::{Message, Recipient};
use crate::queue::Destination;

/// Something that happened to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// To which message.
    pub message: MessageId,
    /// What.
    pub kind: EventKind,
}

/// A message and its recipients, as accepted. A recipient's number is its place in `recipients`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The message.
    pub message: Message,
    /// Its recipients, in the order of the envelope.
    pub recipients: Vec<Recipient>,
    /// For a report: the message it reports on.
    pub report_on: Option<MessageId>,
}

/// Which report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportKind {
    /// It failed for good.
    Failure,
    /// It is late, and will be tried further.
    Delay,
    /// It was delivered, and the sender asked to know.
    Success,
}

/// Who did something by hand: `root (uid 0)`, a user's name, a key's name.
pub type Actor = String;

/// What happened. New kinds are added at the end: stored events are read by later versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// It was accepted.
    Accepted(Box<Accepted>),
    /// A delivery was attempted.
    Attempt(Box<Attempt>),
    /// These recipients were given up: their last outcome was a deferral and the message's lifetime is over.
    Expired {
        /// Numbers of the recipients.
        recipients: Vec<u16>,
    },
    /// A report was made and queued.
    Reported {
        /// Which kind.
        kind: ReportKind,
        /// The report's own id.
        report: MessageId,
        /// Numbers of the recipients it speaks of.
        recipients: Vec<u16>,
    },
    /// It was held.
    Held {
        /// By whom: an operator, or `posthouse`.
        by: Actor,
        /// Why.
        reason: String,
    },
    /// It was released.
    Released {
        /// By whom.
        by: Actor,
    },
    /// It was told to be tried at once.
    Retried {
        /// By whom.
        by: Actor,
    },
    /// It was sent another way.
    Rerouted {
        /// By whom.
        by: Actor,
        /// Whereto.
        to: Destination,
    },
    /// These recipients were removed from the queue.
    Removed {
        /// By whom.
        by: Actor,
        /// Numbers of the recipients.
        recipients: Vec<u16>,
    },
    /// Its stored content was found damaged.
    Damaged {
        /// What was found.
        reason: String,
    },
    /// It was caught by the sandbox.
    Caught {
        /// Numbers of the recipients.
        recipients: Vec<u16>,
    },
    /// Aliases and rewriting changed the envelope before it was accepted.
    Forwarded {
        /// What was written, in order, each with the numbers of the recipients that it became.
        recipients: Vec<(Address, Vec<u16>)>,
        /// The sender as given, where another one stands for it now; none is the null sender.
        sender: Option<ReversePath>,
    },
    /// A report came back about a recipient that a next hop had taken (a late bounce).
    Bounced {
        /// Number of the recipient.
        recipient: u16,
        /// What the report says.
        outcome: Outcome,
        /// What it was about.
        class: BounceClass,
        /// The message that the report came in; none when it was not kept.
        report: Option<MessageId>,
    },
}
