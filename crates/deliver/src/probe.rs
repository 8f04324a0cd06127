//! A try at a smart host, for `posthouse check`: everything but mail.

use std::sync::Arc;

use mail::TlsInfo;
use smtp::client::Transcript;

use crate::engine::Engine;
use crate::open;
use crate::smarthost::SmartHost;
use crate::target::{Candidates, Target};

/// What was found about a smart host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// One step for each host.
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

/// Connects to each host of the smart host, does TLS, EHLO and AUTH as a delivery would, and leaves.
pub async fn probe(engine: &Arc<Engine>, smarthost: &SmartHost) -> ProbeReport {
    let mut steps = Vec::with_capacity(smarthost.hosts.len());
    for host in &smarthost.hosts {
        let alone = SmartHost { hosts: vec![host.clone()], ..smarthost.clone() };
        steps.push(probe_host(engine, &alone, host.at.to_string()).await);
    }
    ProbeReport { name: smarthost.name.clone(), steps }
}

async fn probe_host(engine: &Arc<Engine>, smarthost: &SmartHost, host: String) -> ProbeStep {
    let settings = engine.settings();
    let target = Target::smart_host(smarthost);
    let mut record = Transcript::new(settings.transcript_max);
    let mut candidates = Candidates::new(&smarthost.hosts.iter().map(|h| h.at.clone()).collect::<Vec<_>>(), &settings);
    let mut wrong = String::new();
    while let Some(next) = candidates.next(&settings).await {
        let opened = match next {
            Ok(next) => open::open(&next, &target, &settings, engine.clock(), &mut record).await,
            Err((_, error)) => Err(error),
        };
        match opened {
            Ok(mut connection) => {
                let login = match &smarthost.login {
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
                return ProbeStep { host, ok: true, text, tls, transcript };
            }
            Err(error) => {
                wrong = error.to_string();
                record.note(&wrong);
                if error.ends_it() {
                    break;
                }
            }
        }
    }
    ProbeStep { host, ok: false, text: wrong, tls: None, transcript: record.as_str().to_owned() }
}
