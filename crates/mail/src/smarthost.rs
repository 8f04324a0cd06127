//! What is asked of the connection to a smart host.

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
