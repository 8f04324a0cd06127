//! Certificates from Pebble, Let's Encrypt's test server, which validates for real: it looks the name up in a DNS
//! server (pebble-challtestsrv) and connects to the port we answer on.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mail::Clock;
use net::acme::{Acme, AcmeConfig, Challenge, renew_at};
use net::{CertificateFacts, CertificateSource, ClientTls, ClientTlsConfig, ServerTls, ServerTlsConfig};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{Authority, Neighbour, PATIENCE, free_address};

const DOMAINS: [&str; 2] = ["relay.test", "mx.relay.test"];

/// Pebble, its DNS server, and a directory for the relay.
struct Pebble {
    directory: SocketAddr,
    management: SocketAddr,
    /// Where it expects challenges to be answered.
    answers: SocketAddr,
    dns_at: SocketAddr,
    dir: TempDir,
    server: Option<Neighbour>,
    _dns: Neighbour,
}

impl Pebble {
    /// `validity_s`: lifetime of what it issues, in seconds.
    async fn start(validity_s: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        let authority = Authority::new();
        fs::write(path("ca.pem"), authority.pem()).unwrap();
        authority.issue(&["localhost", "127.0.0.1"], &path("pebble.pem"), &path("pebble.key"));

        let (dns_at, dns_management) = (free_address(), free_address());
        let dns = Neighbour::start("pebble-challtestsrv", "pebble", dir.path(), |c| {
            c.arg("-dns01").arg(dns_at.to_string()).arg("-management").arg(dns_management.to_string());
            c.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        });
        let dns = dns.listening(dns_management).await;
        let (directory, management, answers) = (free_address(), free_address(), free_address());
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "{directory}", "managementListenAddress": "{management}",
                "certificate": "pebble.pem", "privateKey": "pebble.key",
                "httpPort": {port}, "tlsPort": {port}, "certificateValidityPeriod": {validity_s}}}}}"#,
            port = answers.port(),
        );
        fs::write(path("pebble.json"), config).unwrap();
        let mut pebble = Self { directory, management, answers, dns_at, dir, server: None, _dns: dns };
        pebble.launch().await;
        pebble
    }

    /// Starts it, or starts it anew: then it has forgotten everything.
    async fn launch(&mut self) {
        self.server = None;
        let server = Neighbour::start("pebble", "pebble", self.dir.path(), |c| {
            c.args(["-config", "pebble.json", "-strict", "-dnsserver"]).arg(self.dns_at.to_string());
            // Validate at once, and not most of what was validated before.
            c.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        });
        self.server = Some(server.listening(self.management).await.listening(self.directory).await);
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn config(&self, challenge: Challenge) -> AcmeConfig {
        AcmeConfig {
            contact: Some("admin@relay.test".into()),
            domains: DOMAINS.map(str::to_owned).into(),
            directory: format!("https://{}/dir", self.directory),
            challenge,
            listen: vec![self.answers],
            data_dir: self.data_dir(),
        }
    }

    fn said(&self) -> String {
        self.server.as_ref().unwrap().said()
    }
}

/// A relay that gets its certificate from there; ends with the value.
struct Relay {
    tls: ServerTls,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    fn start(config: AcmeConfig, ca_file: &Path) -> Self {
        let source = CertificateSource::Acme { domains: config.domains.clone() };
        let server =
            ServerTlsConfig { hostname: "relay.test".into(), data_dir: config.data_dir.clone(), source };
        let tls = ServerTls::open(server, Clock::system()).unwrap();
        let trust = ClientTlsConfig { ca_file: Some(ca_file.to_owned()) };
        let client = ClientTls::new(&trust, Clock::system()).unwrap();
        let shutdown = CancellationToken::new();
        let acme = Acme::bind(config).unwrap();
        let (serving, stop) = (tls.clone(), shutdown.clone());
        let task = tokio::spawn(async move { acme.run(serving, client, Clock::system(), stop).await });
        Self { tls, shutdown, task }
    }

