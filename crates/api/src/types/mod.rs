//! The JSON of the API, for both sides: the router answers with these types, the command line reads them.
//!
//! Ids are texts as people see them, times are RFC 3339, durations are seconds in fields that end in `_s`.

mod cluster;
mod delivery;
mod directory;
mod operate;
mod queue;
mod stops;
mod trace;

use serde::{Deserialize, Serialize};

pub use cluster::{ClusterView, DatabaseView, NodeView, RoleView, StandbyView};
pub use delivery::{HostHealth, PathView, ProviderView, WarmupView};
pub use directory::{
    Credential, CredentialChange, CredentialMade, CredentialNew, Domain, DomainNew, HostLoginNew,
    HostLoginView, Key, KeyChange, KeyMade, KeyNew, OAuthNew, Org, OrgChange, OrgNew, Probe, ProbeStep,
    Route, RouteNew, SmartHost, SmartHostNew, Source,
};
pub use operate::{
    BackupAsk, BackupReport, DamagedMessage, Envelope, ExplainRequest, ExplainedRecipient, Explanation,
    ListenerStatus, MessageFacts, Reloaded, Status, Submitted, Verdict, VerifyReport,
};
pub use queue::{
    Delivery, DeliveryDetail, DeliveryRecipient, OutcomeView, QueueAction, QueueChange, QueueChanged,
    QueueQuery, QueueSummary, QueuesQuery,
};
pub use stops::{
    AuditQuery, ResumeQuery, ResumeReach, Suppression, SuppressionNew, SuppressionsQuery, Suspended,
    SuspensionNew, SuspensionReach,
};
pub use trace::{StepRecipient, Trace, TraceQuery, TraceRecipient, TraceStep};

/// Entries of a page when the query does not say.
pub const LIMIT_DEFAULT: usize = 100;
/// Most entries of a page.
pub const LIMIT_MAX: usize = 1000;

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// What to give as `after` to get the next part; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An entry of the log of changes to the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number; grows.
    pub id: String,
    /// When.
    pub at: String,
    /// Who.
    pub by: String,
    /// `add`, `set`, `remove`; for the queue `hold`, `release`, `retry`, `reroute`, `remove`.
    pub action: String,
    /// `organisation`, `credential`, `route`, `source`, `queue`, …
    pub what: String,
    /// Its name.
    pub name: String,
    /// How it was before; none when it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// How it is since; none when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

/// Which part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paging {
    /// The `next` of the part before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only this organisation's, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
}

impl Paging {
    /// The number of entries, within bounds.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX)
    }
}
