//! The DNS as a mail relay needs it (RFC 5321 section 5.1): mail exchangers in order, addresses, and a clear word on
//! whether a failure is for good or for now.

mod answer;
mod cache;
mod dnssec;
mod error;
mod tlsa;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::ResolverBuilder;
use hickory_resolver::config::{self, ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use mail::domain_to_ascii;
use tokio::time::timeout;
use tracing::warn;

pub use answer::{AddressAnswer, MxAnswer, MxHost, NoTlsa, TlsaAnswer};
use cache::{Answer, Cache, Exchanger, KEPT_MAX, Kept};
pub use dnssec::Dnssec;
use dnssec::{Asking, Authentication, Found};
pub use error::ResolveError;
use error::{Failure, Negative, classify};

use crate::{NetError, Tlsa, normalise};

/// Mail exchangers of a domain that are used; the rest is ignored, so that nobody can send us on a tour.
pub const MX_MAX: usize = 10;
/// Addresses of a host that are used.
pub const ADDRESSES_MAX: usize = 10;
/// For how long it may be kept that a domain is its own exchanger, in seconds.
const IMPLICIT_TTL_S: u32 = 300;
/// Links of a chain of aliases that are followed.
const ALIASES_MAX: usize = 16;
/// Time for one question to one server.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Time for a lookup in all: several servers, retries and CNAMEs included.
const LOOKUP_MAX: Duration = Duration::from_secs(30);

/// `[dns]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Resolvers to ask; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Whose word on signatures is taken.
    pub dnssec: Dnssec,
    /// With [`Dnssec::Validate`]: a file of DNSKEY records to trust in place of the root's that are built in.
    pub trust_anchors: Option<PathBuf>,
}

