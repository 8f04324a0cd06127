//! Where a destination's connections go: hosts in order, with what is asked of them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use mail::{Destination, HostPort};
use net::Trust;
use smtp::client::Login;

use crate::error::ConnectError;
use crate::settings::Settings;
use crate::smarthost::{LoginSource, SmartHost, SmartHostTls};

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) place: Place,
    pub(crate) tls: SmartHostTls,
    pub(crate) login: Option<Arc<Login>>,
    pub(crate) lmtp: bool,
    /// Whether the operator named the hosts, and not the DNS.
    pub(crate) named: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Hosts(Vec<HostPort>),
    Socket(Arc<str>),
}

impl Target {
    /// Finds out where `destination` is; asks the DNS for mail exchangers.
    pub(crate) async fn of(destination: &Destination, settings: &Settings) -> Result<Self, ConnectError> {
        match destination {
            Destination::Mx(domain) => Self::mx(domain, settings).await,
            Destination::SmartHost(name) => match settings.smarthosts.get(name) {
                Some(host) => Ok(Self::smart_host(host)),
                None => Err(ConnectError::Configuration(format!("there is no smart host {name:?}"))),
            },
            Destination::Smtp(at) => Ok(Self::named(at, SmartHostTls::Opportunistic, false)),
            Destination::Lmtp(at) => Ok(Self::named(at, SmartHostTls::None, true)),
            Destination::LmtpUnix(path) => Ok(Self {
                place: Place::Socket(path.clone()),
                tls: SmartHostTls::None,
                login: None,
                lmtp: true,
                named: true,
            }),
            Destination::Maildir(_) | Destination::Sandbox | Destination::Discard | Destination::Bounces => {
                Err(ConnectError::Configuration(format!("nothing connects to {destination}")))
            }
        }
    }

    pub(crate) fn smart_host(host: &SmartHost) -> Self {
        let place = Place::Hosts(host.hosts.iter().map(|h| h.at.clone()).collect());
        let login = match &host.login {
            Some(LoginSource::Password(login)) => Some(login.clone()),
            _ => None,
        };
        Self { place, tls: host.tls, login, lmtp: false, named: true }
    }

    fn named(at: &HostPort, tls: SmartHostTls, lmtp: bool) -> Self {
        Self { place: Place::Hosts(vec![at.clone()]), tls, login: None, lmtp, named: true }
    }

    /// The mail exchangers of a domain (RFC 5321 section 5.1). Where this relay is one of them, only those before it
    /// are used, else mail would go round in circles.
    async fn mx(domain: &str, settings: &Settings) -> Result<Self, ConnectError> {
        let answer = settings.resolver.mx(domain).await?;
        let ours = answer
            .hosts
            .iter()
            .filter(|h| h.name.eq_ignore_ascii_case(&settings.hostname))
            .map(|h| h.preference)
            .min();
        let hosts: Vec<HostPort> = answer
            .hosts
            .iter()
            .filter(|h| ours.is_none_or(|ours| h.preference < ours))
            .map(|h| HostPort { host: h.name.clone(), port: settings.mx_port })
            .collect();
        if hosts.is_empty() {
            return Err(ConnectError::Ourselves(domain.to_owned()));
        }
        let tls = SmartHostTls::Opportunistic;
        Ok(Self { place: Place::Hosts(hosts), tls, login: None, lmtp: false, named: false })
    }

    /// How far the certificate must be verified.
    pub(crate) fn trust(&self) -> Trust {
        match self.tls {
            SmartHostTls::Required | SmartHostTls::Implicit => Trust::Verified,
            SmartHostTls::Opportunistic | SmartHostTls::None => Trust::Opportunistic,
        }
    }
}

/// The addresses of a target, found out one host at a time as they are needed.
#[derive(Debug)]
pub(crate) struct Candidates {
    hosts: VecDeque<HostPort>,
    addresses: VecDeque<Candidate>,
    left: usize,
}

/// One address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) host: Arc<str>,
    pub(crate) address: SocketAddr,
}

impl Candidates {
    pub(crate) fn new(hosts: &[HostPort], settings: &Settings) -> Self {
        let hosts = hosts.iter().cloned().collect();
        Self { hosts, addresses: VecDeque::new(), left: settings.addresses_max.max(1) }
    }

    /// Whether there may be another.
    pub(crate) fn has_more(&self) -> bool {
        self.left > 0 && !(self.hosts.is_empty() && self.addresses.is_empty())
    }

    /// The next address; none when all were tried, or enough. An error speaks of one host: ask again.
    pub(crate) async fn next(
        &mut self,
        settings: &Settings,
    ) -> Option<Result<Candidate, (Arc<str>, ConnectError)>> {
        if self.left == 0 {
            return None;
        }
        while self.addresses.is_empty() {
            let HostPort { host, port } = self.hosts.pop_front()?;
            match settings.resolver.addresses(&host).await {
                Ok(found) => {
                    let of = |ip| Candidate { host: host.clone(), address: SocketAddr::new(ip, port) };
                    self.addresses.extend(found.into_iter().map(of));
                }
                Err(error) => return Some(Err((host, host_error(error)))),
            }
        }
        self.left -= 1;
        self.addresses.pop_front().map(Ok)
    }
}

/// The domain is there, but a host that it names is not: that is a fault in the routing, not a wrong address.
fn host_error(error: net::ResolveError) -> ConnectError {
    match error {
        net::ResolveError::NoSuchDomain(host) => net::ResolveError::NoAddress(host).into(),
        other => other.into(),
    }
}
