//! Results of connections under a TLS policy, counted until they are reported (RFC 8460).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

pub use mail::{TlsPolicyType as PolicyType, TlsResultType as ResultType};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Policies counted between two drains; what is more goes into one bucket, [`OTHER`].
const POLICIES_MAX: usize = 20_000;
/// Failures told apart for each policy; what is more is counted without addresses and names.
const DETAILS_MAX: usize = 50;
/// The policy domain of what is counted when there are too many policies: no domain, so that no report is sent for it.
pub const OTHER: &str = "(other)";

/// The policy that a connection was under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicySeen {
    /// The recipients' domain.
    pub domain: String,
    /// Its kind.
    pub kind: PolicyType,
    /// The policy: TLSA records or the lines of the MTA-STS policy; empty where there is none.
    pub text: Vec<String>,
    /// The MX patterns of an MTA-STS policy.
    pub mx: Vec<String>,
}

/// A failure, and who took part in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailureSeen {
    /// What happened.
    pub result: ResultType,
    /// The address that we came from.
    pub sending_ip: Option<IpAddr>,
    /// The mail exchanger.
    pub receiving_mx: Option<String>,
    /// What it calls itself.
    pub receiving_helo: Option<String>,
    /// Its address.
    pub receiving_ip: Option<IpAddr>,
    /// Our words for it.
    pub reason: Option<String>,
}

/// The results under one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsResult {
    /// The policy.
    pub policy: PolicySeen,
    /// Connections as the policy wants them.
    pub successes: u64,
    /// Connections that were not.
    pub failures: u64,
    /// The failures by kind.
    pub details: Vec<FailureDetail>,
}

/// One kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureDetail {
    /// What happened, and who took part.
    pub failure: FailureSeen,
    /// How often.
    pub count: u64,
}

#[derive(Debug, Default)]
struct Counts {
    successes: u64,
    failures: u64,
    details: HashMap<FailureSeen, u64>,
}

/// Counts results. Bounded: however many domains and failures there are between two drains, they take a few tens of
/// megabytes at most.
#[derive(Debug, Default)]
pub struct TlsResults(Mutex<HashMap<PolicySeen, Counts>>);

impl TlsResults {
    /// An empty collector.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a connection: as the policy wants it, or failed.
    pub fn record(&self, policy: PolicySeen, failure: Option<FailureSeen>) {
        let mut all = self.0.lock();
        let room = all.len() < POLICIES_MAX;
        let counts = match all.entry(policy) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if room => entry.insert(Counts::default()),
            Entry::Vacant(entry) => {
                let kind = entry.into_key().kind;
                let other = PolicySeen { domain: OTHER.into(), kind, text: vec![], mx: vec![] };
                all.entry(other).or_default()
            }
        };
        let Some(failure) = failure else {
            counts.successes += 1;
            return;
        };
        counts.failures += 1;
        let known = counts.details.contains_key(&failure);
        let key =
            if known || counts.details.len() < DETAILS_MAX { failure } else { anonymous(failure.result) };
        *counts.details.entry(key).or_default() += 1;
    }

    /// Gives out what was counted since the last time, by policy, the most frequent failures first.
    pub fn drain(&self) -> Vec<TlsResult> {
        let all = std::mem::take(&mut *self.0.lock());
        let mut results: Vec<TlsResult> = all
            .into_iter()
            .map(|(policy, counts)| {
                let mut details: Vec<_> = counts
                    .details
                    .into_iter()
                    .map(|(failure, count)| FailureDetail { failure, count })
                    .collect();
                details
                    .sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.failure.cmp(&b.failure)));
                TlsResult { policy, successes: counts.successes, failures: counts.failures, details }
            })
            .collect();
        results.sort_unstable_by(|a, b| a.policy.cmp(&b.policy));
        results
    }
}

/// A failure of which only the kind is told.
fn anonymous(result: ResultType) -> FailureSeen {
    FailureSeen {
        result,
        sending_ip: None,
        receiving_mx: None,
        receiving_helo: None,
        receiving_ip: None,
        reason: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(domain: &str) -> PolicySeen {
        PolicySeen { domain: domain.into(), kind: PolicyType::NoPolicyFound, text: vec![], mx: vec![] }
    }

    fn failure(mx: usize) -> FailureSeen {
        FailureSeen { receiving_mx: Some(format!("mx{mx}")), ..anonymous(ResultType::CertificateExpired) }
    }

    #[test]
    fn what_was_counted_is_given_out_once() {
        let results = TlsResults::new();
        for _ in 0..3 {
            results.record(policy("a.example"), None);
            results.record(policy("a.example"), Some(failure(1)));
        }
        results.record(policy("a.example"), Some(failure(2)));
        results.record(policy("b.example"), None);
        let drained = results.drain();
        let a = &drained[0];
        assert_eq!((a.policy.domain.as_str(), a.successes, a.failures), ("a.example", 3, 4));
        assert_eq!(a.details.iter().map(|d| d.count).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(drained[1].successes, 1);
        assert!(results.drain().is_empty());
        // They are kept on disk as JSON until they are sent.
        let json = serde_json::to_string(a).unwrap();
        assert!(
            json.contains(r#""result":"certificate-expired""#) && json.contains("no-policy-found"),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<TlsResult>(&json).unwrap(), *a);
    }

    #[test]
    fn memory_is_bounded_and_no_count_is_lost() {
        let results = TlsResults::new();
        for n in 0..POLICIES_MAX + 500 {
            results.record(policy(&format!("d{n}.example")), None);
        }
        for n in 0..1000 {
            results.record(policy("d0.example"), Some(failure(n)));
        }
        let drained = results.drain();
        assert_eq!(drained.len(), POLICIES_MAX + 1);
        let of = |domain: &str| drained.iter().find(|r| r.policy.domain == domain).unwrap();
        assert_eq!(of(OTHER).successes, 500);
        let full = of("d0.example");
        assert_eq!((full.failures, full.details.len()), (1000, DETAILS_MAX + 1));
        assert_eq!(full.details[0].count, 1000 - DETAILS_MAX as u64);
        assert_eq!(full.details[0].failure.receiving_mx, None);
    }

    #[test]
    fn names_are_those_of_the_rfc() {
        for result in
            [ResultType::StarttlsNotSupported, ResultType::StsWebpkiInvalid, ResultType::TlsaInvalid]
        {
            assert_eq!(serde_json::to_string(&result).unwrap(), format!("\"{}\"", result.as_str()));
        }
    }
}
