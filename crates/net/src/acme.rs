//! Certificates by ACME (RFC 8555): issued, kept on disk, renewed after two thirds of their lifetime, shown at once.
//!
//! Nothing here can stop the relay: until there is a certificate a self-signed one is served, and failures are tried
//! again, ever more slowly.

mod order;
mod responder;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use mail::{Clock, Timestamp};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::tls::write_private;
use crate::{CertificateFacts, ClientTls, Listener, NetError, Pair, ServerTls};
use responder::Responder;

/// Let's Encrypt, the default.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The whole dance must end within this.
const ORDER_MAX: Duration = Duration::from_secs(300);
/// How often the certificate's age is looked at: wall clocks jump and machines sleep.
const LOOK: Duration = Duration::from_secs(600);
/// Pause after the first failure; four times as long after each further one. Let's Encrypt takes five failures an
/// hour.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);

/// How we prove that a name is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Challenge {
    /// By a TLS handshake on port 443 (RFC 8737).
    #[default]
    TlsAlpn01,
    /// By a file on port 80 (RFC 8555 section 8.3).
    Http01,
}

impl Challenge {
    /// Its name in `acme.challenge`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }

    /// The port that the ACME server connects to.
    pub fn port(self) -> u16 {
        match self {
            Self::TlsAlpn01 => 443,
            Self::Http01 => 80,
        }
    }
}

impl FromStr for Challenge {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        [Self::TlsAlpn01, Self::Http01].into_iter().find(|c| c.as_str() == text).ok_or_else(|| {
            NetError::Configuration(format!("acme.challenge {text:?} is neither tls-alpn-01 nor http-01"))
        })
    }
}

/// `[acme]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeConfig {
    /// Where the ACME server writes to; an e-mail address.
    pub contact: Option<String>,
    /// The names to be issued for.
    pub domains: Vec<String>,
    /// URL of the ACME directory, [`LETS_ENCRYPT`] by default.
    pub directory: String,
    /// How ownership is proved.
    pub challenge: Challenge,
    /// Where challenges are answered; empty: on the challenge's port, on all addresses.
    pub listen: Vec<SocketAddr>,
    /// Account and certificate are kept in `tls/acme/` below it.
    pub data_dir: PathBuf,
}

impl AcmeConfig {
    fn certificate_path(&self) -> PathBuf {
        certificate_path(&self.data_dir)
    }
}

fn certificate_path(data_dir: &Path) -> PathBuf {
    data_dir.join("tls").join("acme").join("certificate.pem")
}

/// The certificate on disk, if it is for all of `domains`.
pub(crate) fn stored(data_dir: &Path, domains: &[String]) -> Option<Pair> {
    let path = certificate_path(data_dir);
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => {
            error!(path = %path.display(), error = %e, "cannot read the stored ACME certificate");
            return None;
        }
    };
    match Pair::from_pem(&pem, &pem, &path.display().to_string()) {
        Ok(pair) => domains.iter().all(|d| pair.facts().covers(d)).then_some(pair),
        Err(error) => {
            error!(%error, "the stored ACME certificate is damaged; a new one will be ordered");
            None
        }
    }
}

/// When a certificate is to be renewed: after two thirds of its lifetime.
pub fn renew_at(facts: &CertificateFacts) -> Timestamp {
    let lifetime = facts.not_after.millis().saturating_sub(facts.not_before.millis());
    Timestamp(facts.not_before.millis().saturating_add(lifetime / 3 * 2))
}

/// Orders and renews the certificate.
#[derive(Debug)]
pub struct Acme {
    config: AcmeConfig,
    listener: Listener,
    responder: Responder,
}

