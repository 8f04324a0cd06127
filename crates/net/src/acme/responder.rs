//! Answers the ACME server's challenges: a small TLS server that shows the proof in a certificate (TLS-ALPN-01), or
//! a small HTTP server that shows it in a file (HTTP-01). Between orders there is nothing to show, and it shows
//! nothing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::Challenge;
use crate::tls::{VERSIONS, provider};
use crate::{Listener, NetError, Stream};

/// The protocol's name in ALPN (RFC 8737 section 6.2).
const ALPN: &[u8] = b"acme-tls/1";
const PATH: &str = "/.well-known/acme-challenge/";
/// An ACME server looks from a handful of places; whoever comes beyond this waits for a turn.
const CONNECTIONS_MAX: usize = 32;
/// Time for a connection in all.
const CONNECTION: Duration = Duration::from_secs(10);

/// What is shown at present.
#[derive(Debug)]
pub(super) enum Responder {
    TlsAlpn(Arc<Certificates>),
    Http(Arc<Mutex<HashMap<String, String>>>),
}

/// By the name that the ACME server asks for.
#[derive(Debug, Default)]
pub(super) struct Certificates(Mutex<HashMap<String, Arc<CertifiedKey>>>);

impl Responder {
    pub(super) fn new(challenge: Challenge) -> Self {
        match challenge {
            Challenge::TlsAlpn01 => Self::TlsAlpn(Arc::default()),
            Challenge::Http01 => Self::Http(Arc::default()),
        }
    }

    /// Shows the proof for `name` from now on.
    pub(super) fn publish(
        &self,
        name: &str,
        token: &str,
        proof: &str,
        digest: &[u8],
    ) -> Result<(), NetError> {
        match self {
            Self::TlsAlpn(certificates) => {
                let certificate = certificate(name, digest)?;
                certificates.0.lock().insert(name.to_ascii_lowercase(), Arc::new(certificate));
            }
            Self::Http(files) => {
                files.lock().insert(token.to_owned(), proof.to_owned());
            }
        }
        Ok(())
    }

    /// Shows nothing any more.
    pub(super) fn clear(&self) {
        match self {
            Self::TlsAlpn(certificates) => certificates.0.lock().clear(),
            Self::Http(files) => files.lock().clear(),
        }
    }

    /// Serves for ever.
    pub(super) async fn serve(&self, listener: &Listener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let tls = match self {
            Self::TlsAlpn(certificates) => tls_acceptor(certificates.clone()),
            Self::Http(_) => None,
        };
        loop {
            let Ok(turn) = room.clone().acquire_owned().await else { return };
            let (stream, peer) = listener.accept().await;
            let tls = tls.clone();
            let files = match self {
                Self::Http(files) => Some(files.clone()),
                Self::TlsAlpn(_) => None,
            };
            tokio::spawn(async move {
                let served = async {
                    match (tls, files) {
                        (Some(tls), _) => shake_hands(stream, &tls).await,
                        (_, Some(files)) => answer_http(stream, files).await,
                        _ => {}
                    }
                };
                if timeout(CONNECTION, served).await.is_err() {
                    debug!(client = %peer.address, "challenge connection took too long");
                }
                drop(turn);
            });
        }
    }
}

/// The handshake is the whole conversation.
async fn shake_hands(stream: Stream, tls: &TlsAcceptor) {
    let Ok(tcp) = stream.into_tcp() else { return };
    match tls.accept(tcp).await {
        Ok(mut stream) => drop(stream.shutdown().await),
        Err(error) => debug!(%error, "challenge handshake failed"),
    }
}

async fn answer_http(stream: Stream, files: Arc<Mutex<HashMap<String, String>>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let found =
            request.uri().path().strip_prefix(PATH).and_then(|token| files.lock().get(token).cloned());
        let mut response = Response::new(Full::new(Bytes::from(found.clone().unwrap_or_default())));
        if found.is_none() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION)
        .keep_alive(false)
        .max_buf_size(8192)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "challenge request failed");
    }
}

/// None only if rustls refuses its own provider, which a test would show.
fn tls_acceptor(certificates: Arc<Certificates>) -> Option<TlsAcceptor> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .ok()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Some(TlsAcceptor::from(Arc::new(config)))
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Only to those who came for it: RFC 8737 section 3 wants the protocol negotiated.
        hello.alpn()?.find(|protocol| *protocol == ALPN)?;
        self.0.lock().get(&hello.server_name()?.to_ascii_lowercase()).cloned()
    }
}

/// A self-signed certificate for `name` with the proof in its critical acmeIdentifier extension (RFC 8737 section 3).
fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, NetError> {
    let bug = |e: &dyn std::fmt::Display| NetError::Bug(format!("cannot make a challenge certificate: {e}"));
    let mut parameters = CertificateParams::new(vec![name.to_owned()]).map_err(|e| bug(&e))?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(|e| bug(&e))?;
    let certificate = parameters.self_signed(&key).map_err(|e| bug(&e))?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signer = provider().key_provider.load_private_key(key).map_err(|e| bug(&e))?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signer))
}
