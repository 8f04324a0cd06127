//! What a failed delivery was about.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a refusal or deferral was about. Found out from the enhanced status code and the words of the reply; the data
/// is in `report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BounceClass {
    /// The address does not exist or takes no mail: the only class that ever suppresses an address.
    Recipient,
    /// The mailbox is full, or over a limit of its own.
    Quota,
    /// The peer distrusts our address, our domain or our volume.
    Reputation,
    /// SPF, DKIM, DMARC, TLS or a login was found wanting.
    Authentication,
    /// What the message says.
    Content,
    /// A first refusal, to see whether we come back.
    Greylist,
    /// The peer's rules, for any other reason.
    Policy,
    /// No answer from the DNS or the hosts, a connection that got lost, a peer out of order.
    Network,
}

impl BounceClass {
    /// All of them.
    pub const ALL: [BounceClass; 8] = [
        BounceClass::Recipient,
        BounceClass::Quota,
        BounceClass::Reputation,
        BounceClass::Authentication,
        BounceClass::Content,
        BounceClass::Greylist,
        BounceClass::Policy,
        BounceClass::Network,
    ];

    /// Its name as users type it.
    pub fn as_str(self) -> &'static str {
        match self {
            BounceClass::Recipient => "recipient",
            BounceClass::Quota => "quota",
            BounceClass::Reputation => "reputation",
            BounceClass::Authentication => "authentication",
            BounceClass::Content => "content",
            BounceClass::Greylist => "greylist",
            BounceClass::Policy => "policy",
            BounceClass::Network => "network",
        }
    }

    /// Whether a refusal for this reason says that the address is to be written to no more.
    pub fn suppresses(self) -> bool {
        self == BounceClass::Recipient
    }
}

impl fmt::Display for BounceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no bounce class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no bounce class: recipient, quota, reputation, authentication, content, greylist, policy or network"
)]
pub struct BounceClassError(String);

impl FromStr for BounceClass {
    type Err = BounceClassError;

    fn from_str(text: &str) -> Result<Self, BounceClassError> {
        Self::ALL.into_iter().find(|c| c.as_str() == text).ok_or_else(|| BounceClassError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_only_one_suppresses() {
        for class in BounceClass::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        let suppressing: Vec<_> = BounceClass::ALL.into_iter().filter(|c| c.suppresses()).collect();
        assert_eq!(suppressing, [BounceClass::Recipient]);
        assert!("spam".parse::<BounceClass>().is_err());
    }
}
