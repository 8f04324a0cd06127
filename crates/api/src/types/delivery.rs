//! How delivery stands: paths, providers, the health of smart hosts.

use serde::{Deserialize, Serialize};

/// A path: from one source, an outgoing address, to one site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathView {
    /// The source's name.
    pub source: String,
    /// The site: `provider:gmail`, `hosts:mx.example.net`, or a destination that shares its site with nobody.
    pub site: String,
    /// Connections now.
    pub connections: u32,
    /// Most connections at the moment: the adaptive window within the bounds of the provider data and `[[shape]]` rules.
    pub window: u32,
    /// Most messages in a time, such as `100/1m`; none where nothing bounds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Deliveries that wait for this path in memory.
    pub waiting: u64,
    /// `ok`, `slow` (it asked us to slow down), `suspended` or `unreachable`.
    pub health: String,
    /// Why it is not `ok`, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Until when it is suspended, or when it is probed next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How long replies take, in milliseconds, smoothed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// The source's warm-up here; none when it has no plan, or the plan is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<WarmupView>,
}

/// Where a source's warm-up stands at a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WarmupView {
    /// The day of the plan, from 1.
    pub day: u32,
    /// Messages that may go today.
    pub limit: u64,
    /// Messages that went today.
    pub sent: u64,
}

/// What the provider data say of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderView {
    /// Its name, as `[[shape]]` names it.
    pub name: String,
    /// What its mail exchangers are known by.
    pub mx: Vec<String>,
    /// Connections at a time from one source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Messages on one connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_connection: Option<u32>,
    /// Messages in a time, such as `100/1m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// New connections in a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_rate: Option<String>,
    /// How many reply patterns are known.
    pub patterns: usize,
    /// Where the values come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// How a host of a smart host has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostHealth {
    /// `host:port`.
    pub host: String,
    /// Whether mail goes to it.
    pub ok: bool,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}
