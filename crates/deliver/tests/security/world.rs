//! Mail exchangers with certificates of all kinds, signed zones that speak of them, policies, and engines that keep to
//! all that.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use deliver::{TlsResult, TlsResults, TlsRules};
use mail::{Attempt, Clock, Destination, Message};
use net::sts::{StsCache, StsConfig};
use net::{ClientTls, ClientTlsConfig, Pair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::peer::{Behaviour, Peer};
use crate::rig::{LETTER, Line, Rig, attempt};
use crate::signed::SignedDns;
use crate::support::Authority;
use crate::web::{Page, Web};

/// A server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    Good,
    Expired,
    SelfSigned,
    WrongName,
}

pub(crate) const CERTIFICATES: [Certificate; 4] =
    [Certificate::Good, Certificate::Expired, Certificate::SelfSigned, Certificate::WrongName];

/// The mail exchanger that all of them are, unless a test says otherwise.
pub(crate) const MX: &str = "mx1.test";

/// Makes certificates.
pub(crate) struct Certificates {
    dir: TempDir,
    pub(crate) authority: Authority,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::new();
        fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        Self { dir, authority }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes one, in `stem.pem` and `stem.key`.
    pub(crate) fn make(&self, stem: &str, kind: Certificate, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (self.path(&format!("{stem}.pem")), self.path(&format!("{stem}.key")));
        match kind {
            Certificate::Good => self.authority.issue(&[name], &certificate, &key),
            Certificate::Expired => self.authority.issue_until(&[name], 2024, &certificate, &key),
            Certificate::WrongName => self.authority.issue(&["other.example"], &certificate, &key),
            Certificate::SelfSigned => {
                let own = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
                fs::write(&certificate, own.cert.pem()).unwrap();
                fs::write(&key, own.signing_key.serialize_pem()).unwrap();
            }
        }
        (certificate, key)
    }

    /// A server that shows it, and its TLSA data as in a zone file: usage 3, key, SHA-256.
    pub(crate) fn acceptor(&self, kind: Certificate) -> (TlsAcceptor, String) {
        let (certificate, key) = self.make(&format!("{kind:?}"), kind, MX);
        let pair = Pair::load(&certificate, &key).unwrap();
        let chain = CertificateDer::pem_file_iter(&certificate).unwrap().collect::<Result<_, _>>().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
            .unwrap();
        (TlsAcceptor::from(Arc::new(config)), format!("3 1 1 {}", pair.facts().key_sha256()))
    }

    pub(crate) async fn web(&self, hosts: &[String], page: Page) -> Web {
        let (certificate, key) = (self.path("web.pem"), self.path("web.key"));
        let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
        self.authority.issue(&names, &certificate, &key);
        Web::serve(&certificate, &key, page).await
    }
}

/// A peer, and what its certificate is.
pub(crate) struct Exchanger {
    pub(crate) peer: Peer,
    pub(crate) tlsa: String,
}

impl Exchanger {
    pub(crate) async fn new(certificates: &Certificates, kind: Certificate) -> Self {
        Self::behaving(certificates, kind, Behaviour::good()).await
    }

    /// One that offers STARTTLS beside what else it does.
    pub(crate) async fn behaving(certificates: &Certificates, kind: Certificate, like: Behaviour) -> Self {
        let (acceptor, tlsa) = certificates.acceptor(kind);
        Self { peer: Peer::new(like.starttls(&acceptor)).await, tlsa }
    }

    pub(crate) fn port(&self) -> u16 {
        self.peer.at.port()
    }
}

/// A relay.
pub(crate) struct World {
    pub(crate) rig: Rig,
    pub(crate) results: Arc<TlsResults>,
}

impl World {
    /// Connects to mail exchangers at `port`; DANE is on, and MTA-STS where there is a web server.
    pub(crate) fn new(
        dns: &SignedDns,
        certificates: &Certificates,
        web: Option<&Web>,
        port: u16,
        change: impl FnOnce(&mut TlsRules),
    ) -> Self {
        let results = Arc::new(TlsResults::new());
        let rig = Rig::with(|settings| {
            let resolver = dns.resolver();
            let config = ClientTlsConfig { ca_file: Some(certificates.path("ca.pem")) };
            let tls = ClientTls::new(&config, Clock::system()).unwrap();
            let sts = web.map(|web| {
                let config = StsConfig { dir: None, allow_private: true, port: web.at.port() };
                StsCache::open(config, resolver.clone(), tls.clone(), Clock::system()).unwrap()
            });
            let mut rules = TlsRules { dane: true, sts, overrides: vec![], results: Some(results.clone()) };
            change(&mut rules);
            settings.tls_rules = rules;
            settings.resolver = resolver;
            settings.tls = tls;
            settings.mx_port = port;
        });
        Self { rig, results }
    }

    pub(crate) fn line(&self, domain: &str) -> Line {
        self.rig.link(&Destination::Mx(domain.into()))
    }

    /// Delivers a letter over a connection of its own.
    pub(crate) async fn deliver(&self, domain: &str) -> Attempt {
        self.deliver_as(domain, |_| {}).await
    }

    /// The same with a message changed.
    pub(crate) async fn deliver_as(&self, domain: &str, change: impl FnOnce(&mut Message)) -> Attempt {
        let job = self.rig.job(&[&format!("a@{domain}")], LETTER, change).await;
        let mut line = self.line(domain);
        let attempt = attempt(&mut line, &job).await;
        line.close().await;
        attempt
    }

    /// What was counted for the only policy since the last time.
    pub(crate) fn result(&self) -> TlsResult {
        let mut results = self.results.drain();
        assert_eq!(results.len(), 1, "{results:?}");
        results.remove(0)
    }
}

/// The level that was asked for; empty where none was.
pub(crate) fn level(attempt: &Attempt) -> String {
    attempt.security.as_ref().map(|security| security.level.clone()).unwrap_or_default()
}
