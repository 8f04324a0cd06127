//! The client's side of TLS: to servers whose certificate must be right, and to those where encryption alone is
//! better than none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mail::{Clock, TlsInfo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::server::handshake_failed;
use super::trust::{ClientIdentity, Named, Trust, add_roots};
use super::verdict::{Verdict, judge};
use super::{Time, VERSIONS, binding, describe, provider, unix_time};
use crate::{Binding, CertificateFault, NetError, Stream};

/// Servers whose sessions are remembered for resumption; some 10 KB each.
const SESSIONS: usize = 256;

/// Whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// PEM file with roots to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// TLS as a client. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls(Arc<Inner>);

struct Inner {
    strict: Arc<ClientConfig>,
    lax: Arc<ClientConfig>,
    /// None when there is not one root to trust.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    roots: Arc<RootCertStore>,
    clock: Clock,
}

impl ClientTls {
    /// Loads the system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured) and those of `ca_file`.
    ///
    /// # Errors
    /// [`NetError::Configuration`] when `ca_file` cannot be used. A system without roots is only warned of: then
    /// nothing can be verified.
    pub fn new(config: &ClientTlsConfig, clock: Clock) -> Result<Self, NetError> {
        let roots = Arc::new(roots(config.ca_file.as_deref())?);
        let verifier = if roots.is_empty() {
            warn!("no trusted roots: no server's certificate can be verified; install ca-certificates");
            None
        } else {
            let built = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build();
            Some(built.map_err(|e| bug(&e))?)
        };
        let lax = build(Arc::new(AnyCertificate), &clock, None)?;
        let strict = match &verifier {
            Some(verifier) => build(verifier.clone(), &clock, None)?,
            None => lax.clone(),
        };
        Ok(Self(Arc::new(Inner { strict, lax, verifier, roots, clock })))
    }

    /// The client's handshake on a TCP connection, within `limit`. `name` is the host as we looked it up, for DANE the
    /// TLSA base domain: it goes into SNI and is what the certificate must be made out for.
    ///
    /// # Errors
    /// [`NetError::Untrusted`] when the certificate does not satisfy `trust`; [`NetError::Peer`],
    /// [`NetError::Network`] or [`NetError::Timeout`] when the handshake fails.
    pub async fn connect(
        &self,
        stream: Stream,
        name: &str,
        trust: Trust,
        limit: Duration,
    ) -> Result<Stream, NetError> {
        self.connect_as(stream, name, &trust, None, limit).await
    }

    /// The same, with a certificate of our own for servers that ask for one.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_as(
        &self,
        stream: Stream,
        name: &str,
        trust: &Trust,
        identity: Option<&ClientIdentity>,
        limit: Duration,
    ) -> Result<Stream, NetError> {
        let server = server_name(name)?;
        if *trust == Trust::Verified && self.0.verifier.is_none() {
            let reason = "this machine has no trusted roots; install ca-certificates";
            return Err(untrusted(name, Verdict::new(CertificateFault::Issuer, reason)));
        }
        let config = match (identity, trust) {
            (Some(identity), _) => identity.config(|| {
                build(Arc::new(AnyCertificate), &self.0.clock, Some(identity.pair().certified.clone()))
            })?,
            (None, Trust::Verified) => self.0.strict.clone(),
            (None, _) => self.0.lax.clone(),
        };
        let tcp = stream.into_tcp()?;
        let handshake = TlsConnector::from(config).connect(server.clone(), tcp);
        let stream = timeout(limit, handshake)
            .await
            .map_err(|_| NetError::Timeout { what: "the TLS handshake", after: limit })?
            .map_err(|e| connect_failed(name, e))?;
        // A resumed session has its certificates with it: what they are worth is asked anew each time.
        let verified = match (trust, self.check(&stream, &server, trust)) {
            (Trust::Opportunistic, Err(verdict)) => Err(verdict),
            (_, Err(verdict)) => return Err(untrusted(name, verdict)),
            (Trust::Dane(_), Ok(())) => Ok("dane"),
            (_, Ok(())) => Ok("verified"),
        };
        Ok(Stream::Client(Box::new(ClientSide { stream, verified, identity: identity.cloned() })))
    }

    /// Whether the certificates of a connection that is open would satisfy `trust` for `name` as well.
    ///
    /// # Errors
    /// [`NetError::Untrusted`], with the reason; [`NetError::Peer`] for a connection without TLS.
    pub fn would_satisfy(&self, stream: &Stream, name: &str, trust: &Trust) -> Result<(), NetError> {
        let Stream::Client(tls) = stream else {
            return Err(NetError::Peer("the connection has no TLS".into()));
        };
        self.check(&tls.stream, &server_name(name)?, trust).map_err(|verdict| untrusted(name, verdict))
    }

    /// Checks the certificates after the handshake.
    fn check(
        &self,
        stream: &TlsStream<TcpStream>,
        server: &ServerName<'_>,
        trust: &Trust,
    ) -> Result<(), Verdict> {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let now = unix_time(&self.0.clock);
        match trust {
            Trust::Dane(dane) => dane.verify(chain, now),
            Trust::Named(named) => named.verify(chain, server, self.0.verifier.as_ref(), now),
            Trust::Verified | Trust::Opportunistic => {
                Named::default().verify(chain, server, self.0.verifier.as_ref(), now)
            }
        }
    }

    /// The roots in use, for other clients than SMTP (ACME).
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        self.0.roots.clone()
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("roots", &self.0.roots.len()).finish()
    }
}

