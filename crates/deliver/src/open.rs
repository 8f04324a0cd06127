//! From a host to a session: connect, TLS, and the opening of the dialogue.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mail::{HostPort, Mono, Remote, TlsInfo};
use net::{Binding, NetError, Stream};
use smtp::client::{
    Login, Lost, OpenFailure, OpenStep, Opening, OpeningConfig, Session, TlsPolicy, Transcript,
};
use smtp::sasl::{BindingKind, ChannelBinding};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::error::ConnectError;
use crate::hosts::Learned;
use crate::reuse::Served;
use crate::security::{self, Lacking, Observed, Requirement, Starttls};
use crate::settings::Settings;
use crate::smarthost::LoginSource;
use crate::source::SourceAddress;
use crate::target::{Target, Wanted};
use crate::wire::{Patience, Wire};

/// A session and the connection that it runs over.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) session: Session,
    pub(crate) remote: Remote,
    pub(crate) tls: Option<TlsInfo>,
    /// The host at the other end; none for a socket.
    pub(crate) host: Option<HostPort>,
    pub(crate) lmtp: bool,
    /// The settings it was opened under.
    pub(crate) settings: Arc<Settings>,
    /// How it must be protected, for the destination that it serves.
    pub(crate) requirement: Arc<Requirement>,
    /// Who we are there.
    pub(crate) login: Option<LoginSource>,
    /// What the host has shown of its limits.
    pub(crate) learned: Learned,
    /// What it was used for last.
    pub(crate) served: Served,
    pub(crate) opened: Mono,
    /// When the last transaction ended.
    pub(crate) used: Mono,
    /// How long the peer took to answer the last message.
    pub(crate) latency: Option<Duration>,
}

/// A host that is to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Try<'a> {
    pub(crate) host: &'a HostPort,
    pub(crate) addresses: &'a [SocketAddr],
    pub(crate) requirement: &'a Arc<Requirement>,
    pub(crate) target: &'a Target,
    pub(crate) login: Option<Arc<Login>>,
    pub(crate) source: &'a SourceAddress,
}

/// What is to be remembered of an address that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It works.
    Works,
    /// It does not.
    Dead,
    /// It is there, but there was something else.
    Other,
}

/// Addresses that were tried, the last one last.
pub(crate) type Tried = Vec<(SocketAddr, Found)>;

/// Why there is no session.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: ConnectError,
    pub(crate) tried: Tried,
}

/// Opens a session with a host by the first of its addresses that answers. With opportunistic TLS, a handshake that fails
/// is followed by one more connection to the same address without TLS: mail that may go in the clear must not wait for a
/// server that cannot do TLS.
pub(crate) async fn open(
    attempt: &Try<'_>,
    wanted: &Wanted<'_>,
    record: &mut Transcript,
) -> Result<(Connection, Tried), Failed> {
    let policy = match attempt.requirement.starttls {
        Starttls::Must => TlsPolicy::Required,
        Starttls::May => TlsPolicy::WhenOffered,
        Starttls::Never => TlsPolicy::Never,
    };
    let mut tried = Vec::new();
    let opened = match open_by(policy, attempt, attempt.addresses, wanted, record, &mut tried).await {
        Err(ConnectError::Handshake { source, .. }) if policy == TlsPolicy::WhenOffered => {
            record.note(&format!("TLS failed: {source}; connecting again without TLS"));
            metrics::counter!("posthouse_delivery_tls_fallbacks_total").increment(1);
            let same: Vec<SocketAddr> = tried.pop().into_iter().map(|(address, _)| address).collect();
            open_by(TlsPolicy::Never, attempt, &same, wanted, record, &mut tried).await
        }
        other => other,
    };
    count(&opened);
    match opened {
        Ok(connection) => Ok((connection, tried)),
        Err(error) => Err(Failed { error: attempt.unmet(error), tried }),
    }
}

