//! The result of an attempt as a value: it decides retry or bounce, goes into the report and the history, and is
//! never parsed out of text again.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::bounce::BounceClass;
use crate::clock::Timestamp;
use crate::id::DeliveryId;
use crate::message::TlsInfo;
use crate::queue::Destination;
use crate::site::SourceName;
use crate::status::{EnhancedStatus, Reply};

/// What an attempt means for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// The next hop has it.
    Delivered,
    /// Not now; try again.
    Deferred,
    /// Never.
    Refused,
}

/// What became of one recipient in one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Delivered, deferred or refused.
    pub disposition: Disposition,
    /// Its enhanced status code; ours when the peer gave none.
    pub status: EnhancedStatus,
    /// The peer's reply code; none when no peer was reached or the failure is our own.
    pub code: Option<u16>,
    /// The peer's words, or ours in plain words.
    pub text: String,
}

impl Outcome {
    /// An outcome that no peer spoke of.
    pub fn own(disposition: Disposition, status: EnhancedStatus, text: impl Into<String>) -> Self {
        Self { disposition, status, code: None, text: text.into() }
    }

    /// What a peer's final reply about a recipient means: 2xx delivered, 5xx refused, anything else deferred.
    pub fn from_reply(reply: &Reply) -> Self {
        let (disposition, class) = match reply.code / 100 {
            2 => (Disposition::Delivered, 2),
            5 => (Disposition::Refused, 5),
            _ => (Disposition::Deferred, 4),
        };
        let status = reply.enhanced.filter(|s| s.class == class).unwrap_or(EnhancedStatus::new(class, 0, 0));
        Self { disposition, status, code: Some(reply.code), text: reply.text.clone() }
    }

    /// What was said, with its codes, in a line: `451 4.7.1 come back later`. Our own words have none.
    pub fn said(&self) -> String {
        match self.code {
            Some(code) => format!("{code} {} {}", self.status, self.text),
            None => self.text.clone(),
        }
    }
}

/// The host that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Its name as we looked it up: MX host, smart host, path of a socket or mailbox.
    pub name: String,
    /// Its address; none for sockets and mailboxes.
    pub address: Option<SocketAddr>,
}

/// One recipient's outcome; `recipient` is its number within the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientOutcome {
    /// Number of the recipient within the message, from 0.
    pub recipient: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// What a refusal or deferral was about; none when it was delivered, or not looked at yet.
    pub class: Option<BounceClass>,
}

impl RecipientOutcome {
    /// An outcome that nobody has classified yet.
    pub fn new(recipient: u16, outcome: Outcome) -> Self {
        Self { recipient, outcome, class: None }
    }
}

/// How a connection had to be protected, and why: `dane`, `mta-sts`, `required`, `opportunistic`, `none`, with the reason in
/// words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// The level in a word.
    pub level: String,
    /// Where it comes from, in words: the TLSA records, the policy and its mode, a rule of the operator.
    pub why: String,
}

/// One attempt at a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What was attempted.
    pub delivery: DeliveryId,
    /// Where it went.
    pub destination: Destination,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Who answered, if anyone did.
    pub remote: Option<Remote>,
    /// How the connection was protected.
    pub tls: Option<TlsInfo>,
    /// One outcome for each recipient that was tried.
    pub outcomes: Vec<RecipientOutcome>,
    /// Whether the next hop offered DSN (RFC 3461) and so reports success itself; without it, who asked for a success
    /// report hears from us that the message was relayed.
    pub dsn: bool,
    /// The dialogue, for attempts that failed or when asked for.
    pub transcript: Option<String>,
    /// The source, an outgoing address, that it was made from; none where no connection is needed.
    pub source: Option<SourceName>,
    /// How the connection had to be protected, and why; none where it was not asked.
    pub security: Option<Security>,
}

impl Attempt {
    /// Whether every recipient was delivered.
    pub fn all_delivered(&self) -> bool {
        self.outcomes.iter().all(|r| r.outcome.disposition == Disposition::Delivered)
    }
}
