//! How much traffic a site is to be given: what the provider data and the operator's `[[shape]]` rules say alike.

pub use mail::{Rate, RateError};
use serde::{Deserialize, Serialize};

/// Bounds of the traffic on a path: from one source to one site. What is not set is not said here, and whoever was asked
/// before has the word: see [`Traffic::or`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Most connections at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Most messages on one connection; then it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_connection: Option<u32>,
    /// Most messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Most new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_rate: Option<Rate>,
}

impl Traffic {
    /// What this says, and where it says nothing what `other` says.
    #[must_use]
    pub fn or(self, other: Traffic) -> Traffic {
        Traffic {
            connections: self.connections.or(other.connections),
            messages_per_connection: self.messages_per_connection.or(other.messages_per_connection),
            rate: self.rate.or(other.rate),
            connection_rate: self.connection_rate.or(other.connection_rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_first_counts() {
        let shape = Traffic { connections: Some(3), ..Traffic::default() };
        let data = Traffic { connections: Some(10), rate: "5/1s".parse().ok(), ..Traffic::default() };
        assert_eq!(shape.or(data), Traffic { connections: Some(3), ..data });
    }
}
