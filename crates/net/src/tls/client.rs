//! The client's side of TLS: to servers whose certificate must be right, and to those where encryption alone is
//! better than none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mail::{Clock, TlsInfo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::server::handshake_failed;
use super::{Time, VERSIONS, binding, describe, provider, unix_time};
use crate::{Binding, NetError, Stream};

/// Servers whose sessions are remembered for resumption; some 10 KB each.
const SESSIONS: usize = 256;

/// Whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// PEM file with roots to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// What is asked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// It must be valid for the name and issued by a trusted root; else there is no connection.
    Verified,
    /// It is checked, but the connection is made whatever the result, which [`TlsInfo::verified`] tells.
    Opportunistic,
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
        let bug = |e: &dyn std::fmt::Display| NetError::Bug(format!("cannot set up TLS: {e}"));
        let verifier = if roots.is_empty() {
            warn!("no trusted roots: no server's certificate can be verified; install ca-certificates");
            None
        } else {
            let built = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build();
            Some(built.map_err(|e| bug(&e))?)
        };
        let build = |verifier: Arc<dyn ServerCertVerifier>| -> Result<Arc<ClientConfig>, NetError> {
            let mut config = ClientConfig::builder_with_details(provider(), Arc::new(Time(clock.clone())))
                .with_protocol_versions(VERSIONS)
                .map_err(|e| bug(&e))?
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Ok(Arc::new(config))
        };
        let lax = build(Arc::new(AnyCertificate))?;
        let strict = match &verifier {
            Some(verifier) => build(verifier.clone())?,
            None => lax.clone(),
        };
        Ok(Self(Arc::new(Inner { strict, lax, verifier, roots, clock })))
    }

    /// The client's handshake on a TCP connection, within `limit`. `name` is the host as we looked it up: it goes
    /// into SNI and is what the certificate must be made out for.
    ///
    /// # Errors
    /// [`NetError::Untrusted`] when the certificate does not satisfy [`Trust::Verified`]; [`NetError::Peer`],
    /// [`NetError::Network`] or [`NetError::Timeout`] when the handshake fails.
    pub async fn connect(
        &self,
        stream: Stream,
        name: &str,
        trust: Trust,
        limit: Duration,
    ) -> Result<Stream, NetError> {
        let server = ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| NetError::Configuration(format!("{name:?} is no host name that TLS can verify")))?;
        if trust == Trust::Verified && self.0.verifier.is_none() {
            return Err(untrusted(name, "this machine has no trusted roots; install ca-certificates".into()));
        }
        let config = match trust {
            Trust::Verified => &self.0.strict,
            Trust::Opportunistic => &self.0.lax,
        };
        let tcp = stream.into_tcp()?;
        let handshake = TlsConnector::from(config.clone()).connect(server.clone(), tcp);
        let stream = timeout(limit, handshake)
            .await
            .map_err(|_| NetError::Timeout { what: "the TLS handshake", after: limit })?
            .map_err(|e| connect_failed(name, e))?;
        let unverified = match trust {
            Trust::Verified => None,
            Trust::Opportunistic => self.check(&stream, &server).err(),
        };
        Ok(Stream::Client(Box::new(ClientSide { stream, unverified })))
    }

    /// Checks the certificate after an opportunistic handshake.
    fn check(&self, stream: &TlsStream<TcpStream>, server: &ServerName<'_>) -> Result<(), String> {
        let verifier = self.0.verifier.as_ref().ok_or("this machine has no trusted roots")?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let (leaf, intermediates) = chain.split_first().ok_or("the server showed no certificate")?;
        verifier
            .verify_server_cert(leaf, intermediates, server, &[], unix_time(&self.0.clock))
            .map(drop)
            .map_err(|e| explain(&e))
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

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        warn!(%error, "some of the system's trusted roots cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let shown = path.display();
        let wrong = |e: &dyn std::fmt::Display| NetError::Configuration(format!("tls.ca_file: {shown}: {e}"));
        let pem = std::fs::read(path).map_err(|e| wrong(&e))?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong(&"no certificate in it; it must contain -----BEGIN CERTIFICATE----- (PEM)"));
        }
    }
    Ok(roots)
}

fn untrusted(name: &str, reason: String) -> NetError {
    NetError::Untrusted { name: name.to_owned(), reason }
}

fn connect_failed(name: &str, error: std::io::Error) -> NetError {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => untrusted(name, tls.map(explain).unwrap_or_default()),
        _ => handshake_failed("server", error),
    }
}

/// A certificate error in plain words.
fn explain(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(error) = error else { return error.to_string() };
    match error {
        CertificateError::UnknownIssuer => {
            "it is self-signed or its issuer is not trusted here; if that is right, add the issuer to tls.ca_file".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; is this machine's clock right?".into()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("it is made out for other names ({})", presented.join(", "))
        }
        CertificateError::BadSignature => {
            "it was not signed by the issuer of that name which is trusted here; is tls.ca_file out of date?".into()
        }
        CertificateError::NotValidForName => "it is made out for other names".into(),
        other => other.to_string(),
    }
}

/// Takes any certificate. The signature of the handshake is verified all the same, so that the check made
/// afterwards means something; only what is no certificate to webpki at all goes without, and that can never pass
/// the check either.
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
    unverified: Option<String>,
}

impl ClientSide {
    pub(crate) fn info(&self) -> TlsInfo {
        let (_, tls) = self.stream.get_ref();
        let verified = if self.unverified.is_some() { "unverified" } else { "verified" };
        describe(tls.protocol_version(), tls.negotiated_cipher_suite(), verified)
    }

    pub(crate) fn unverified_because(&self) -> Option<&str> {
        self.unverified.as_deref()
    }

    pub(crate) fn binding(&self, kind: Binding) -> Option<Vec<u8>> {
        let (_, tls) = self.stream.get_ref();
        match kind {
            Binding::TlsExporter => binding::exporter(tls),
            Binding::TlsServerEndPoint => binding::server_end_point(tls.peer_certificates()?.first()?),
        }
    }
}
