//! How far a connection to a recipient's domain has to be protected, at the operator's word.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far a connection has to be protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsLevel {
    /// Plain text, even where TLS is offered. For peers whose TLS is broken.
    None,
    /// TLS where it is offered, whatever the certificate; else plain text. DANE and MTA-STS are not asked.
    Opportunistic,
    /// TLS, whatever the certificate, or nothing is sent.
    Encrypt,
    /// TLS with a certificate that a trusted root has signed for the MX host, or for a name that the rule gives, or nothing
    /// is sent.
    #[default]
    Verify,
    /// TLS with a certificate that secure TLSA records vouch for (RFC 7672), or nothing is sent.
    Dane,
}

impl TlsLevel {
    /// All of them.
    pub const ALL: [TlsLevel; 5] =
        [TlsLevel::None, TlsLevel::Opportunistic, TlsLevel::Encrypt, TlsLevel::Verify, TlsLevel::Dane];

    /// Its name as users type it.
    pub fn as_str(self) -> &'static str {
        match self {
            TlsLevel::None => "none",
            TlsLevel::Opportunistic => "opportunistic",
            TlsLevel::Encrypt => "encrypt",
            TlsLevel::Verify => "verify",
            TlsLevel::Dane => "dane",
        }
    }
}

impl fmt::Display for TlsLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no TLS level: none, opportunistic, encrypt, verify or dane")]
pub struct TlsLevelError(String);

impl FromStr for TlsLevel {
    type Err = TlsLevelError;

    fn from_str(text: &str) -> Result<Self, TlsLevelError> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| TlsLevelError(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostOrder;

    #[test]
    fn what_users_type_comes_back() {
        for level in TlsLevel::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        for order in HostOrder::ALL {
            assert_eq!(order.as_str().parse(), Ok(order));
        }
        let wrong = "sometimes".parse::<TlsLevel>().unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "\"sometimes\" is no TLS level: none, opportunistic, encrypt, verify or dane"
        );
        assert!("random".parse::<HostOrder>().is_err());
    }
}
