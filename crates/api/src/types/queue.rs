//! The queue: filters, deliveries, changes.

use serde::{Deserialize, Serialize};

/// Which deliveries. All that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueQuery {
    /// Whose mail, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// The domain of a recipient, or of the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `transactional` or `bulk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The site it goes to, as `/api/paths` shows it, or a provider's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// A source that it may leave by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where it goes, as a route says it: `smarthost:upstream`, `mx:example.com`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The envelope's sender; `<>` is the null sender; `*` stands for any run of characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// States, with commas between them: `active`, `waiting`, `held`, `sandboxed`, `quarantined`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Words in the reason it is held for, or in the last reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Accepted longer ago than this, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_s: Option<u64>,
    /// Messages or deliveries, with commas between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The `next` of the part before. For listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many entries. For listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl QueueQuery {
    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        let Self { older_than_s, .. } = self;
        self.texts().iter().all(|(_, t)| t.is_none()) && older_than_s.is_none()
    }

    /// Everything but the age, and what only cuts a listing into parts.
    fn texts(&self) -> [(&'static str, &Option<String>); 11] {
        let Self { org, domain, stream, site, source, destination, from, to, state, reason, .. } = self;
        [
            ("org", org),
            ("domain", domain),
            ("stream", stream),
            ("site", site),
            ("source", source),
            ("destination", destination),
            ("from", from),
            ("to", to),
            ("state", state),
            ("reason", reason),
            ("id", &self.id),
        ]
    }

    /// In words, for the record: `org acme, domain example.com`; `all` where everything matches.
    pub fn words(&self) -> String {
        let texts = self.texts().into_iter().filter_map(|(name, text)| Some((name, text.clone()?)));
        let age = self.older_than_s.map(|s| ("older than", format!("{s}s")));
        let words: Vec<String> = texts.chain(age).map(|(name, text)| format!("{name} {text}")).collect();
        let line = if words.is_empty() { "all".to_owned() } else { words.join(", ") };
        line.chars().take(200).collect()
    }
}

/// The result of an attempt for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeView {
    /// `delivered`, `deferred` or `refused`.
    pub disposition: String,
    /// The enhanced status code.
    pub status: String,
    /// The peer's reply code, if a peer spoke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The peer's words, or ours.
    pub text: String,
    /// What a refusal or deferral was about: `recipient`, `quota`, `reputation`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// A recipient of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRecipient {
    /// The address.
    pub address: String,
    /// `pending`, `delivered`, `failed` or `removed`.
    pub status: String,
    /// The last outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<OutcomeView>,
}

/// A delivery in the queue: a message's part for one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// `MESSAGE-INDEX`.
    pub id: String,
    /// The message.
    pub message: String,
    /// Whose mail.
    pub org: String,
    /// `transactional` or `bulk`.
    pub stream: String,
    /// Where it goes.
    pub destination: String,
    /// `active`, `waiting`, `held`, `sandboxed` or `quarantined`.
    pub state: String,
    /// Why it is held or quarantined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The envelope's sender; empty is the null sender.
    pub from: String,
    /// The recipients.
    pub recipients: Vec<DeliveryRecipient>,
    /// The message's size in octets.
    pub size: u64,
    /// When it was accepted.
    pub received_at: String,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// Unclean stops in a row in which it was in delivery.
    pub crashes: u32,
    /// The site that it goes to, where one message is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The pool that it leaves by, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The sources of the pool, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Why it waits, in words, likewise: which limit, which window, whose turn, when next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A message in the queue with all its deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryDetail {
    /// The message's id.
    pub message: String,
    /// The Message-ID header field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// How it came: `smtp`, `submission`, `sendmail`, `report`.
    pub protocol: String,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The client's name in EHLO.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// How the client's connection was protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// Its deliveries.
    pub deliveries: Vec<Delivery>,
}

/// What shall happen to deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueAction {
    /// Nothing happens until they are released.
    Hold,
    /// Held ones go on, at once.
    Release,
    /// Tried at once.
    Retry,
    /// Sent another way, at once.
    Reroute,
    /// Taken out, on record.
    Remove,
}

impl QueueAction {
    /// Its name as it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Reroute => "reroute",
            Self::Remove => "remove",
        }
    }
}

/// A change of the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueChange {
    /// Which deliveries.
    #[serde(default)]
    pub filter: QueueQuery,
    /// Has to be true for a change without a filter.
    #[serde(default)]
    pub all: bool,
    /// Only tell how many it would be.
    #[serde(default)]
    pub dry_run: bool,
    /// For `hold`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `reroute`: where to, as a route says it; `mx` is the mail exchangers of the recipients' domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueChanged {
    /// Deliveries changed, or that would be.
    pub changed: u64,
    /// Of those, how many are being attempted right now: for them the change counts after that attempt.
    pub in_flight: u64,
    /// Of those, how many another node of the cluster has in hand: it hears of it within a second, and only there it is known
    /// whether they are being attempted.
    #[serde(default)]
    pub elsewhere: u64,
    /// Deliveries that match, but that this change cannot be made to.
    pub skipped: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// How many deliveries wait in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSummary {
    /// Whose mail.
    pub org: String,
    /// `transactional` or `bulk`.
    pub stream: String,
    /// Where it goes.
    pub destination: String,
    /// How many wait.
    pub waiting: u64,
    /// When the first of them is due.
    pub due: String,
}

/// Which queues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueuesQuery {
    /// Only this organisation's, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Instead of a page: so many queues with the most deliveries waiting, largest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<usize>,
    /// The `next` of the part before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}
