//! What is asked of a smart host: how its connections are protected, and which of its hosts comes first.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether the connection to a smart host is under TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmartHostTls {
    /// STARTTLS, with a certificate that can be verified.
    #[default]
    Required,
    /// STARTTLS when it is offered, with any certificate.
    Opportunistic,
    /// TLS from the first octet (port 465), with a certificate that can be verified.
    Implicit,
    /// No TLS. A password is sent in the clear.
    None,
}

impl SmartHostTls {
    /// Its name as users type it.
    pub fn as_str(self) -> &'static str {
        match self {
            SmartHostTls::Required => "required",
            SmartHostTls::Opportunistic => "opportunistic",
            SmartHostTls::Implicit => "implicit",
            SmartHostTls::None => "none",
        }
    }
}

/// The text is no TLS mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no TLS mode: required, opportunistic, implicit or none")]
pub struct SmartHostTlsError(String);

impl FromStr for SmartHostTls {
    type Err = SmartHostTlsError;

    fn from_str(text: &str) -> Result<Self, SmartHostTlsError> {
        [SmartHostTls::Required, SmartHostTls::Opportunistic, SmartHostTls::Implicit, SmartHostTls::None]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| SmartHostTlsError(text.to_owned()))
    }
}

/// Which host of a smart host is tried first. Hosts that did not work lately come last in every order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostOrder {
    /// The first that works, in the order in which they are written.
    #[default]
    Ordered,
    /// Each host gets connections in proportion to its weight.
    Weighted,
    /// A sender always goes by the same host. A host that is added or taken away moves no more senders than its share.
    Sticky,
}

impl HostOrder {
    /// All of them.
    pub const ALL: [HostOrder; 3] = [HostOrder::Ordered, HostOrder::Weighted, HostOrder::Sticky];

    /// Its name as users type it.
    pub fn as_str(self) -> &'static str {
        match self {
            HostOrder::Ordered => "ordered",
            HostOrder::Weighted => "weighted",
            HostOrder::Sticky => "sticky",
        }
    }
}

/// The text is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no order of hosts: ordered, weighted or sticky")]
pub struct HostOrderError(String);

impl FromStr for HostOrder {
    type Err = HostOrderError;

    fn from_str(text: &str) -> Result<Self, HostOrderError> {
        Self::ALL
            .into_iter()
            .find(|order| order.as_str() == text)
            .ok_or_else(|| HostOrderError(text.chars().take(40).collect()))
    }
}
