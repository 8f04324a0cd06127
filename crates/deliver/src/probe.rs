//! A try at a smart host, for `posthouse check`: everything but mail.

use std::sync::Arc;

use mail::{Destination, HostPort, TlsInfo};
use smtp::client::Transcript;

use crate::engine::Engine;
use crate::smarthost::{LoginSource, SmartHost};
use crate::target::{Target, Wanted};
use crate::way::Way;

/// What was found about a smart host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// One step for each host and login.
    pub steps: Vec<ProbeStep>,
}

/// What was found about one host of a smart host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStep {
    /// `host:port` as configured.
    pub host: String,
    /// Whether mail could be sent there.
    pub ok: bool,
    /// In words: what works, or what is wrong.
    pub text: String,
    /// How the connection was protected.
    pub tls: Option<TlsInfo>,
    /// The dialogue.
    pub transcript: String,
}

impl ProbeReport {
    /// Whether all hosts work.
    pub fn all_ok(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.ok)
    }

    /// Whether at least one host works: mail goes out.
    pub fn usable(&self) -> bool {
        self.steps.iter().any(|step| step.ok)
    }
}

/// Connects to each host of the smart host, does TLS, EHLO and AUTH as a delivery would, with each of its logins, and
/// leaves.
pub async fn probe(engine: &Arc<Engine>, smarthost: &SmartHost) -> ProbeReport {
    let mut logins: Vec<Option<&LoginSource>> = smarthost.all_logins().map(Some).collect();
    if logins.is_empty() {
        logins.push(None);
    }
    let mut steps = Vec::with_capacity(smarthost.hosts.len());
    for host in &smarthost.hosts {
        for login in &logins {
            steps.push(probe_host(engine, smarthost, &host.at, *login).await);
        }
    }
    ProbeReport { name: smarthost.name.clone(), steps }
}

async fn probe_host(
    engine: &Arc<Engine>,
    smarthost: &SmartHost,
    at: &HostPort,
    login: Option<&LoginSource>,
) -> ProbeStep {
    let (settings, source) = (engine.settings(), mail::default_source());
    let destination = Destination::SmartHost(smarthost.name.clone());
    let wanted = Wanted {
        engine,
        settings: &settings,
        source: &source,
        destination: &destination,
        message: None,
        login,
    };
    let identity = smarthost.identity.clone();
    // Not as a smart host: what is found here is no news about its health.
    let target = Target::Server { at: at.clone(), tls: smarthost.tls, lmtp: false, identity };
    let mut record = Transcript::new(settings.transcript_max);
    let host = at.to_string();
    let mut way = Way::to(target, engine.clock().mono());
    match way.connect(&wanted, &mut record, &mut None).await {
        Ok(mut connection) => {
            let login = match login {
                Some(login) => format!("login as {:?} accepted", login.username()),
                None => "no login configured".into(),
            };
            let tls = connection.tls.clone();
            let text = match &tls {
                Some(tls) => {
                    format!("connected with {}, certificate {}; {login}", tls.version, tls.verified)
                }
                None => format!("connected without TLS; {login}"),
            };
            let transcript = connection.session.transcript().as_str().to_owned();
            connection.quit().await;
            ProbeStep { host, ok: true, text, tls, transcript }
        }
        Err(outcome) => {
            let transcript = record.as_str().to_owned();
            ProbeStep { host, ok: false, text: outcome.text, tls: None, transcript }
        }
    }
}