impl Try<'_> {
    /// Where a policy or the message wants TLS, that is what is told when there is none.
    fn unmet(&self, error: ConnectError) -> ConnectError {
        let Self { requirement, target, host, .. } = self;
        if requirement.starttls != Starttls::Must || target.is_named() && !requirement.requiretls_param {
            return error;
        }
        match &error {
            ConnectError::Open(OpenFailure::NoTls(_)) => {
                ConnectError::Unmet(requirement.unmet(&host.host, Lacking::Starttls))
            }
            ConnectError::Handshake { source, .. } => {
                ConnectError::Unmet(requirement.unmet(&host.host, Lacking::Handshake(source)))
            }
            _ => error,
        }
    }
}

fn count(opened: &Result<Connection, ConnectError>) {
    let result = match opened {
        Ok(connection) if connection.tls.is_some() => "tls",
        Ok(_) => "clear",
        Err(_) => "failed",
    };
    metrics::counter!("posthouse_delivery_connections_total", "result" => result).increment(1);
}

async fn open_by(
    policy: TlsPolicy,
    attempt: &Try<'_>,
    addresses: &[SocketAddr],
    wanted: &Wanted<'_>,
    record: &mut Transcript,
    tried: &mut Tried,
) -> Result<Connection, ConnectError> {
    let (mut stream, address) = dial(attempt, addresses, wanted, record, tried).await?;
    let remote = Remote { name: attempt.host.host.to_string(), address: Some(address) };
    let local = stream.local_addr().ok().map(|at| at.ip());
    let peer = Peer { remote, local, policy, attempt, wanted };
    let mut helo = None;
    let opened = async {
        if attempt.target.is_implicit_tls() {
            stream = peer.handshake(stream).await?;
            record.note(&describe(&stream));
        }
        peer.converse(stream, record, &mut helo).await
    };
    let opened = opened.await;
    peer.observe(&opened, helo.as_deref());
    let found = match &opened {
        Ok(_) => Found::Works,
        Err(error) if error.is_of_the_address() => Found::Dead,
        Err(_) => Found::Other,
    };
    tried.push((address, found));
    opened
}

/// Connects to the first address that answers.
async fn dial(
    attempt: &Try<'_>,
    addresses: &[SocketAddr],
    wanted: &Wanted<'_>,
    record: &mut Transcript,
    tried: &mut Tried,
) -> Result<(Stream, SocketAddr), ConnectError> {
    let options = attempt.source.dialing(wanted.settings, attempt.target.is_named());
    let shown: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    record.note(&format!("connecting to {} ({})", attempt.host.host, shown.join(", ")));
    let dialed = match addresses {
        [address] => match net::dial(*address, &options).await {
            Ok(stream) => return Ok((stream, *address)),
            Err(error) => Err(vec![(*address, error)]),
        },
        _ => net::dial_first(addresses, &options).await,
    };
    let found = |error: &NetError| match error {
        NetError::Network { .. } | NetError::Timeout { .. } => Found::Dead,
        _ => Found::Other,
    };
    match dialed {
        Ok(net::Dialed { stream, address, failed }) => {
            // Those before it that did not fail were given a start and did not answer even so.
            for slow in addresses.iter().take_while(|a| **a != address) {
                let error = failed.iter().find(|(a, _)| a == slow).map(|(_, error)| error);
                tried.push((*slow, error.map_or(Found::Dead, found)));
            }
            Ok((stream, address))
        }
        Err(failed) => {
            tried.extend(failed.iter().map(|(address, error)| (*address, found(error))));
            let mut last = ConnectError::Configuration("the host has no address".into());
            for (address, error) in failed {
                if addresses.len() > 1 {
                    record.note(&format!("{address}: {error}"));
                }
                let is_worse =
                    |old: &ConnectError| old.outcome(false).disposition == mail::Disposition::Refused;
                if matches!(last, ConnectError::Configuration(_)) || is_worse(&last) {
                    last = error.into();
                }
            }
            Err(last)
        }
    }
}

