//! What became of a message.

use serde::{Deserialize, Serialize};

use super::OutcomeView;

/// What to look for. All that is given must match; newest messages come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceQuery {
    /// Whatever a person typed: an id, an address, a Message-ID, a recipient's domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The envelope's sender; `<>` is the null sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// A recipient's domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The Message-ID header field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// A message's or delivery's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Only this organisation's mail, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Accepted at or after this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Accepted before this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// At most so many messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The `next` of the part before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A message's story.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Its id.
    pub id: String,
    /// Whose mail; none when its beginning is no longer in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// When it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at: Option<String>,
    /// The envelope's sender; empty is the null sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its size in octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The Message-ID header field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// How it came: `smtp`, `submission`, `sendmail`, `report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The client's name in EHLO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// How the client's connection was protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// For a report: the message it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_on: Option<String>,
    /// Where each recipient stands.
    pub recipients: Vec<TraceRecipient>,
    /// What happened, in order.
    pub steps: Vec<TraceStep>,
}

/// Where a recipient stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRecipient {
    /// The address.
    pub address: String,
    /// `queued`, `held`, `caught`, `delivered`, `refused`, `expired` or `removed`.
    pub end: String,
    /// Since when.
    pub since: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The last outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<OutcomeView>,
}

/// Something that happened to a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// When.
    pub at: String,
    /// `attempt`, `expired`, `reported`, `held`, `released`, `retried`, `rerouted`, `removed`, `damaged`, `caught`.
    pub what: String,
    /// In a sentence.
    pub text: String,
    /// For an attempt: where it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// For an attempt: who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// For an attempt: how the connection was protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// For an attempt: the source that it left by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// For an attempt: how the connection had to be protected, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<String>,
    /// For an attempt: how long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Recipients it is about, each with the outcome where there was one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<StepRecipient>,
    /// Who did it, for what people do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// For a report: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// For an attempt that failed: the dialogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
}

/// A recipient in a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecipient {
    /// The address.
    pub address: String,
    /// The outcome of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeView>,
}
