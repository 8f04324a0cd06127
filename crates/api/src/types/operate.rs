//! Status, reload, explain, submission, backup and verification.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How the relay stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether a relay runs; false when the command line answers for a stopped one.
    pub running: bool,
    /// The program's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// The relay's name.
    pub hostname: String,
    /// Where everything is kept.
    pub data_dir: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Whether mail is accepted; else why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// The listeners.
    pub listeners: Vec<ListenerStatus>,
    /// Client connections now.
    pub connections_in: u64,
    /// Connections to other hosts now.
    pub connections_out: u64,
    /// Messages accepted since the start.
    pub accepted: u64,
    /// Recipients delivered since the start.
    pub delivered: u64,
    /// Recipients deferred since the start.
    pub deferred: u64,
    /// Recipients refused or expired since the start.
    pub failed: u64,
    /// Deliveries in memory.
    pub active: u64,
    /// Deliveries in the queue, in whatever state.
    pub queued: u64,
    /// Octets of message buffers and caches in use.
    pub memory: u64,
    /// Octets of content on disk.
    pub content_bytes: u64,
    /// Events that history does not have yet.
    pub history_lag: u64,
}

/// A listener and where it really listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// `smtp`, `submission` or `submissions`.
    pub mode: String,
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What changed, in words.
    pub changed: Vec<String>,
    /// What changed in the file and counts only after a restart.
    pub needs_restart: Vec<String>,
}

/// What to explain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The envelope's sender; empty or `<>` is the null sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    /// The client's address; without it, the client is this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The login it authenticates as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The listener it comes to, by name; without it, a submission listener for one with a login, else an smtp one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// What the message is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageFacts>,
}

/// What matters of a message's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageFacts {
    /// Its size in octets.
    pub size: u64,
    /// Whether there are octets over 127 in its body.
    pub eight_bit: bool,
    /// Whether there are octets over 127 in its header section.
    pub header_non_ascii: bool,
    /// `Received` fields in it.
    pub received: usize,
    /// Whether it has lines that end in a bare CR or LF.
    pub bare_newlines: bool,
}

/// A yes or no, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Yes or no.
    pub accepted: bool,
    /// The SMTP reply.
    pub reply: String,
    /// Which rule says so.
    pub why: String,
}

/// What would happen to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who the client is taken for.
    pub client: String,
    /// Whether the sender may be used.
    pub sender: Verdict,
    /// Whether the content would be taken; none when nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Verdict>,
    /// What would happen for each recipient.
    pub recipients: Vec<ExplainedRecipient>,
}

/// What would happen for a recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRecipient {
    /// The recipient.
    pub recipient: String,
    /// Whether it would be accepted.
    pub verdict: Verdict,
    /// The route that matches, in words; none when it would be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Where it would go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The hosts that would be tried, in order, or why there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_hops: Vec<String>,
    /// What an alias or a rewriting rule makes of the recipient; empty where nothing does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub becomes: Vec<String>,
    /// The site that its connections end at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The pool that it leaves by, and which rule says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The sources of the pool with their addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// How the connection has to be protected, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// What bounds it: ceilings, shapes, suspensions that match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<String>,
}

/// The envelope of a submitted message: the first line of the body, before the content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The sender; empty is the null sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
}

/// A message that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its id.
    pub id: String,
}

/// Where to put a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupAsk {
    /// An absolute path to a directory that is empty or not there.
    pub to: String,
}

/// What a backup or a restore holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// Where it is.
    pub path: String,
    /// Messages.
    pub messages: u64,
    /// Octets in all.
    pub bytes: u64,
}

/// A message whose content is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedMessage {
    /// The message.
    pub id: String,
    /// What was found.
    pub reason: String,
}

/// What `verify` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Messages whose content was read and compared.
    pub messages: u64,
    /// Octets read.
    pub bytes: u64,
    /// Messages with damaged content.
    pub damaged: Vec<DamagedMessage>,
    /// What the database's own check says; empty when all is well.
    pub database: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.database.is_empty()
    }
}
