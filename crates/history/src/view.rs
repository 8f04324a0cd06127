//! Timelines as they are shown: by the API as JSON, by `posthouse trace` as text. Ids and times are texts, as JSON
//! numbers lose digits of an id.

use std::fmt;
use std::str::FromStr;

use mail::{
    Accepted, Attempt, BounceClass, Disposition, MessageId, Protocol, ReportKind, Security, Stream,
    Timestamp, TlsInfo,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::timeline::End;

/// Everything that is known about a message, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Its id, as in the reply to the final dot.
    #[serde(with = "text")]
    pub id: MessageId,
    /// Who sent it, from where and how. None when that is lost or older than the history.
    pub accepted: Option<AcceptedView>,
    /// What happened to it since.
    pub steps: Vec<Step>,
    /// Where each recipient stands, in the order of the envelope.
    pub recipients: Vec<RecipientView>,
}

/// How a message was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedView {
    /// When.
    #[serde(with = "time")]
    pub at: Timestamp,
    /// The number of the organisation whose mail it is.
    pub org: i64,
    /// What kind of mail.
    pub stream: Stream,
    /// The envelope's sender; empty for the null sender.
    pub sender: String,
    /// The content's size in octets.
    pub size: u64,
    /// The Message-ID header field, without angle brackets.
    pub message_id: Option<String>,
    /// ENVID as given.
    pub envid: Option<String>,
    /// How it came.
    pub protocol: Protocol,
    /// The client's address.
    pub client: Option<String>,
    /// The name the client gave.
    pub helo: Option<String>,
    /// The login.
    pub credential: Option<String>,
    /// How the connection was protected.
    pub tls: Option<TlsInfo>,
    /// The listener's name.
    pub listener: Option<String>,
    /// For a report: the message it reports on.
    pub report_on: Option<String>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    #[serde(with = "time")]
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened. Recipients are given by address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum What {
    /// A delivery was attempted.
    Attempt(Box<AttemptView>),
    /// The message's lifetime is over for these recipients.
    Expired {
        /// Who.
        recipients: Vec<String>,
    },
    /// A report was made.
    Reported {
        /// Failure, delay or success.
        kind: ReportKind,
        /// The report's id.
        report: String,
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
        to: String,
    },
    /// These recipients were removed from the queue.
    Removed {
        /// By whom.
        by: String,
        /// Who.
        recipients: Vec<String>,
    },
    /// Its stored content was found damaged.
    Damaged {
        /// What was found.
        reason: String,
    },
    /// It was caught by the sandbox.
    Caught {
        /// Who it was for.
        recipients: Vec<String>,
    },
    /// Aliases and rewriting changed the envelope before it was accepted.
    Forwarded {
        /// What was written, and whom it went to instead.
        recipients: Vec<(String, Vec<String>)>,
        /// The sender as given, where another one stands for it now; empty is the null sender.
        sender: Option<String>,
    },
    /// A report came back about a recipient that the next hop had taken.
    Bounced {
        /// Who.
        recipient: String,
        /// The enhanced status code.
        status: String,
        /// The words of the report.
        text: String,
        /// What it was about.
        class: BounceClass,
        /// The id of the message that the report came in.
        report: Option<String>,
    },
}

/// One attempt at a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// The delivery's id.
    pub delivery: String,
    /// Where it went.
    pub destination: String,
    /// When it began.
    #[serde(with = "time")]
    pub started: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Who answered, by name.
    pub host: Option<String>,
    /// Who answered, by address and port.
    pub address: Option<String>,
    /// How the connection was protected.
    pub tls: Option<TlsInfo>,
    /// What became of each recipient that was tried.
    pub outcomes: Vec<OutcomeView>,
    /// Whether the next hop offered DSN, and so reports success itself.
    pub dsn: bool,
    /// The dialogue, for attempts that failed or when asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transcript: Option<String>,
    /// The source that it was made from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// How the connection had to be protected, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub security: Option<Security>,
}

/// What became of a recipient in one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeView {
    /// Its address.
    pub recipient: String,
    /// Delivered, deferred or refused.
    pub result: Disposition,
    /// The enhanced status code.
    pub status: String,
    /// The peer's reply code; none when it is our own word.
    pub code: Option<u16>,
    /// The peer's words, or ours.
    pub text: String,
    /// What a refusal or deferral was about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<BounceClass>,
}

/// Where a recipient stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientView {
    /// Its number within the message.
    pub number: u16,
    /// Its address.
    pub address: String,
    /// Where it stands.
    pub end: End,
    /// Since when.
    #[serde(with = "time")]
    pub since: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// The last attempt's outcome.
    pub last: Option<OutcomeView>,
}

impl AcceptedView {
    pub(crate) fn new(accepted: &Accepted) -> Self {
        let message = &accepted.message;
        let origin = &message.origin;
        Self {
            at: message.received_at,
            org: message.org.0,
            stream: message.stream,
            sender: message.sender().to_owned(),
            size: message.size,
            message_id: message.header_message_id.clone(),
            envid: message.envid.clone(),
            protocol: origin.protocol,
            client: origin.client.map(|ip| ip.to_string()),
            helo: origin.helo.clone(),
            credential: origin.credential.clone(),
            tls: origin.tls.clone(),
            listener: origin.listener.clone(),
            report_on: accepted.report_on.map(|id| id.to_string()),
        }
    }
}

impl AttemptView {
    pub(crate) fn new(attempt: &Attempt, name: impl Fn(u16) -> String) -> Self {
        let outcome = |r: &mail::RecipientOutcome| OutcomeView {
            recipient: name(r.recipient),
            result: r.outcome.disposition,
            status: r.outcome.status.to_string(),
            code: r.outcome.code,
            text: r.outcome.text.clone(),
            class: r.class,
        };
        Self {
            delivery: attempt.delivery.to_string(),
            destination: attempt.destination.to_string(),
            started: attempt.started,
            duration_ms: attempt.duration_ms,
            host: attempt.remote.as_ref().map(|r| r.name.clone()),
            address: attempt.remote.as_ref().and_then(|r| r.address).map(|a| a.to_string()),
            tls: attempt.tls.clone(),
            outcomes: attempt.outcomes.iter().map(outcome).collect(),
            dsn: attempt.dsn,
            transcript: attempt.transcript.clone(),
            source: attempt.source.as_ref().map(ToString::to_string),
            security: attempt.security.clone(),
        }
    }
}

/// As text.
mod text {
    use super::{Deserialize, Deserializer, FromStr, Serializer, fmt};

    pub(super) fn serialize<T: fmt::Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// As RFC 3339 with milliseconds.
mod time {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    pub(super) fn serialize<S: Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let time: jiff::Timestamp =
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)?;
        Ok(Timestamp(time.as_millisecond()))
    }
}