/// Opens a session on the socket of an LMTP server.
pub(crate) async fn open_socket(
    path: &str,
    target: &Target,
    wanted: &Wanted<'_>,
    record: &mut Transcript,
) -> Result<Connection, ConnectError> {
    record.note(&format!("connecting to {path}"));
    let settings = wanted.settings;
    let failed = |source| ConnectError::Socket { path: path.to_owned(), source };
    let stream = timeout(settings.timeouts.connect, UnixStream::connect(path))
        .await
        .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    let remote = Remote { name: path.to_owned(), address: None };
    let requirement = Arc::new(target.requirement(path, wanted).await);
    let source = SourceAddress::any(wanted.source.clone());
    let host = HostPort { host: path.into(), port: 0 };
    let attempt =
        Try { host: &host, addresses: &[], requirement: &requirement, target, login: None, source: &source };
    let peer = Peer { remote, local: None, policy: TlsPolicy::Never, attempt: &attempt, wanted };
    let mut opened = peer.converse(Stream::Unix(stream), record, &mut None).await;
    if let Ok(connection) = &mut opened {
        connection.host = None;
    }
    count(&opened);
    opened
}

/// Whom we speak to, and how.
struct Peer<'a> {
    remote: Remote,
    /// The address that we came from.
    local: Option<IpAddr>,
    policy: TlsPolicy,
    attempt: &'a Try<'a>,
    wanted: &'a Wanted<'a>,
}

