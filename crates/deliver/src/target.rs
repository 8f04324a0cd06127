//! Where a destination's connections go: hosts in order, and who named them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use mail::{Address, Destination, HostPort, Message, SmartHostTls};
use net::{ClientIdentity, MxAnswer, MxHost};

use crate::engine::Engine;
use crate::error::ConnectError;
use crate::hosts::Standing;
use crate::security::{self, Asked, Flags, Requirement};
use crate::settings::Settings;
use crate::smarthost::{LoginSource, SmartHost};
use crate::source::SourceAddress;

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) settings: &'a Arc<Settings>,
    pub(crate) source: &'a mail::SourceName,
    pub(crate) destination: &'a Destination,
    /// None where no message is to be sent.
    pub(crate) message: Option<&'a Message>,
    /// Who we are there.
    pub(crate) login: Option<&'a LoginSource>,
}

impl Wanted<'_> {
    /// The envelope's sender; none is the null sender.
    pub(crate) fn sender(&self) -> Option<&Address> {
        self.message.and_then(|message| message.reverse_path.as_ref())
    }

    /// What the message asks of the way: REQUIRETLS, and `TLS-Required: No`.
    pub(crate) fn flags(&self) -> Flags {
        let of = |m: &Message| Flags { require_tls: m.require_tls, tls_optional: m.tls_optional };
        self.message.map(of).unwrap_or_default()
    }
}

/// Where to connect.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The mail exchangers of a domain.
    Exchangers { domain: Arc<str>, answer: MxAnswer, port: u16 },
    /// Other people's relay.
    SmartHost(Arc<SmartHost>),
    /// One server that the operator named, and the certificate that we show there.
    Server { at: HostPort, tls: SmartHostTls, lmtp: bool, identity: Option<ClientIdentity> },
    /// An LMTP server on this machine.
    Socket(Arc<str>),
}

impl Target {
    /// Finds out where `destination` is; asks the DNS for mail exchangers.
    pub(crate) async fn of(destination: &Destination, settings: &Settings) -> Result<Self, ConnectError> {
        match destination {
            Destination::Mx(domain) => Self::exchangers(domain, settings).await,
            Destination::SmartHost(name) => match settings.smarthosts.get(name) {
                Some(host) => Ok(Self::SmartHost(host.clone())),
                None => Err(ConnectError::Configuration(format!("there is no smart host {name:?}"))),
            },
            Destination::Smtp(at) => {
                let tls = SmartHostTls::Opportunistic;
                Ok(Self::Server { at: at.clone(), tls, lmtp: false, identity: None })
            }
            Destination::Lmtp(at) => {
                let tls =
                    if settings.lmtp_starttls { SmartHostTls::Opportunistic } else { SmartHostTls::None };
                Ok(Self::Server { at: at.clone(), tls, lmtp: true, identity: None })
            }
            Destination::LmtpUnix(path) => Ok(Self::Socket(path.clone())),
            Destination::Maildir(_) | Destination::Sandbox | Destination::Discard | Destination::Bounces => {
                Err(ConnectError::Configuration(format!("nothing connects to {destination}")))
            }
        }
    }

    /// The mail exchangers of a domain (RFC 5321 section 5.1). Where this relay is one of them, only those before it
    /// are used, else mail would go round in circles.
    async fn exchangers(domain: &Arc<str>, settings: &Settings) -> Result<Self, ConnectError> {
        let mut answer = settings.resolver.mx(domain).await?;
        let ours =
            answer.hosts.iter().filter(|h| is_ourselves(&h.name, settings)).map(|h| h.preference).min();
        if let Some(ours) = ours {
            answer.hosts.retain(|h| h.preference < ours);
        }
        if answer.hosts.is_empty() {
            return Err(ConnectError::Ourselves(domain.to_string()));
        }
        Ok(Self::Exchangers { domain: domain.clone(), answer, port: settings.mx_port })
    }

    /// Whether the operator named the hosts, and not the DNS.
    pub(crate) fn is_named(&self) -> bool {
        !matches!(self, Self::Exchangers { .. })
    }

    pub(crate) fn is_lmtp(&self) -> bool {
        matches!(self, Self::Server { lmtp: true, .. } | Self::Socket(_))
    }

    /// Whether TLS is there from the first octet.
    pub(crate) fn is_implicit_tls(&self) -> bool {
        match self {
            Self::SmartHost(host) => host.tls == SmartHostTls::Implicit,
            Self::Server { tls, .. } => *tls == SmartHostTls::Implicit,
            Self::Exchangers { .. } | Self::Socket(_) => false,
        }
    }

