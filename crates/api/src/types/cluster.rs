//! The cluster: nodes, roles, the database they share.

use serde::{Deserialize, Serialize};

/// How the cluster stands, as the database has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The node that answers, by its name in the configuration.
    pub node: String,
    /// All nodes, by number.
    pub nodes: Vec<NodeView>,
    /// What only one node may do at a time, and who does it.
    pub roles: Vec<RoleView>,
    /// The PostgreSQL that all of them share.
    pub database: DatabaseView,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name, unlike all others'.
    pub name: String,
    /// Its number, 1 to 1023; part of the ids of its messages.
    pub number: u16,
    /// `up`, `draining`, `late` (no beat for six seconds: it starts nothing), `dead` (another node has declared it so) or `left` (it
    /// was stopped in order).
    pub state: String,
    /// Which of its lives this is: goes up with each start and each time it is declared dead.
    pub epoch: i64,
    /// Seconds since its last beat, by the database's clock.
    pub beat_age_s: f64,
    /// The version of Posthouse that it runs.
    pub version: String,
    /// Where its management is reached.
    pub address: String,
    /// Deliveries that it has in memory.
    pub in_hand: u64,
    /// Events that it has not yet brought into the history.
    pub untold: u64,
    /// What an earlier life of it had in hand has still to be given back.
    pub owed: bool,
}

/// Something that only one node may do at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleView {
    /// What it is.
    pub role: String,
    /// The node that does it, by name; none while it changes hands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How often it has changed hands.
    pub term: i64,
}

/// The PostgreSQL that all nodes share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseView {
    /// The server that takes writes; empty where it is not known.
    pub server: String,
    /// Its version.
    pub version: String,
    /// `checked` or `provider`: who answers for it that a commit is on two machines.
    pub durability: String,
    /// Why nothing is stored in it at the moment, where that is so: a setting with which it could lose mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_unsafe: Option<String>,
    /// Its standbys, those that are connected.
    pub standbys: Vec<StandbyView>,
    /// Why more is not known of the standbys: the role may not see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
}

/// A standby of the database server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyView {
    /// What it calls itself.
    pub name: String,
    /// `sync`, `quorum`, `potential` or `async`: whether commits wait for it.
    pub sync: String,
    /// By how many octets its disk is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
    /// By how many milliseconds its disk is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
}
