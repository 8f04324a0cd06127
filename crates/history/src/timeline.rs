//! The life of a message, put together from its accepted row and its events.

use mail::{Accepted, Attempt, Destination, MessageId, Outcome, ReportKind, Timestamp};
use serde::Serialize;

/// Everything that is known about a message, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// Its id, as in the reply to the final dot.
    #[serde(serialize_with = "as_text")]
    pub id: MessageId,
    /// Who sent it, from where, protected how, to whom. None when that row is lost or older than the history.
    pub accepted: Option<Box<Accepted>>,
    /// What happened to it since.
    pub steps: Vec<Step>,
    /// Where each recipient stands, in the order of the envelope.
    pub recipients: Vec<RecipientTrace>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When, in RFC 3339.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum What {
    /// A delivery was attempted: peer, TLS, an outcome per recipient, and the dialogue where it failed.
    Attempt(Box<Attempt>),
    /// The message's lifetime is over for these recipients.
    Expired {
        /// Their addresses.
        recipients: Vec<String>,
    },
    /// A report was made.
    Reported {
        /// Failure, delay or success.
        kind: ReportKind,
        /// The report's id.
        #[serde(serialize_with = "as_text")]
        report: MessageId,
        /// The recipients it speaks of.
        recipients: Vec<String>,
    },
    /// It was held.
    Held {
        /// By whom.
        by: String,
        /// Why.
        reason: String,
    },
    /// It was released.
    Released {
        /// By whom.
        by: String,
    },
    /// It was told to be tried at once.
    Retried {
        /// By whom.
        by: String,
    },
    /// It was sent another way.
    Rerouted {
        /// By whom.
        by: String,
        /// Whereto.
        to: Destination,
    },
    /// These recipients were removed from the queue.
    Removed {
        /// By whom.
        by: String,
        /// Their addresses.
        recipients: Vec<String>,
    },
    /// Its stored content was found damaged.
    Damaged {
        /// What was found.
        reason: String,
    },
    /// It was caught by the sandbox.
    Caught {
        /// Their addresses.
        recipients: Vec<String>,
    },
}

/// Where a recipient stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecipientTrace {
    /// Its number within the message.
    pub number: u16,
    /// Its address.
    pub address: String,
    /// How it ended, if it did.
    pub end: End,
    /// When that came to be.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// The last attempt's outcome.
    pub last: Option<Outcome>,
}

/// The end of a recipient's story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// None yet: it is in the queue.
    Queued,
    /// Held, or its content is damaged: it waits for a person.
    Held,
    /// Caught by the sandbox.
    Caught,
    /// The next hop has it.
    Delivered,
    /// Refused for good.
    Refused,
    /// Given up after its lifetime.
    Expired,
    /// Removed by an operator.
    Removed,
}

fn as_text<T: std::fmt::Display, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
