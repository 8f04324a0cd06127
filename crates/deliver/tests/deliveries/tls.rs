//! STARTTLS: used where it can be, and what happens where it cannot.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use deliver::Settings;
use mail::Clock;
use net::{ClientTls, ClientTlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::peer::{Act, Behaviour, Peer, say};
use crate::support::{Rig, attempt, outcomes, smtp};

/// A private certificate authority, and a server's certificate by it.
pub(crate) struct Certificates {
    pub(crate) acceptor: TlsAcceptor,
    ca_file: PathBuf,
    dir: TempDir,
}

impl Certificates {
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "Private authority");
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let dir = TempDir::new().unwrap();
        let ca_file = dir.path().join("ca.pem");
        fs::write(&ca_file, issuer.pem()).unwrap();
        fs::write(dir.path().join("certificate.pem"), certificate.pem()).unwrap();
        fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), ca_file, dir }
    }

    /// The server's certificate and its key as PEM files.
    pub(crate) fn files(&self) -> [PathBuf; 2] {
        ["certificate.pem", "key.pem"].map(|name| self.dir.path().join(name))
    }

    /// Trusts the authority.
    pub(crate) fn trust(&self, settings: &mut Settings) {
        let config = ClientTlsConfig { ca_file: Some(self.ca_file.clone()) };
        settings.tls = ClientTls::new(&config, Clock::system()).unwrap();
    }
}

#[tokio::test]
async fn starttls_is_used_where_it_is_offered() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let peer = Peer::new(Behaviour::good().starttls(&certificates.acceptor)).await;
    for (trusted, verified) in [(true, "verified"), (false, "unverified")] {
        let rig = Rig::with(|s| {
            if trusted {
                certificates.trust(s)
            }
        });
        let mut link = rig.link(&smtp(peer.at));
        let job = rig.letter(&["a@example.net"]).await;
        let attempt = attempt(&mut link, &job).await;
        assert_eq!(outcomes(&attempt), "+250");
        let tls = attempt.tls.unwrap();
        assert_eq!((tls.version.as_str(), tls.verified.as_str()), ("TLSv1.3", verified));
    }
    assert_eq!(peer.seen(|s| (s.handshakes, s.count("EHLO"), s.messages.len())), (2, 4, 2));
}

#[tokio::test]
async fn a_failed_handshake_means_one_more_connection_in_the_clear() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let broken = || {
        Behaviour::good()
            .starttls(&certificates.acceptor)
            .on("STARTTLS", [Act::BreakTls("220 go ahead\r\n".into())])
    };
    let (rig, peer) = (Rig::new(), Peer::new(broken()).await);
    let mut link = rig.link(&smtp(peer.at));
    let mut job = rig.letter(&["a@example.net"]).await;
    job.full_transcript = true;
    let attempt = attempt(&mut link, &job).await;
    assert_eq!((outcomes(&attempt).as_str(), attempt.tls), ("+250", None));
    let transcript = attempt.transcript.unwrap();
    assert!(transcript.contains("TLS failed") && transcript.contains("again without TLS"), "{transcript}");
    assert_eq!(peer.seen(|s| (s.connections, s.handshakes, s.messages.len())), (2, 0, 1));
}

#[tokio::test]
async fn starttls_refused_is_no_reason_to_wait() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let behaviour =
        Behaviour::good().starttls(&certificates.acceptor).on("STARTTLS", [say("454 4.7.0 not now")]);
    let (rig, peer) = (Rig::new(), Peer::new(behaviour).await);
    let mut link = rig.link(&smtp(peer.at));
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
    assert_eq!((outcomes(&attempt).as_str(), attempt.tls), ("+250", None));
    assert_eq!(peer.seen(|s| s.connections), 1);
}

/// Octets behind the 220, in the same segment, would be read as if they had come through TLS.
#[tokio::test]
async fn octets_put_in_front_of_the_handshake_end_the_connection() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let injected = Act::Say("220 go ahead\r\n250 injected\r\n".into());
    let behaviour = Behaviour::good().starttls(&certificates.acceptor).on("STARTTLS", [injected]);
    let (rig, peer) = (Rig::new(), Peer::new(behaviour).await);
    let mut link = rig.link(&smtp(peer.at));
    let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "~4.5.0");
    assert!(attempt.transcript.is_some_and(|t| t.contains("attack")));
    assert_eq!(peer.seen(|s| (s.handshakes, s.count("MAIL"))), (0, 0));
}

#[tokio::test]
async fn many_messages_over_one_tls_connection_large_ones_too() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let (rig, peer) = (Rig::new(), Peer::new(Behaviour::good().starttls(&certificates.acceptor)).await);
    let mut link = rig.link(&smtp(peer.at));
    for size in [100, 50_000, 2_000_000] {
        let content = b".0123456789\r\n".repeat(size / 13);
        let job = rig.job(&["a@example.net"], &content, |_| {}).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250");
        assert!(peer.messages().last() == Some(&content));
    }
    link.close().await;
    assert_eq!(peer.seen(|s| (s.connections, s.count("QUIT"))), (1, 1));
}

/// LMTP over TCP to another machine.
#[tokio::test]
async fn lmtp_asks_for_starttls_where_that_is_configured() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    for (configured, handshakes) in [(false, 0), (true, 1)] {
        let peer = Peer::new(Behaviour::good().lmtp().starttls(&certificates.acceptor)).await;
        let rig = Rig::with(|s| s.lmtp_starttls = configured);
        let mut link = rig.link(&mail::Destination::Lmtp(crate::support::host_port(peer.at)));
        let attempt = attempt(&mut link, &rig.letter(&["a@example.net", "b@example.net"]).await).await;
        assert_eq!(outcomes(&attempt), "+250 +250", "{:?}", attempt.transcript);
        assert_eq!((peer.seen(|s| s.handshakes), attempt.tls.is_some()), (handshakes, configured));
    }
}