    /// Waits until the certificate in use is one that `wanted` likes.
    async fn serving(&self, pebble: &Pebble, wanted: impl Fn(&CertificateFacts) -> bool) -> CertificateFacts {
        let found = tokio::time::timeout(PATIENCE, async {
            while !wanted(&self.tls.facts()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(found.await.is_ok(), "still {:?}; Pebble says:\n{}", self.tls.facts(), pebble.said());
        self.tls.facts()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn from_pebble(facts: &CertificateFacts) -> bool {
    facts.issuer.contains("Pebble")
}

async fn issues(challenge: Challenge) {
    let mut pebble = Pebble::start(3600 * 24 * 90).await;
    let config = pebble.config(challenge);
    let ca_file = pebble.dir.path().join("ca.pem");

    let relay = Relay::start(config.clone(), &ca_file);
    assert!(relay.tls.facts().self_signed, "something must be served from the first moment");
    let facts = relay.serving(&pebble, from_pebble).await;
    let mut names = facts.names.clone();
    names.sort();
    assert_eq!(names, ["mx.relay.test", "relay.test"]);
    // In use first, then on disk.
    let stored = pebble.data_dir().join("tls/acme/certificate.pem");
    wait_for(&stored).await;
    relay.stop().await;
    for file in fs::read_dir(stored.parent().unwrap()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }

    // The next start has it at once, and orders nothing: Pebble is gone.
    let account = account_file(&stored);
    pebble.server = None;
    let relay = Relay::start(config.clone(), &ca_file);
    assert_eq!(relay.tls.facts(), facts);
    relay.stop().await;

    // Certificate lost, and the server knows nothing of the account any more.
    fs::remove_file(&stored).unwrap();
    let credentials = fs::read(&account).unwrap();
    pebble.launch().await;
    let relay = Relay::start(config, &ca_file);
    relay.serving(&pebble, |now| from_pebble(now) && *now != facts).await;
    relay.stop().await;
    assert_ne!(fs::read(&account).unwrap(), credentials, "the old account cannot have worked");
}

#[tokio::test]
async fn http_01() {
    issues(Challenge::Http01).await;
}

#[tokio::test]
async fn tls_alpn_01() {
    issues(Challenge::TlsAlpn01).await;
}

#[tokio::test]
async fn renewal_comes_after_two_thirds_of_the_lifetime() {
    let pebble = Pebble::start(9).await;
    let relay = Relay::start(pebble.config(Challenge::TlsAlpn01), &pebble.dir.path().join("ca.pem"));
    let first = relay.serving(&pebble, from_pebble).await;
    let second = relay.serving(&pebble, |now| from_pebble(now) && *now != first).await;
    let now = Clock::system().now();
    assert!(now >= renew_at(&first), "renewed too early: {first:?} at {now}");
    assert!(first.is_valid_at(now), "renewed too late: {first:?} at {now}");
    assert!(second.not_after > first.not_after);
    relay.stop().await;
}

#[tokio::test]
async fn a_failure_leaves_the_relay_with_what_it_has() {
    let pebble = Pebble::start(3600).await;
    // Pebble will look for the answers elsewhere.
    let config = AcmeConfig { listen: vec![free_address()], ..pebble.config(Challenge::Http01) };
    let relay = Relay::start(config, &pebble.dir.path().join("ca.pem"));
    let refused = tokio::time::timeout(PATIENCE, async {
        while !pebble.said().contains("invalid") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(refused.await.is_ok(), "Pebble has not refused:\n{}", pebble.said());
    assert!(relay.tls.facts().self_signed);
    assert!(!relay.task.is_finished(), "it must not give up for good");
    relay.stop().await;
}

async fn wait_for(path: &Path) {
    let there = tokio::time::timeout(PATIENCE, async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(there.await.is_ok(), "{} does not appear", path.display());
}

fn account_file(beside: &Path) -> PathBuf {
    let entries = fs::read_dir(beside.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
    entries
        .into_iter()
        .find(|p| p.file_name().unwrap().to_string_lossy().starts_with("account-"))
        .expect("the account is not on disk")
}
