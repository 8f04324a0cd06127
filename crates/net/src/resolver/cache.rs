//! Answers kept until their TTL ends. What is kept is what mail needs of them, so that neither the number of
//! destinations nor the size of their answers decides how much memory that takes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;
use moka::Expiry;
use moka::sync::Cache as Moka;

use super::error::Failure;
use crate::Tlsa;

/// Answers kept. The largest takes [`KEPT_MAX`] host names, in practice a tenth of it; all together a few megabytes.
const ENTRIES: u64 = 8192;
/// Records kept of one answer.
pub(super) const KEPT_MAX: usize = 32;
/// No answer is believed for longer than this, whatever its TTL.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// The same for "there is no such thing" (RFC 2308 section 5): who has just made a domain does not want to wait.
const NEGATIVE_MAX: Duration = Duration::from_secs(15 * 60);

/// The most that the records of one TLSA answer may take to be kept. Hashes take 64 octets; whole certificates are asked
/// for anew.
const TLSA_OCTETS_MAX: usize = 4096;

/// An answer, reduced, with what DNSSEC says of it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) kept: Kept,
    /// Whether it is authenticated.
    pub(super) secure: bool,
    /// What the name asked about is an alias of, at the end of the chain; none where it is none.
    pub(super) alias_of: Option<Arc<str>>,
    /// For how long it may be kept, in seconds.
    pub(super) ttl_s: u32,
}

impl Answer {
    pub(super) fn failed(failure: Failure, ttl_s: u32) -> Self {
        Self { kept: Kept::Failed(failure), secure: false, alias_of: None, ttl_s }
    }
}

/// What is kept of an answer.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// MX: preference and host, by preference; none where the record names no host.
    Exchangers(Arc<[(u16, Exchanger)]>),
    /// A or AAAA.
    Addresses(Arc<[IpAddr]>),
    /// TLSA.
    Tlsa(Arc<[Tlsa]>),
    /// CNAME: there is one.
    Alias,
    /// A certain no.
    Failed(Failure),
}

/// What an MX record names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exchanger {
    /// A host name in lower case.
    Host(Arc<str>),
    /// The root: null MX.
    Null,
    /// Something that is no host name.
    Unusable,
}

#[derive(Clone)]
pub(super) struct Cache(Moka<(RecordType, Box<str>), (Answer, Duration)>);

struct ByTtl;

impl Expiry<(RecordType, Box<str>), (Answer, Duration)> for ByTtl {
    fn expire_after_create(
        &self,
        _: &(RecordType, Box<str>),
        (_, ttl): &(Answer, Duration),
        _: Instant,
    ) -> Option<Duration> {
        Some(*ttl)
    }

    fn expire_after_update(
        &self,
        _: &(RecordType, Box<str>),
        (_, ttl): &(Answer, Duration),
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(*ttl)
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        Self(Moka::builder().max_capacity(ENTRIES).expire_after(ByTtl).build())
    }

    pub(super) fn get(&self, kind: RecordType, name: &str) -> Option<Answer> {
        self.0.get(&(kind, name.into())).map(|(answer, _)| answer)
    }

    /// Keeps an answer for its TTL, within bounds.
    pub(super) fn put(&self, kind: RecordType, name: &str, answer: &Answer) {
        let bound = match &answer.kept {
            Kept::Failed(_) => NEGATIVE_MAX,
            Kept::Tlsa(records) if records.iter().map(|r| r.data.len()).sum::<usize>() > TLSA_OCTETS_MAX => {
                return;
            }
            _ => TTL_MAX,
        };
        let ttl = Duration::from_secs(answer.ttl_s.into()).min(bound);
        if !ttl.is_zero() {
            self.0.insert((kind, name.into()), (answer.clone(), ttl));
        }
    }
}