    /// The hosts in the order in which they are tried.
    pub(crate) fn hosts(&self, wanted: &Wanted<'_>) -> Vec<HostPort> {
        match self {
            Self::Exchangers { answer, port, .. } => {
                answer.hosts.iter().map(|h| HostPort { host: h.name.clone(), port: *port }).collect()
            }
            Self::SmartHost(host) => wanted.engine.smarthosts().plan(host, wanted.sender()),
            Self::Server { at, .. } => vec![at.clone()],
            Self::Socket(_) => Vec::new(),
        }
    }

    /// How many hosts may hear of a message in one attempt.
    pub(crate) fn hear_max(&self) -> u32 {
        match self {
            Self::Exchangers { .. } => crate::failover::EXCHANGERS_HEAR_MAX,
            Self::SmartHost(host) => u32::try_from(host.hosts.len()).unwrap_or(u32::MAX),
            Self::Server { .. } | Self::Socket(_) => 1,
        }
    }

    /// Whether there is another host than this one.
    pub(crate) fn has_other_than(&self, host: &HostPort) -> bool {
        match self {
            Self::Exchangers { answer, .. } => answer.hosts.iter().any(|h| h.name != host.host),
            Self::SmartHost(smarthost) => smarthost.hosts.iter().any(|h| h.at != *host),
            Self::Server { .. } | Self::Socket(_) => false,
        }
    }

    /// Whether it is one of the domain's exchangers.
    pub(crate) fn has_exchanger(&self, host: &HostPort) -> bool {
        let Self::Exchangers { answer, port, .. } = self else { return false };
        *port == host.port && answer.hosts.iter().any(|h| h.name == host.host)
    }

    /// How a connection to this host of it must be protected. Where mail ends its way on the operator's own mail store,
    /// nothing is asked for (RFC 8689 speaks of relaying).
    pub(crate) async fn requirement(&self, host: &str, wanted: &Wanted<'_>) -> Requirement {
        let (tls, flags, identity) = match self {
            Self::Exchangers { domain, answer, port } => {
                let unknown = MxHost { preference: 0, name: host.into() };
                let host = answer.hosts.iter().find(|h| &*h.name == host).unwrap_or(&unknown);
                let asked = Asked { domain, mx: answer, host, port: *port, flags: wanted.flags() };
                return security::requirement(&asked, &wanted.settings.resolver, &wanted.settings.tls_rules)
                    .await;
            }
            Self::SmartHost(smarthost) => (smarthost.tls, wanted.flags(), &smarthost.identity),
            Self::Server { tls, lmtp: false, identity, .. } => (*tls, wanted.flags(), identity),
            Self::Server { tls, lmtp: true, identity, .. } => (*tls, Flags::default(), identity),
            Self::Socket(_) => (SmartHostTls::None, Flags::default(), &None),
        };
        security::named(host, tls, flags).showing(identity.clone())
    }
}

/// Whether an exchanger is this relay, by any of its names.
fn is_ourselves(name: &str, settings: &Settings) -> bool {
    name.eq_ignore_ascii_case(&settings.hostname)
        || settings
            .sources
            .values()
            .filter_map(|s| s.ehlo.as_ref())
            .any(|ehlo| name.eq_ignore_ascii_case(ehlo))
}

/// The addresses of a target, found out one host at a time as they are needed. Addresses that failed lately come after
/// all others.
#[derive(Debug)]
pub(crate) struct Candidates {
    source: Arc<SourceAddress>,
    hosts: VecDeque<HostPort>,
    host: Option<HostPort>,
    /// Of that host, not tried yet.
    addresses: Vec<SocketAddr>,
    resting: VecDeque<(HostPort, Vec<SocketAddr>)>,
    /// Of those, the ones that are worth a look by now.
    due: Vec<(HostPort, SocketAddr)>,
    /// Whether a host all of whose addresses rest comes after the others. For smart hosts, their own health decides.
    hosts_rest: bool,
    left: usize,
}