fn build(
    verifier: Arc<dyn ServerCertVerifier>,
    clock: &Clock,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<Arc<ClientConfig>, NetError> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Time(clock.clone())))
        .with_protocol_versions(VERSIONS)
        .map_err(|e| bug(&e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

fn bug(error: &dyn std::fmt::Display) -> NetError {
    NetError::Bug(format!("cannot set up TLS: {error}"))
}

fn server_name(name: &str) -> Result<ServerName<'static>, NetError> {
    ServerName::try_from(name.trim_end_matches('.').to_owned())
        .map_err(|_| NetError::Configuration(format!("{name:?} is no host name that TLS can verify")))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        warn!(%error, "some of the system's trusted roots cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        add_roots(&mut roots, path, "tls.ca_file")?;
    }
    Ok(roots)
}

fn untrusted(name: &str, verdict: Verdict) -> NetError {
    NetError::Untrusted { name: name.to_owned(), reason: verdict.reason, fault: verdict.fault }
}

fn connect_failed(name: &str, error: std::io::Error) -> NetError {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match tls {
        Some(invalid @ rustls::Error::InvalidCertificate(_)) => untrusted(name, judge(invalid)),
        _ => handshake_failed("server", error),
    }
}

/// Takes any certificate. The signature of the handshake is verified all the same, so that the check made
/// afterwards means something; only what is no certificate to webpki at all goes without, and that can never pass
/// the check either: neither webpki's nor that of TLSA records, which sees to it itself.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if ParsedCertificate::try_from(certificate).is_err() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if ParsedCertificate::try_from(certificate).is_err() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A connection on which we are the TLS client.
pub struct ClientSide {
    pub(crate) stream: TlsStream<TcpStream>,
    /// By what it was verified, or why not.
    verified: Result<&'static str, Verdict>,
    identity: Option<ClientIdentity>,
}

impl ClientSide {
    pub(crate) fn info(&self) -> TlsInfo {
        let (_, tls) = self.stream.get_ref();
        let verified = self.verified.as_ref().copied().unwrap_or("unverified");
        describe(tls.protocol_version(), tls.negotiated_cipher_suite(), verified)
    }

    pub(crate) fn unverified_because(&self) -> Option<&str> {
        self.verified.as_ref().err().map(|verdict| verdict.reason.as_str())
    }

    pub(crate) fn identity(&self) -> Option<&ClientIdentity> {
        self.identity.as_ref()
    }

    pub(crate) fn binding(&self, kind: Binding) -> Option<Vec<u8>> {
        let (_, tls) = self.stream.get_ref();
        match kind {
            Binding::TlsExporter => binding::exporter(tls),
            Binding::TlsServerEndPoint => binding::server_end_point(tls.peer_certificates()?.first()?),
        }
    }
}
