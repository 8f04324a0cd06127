//! Suspensions and suppressions.

use serde::{Deserialize, Serialize};

/// Deliveries that are not to be attempted for a while. All that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuspensionNew {
    /// Whose mail, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// `transactional` or `bulk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The recipients' domain, such as `example.com` or `*.example.com`: mail that goes to its mail exchangers. Mail that
    /// a route sends elsewhere is named by `destination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where mail goes by a route, as the route says it: `smarthost:upstream`, `smtp://10.0.0.5:25`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The site, as `queue sites` shows it, or a provider's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it is over by itself, RFC 3339; none: when it is lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Why, in a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Has to be true where nothing else says what: all mail stops.
    pub all: bool,
    /// Only says what it would stop; changes nothing.
    pub dry_run: bool,
}

/// What a suspension stops, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspensionReach {
    /// Queues with mail that is concerned now.
    pub queues: u64,
    /// Deliveries in them, those in memory and those that wait on disk; held ones are held anyway.
    pub deliveries: u64,
    /// Deliveries that may leave by the source that is suspended, and go on by another one of their pool.
    #[serde(default, skip_serializing_if = "is_none")]
    pub by_other_source: u64,
    /// Where routes send mail for the domain that is suspended: to smart hosts and named servers, which is not concerned.
    /// Suspend these as destinations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routed: Vec<String>,
    /// Nothing was changed.
    pub dry_run: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_none(n: &u64) -> bool {
    *n == 0
}

/// A suspension, and what it stops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspended {
    /// The suspension; none where it was only asked about.
    #[serde(flatten)]
    pub suspension: Option<directory::rule::Entry<directory::rule::Suspension>>,
    /// What it stops; none where that could not be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<SuspensionReach>,
}

/// Which suspensions would be lifted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResumeQuery {
    /// Their ids, with commas between them.
    pub ids: String,
}

/// What would go on if suspensions were lifted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeReach {
    /// Queues that would go on.
    pub queues: u64,
    /// Deliveries in them.
    pub deliveries: u64,
    /// Deliveries that these suspensions stop and another one stops as well.
    pub still_suspended: u64,
}

/// An address that an organisation does not write to any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// Whose mail is not taken for it.
    pub org: String,
    /// The address.
    pub address: String,
    /// What the bounce was about.
    pub class: String,
    /// Why.
    pub reason: String,
    /// `manual` or `bounce`.
    pub source: String,
    /// Who added it.
    pub by: String,
    /// Since when.
    pub since: String,
}

/// An address to suppress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuppressionNew {
    /// The address.
    pub address: String,
    /// Whose mail is not to be taken for it; `default` when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Why, in a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which suppressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuppressionsQuery {
    /// Only this organisation's, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Only addresses that hold this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The `next` of the part before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Which part of the log of changes; the newest entries come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditQuery {
    /// Only what was done at this time or later, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only what was done by someone whose name holds this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Only changes to this kind of thing: `route`, `source`, `queue`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Only changes to the thing of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The `next` of the part before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}