/// A host to connect to, by whichever of its addresses answers.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) host: HostPort,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Candidates {
    pub(crate) fn new(source: Arc<SourceAddress>, target: &Target, wanted: &Wanted<'_>) -> Self {
        Self {
            source,
            hosts: target.hosts(wanted).into(),
            hosts_rest: !target.is_named(),
            host: None,
            addresses: Vec::new(),
            resting: VecDeque::new(),
            due: Vec::new(),
            left: wanted.settings.addresses_max.max(1),
        }
    }

    pub(crate) fn source(&self) -> &Arc<SourceAddress> {
        &self.source
    }

    /// Whether there may be another.
    pub(crate) fn has_more(&self) -> bool {
        self.left > 0 && !(self.hosts.is_empty() && self.addresses.is_empty() && self.resting.is_empty())
    }

    /// Whether an address of the host that was taken last is left.
    pub(crate) fn has_more_of_this_host(&self) -> bool {
        self.left > 0 && !self.addresses.is_empty()
    }

    /// Takes no more addresses of this host.
    pub(crate) fn leave(&mut self, host: &HostPort) {
        if self.host.as_ref() == Some(host) {
            self.addresses.clear();
        }
        self.hosts.retain(|h| h != host);
        self.resting.retain(|(h, _)| h != host);
    }

    /// This address was tried.
    pub(crate) fn tried(&mut self, address: SocketAddr) {
        self.skip(address);
        self.left = self.left.saturating_sub(1);
    }

    /// This address is not to be tried.
    pub(crate) fn skip(&mut self, address: SocketAddr) {
        self.addresses.retain(|a| *a != address);
    }

    /// The next host with those of its addresses that were not tried; none when all were, or enough. An error speaks of
    /// one host: ask again.
    pub(crate) async fn next(
        &mut self,
        wanted: &Wanted<'_>,
    ) -> Option<Result<Candidate, (HostPort, ConnectError)>> {
        while self.addresses.is_empty() {
            let Some(host) = self.hosts.pop_front() else {
                let (host, addresses) = self.resting.pop_front()?;
                (self.host, self.addresses) = (Some(host), addresses);
                break;
            };
            match self.resolve(&host, wanted).await {
                Ok(found) => {
                    self.sort(&host, found, wanted);
                    self.host = Some(host);
                }
                Err(error) => return Some(Err((host, error))),
            }
        }
        let host = self.host.clone()?;
        let addresses = self.addresses.iter().take(self.left).copied().collect();
        (self.left > 0).then_some(Ok(Candidate { host, addresses }))
    }

    /// Takes out the addresses that somebody should have a look at.
    pub(crate) fn take_due(&mut self) -> Vec<(HostPort, SocketAddr)> {
        std::mem::take(&mut self.due)
    }

    async fn resolve(&self, host: &HostPort, wanted: &Wanted<'_>) -> Result<Vec<SocketAddr>, ConnectError> {
        let found = wanted.settings.resolver.addresses(&host.host).await.map_err(host_error)?.addresses;
        let usable: Vec<SocketAddr> = found
            .iter()
            .filter(|ip| self.source.reaches(**ip))
            .map(|ip| SocketAddr::new(*ip, host.port))
            .collect();
        if usable.is_empty() {
            let (name, has) = (&self.source.name, self.source.families());
            return Err(ConnectError::Family(format!(
                "the source {name} has {has}, and {} has none of that kind",
                host.host
            )));
        }
        Ok(usable)
    }

    /// Takes the addresses of a host that nothing is known against; the others come later.
    fn sort(&mut self, host: &HostPort, found: Vec<SocketAddr>, wanted: &Wanted<'_>) {
        let now = wanted.engine.clock().mono();
        let (mut resting, mut due) = (Vec::new(), Vec::new());
        for address in found {
            match wanted.engine.hosts().standing(&self.source.name, address, now) {
                Standing::Good => self.addresses.push(address),
                Standing::Resting => resting.push(address),
                Standing::Due => due.push(address),
            }
        }
        let is_last = self.addresses.is_empty() && self.hosts.is_empty() && self.resting.is_empty();
        if is_last || !self.hosts_rest {
            // Nobody else is there to take the message meanwhile.
            self.addresses.append(&mut due);
        }
        if !self.hosts_rest {
            self.addresses.append(&mut resting);
        }
        resting.extend(&due);
        if !resting.is_empty() {
            self.resting.push_back((host.clone(), resting));
        }
        self.due.extend(due.into_iter().map(|address| (host.clone(), address)));
    }
}

/// The domain is there, but a host that it names is not: that is a fault in the routing, not a wrong address.
fn host_error(error: net::ResolveError) -> ConnectError {
    match error {
        net::ResolveError::NoSuchDomain(host) => net::ResolveError::NoAddress(host).into(),
        other => other.into(),
    }
}
