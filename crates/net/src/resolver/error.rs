//! What an answer that is none means for mail.

use hickory_resolver::net::{DnsError, NetError as Net};
use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::{DnsResponse, ResponseCode};
use hickory_resolver::proto::rr::Name;

/// Why there is no answer. Its text is fit for a report to the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// NXDOMAIN: 5.1.2.
    #[error("the domain {0} does not exist")]
    NoSuchDomain(String),
    /// Null MX (RFC 7505): 5.1.10.
    #[error("the domain {0} does not accept mail (null MX)")]
    NoMail(String),
    /// The name exists but has no record of the kind, in the end no address: 5.4.4.
    #[error("{0} has no address in the DNS")]
    NoAddress(String),
    /// Every MX record names something that is no host name. The domain's owner may mend it.
    #[error("the mail exchangers of {0} are not valid host names")]
    Unusable(String),
    /// A chain of CNAMEs that does not end. The domain's owner may mend it; resolvers differ on it, some say SERVFAIL.
    #[error("the aliases (CNAME) of {0} lead nowhere or in a circle")]
    Loop(String),
    /// SERVFAIL, REFUSED, time-outs, no network: nothing is known.
    #[error("the DNS gives no answer about {name} at present: {reason}")]
    Temporary {
        /// What was asked about.
        name: String,
        /// What happened.
        reason: String,
    },
}

impl ResolveError {
    /// Whether it is to be tried again later; else it is for good. Whatever the DNS did not say for certain is
    /// temporary.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NoSuchDomain(_) | Self::NoMail(_) | Self::NoAddress(_) => false,
            Self::Unusable(_) | Self::Loop(_) | Self::Temporary { .. } => true,
        }
    }
}

/// A failed lookup before it is known what it was for. In rising order of how little we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The name does not exist.
    NoName,
    /// The name exists, the record does not.
    NoData,
    /// Empty without proof; look for a CNAME at this name.
    Suspect(Name),
    /// The name cannot even be asked for.
    Unusable,
    /// CNAMEs without end.
    Loop,
    /// No answer.
    Temporary(String),
}

impl Failure {
    /// As the answer about `name`.
    pub(super) fn of(self, name: &str) -> ResolveError {
        let name = name.trim_end_matches('.').to_owned();
        match self {
            Self::NoName => ResolveError::NoSuchDomain(name),
            Self::NoData | Self::Suspect(_) => ResolveError::NoAddress(name),
            Self::Unusable => ResolveError::Unusable(name),
            Self::Loop => ResolveError::Loop(name),
            Self::Temporary(reason) => ResolveError::Temporary { name, reason },
        }
    }

    /// Of two failures about one host, the one that decides: doubt before certainty, "exists" before "does not".
    pub(super) fn graver(self, other: Self) -> Self {
        if self.rank() >= other.rank() { self } else { other }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::NoName => 0,
            Self::NoData => 1,
            Self::Suspect(_) => 2,
            Self::Unusable => 3,
            Self::Loop => 4,
            Self::Temporary(_) => 5,
        }
    }
}

/// A failure and how long it may be believed.
#[derive(Debug)]
pub(super) struct Negative {
    pub(super) failure: Failure,
    /// In seconds; 0 for what is not certain.
    pub(super) ttl_s: u32,
}

impl Negative {
    pub(super) fn uncertain(failure: Failure) -> Self {
        Self { failure, ttl_s: 0 }
    }

    fn temporary(reason: impl Into<String>) -> Self {
        Self::uncertain(Failure::Temporary(reason.into()))
    }
}

pub(super) const BOGUS: &str = "the answer's DNSSEC signatures are not valid";

/// A "no" whose proof was looked at here.
fn denied(response: &DnsResponse, proof: Proof) -> Negative {
    if !(proof.is_secure() || proof.is_insecure()) {
        return Negative::temporary(BOGUS);
    }
    let ttl_s = response.negative_ttl().unwrap_or(0);
    match response.response_code {
        ResponseCode::NXDomain => Negative { failure: Failure::NoName, ttl_s },
        ResponseCode::NoError => Negative { failure: Failure::NoData, ttl_s },
        code => Negative::temporary(format!("answered {code}")),
    }
}

/// What hickory's error says. NXDOMAIN and an empty answer backed by an SOA are certain; everything else is not.
pub(super) fn classify(error: Net, asked: &Name) -> Negative {
    let none = match error {
        Net::Dns(DnsError::NoRecordsFound(none)) => none,
        Net::Dns(DnsError::ResponseCode(code)) => return Negative::temporary(format!("answered {code}")),
        Net::Dns(DnsError::DnssecBogus) => return Negative::temporary(BOGUS),
        Net::Dns(DnsError::Nsec { response, proof, .. }) => return denied(&response, proof),
        Net::Timeout => return Negative::temporary("no answer in time"),
        other => return Negative::temporary(other.to_string()),
    };
    let ttl_s = none.negative_ttl.unwrap_or(0);
    match none.response_code {
        ResponseCode::NXDomain => Negative { failure: Failure::NoName, ttl_s },
        ResponseCode::NoError if none.soa.is_some() => Negative { failure: Failure::NoData, ttl_s },
        // A server that is no resolver and points to others.
        ResponseCode::NoError if none.ns.is_some() => Negative::temporary(
            "the configured DNS server does not resolve for us (it answers with a referral)",
        ),
        ResponseCode::NoError => {
            let at = none.query.name();
            Negative::uncertain(Failure::Suspect(if at.is_root() { asked.clone() } else { at.clone() }))
        }
        code => Negative::temporary(format!("answered {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_decides_over_certainty() {
        let temporary = Failure::Temporary("SERVFAIL".into());
        assert_eq!(Failure::NoName.graver(temporary.clone()), temporary);
        assert_eq!(temporary.clone().graver(Failure::NoData), temporary);
        assert_eq!(Failure::NoName.graver(Failure::NoData), Failure::NoData);
        assert!(!Failure::NoData.of("example.com").is_temporary());
        assert!(Failure::Loop.of("example.com").is_temporary());
    }
}