impl Peer<'_> {
    /// Comes to the point where mail can be sent. `helo` gets what the peer calls itself, also when it comes to nothing.
    async fn converse(
        &self,
        stream: Stream,
        record: &mut Transcript,
        helo: &mut Option<String>,
    ) -> Result<Connection, ConnectError> {
        let Self { attempt, wanted, .. } = self;
        let config = OpeningConfig {
            hostname: attempt.source.hello(wanted.settings),
            lmtp: attempt.target.is_lmtp(),
            tls: self.policy,
            tls_active: stream.is_tls(),
            binding: binding(&stream),
            login: attempt.login.clone(),
        };
        let mut opening = Opening::new(config, std::mem::take(record));
        let driven = self.drive(&mut opening, Wire::new(stream)).await;
        if self.policy != TlsPolicy::Never {
            *helo = opening.peer_name().map(str::to_owned);
        }
        let mut wire = match driven {
            Ok(wire) => wire,
            Err(error) => {
                *record = opening.into_transcript();
                return Err(error);
            }
        };
        if attempt.requirement.requiretls_param && !opening.capabilities().require_tls {
            say_quit(&mut opening, &mut wire, wanted.settings).await;
            *record = opening.into_transcript();
            let outcome = attempt.requirement.unmet(&self.remote.name, Lacking::RequireTls);
            return Err(ConnectError::Unmet(outcome));
        }
        Ok(self.connection(wire, opening.into_session()))
    }

    fn connection(&self, wire: Wire, mut session: Session) -> Connection {
        let Self { attempt, wanted, .. } = self;
        if !wanted.settings.pipelining {
            session.without_pipelining();
        }
        let now = wanted.engine.clock().mono();
        Connection {
            tls: wire.stream().tls_info(),
            wire,
            session,
            remote: self.remote.clone(),
            host: Some(attempt.host.clone()),
            lmtp: attempt.target.is_lmtp(),
            settings: wanted.settings.clone(),
            requirement: attempt.requirement.clone(),
            login: wanted.login.cloned(),
            learned: wanted.engine.hosts().learned(attempt.host),
            served: Served::new(wanted, now),
            opened: now,
            used: now,
            latency: None,
        }
    }

    async fn drive(&self, opening: &mut Opening, mut wire: Wire) -> Result<Wire, ConnectError> {
        let settings = self.wanted.settings;
        let mut patience = Patience::new(self.wanted.engine.clock(), &settings.timeouts);
        loop {
            match opening.input(&mut wire.input) {
                Ok(OpenStep::Ready) => return Ok(wire),
                Ok(OpenStep::Read(wait)) => {
                    let exchanged = match patience.left(wait, opening.replies()) {
                        Ok(limit) => wire.exchange(opening.output(), limit).await,
                        Err(lost) => Err(lost),
                    };
                    if let Err(lost) = exchanged {
                        let error = ConnectError::lost(&lost, wait);
                        opening.transcript().note(&error.to_string());
                        return Err(error);
                    }
                }
                Ok(OpenStep::StartTls) => {
                    let stream = self.handshake(wire.into_stream()).await?;
                    opening.transcript().note(&describe(&stream));
                    opening.tls_started(binding(&stream));
                    wire = Wire::new(stream);
                }
                Err(failure) => {
                    if still_listens(&failure) {
                        say_quit(opening, &mut wire, settings).await;
                    }
                    return Err(failure.into());
                }
            }
        }
    }

    async fn handshake(&self, stream: Stream) -> Result<Stream, ConnectError> {
        let Settings { tls, timeouts, .. } = &**self.wanted.settings;
        let Requirement { tls_name, trust, identity, .. } = &**self.attempt.requirement;
        tls.connect_as(stream, tls_name, trust, identity.as_ref(), timeouts.handshake)
            .await
            .map_err(|source| ConnectError::Handshake { host: self.remote.name.clone(), source })
    }

    /// Counts what became of TLS on this connection, for TLS reports.
    fn observe(&self, opened: &Result<Connection, ConnectError>, helo: Option<&str>) {
        if self.policy == TlsPolicy::Never {
            // It was not asked for, or what became of it is counted already.
            return;
        }
        let observed = match opened {
            Ok(connection) if connection.tls.is_some() => Observed::Protected(connection.wire.stream()),
            Ok(_) | Err(ConnectError::Open(OpenFailure::NoTls(_))) => Observed::NoStarttls,
            Err(ConnectError::Handshake { source, .. }) => Observed::Failed(source),
            Err(_) => return,
        };
        let session = security::Session {
            sending_ip: self.local,
            host: &self.remote.name,
            helo,
            receiving_ip: self.remote.address.map(|at| at.ip()),
        };
        let Settings { tls, tls_rules, .. } = &**self.wanted.settings;
        self.attempt.requirement.observed(observed, &session, tls, tls_rules);
    }
}

/// Whether the peer listens to a farewell.
fn still_listens(failure: &OpenFailure) -> bool {
    match failure {
        OpenFailure::Refused { reply, .. } => reply.code != 421,
        OpenFailure::NoTls(_) | OpenFailure::LoginRefused { .. } => true,
        OpenFailure::NoLogin { .. } | OpenFailure::Peer(_) => false,
    }
}

/// Leaves politely.
async fn say_quit(opening: &mut Opening, wire: &mut Wire, settings: &Settings) {
    opening.transcript().sent(b"QUIT");
    let said: Result<(), Lost> = wire.write(b"QUIT\r\n", settings.timeouts.quit).await;
    tracing::trace!(?said, "QUIT");
}

fn describe(stream: &Stream) -> String {
    let Some(info) = stream.tls_info() else { return "no TLS".into() };
    let why = stream.unverified_because().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{} with {}, certificate {}{why}", info.version, info.cipher, info.verified)
}

/// What SCRAM-SHA-256-PLUS binds a login to: the exporter (TLS 1.3), else the certificate.
fn binding(stream: &Stream) -> Option<ChannelBinding> {
    [(Binding::TlsExporter, BindingKind::Exporter), (Binding::TlsServerEndPoint, BindingKind::ServerEndPoint)]
        .into_iter()
        .find_map(|(of, kind)| stream.channel_binding(of).map(|data| ChannelBinding { kind, data }))
}
