//! The DNS as a mail relay needs it (RFC 5321 section 5.1): mail exchangers in order, addresses, and a clear word on
//! whether a failure is for good or for now.

mod cache;
mod error;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{self, ConnectionConfig, NameServerConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use mail::domain_to_ascii;
use tokio::time::timeout;
use tracing::warn;

use cache::{Cache, Exchanger, KEPT_MAX, Kept};
pub use error::ResolveError;
use error::{Failure, Negative, classify};

use crate::{NetError, normalise};

/// Mail exchangers of a domain that are used; the rest is ignored, so that nobody can send us on a tour.
pub const MX_MAX: usize = 10;
/// Addresses of a host that are used.
pub const ADDRESSES_MAX: usize = 10;
/// Time for one question to one server.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Time for a lookup in all: several servers, retries and CNAMEs included.
const LOOKUP_MAX: Duration = Duration::from_secs(30);

/// `[dns]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Resolvers to ask; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
}

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
    /// empty, at most [`MX_MAX`].
    pub hosts: Vec<MxHost>,
    /// Whether there is no MX record and the domain itself is the host.
    pub implicit: bool,
}

/// Asks the DNS. Clones share the cache.
#[derive(Clone)]
pub struct Resolver {
    inner: TokioResolver,
    cache: Cache,
    servers: Arc<[SocketAddr]>,
}

/// Parses a resolver's address as in `dns.servers`: `127.0.0.1:5353`, `192.0.2.53`, `::1`, `[::1]:53`. The port is 53
/// where none is given.
///
/// # Errors
/// [`NetError::Configuration`].
pub fn parse_server(text: &str) -> Result<SocketAddr, NetError> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    text.parse().or_else(|_| bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53))).map_err(|_| {
        NetError::Configuration(format!(
            "{text:?} is no address of a DNS resolver; write it as 192.0.2.53, 127.0.0.1:5353 or [::1]:53"
        ))
    })
}

impl Resolver {
    /// Sets up the resolver; asks nothing yet. Where no server is named and there is no `/etc/resolv.conf`, the resolver
    /// on this machine is asked, as the C library does. That file is read once: make a new resolver on reload.
    ///
    /// # Errors
    /// [`NetError::Configuration`] when hickory cannot work with what it is given.
    pub fn new(config: &ResolverConfig) -> Result<Self, NetError> {
        let mut builder = if config.servers.is_empty() { system() } else { explicit(&config.servers) };
        let options = builder.options_mut();
        // Whole answers, up to 64 KB each, are too much to keep for every domain that anybody names; see `cache`.
        options.cache_size = 0;
        options.try_tcp_on_error = true;
        let inner = builder
            .build()
            .map_err(|e| NetError::Configuration(format!("the DNS resolver cannot be set up: {e}")))?;
        Ok(Self { inner, cache: Cache::new(), servers: config.servers.clone().into() })
    }

    /// The servers that were configured; empty for the system's.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Where mail for `domain` (A-labels) goes: its MX hosts by preference, ties shuffled; without MX records the
    /// domain itself if it has an address (implicit MX).
    ///
    /// # Errors
    /// [`ResolveError`]; only [`ResolveError::is_temporary`] may change by itself.
    pub async fn mx(&self, domain: &str) -> Result<MxAnswer, ResolveError> {
        let kept = match self.kept(domain, RecordType::MX).await {
            Kept::Exchangers(records) => records,
            Kept::Failed(Failure::NoData) | Kept::Addresses(_) => return self.implicit_mx(domain).await,
            Kept::Failed(failure) => return Err(failure.of(domain)),
        };
        if kept.iter().all(|(_, exchanger)| *exchanger == Exchanger::Null) {
            return Err(ResolveError::NoMail(domain.to_owned()));
        }
        let mut records: Vec<(u16, u32, &Arc<str>)> = kept
            .iter()
            .filter_map(|(preference, exchanger)| match exchanger {
                Exchanger::Host(name) => Some((*preference, random(), name)),
                Exchanger::Null | Exchanger::Unusable => None,
            })
            .collect();
        if records.is_empty() {
            return Err(ResolveError::Unusable(domain.to_owned()));
        }
        records.sort_unstable_by_key(|(preference, tie, _)| (*preference, *tie));
        let mut hosts: Vec<MxHost> = Vec::with_capacity(records.len().min(MX_MAX));
        for (preference, _, name) in records {
            if hosts.len() < MX_MAX && hosts.iter().all(|h| h.name != *name) {
                hosts.push(MxHost { preference, name: name.clone() });
            }
        }
        Ok(MxAnswer { hosts, implicit: false })
    }

    /// A domain without MX records is its own mail exchanger, if it has an address.
    async fn implicit_mx(&self, domain: &str) -> Result<MxAnswer, ResolveError> {
        self.addresses(domain).await?;
        let host = MxHost { preference: 0, name: domain.into() };
        Ok(MxAnswer { hosts: vec![host], implicit: true })
    }

