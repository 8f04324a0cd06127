//! What the resolver answers.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use crate::Tlsa;

/// A mail exchanger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxHost {
    /// The lower, the earlier.
    pub preference: u16,
    /// Its name: lower case, A-labels, no dot at the end.
    pub name: Arc<str>,
}

/// Where mail for a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxAnswer {
    /// In the order in which they are to be tried; hosts of one preference are shuffled anew for each caller. Never
    /// empty, at most [`MX_MAX`](crate::MX_MAX).
    pub hosts: Vec<MxHost>,
    /// Whether there is no MX record and the domain itself is the host.
    pub implicit: bool,
    /// Whether the records, or the addresses of an implicit exchanger, are authenticated by DNSSEC.
    pub secure: bool,
    /// For how long it may be kept, in seconds, by the DNS's own word.
    pub ttl_s: u32,
}

/// The addresses of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressAnswer {
    /// IPv6 and IPv4 in turn, each family shuffled. Never empty.
    pub addresses: Vec<IpAddr>,
    /// Whether all of them, and all aliases on the way, are authenticated by DNSSEC.
    pub secure: bool,
}

impl Deref for AddressAnswer {
    type Target = [IpAddr];
    fn deref(&self) -> &[IpAddr] {
        &self.addresses
    }
}

impl IntoIterator for AddressAnswer {
    type Item = IpAddr;
    type IntoIter = std::vec::IntoIter<IpAddr>;
    fn into_iter(self) -> Self::IntoIter {
        self.addresses.into_iter()
    }
}

/// What DANE says of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsaAnswer {
    /// Its TLSA records, authenticated; empty where DANE says nothing of it. Not all of them need be usable.
    pub records: Arc<[Tlsa]>,
    /// The TLSA base domain (RFC 7672 section 2.2.3), for SNI and as the name to verify: where the host is an alias and
    /// the records are at what it stands for, that.
    pub base: Arc<str>,
    /// Why there are none; none where there are some.
    pub none: Option<NoTlsa>,
}

impl TlsaAnswer {
    /// Whether there are records, and so DANE holds.
    pub fn secure(&self) -> bool {
        !self.records.is_empty()
    }
}

/// Why DANE says nothing of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoTlsa {
    /// Nothing that the DNS says is authenticated here: `dns.dnssec`.
    NotValidated,
    /// The host's addresses are not signed.
    Unsigned,
    /// There are no records, or none that are signed.
    Absent,
}

impl NoTlsa {
    /// In plain words, to follow the host's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotValidated => "is asked for without DNSSEC here (dns.dnssec)",
            Self::Unsigned => "has no signed addresses in the DNS",
            Self::Absent => "has no signed TLSA records",
        }
    }
}
