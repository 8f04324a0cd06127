//! From an address to a session: connect, TLS, and the opening of the dialogue.

use std::sync::Arc;

use mail::{Clock, Remote, TlsInfo};
use net::{Binding, DialOptions, Stream};
use smtp::client::{Lost, OpenFailure, OpenStep, Opening, OpeningConfig, Session, TlsPolicy, Transcript};
use smtp::sasl::{BindingKind, ChannelBinding};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::error::ConnectError;
use crate::settings::Settings;
use crate::smarthost::SmartHostTls;
use crate::target::{Candidate, Target};
use crate::wire::{Patience, Wire};

/// A session and the connection that it runs over.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) session: Session,
    pub(crate) remote: Remote,
    pub(crate) tls: Option<TlsInfo>,
    /// The settings it was opened under.
    pub(crate) settings: Arc<Settings>,
}

/// Opens a session with one address. With opportunistic TLS, a handshake that fails is followed by one more connection
/// to the same address without TLS: mail that may go in the clear must not wait for a server that cannot do TLS.
pub(crate) async fn open(
    candidate: &Candidate,
    target: &Target,
    settings: &Arc<Settings>,
    clock: &Clock,
    record: &mut Transcript,
) -> Result<Connection, ConnectError> {
    let policy = match target.tls {
        SmartHostTls::Required => TlsPolicy::Required,
        SmartHostTls::Opportunistic => TlsPolicy::WhenOffered,
        SmartHostTls::Implicit | SmartHostTls::None => TlsPolicy::Never,
    };
    let opened = match open_by(policy, candidate, target, settings, clock, record).await {
        Err(ConnectError::Handshake { source, .. }) if policy == TlsPolicy::WhenOffered => {
            record.note(&format!("TLS failed: {source}; connecting again without TLS"));
            metrics::counter!("posthouse_delivery_tls_fallbacks_total").increment(1);
            open_by(TlsPolicy::Never, candidate, target, settings, clock, record).await
        }
        other => other,
    };
    count(&opened);
    opened
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
    candidate: &Candidate,
    target: &Target,
    settings: &Arc<Settings>,
    clock: &Clock,
    record: &mut Transcript,
) -> Result<Connection, ConnectError> {
    let Candidate { host, address } = candidate;
    record.note(&format!("connecting to {host} ({address})"));
    let options = DialOptions {
        timeout: settings.timeouts.connect,
        allow_private: target.named || settings.allow_private_targets,
        ..DialOptions::default()
    };
    let mut stream = net::dial(*address, &options).await?;
    if target.tls == SmartHostTls::Implicit {
        stream = handshake(stream, host, target, settings).await?;
        record.note(&describe(&stream));
    }
    let remote = Remote { name: host.to_string(), address: Some(*address) };
    converse(stream, policy, remote, target, settings, clock, record).await
}

/// Opens a session on the socket of an LMTP server.
pub(crate) async fn open_socket(
    path: &str,
    target: &Target,
    settings: &Arc<Settings>,
    clock: &Clock,
    record: &mut Transcript,
) -> Result<Connection, ConnectError> {
    record.note(&format!("connecting to {path}"));
    let failed = |source| ConnectError::Socket { path: path.to_owned(), source };
    let stream = timeout(settings.timeouts.connect, UnixStream::connect(path))
        .await
        .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    let remote = Remote { name: path.to_owned(), address: None };
    let opened =
        converse(Stream::Unix(stream), TlsPolicy::Never, remote, target, settings, clock, record).await;
    count(&opened);
    opened
}

async fn converse(
    stream: Stream,
    policy: TlsPolicy,
    remote: Remote,
    target: &Target,
    settings: &Arc<Settings>,
    clock: &Clock,
    record: &mut Transcript,
) -> Result<Connection, ConnectError> {
    let config = OpeningConfig {
        hostname: settings.hostname.clone(),
        lmtp: target.lmtp,
        tls: policy,
        tls_active: stream.is_tls(),
        binding: binding(&stream),
        login: target.login.clone(),
    };
    let mut opening = Opening::new(config, std::mem::take(record));
    match drive(&mut opening, Wire::new(stream), &remote, target, settings, clock).await {
        Ok(wire) => {
            let tls = wire.stream().tls_info();
            Ok(Connection { wire, session: opening.into_session(), remote, tls, settings: settings.clone() })
        }
        Err(error) => {
            *record = opening.into_transcript();
            Err(error)
        }
    }
}

async fn drive(
    opening: &mut Opening,
    mut wire: Wire,
    remote: &Remote,
    target: &Target,
    settings: &Settings,
    clock: &Clock,
) -> Result<Wire, ConnectError> {
    let mut patience = Patience::new(clock, &settings.timeouts);
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
                let stream = handshake(wire.into_stream(), &remote.name, target, settings).await?;
                opening.transcript().note(&describe(&stream));
                opening.tls_started(binding(&stream));
                wire = Wire::new(stream);
            }
            Err(failure) => {
                say_quit(opening, &mut wire, &failure, settings).await;
                return Err(failure.into());
            }
        }
    }
}

/// Leaves politely where the peer still listens.
async fn say_quit(opening: &mut Opening, wire: &mut Wire, failure: &OpenFailure, settings: &Settings) {
    let listens = match failure {
        OpenFailure::Refused { reply, .. } => reply.code != 421,
        OpenFailure::NoTls(_) | OpenFailure::LoginRefused { .. } => true,
        OpenFailure::NoLogin { .. } | OpenFailure::Peer(_) => false,
    };
    if listens {
        opening.transcript().sent(b"QUIT");
        let said: Result<(), Lost> = wire.write(b"QUIT\r\n", settings.timeouts.quit).await;
        tracing::trace!(?said, "QUIT");
    }
}

async fn handshake(
    stream: Stream,
    host: &str,
    target: &Target,
    settings: &Settings,
) -> Result<Stream, ConnectError> {
    settings
        .tls
        .connect(stream, host, target.trust(), settings.timeouts.handshake)
        .await
        .map_err(|source| ConnectError::Handshake { host: host.to_owned(), source })
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