    /// The addresses of `host`, IPv6 and IPv4 in turn, each family shuffled, at most [`ADDRESSES_MAX`]; never empty.
    /// Where this machine has no way to the IPv6 ones, they come last (RFC 6724 section 6, rule 1).
    /// An address literal is its own answer. Whether the addresses may be connected to is
    /// [`dial`](crate::dial)'s question.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return Ok(vec![normalise(literal)]);
        }
        let (v6, v4) = tokio::join!(self.kept(host, RecordType::AAAA), self.kept(host, RecordType::A));
        let (v6, v4) = match (v6, v4) {
            (Kept::Failed(a), Kept::Failed(b)) => return Err(a.graver(b).of(host)),
            (v6, v4) => (shuffled(&v6), shuffled(&v4)),
        };
        let addresses = in_order(v6, v4, has_route);
        if addresses.is_empty() { Err(ResolveError::NoAddress(host.to_owned())) } else { Ok(addresses) }
    }

    /// The names that `ip` is registered under (PTR), at most [`ADDRESSES_MAX`].
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn ptr(&self, ip: IpAddr) -> Result<Vec<String>, ResolveError> {
        let name = Name::from(normalise(ip)).to_string();
        let lookup = self.lookup(&name, RecordType::PTR).await.map_err(|n| n.failure.of(&name))?;
        let names = lookup.answers().iter().filter_map(|r| match &r.data {
            RData::PTR(ptr) => host_name(&ptr.0),
            _ => None,
        });
        Ok(names.take(ADDRESSES_MAX).collect())
    }

    /// The TXT records of `name`, each with its strings joined (RFC 7208 section 3.3); what is not printable is
    /// replaced by `?`.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn txt(&self, name: &str) -> Result<Vec<String>, ResolveError> {
        let lookup = self.lookup(name, RecordType::TXT).await.map_err(|n| n.failure.of(name))?;
        let texts = lookup.answers().iter().filter_map(|r| match &r.data {
            RData::TXT(txt) => {
                let joined: Vec<u8> = txt.txt_data.iter().flatten().copied().collect();
                let text = String::from_utf8_lossy(&joined);
                Some(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
            }
            _ => None,
        });
        Ok(texts.collect())
    }

    /// What mail needs of an answer: from the cache, or asked for and kept.
    async fn kept(&self, name: &str, kind: RecordType) -> Kept {
        if let Some(kept) = self.cache.get(kind, name) {
            return kept;
        }
        let (kept, ttl_s) = match self.lookup(name, kind).await {
            Ok(lookup) => reduce(&lookup, kind),
            Err(negative) => (Kept::Failed(negative.failure), negative.ttl_s),
        };
        self.cache.put(kind, name, &kept, ttl_s);
        kept
    }

    /// One question, bounded in time. Names are taken as absolute: the search list is for people at a keyboard. Only a
    /// name without a dot, which no mail domain is, is looked for as the system does.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Lookup, Negative> {
        let mut asked = Name::from_utf8(name).map_err(|_| Negative::uncertain(Failure::Unusable))?;
        asked.set_fqdn(name.contains('.'));
        let answer = timeout(LOOKUP_MAX, self.inner.lookup(asked.clone(), kind)).await;
        let negative = match answer {
            Ok(Ok(lookup)) => return Ok(lookup),
            Ok(Err(error)) => classify(error, &asked),
            Err(_) => Negative::uncertain(Failure::Temporary("no answer in time".into())),
        };
        match &negative.failure {
            Failure::Suspect(at) => Err(Negative::uncertain(self.settle_suspect(at).await)),
            _ => Err(negative),
        }
    }

    /// An empty answer without an SOA may be a real "no such record" of a sloppy server, or a chain of CNAMEs given up
    /// half-way. A CNAME at the place where it stopped tells them apart.
    async fn settle_suspect(&self, at: &Name) -> Failure {
        match timeout(LOOKUP_MAX, self.inner.lookup(at.clone(), RecordType::CNAME)).await {
            Ok(Ok(answer)) if answer.answers().iter().any(|r| matches!(r.data, RData::CNAME(_))) => {
                Failure::Loop
            }
            Ok(_) => Failure::NoData,
            Err(_) => Failure::Temporary("no answer in time".into()),
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// As `/etc/resolv.conf` says, its time-outs included.
fn system() -> ResolverBuilder<TokioRuntimeProvider> {
    TokioResolver::builder_tokio().unwrap_or_else(|error| {
        warn!(%error, "no DNS servers in /etc/resolv.conf; asking 127.0.0.1");
        explicit(&[SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)])
    })
}

fn explicit(servers: &[SocketAddr]) -> ResolverBuilder<TokioRuntimeProvider> {
    let servers = servers.iter().map(server).collect();
    let config = config::ResolverConfig::from_parts(None, vec![], servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().timeout = ATTEMPT;
    builder
}

fn server(at: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = at.port();
    }
    NameServerConfig::new(at.ip(), true, connections)
}

/// A host's name out of an answer; none when it is no host name: control characters, spaces, numbers in place of a
/// name and the like have no business in a command, a log or another question.
fn host_name(name: &Name) -> Option<String> {
    let text = name.to_ascii();
    domain_to_ascii(text.strip_suffix('.').unwrap_or(&text))
}

/// The parts of an answer that are kept, and for how many seconds: as its most short-lived record allows.
fn reduce(lookup: &Lookup, kind: RecordType) -> (Kept, u32) {
    let ttl_s = lookup.answers().iter().map(|r| r.ttl).min().unwrap_or(0);
    let records = lookup.answers().iter().map(|r| &r.data);
    let kept = if kind == RecordType::MX {
        let exchanger = |name: &Name| match host_name(name) {
            _ if name.is_root() => Exchanger::Null,
            Some(host) => Exchanger::Host(host.into()),
            None => Exchanger::Unusable,
        };
        let mut found: Vec<_> = records
            .filter_map(|data| match data {
                RData::MX(mx) => Some((mx.preference, exchanger(&mx.exchange))),
                _ => None,
            })
            .collect();
        // Null and unusable ones last within a preference: they must not push out hosts.
        found.sort_by_key(|(preference, e)| (*preference, !matches!(e, Exchanger::Host(_))));
        found.truncate(KEPT_MAX);
        if found.is_empty() { Kept::Failed(Failure::NoData) } else { Kept::Exchangers(found.into()) }
    } else {
        let found = records.filter_map(|data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(a) => Some(IpAddr::V6(a.0)),
            _ => None,
        });
        let found: Vec<IpAddr> = found.take(KEPT_MAX).collect();
        if found.is_empty() { Kept::Failed(Failure::NoData) } else { Kept::Addresses(found.into()) }
    };
    (kept, ttl_s)
}

