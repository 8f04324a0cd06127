//! Events and messages as the first stored form had them. What was stored then is read through these types for ever;
//! nothing writes them.

use serde::Deserialize;

use crate::address::ReversePath;
use crate::attempt::{self, Outcome, Remote};
use crate::clock::Timestamp;
use crate::event::{self, Actor, ReportKind};
use crate::id::{DeliveryId, MessageId, OrgId};
use crate::message::{self, Body, Origin, Recipient, Ret, TlsInfo};
use crate::queue::{Destination, Stream};

/// A message of form 1: nothing about TLS was asked.
#[derive(Debug, Deserialize)]
pub struct Message {
    id: MessageId,
    org: OrgId,
    stream: Stream,
    received_at: Timestamp,
    reverse_path: ReversePath,
    ret: Option<Ret>,
    envid: Option<String>,
    body: Body,
    smtputf8: bool,
    size: u64,
    header_message_id: Option<String>,
    origin: Origin,
}

impl From<Message> for message::Message {
    fn from(old: Message) -> Self {
        Self {
            id: old.id,
            org: old.org,
            stream: old.stream,
            received_at: old.received_at,
            reverse_path: old.reverse_path,
            ret: old.ret,
            envid: old.envid,
            body: old.body,
            smtputf8: old.smtputf8,
            size: old.size,
            header_message_id: old.header_message_id,
            origin: old.origin,
            require_tls: false,
            tls_optional: false,
        }
    }
}

/// How a message of form 1 was accepted.
#[derive(Debug, Deserialize)]
pub struct Accepted {
    message: Message,
    recipients: Vec<Recipient>,
    report_on: Option<MessageId>,
}

impl From<Accepted> for event::Accepted {
    fn from(old: Accepted) -> Self {
        Self { message: old.message.into(), recipients: old.recipients, report_on: old.report_on }
    }
}

#[derive(Debug, Deserialize)]
struct RecipientOutcome {
    recipient: u16,
    outcome: Outcome,
}

/// An attempt of form 1: from the one source there was, and not classified.
#[derive(Debug, Deserialize)]
pub struct Attempt {
    delivery: DeliveryId,
    destination: Destination,
    started: Timestamp,
    duration_ms: u64,
    remote: Option<Remote>,
    tls: Option<TlsInfo>,
    outcomes: Vec<RecipientOutcome>,
    dsn: bool,
    transcript: Option<String>,
}

impl From<Attempt> for attempt::Attempt {
    fn from(old: Attempt) -> Self {
        let outcome = |o: RecipientOutcome| attempt::RecipientOutcome::new(o.recipient, o.outcome);
        Self {
            delivery: old.delivery,
            destination: old.destination,
            started: old.started,
            duration_ms: old.duration_ms,
            remote: old.remote,
            tls: old.tls,
            outcomes: old.outcomes.into_iter().map(outcome).collect(),
            dsn: old.dsn,
            transcript: old.transcript,
            source: None,
            security: None,
        }
    }
}

/// An event of form 1.
#[derive(Debug, Deserialize)]
pub struct Event {
    at: Timestamp,
    message: MessageId,
    kind: EventKind,
}

impl From<Event> for event::Event {
    fn from(old: Event) -> Self {
        Self { at: old.at, message: old.message, kind: old.kind.into() }
    }
}

/// The same kinds in the same order as [`event::EventKind`] had then.
#[derive(Debug, Deserialize)]
enum EventKind {
    Accepted(Box<Accepted>),
    Attempt(Box<Attempt>),
    Expired { recipients: Vec<u16> },
    Reported { kind: ReportKind, report: MessageId, recipients: Vec<u16> },
    Held { by: Actor, reason: String },
    Released { by: Actor },
    Retried { by: Actor },
    Rerouted { by: Actor, to: Destination },
    Removed { by: Actor, recipients: Vec<u16> },
    Damaged { reason: String },
    Caught { recipients: Vec<u16> },
}

impl From<EventKind> for event::EventKind {
    fn from(old: EventKind) -> Self {
        match old {
            EventKind::Accepted(accepted) => Self::Accepted(Box::new((*accepted).into())),
            EventKind::Attempt(attempt) => Self::Attempt(Box::new((*attempt).into())),
            EventKind::Expired { recipients } => Self::Expired { recipients },
            EventKind::Reported { kind, report, recipients } => Self::Reported { kind, report, recipients },
            EventKind::Held { by, reason } => Self::Held { by, reason },
            EventKind::Released { by } => Self::Released { by },
            EventKind::Retried { by } => Self::Retried { by },
            EventKind::Rerouted { by, to } => Self::Rerouted { by, to },
            EventKind::Removed { by, recipients } => Self::Removed { by, recipients },
            EventKind::Damaged { reason } => Self::Damaged { reason },
            EventKind::Caught { recipients } => Self::Caught { recipients },
        }
    }
}