/// Asks the DNS. Clones share the cache.
#[derive(Clone)]
pub struct Resolver {
    inner: hickory_resolver::Resolver<Asking>,
    cache: Cache,
    servers: Arc<[SocketAddr]>,
    authentication: Authentication,
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
        let (parts, options) = if config.servers.is_empty() { system() } else { explicit(&config.servers) };
        let resolvers = parts.name_servers().iter().map(|server| server.ip);
        let authentication = Authentication::of(config.dnssec, resolvers);
        let mut builder: ResolverBuilder<Asking> =
            hickory_resolver::Resolver::builder_with_config(parts, Asking(TokioRuntimeProvider::default()));
        *builder.options_mut() = options;
        let options = builder.options_mut();
        options.validate = authentication == Authentication::Proof;
        if options.validate
            && let Some(path) = &config.trust_anchors
        {
            builder = builder.with_trust_anchor(Arc::new(trust_anchors(path)?));
        }
        let options = builder.options_mut();
        // Whole answers, up to 64 KB each, are too much to keep for every domain that anybody names; see `cache`.
        options.cache_size = 0;
        options.try_tcp_on_error = true;
        let inner = builder
            .build()
            .map_err(|e| NetError::Configuration(format!("the DNS resolver cannot be set up: {e}")))?;
        Ok(Self { inner, cache: Cache::new(), servers: config.servers.clone().into(), authentication })
    }

    /// The servers that were configured; empty for the system's.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Whether answers can be authenticated at all: there is a validating resolver that is trusted, or we validate.
    /// Whether the resolver really validates is seen only by its answers.
    pub fn authenticates(&self) -> bool {
        self.authentication != Authentication::None
    }

    /// Where mail for `domain` (A-labels) goes: its MX hosts by preference, ties shuffled; without MX records the
    /// domain itself if it has an address (implicit MX).
    ///
    /// # Errors
    /// [`ResolveError`]; only [`ResolveError::is_temporary`] may change by itself.
    pub async fn mx(&self, domain: &str) -> Result<MxAnswer, ResolveError> {
        let answer = self.kept(domain, RecordType::MX).await;
        let kept = match answer.kept {
            Kept::Exchangers(records) => records,
            Kept::Failed(Failure::NoData) => return self.implicit_mx(domain).await,
            Kept::Failed(failure) => return Err(failure.of(domain)),
            Kept::Addresses(_) | Kept::Tlsa(_) | Kept::Alias => return self.implicit_mx(domain).await,
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
        Ok(MxAnswer { hosts, implicit: false, secure: answer.secure, ttl_s: answer.ttl_s })
    }

    /// A domain without MX records is its own mail exchanger, if it has an address.
    async fn implicit_mx(&self, domain: &str) -> Result<MxAnswer, ResolveError> {
        // That a signed zone has no MX record is as certain as what it has: a validating resolver sees to it.
        let AddressAnswer { secure, .. } = self.addresses(domain).await?;
        let host = MxHost { preference: 0, name: domain.into() };
        Ok(MxAnswer { hosts: vec![host], implicit: true, secure, ttl_s: IMPLICIT_TTL_S })
    }

    /// The addresses of `host`, IPv6 and IPv4 in turn, each family shuffled, at most [`ADDRESSES_MAX`]; never empty.
    /// Where this machine has no way to the IPv6 ones, they come last (RFC 6724 section 6, rule 1).
    /// An address literal is its own answer. Whether the addresses may be connected to is
    /// [`dial`](crate::dial)'s question.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn addresses(&self, host: &str) -> Result<AddressAnswer, ResolveError> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return Ok(AddressAnswer { addresses: vec![normalise(literal)], secure: false });
        }
        let (v6, v4) = tokio::join!(self.kept(host, RecordType::AAAA), self.kept(host, RecordType::A));
        let secure = [&v6, &v4].into_iter().all(|a| a.secure || matches!(a.kept, Kept::Failed(_)));
        let (v6, v4) = match (v6.kept, v4.kept) {
            (Kept::Failed(a), Kept::Failed(b)) => return Err(a.graver(b).of(host)),
            (v6, v4) => (shuffled(&v6), shuffled(&v4)),
        };
        let addresses = in_order(v6, v4, has_route);
        if addresses.is_empty() {
            return Err(ResolveError::NoAddress(host.to_owned()));
        }
        Ok(AddressAnswer { addresses, secure })
    }

    /// The names that `ip` is registered under (PTR), at most [`ADDRESSES_MAX`].
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn ptr(&self, ip: IpAddr) -> Result<Vec<String>, ResolveError> {
        let name = Name::from(normalise(ip)).to_string();
        let found = self.lookup(&name, RecordType::PTR).await.map_err(|n| n.failure.of(&name))?;
        let names = found.lookup.answers().iter().filter_map(|r| match &r.data {
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
        let found = self.lookup(name, RecordType::TXT).await.map_err(|n| n.failure.of(name))?;
        let texts = found.lookup.answers().iter().filter_map(|r| match &r.data {
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
    async fn kept(&self, name: &str, kind: RecordType) -> Answer {
        if let Some(answer) = self.cache.get(kind, name) {
            return answer;
        }
        let answer = match self.lookup(name, kind).await {
            Ok(found) => {
                let (kept, ttl_s) = reduce(&found.lookup, kind);
                let alias_of = found.alias_of.as_ref().and_then(host_name).map(Arc::from);
                Answer { kept, secure: found.secure, alias_of, ttl_s }
            }
            Err(negative) => Answer::failed(negative.failure, negative.ttl_s),
        };
        self.cache.put(kind, name, &answer);
        answer
    }

    /// One question, bounded in time. Names are taken as absolute: the search list is for people at a keyboard. Only a
    /// name without a dot, which no mail domain is, is looked for as the system does.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Found, Negative> {
        let mut asked = Name::from_utf8(name).map_err(|_| Negative::uncertain(Failure::Unusable))?;
        asked.set_fqdn(name.contains('.'));
        match self.ask(&asked, kind).await {
            Ok(lookup) => Ok(self.found(lookup, &asked)),
            Err(negative) if self.may_be_mixed(&negative, kind) => {
                self.link_by_link(asked, kind, negative).await
            }
            Err(negative) => Err(negative),
        }
    }

    fn found(&self, lookup: Lookup, asked: &Name) -> Found {
        let (secure, alias_of) =
            (self.authentication.is_secure(&lookup, asked), alias_of(&lookup, asked).cloned());
        Found { lookup, secure, alias_of }
    }

    async fn ask(&self, asked: &Name, kind: RecordType) -> Result<Lookup, Negative> {
        let answer = timeout(LOOKUP_MAX, self.inner.lookup(asked.clone(), kind)).await;
        let negative = match answer {
            Ok(Ok(lookup)) => return Ok(lookup),
            Ok(Err(error)) => classify(error, asked),
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
fn system() -> (config::ResolverConfig, ResolverOpts) {
    read_system_conf().unwrap_or_else(|error| {
        warn!(%error, "no DNS servers in /etc/resolv.conf; asking 127.0.0.1");
        explicit(&[SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)])
    })
}

fn explicit(servers: &[SocketAddr]) -> (config::ResolverConfig, ResolverOpts) {
    let servers = servers.iter().map(server).collect();
    let config = config::ResolverConfig::from_parts(None, vec![], servers);
    let mut options = ResolverOpts::default();
    options.timeout = ATTEMPT;
    (config, options)
}

fn trust_anchors(path: &Path) -> Result<TrustAnchors, NetError> {
    TrustAnchors::from_file(path).map_err(|e| {
        NetError::Configuration(format!("dns.trust_anchors: {} has no DNSKEY records: {e}", path.display()))
    })
}

/// What `asked` is an alias of in the end, as the answer says.
fn alias_of<'a>(lookup: &'a Lookup, asked: &Name) -> Option<&'a Name> {
    let mut end = None;
    for _ in 0..ALIASES_MAX {
        let at = end.unwrap_or(asked);
        let next = lookup.answers().iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *at => Some(&target.0),
            _ => None,
        });
        match next {
            Some(next) => end = Some(next),
            None => break,
        }
    }
    end
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
    } else if kind == RecordType::TLSA {
        let found = records.filter_map(|data| match data {
            RData::TLSA(tlsa) => Some(Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.as_slice().into(),
            }),
            _ => None,
        });
        let found: Vec<Tlsa> = found.take(KEPT_MAX).collect();
        if found.is_empty() { Kept::Failed(Failure::NoData) } else { Kept::Tlsa(found.into()) }
    } else if kind == RecordType::CNAME {
        Kept::Alias
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