/// The addresses in random order; none where there are none.
fn shuffled(kept: &Kept) -> Vec<IpAddr> {
    let Kept::Addresses(addresses) = kept else { return vec![] };
    let mut addresses: Vec<(u32, IpAddr)> = addresses.iter().map(|ip| (random(), *ip)).collect();
    addresses.sort_unstable_by_key(|(tie, _)| *tie);
    addresses.into_iter().map(|(_, ip)| ip).collect()
}

/// The families in turn, so that a dead one costs one time-out and not ten.
fn in_order(v6: Vec<IpAddr>, v4: Vec<IpAddr>, has_route: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let in_turn = match (v6.first(), v4.is_empty()) {
        (Some(first), false) => has_route(*first),
        _ => false,
    };
    let mut addresses = Vec::with_capacity(v6.len() + v4.len());
    if in_turn {
        for n in 0..v4.len().max(v6.len()) {
            addresses.extend(v6.get(n).into_iter().chain(v4.get(n)));
        }
    } else {
        addresses.extend(v4.into_iter().chain(v6));
    }
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// Whether the kernel knows a way to `ip`. Connecting a datagram socket asks it that and sends nothing.
fn has_route(ip: IpAddr) -> bool {
    let any =
        if ip.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 25))).is_ok()
}

/// For ties: any spread will do, and nothing depends on its secrecy.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the order of the answer stays.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_parsed() {
        for (text, at) in [
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("192.0.2.53", "192.0.2.53:53"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(parse_server(text).unwrap(), at.parse().unwrap(), "{text}");
        }
        for bad in ["", "dns.example", "127.0.0.1:", "127.0.0.1:99999"] {
            assert!(parse_server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn families_take_turns_where_both_lead_somewhere() {
        let v6: Vec<IpAddr> = (1..=2).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n])).collect();
        let v4: Vec<IpAddr> = (1..=12).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        let turns = in_order(v6.clone(), v4.clone(), |_| true);
        assert_eq!(turns[..6], [v6[0], v4[0], v6[1], v4[1], v4[2], v4[3]]);
        assert_eq!(turns.len(), ADDRESSES_MAX);
        assert_eq!(in_order(v6.clone(), v4[..2].to_vec(), |_| false), [v4[0], v4[1], v6[0], v6[1]]);
        assert_eq!(in_order(v6.clone(), vec![], |_| false), v6);
        assert!(has_route(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn names_out_of_answers_are_host_names_or_nothing() {
        let name = |labels: &[&[u8]]| Name::from_labels(labels.to_vec()).unwrap();
        assert_eq!(host_name(&name(&[b"MX1", b"Example", b"com"])).as_deref(), Some("mx1.example.com"));
        for bad in [
            name(&[b"mx\r\nRSET", b"example"]),
            name(&[b"mx example", b"com"]),
            name(&[b"mx.1", b"example"]),
            name(&[b"192", b"0", b"2", b"1"]),
            name(&[b"mx\x1b[2J", b"example"]),
            name(&[b"mx\0", b"example"]),
            Name::root(),
        ] {
            assert_eq!(host_name(&bad), None, "{bad:?}");
        }
    }
}