impl Acme {
    /// Takes the port on which challenges are answered; to be called before privileges are dropped.
    ///
    /// # Errors
    /// [`NetError::Configuration`] when the port cannot be had. The relay can do without: it serves the certificate it
    /// has, or a self-signed one.
    pub fn bind(config: AcmeConfig) -> Result<Self, NetError> {
        let port = config.challenge.port();
        let explain = |e: NetError| {
            NetError::Configuration(format!(
                "ACME ({}) answers on port {port}: {e}",
                config.challenge.as_str()
            ))
        };
        let listener = if config.listen.is_empty() {
            let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            let all = all.map(|ip| SocketAddr::new(ip, port));
            // A machine without IPv6 has one of the two.
            Listener::bind(&all).or_else(|_| Listener::bind(&all[..1]))
        } else {
            Listener::bind(&config.listen)
        };
        let listener = listener.map_err(explain)?;
        let responder = Responder::new(config.challenge);
        Ok(Self { config, listener, responder })
    }

    /// Where challenges are answered.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listener.addresses()
    }

    /// Keeps `tls` supplied with a valid certificate until `shutdown`. Never fails: every failure is logged with what
    /// the ACME server said, and tried again later.
    pub async fn run(&self, tls: ServerTls, client: ClientTls, clock: Clock, shutdown: CancellationToken) {
        let work = async {
            tokio::join!(self.responder.serve(&self.listener), self.renew(&tls, &client, &clock));
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    async fn renew(&self, tls: &ServerTls, client: &ClientTls, clock: &Clock) {
        let mut pause = PAUSE_FIRST;
        let mut due = stored(&self.config.data_dir, &self.config.domains).map(|pair| renew_at(pair.facts()));
        loop {
            let now = clock.now();
            if let Some(due) = due.filter(|due| *due > now) {
                sleep(due.since(now).min(LOOK)).await;
                continue;
            }
            match self.issue(tls, client).await {
                Ok(facts) => {
                    info!(names = ?facts.names, until = %facts.not_after, "ACME certificate issued");
                    due = Some(renew_at(&facts));
                    pause = PAUSE_FIRST;
                    // A server that issues what is already due must not be asked in a circle.
                    sleep(Duration::from_secs(1)).await;
                }
                Err(error) => {
                    let serving = tls.facts();
                    error!(%error, domains = ?self.config.domains, again_in_s = pause.as_secs(),
                        serving = %serving.from, serving_until = %serving.not_after,
                        "no certificate from the ACME server");
                    sleep(pause).await;
                    pause = (pause * 4).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Orders one certificate, shows it and stores it.
    async fn issue(&self, tls: &ServerTls, client: &ClientTls) -> Result<CertificateFacts, NetError> {
        let pem = timeout(ORDER_MAX, order::order(&self.config, &self.responder, client))
            .await
            .map_err(|_| NetError::Timeout { what: "the ACME order", after: ORDER_MAX })??;
        let path = self.config.certificate_path();
        let pair = Pair::from_pem(pem.as_bytes(), pem.as_bytes(), &path.display().to_string())?;
        let facts = pair.facts().clone();
        tls.install(pair)?;
        // A disk that refuses it is no reason to order another one: this one serves until the next start.
        if let Err(error) = write(path, pem.into_bytes()).await {
            error!(%error, "the ACME certificate cannot be stored; it will be ordered again at the next start");
        }
        Ok(facts)
    }
}

/// Writes a private file on a thread that may wait for the disk.
async fn write(path: PathBuf, content: Vec<u8>) -> Result<(), NetError> {
    tokio::task::spawn_blocking(move || write_private(&path, &content))
        .await
        .map_err(|e| NetError::Bug(e.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_after_two_thirds() {
        let facts = CertificateFacts {
            from: String::new(),
            names: vec![],
            issuer: String::new(),
            not_before: Timestamp(1_000),
            not_after: Timestamp(91_000),
            self_signed: false,
            key_hash: [0; 32],
        };
        assert_eq!(renew_at(&facts), Timestamp(61_000));
    }

    #[test]
    fn challenges_have_their_names() {
        for challenge in [Challenge::TlsAlpn01, Challenge::Http01] {
            assert_eq!(challenge.as_str().parse::<Challenge>().unwrap(), challenge);
        }
        assert!("dns-01".parse::<Challenge>().is_err());
    }
}
