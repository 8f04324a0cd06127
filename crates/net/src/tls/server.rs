//! The server's side of TLS: which certificate is shown, how it changes without disturbing anybody, handshakes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mail::{Clock, TlsInfo};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{error, info, warn};

use super::{CertificateFacts, Pair, Time, VERSIONS, binding, describe, provider, self_signed};
use crate::{Binding, NetError, Stream, acme};

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// `tls.certificate` and `tls.key`: PEM files.
    Files {
        /// The chain, the server's own certificate first.
        certificate: PathBuf,
        /// The key to it.
        key: PathBuf,
    },
    /// `[acme]`: issued and renewed by [`acme::Acme::run`]. Until it is there, a self-signed one stands in.
    Acme {
        /// The names it must be made out for.
        domains: Vec<String>,
    },
    /// Neither: one that we make ourselves.
    SelfSigned,
}

/// What the server's side needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsConfig {
    /// The relay's own name, for the self-signed certificate.
    pub hostname: String,
    /// Self-signed and ACME certificates live in `tls/` below it.
    pub data_dir: PathBuf,
    /// Where the certificate comes from.
    pub source: CertificateSource,
}

/// TLS as a server. Clones share the certificate; a change reaches the next handshake, live sessions keep theirs.
#[derive(Clone)]
pub struct ServerTls(Arc<Inner>);

struct Inner {
    serving: ArcSwap<Serving>,
    config: Mutex<ServerTlsConfig>,
    clock: Clock,
}

/// One certificate in use. Each has its own ticket keys: a session resumed under another certificate than it began
/// with would break `tls-server-end-point`.
struct Serving {
    pair: Pair,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Loads the certificate, or makes a self-signed one.
    ///
    /// # Errors
    /// [`NetError::Configuration`] for certificate files that cannot be used, [`NetError::Disk`] when `data_dir`
    /// cannot be written.
    pub fn open(config: ServerTlsConfig, clock: Clock) -> Result<Self, NetError> {
        let pair = load(&config, &clock)?;
        let serving = ArcSwap::from_pointee(Serving::new(pair, &clock)?);
        Ok(Self(Arc::new(Inner { serving, config: Mutex::new(config), clock })))
    }

    /// Reads the certificate again; when that fails, the old one stays.
    ///
    /// # Errors
    /// As [`ServerTls::open`].
    pub fn reload(&self) -> Result<(), NetError> {
        let config = self.0.config.lock().clone();
        self.reconfigure(config)
    }

    /// The same after the configuration has changed.
    ///
    /// # Errors
    /// As [`ServerTls::open`]; then nothing has changed.
    pub fn reconfigure(&self, config: ServerTlsConfig) -> Result<(), NetError> {
        let mut current = self.0.config.lock();
        let pair = load(&config, &self.0.clock)?;
        self.install(pair)?;
        *current = config;
        Ok(())
    }

    /// Shows `pair` from the next handshake on.
    pub(crate) fn install(&self, pair: Pair) -> Result<(), NetError> {
        if self.0.serving.load().pair.certified.cert == pair.certified.cert {
            return Ok(());
        }
        info!(from = %pair.facts.from, names = ?pair.facts.names, until = %pair.facts.not_after, "certificate changed");
        self.0.serving.store(Arc::new(Serving::new(pair, &self.0.clock)?));
        Ok(())
    }

    /// What the certificate in use says.
    pub fn facts(&self) -> CertificateFacts {
        self.0.serving.load().pair.facts().clone()
    }

    /// The rustls configuration in use, for other servers than SMTP (HTTPS). Ask anew for each connection.
    pub fn rustls_config(&self) -> Arc<ServerConfig> {
        self.0.serving.load().config.clone()
    }

    /// The server's handshake on a TCP connection, within `limit`.
    ///
    /// # Errors
    /// [`NetError::Peer`] or [`NetError::Network`] when it fails, [`NetError::Timeout`].
    pub async fn accept(&self, stream: Stream, limit: Duration) -> Result<Stream, NetError> {
        let tcp = stream.into_tcp()?;
        let serving = self.0.serving.load_full();
        let handshake = TlsAcceptor::from(serving.config.clone()).accept(tcp);
        let stream = timeout(limit, handshake)
            .await
            .map_err(|_| NetError::Timeout { what: "the TLS handshake", after: limit })?
            .map_err(|e| handshake_failed("client", e))?;
        Ok(Stream::Server(Box::new(ServerSide { stream, pair: serving.pair.clone() })))
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServerTls").field(&self.facts()).finish()
    }
}

impl Serving {
    fn new(pair: Pair, clock: &Clock) -> Result<Self, NetError> {
        let bug = |e| NetError::Bug(format!("cannot set up TLS: {e}"));
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(Time(clock.clone())))
            .with_protocol_versions(VERSIONS)
            .map_err(bug)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified.clone())));
        config.ticketer = Ticketer::new().map_err(bug)?;
        // Mail clients open one connection at a time: a second ticket would be bytes for nothing.
        config.send_tls13_tickets = 1;
        // With tickets the client keeps the state, so that memory does not grow with the clients.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { pair, config: Arc::new(config) })
    }
}

fn load(config: &ServerTlsConfig, clock: &Clock) -> Result<Pair, NetError> {
    let pair = match &config.source {
        CertificateSource::Files { certificate, key } => Pair::load(certificate, key)?,
        CertificateSource::SelfSigned => {
            self_signed::load_or_make(&config.data_dir, &config.hostname, clock)?
        }
        CertificateSource::Acme { domains } => match acme::stored(&config.data_dir, domains) {
            Some(pair) if pair.facts.is_valid_at(clock.now()) => pair,
            stored => {
                let why = if stored.is_some() { "has expired" } else { "has not been issued yet" };
                error!(
                    ?domains,
                    "the ACME certificate {why}: serving a self-signed one, which clients will not trust"
                );
                self_signed::load_or_make(&config.data_dir, &config.hostname, clock)?
            }
        },
    };
    let facts = pair.facts();
    if !facts.is_valid_at(clock.now()) {
        error!(from = %facts.from, not_before = %facts.not_before, not_after = %facts.not_after,
            "the certificate is not valid at this time: clients that check will not connect");
    } else if !facts.self_signed && !facts.covers(&config.hostname) {
        warn!(from = %facts.from, names = ?facts.names, hostname = %config.hostname,
            "the certificate is not made out for hostname");
    }
    Ok(pair)
}

/// Sorts the errors of a handshake by who is at fault.
pub(super) fn handshake_failed(peer: &str, error: std::io::Error) -> NetError {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) => NetError::Peer(format!(
            "TLS handshake with the {peer} failed: {}",
            super::alert::rustls_words(tls)
        )),
        None => NetError::network(format!("TLS handshake with the {peer} broke off"), error),
    }
}

/// A connection on which we are the TLS server.
pub struct ServerSide {
    pub(crate) stream: TlsStream<TcpStream>,
    /// The certificate that this session began with.
    pair: Pair,
}

impl ServerSide {
    pub(crate) fn info(&self) -> TlsInfo {
        let (_, tls) = self.stream.get_ref();
        describe(tls.protocol_version(), tls.negotiated_cipher_suite(), "")
    }

    pub(crate) fn binding(&self, kind: Binding) -> Option<Vec<u8>> {
        match kind {
            Binding::TlsExporter => binding::exporter(self.stream.get_ref().1),
            Binding::TlsServerEndPoint => binding::server_end_point(self.pair.leaf()),
        }
    }
}
