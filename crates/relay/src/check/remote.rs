//! What can only be looked at over the network: DNS, the way to other hosts, smart hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use api::types::Probe;
use directory::Snapshot;
use futures_util::future::join_all;
use hyper::Method;
use mail::Clock;
use net::{DialOptions, ResolveError, Resolver, ResolverConfig, dial, is_public};
use tokio::io::AsyncReadExt;

use super::{Findings, uses_mx};
use crate::cli::accounts::at;
use crate::cli::client::{Client, NOTHING};
use crate::cli::output::clean;
use crate::config::Config;

/// How long a connection may take here.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// How long all questions to the DNS may take together. They are asked side by side, so this is a resolver that is silent.
const BUDGET: Duration = Duration::from_secs(15);

/// The DNS, while there is time for it.
pub(super) struct Dns {
    pub(super) resolver: Resolver,
    until: tokio::time::Instant,
}

impl Dns {
    fn new(resolver: Resolver) -> Self {
        #[allow(clippy::disallowed_methods, reason = "the end of a wait, which tokio keeps")]
        let now = tokio::time::Instant::now();
        Self { resolver, until: now + BUDGET }
    }

    /// The answer to a question, or that there was none in time.
    pub(super) async fn ask<T>(
        &self,
        name: &str,
        question: impl Future<Output = Result<T, ResolveError>>,
    ) -> Result<T, ResolveError> {
        match tokio::time::timeout_at(self.until, question).await {
            Ok(answer) => answer,
            Err(_) => Err(ResolveError::Temporary { name: name.into(), reason: "no answer in time".into() }),
        }
    }
}

/// All of it at the same time; told in the same order as ever.
pub(super) async fn look(
    config: &Config,
    snapshot: &Snapshot,
    running: Option<&Client>,
    reach: &str,
    found: &mut Findings,
) {
    let asking = ResolverConfig {
        servers: config.dns.servers.clone(),
        dnssec: config.dns.dnssec,
        trust_anchors: config.dns.trust_anchors.clone(),
    };
    let dns = Resolver::new(&asking).map(Dns::new);
    let names = async {
        let mut found = Findings::aside();
        match &dns {
            Err(error) => {
                found.fail("dns", error.to_string(), "correct /etc/resolv.conf, or set dns.servers");
            }
            Ok(dns) => in_the_dns(config, snapshot, dns, reach, &mut found).await,
        }
        found
    };
    let (names, hosts) = tokio::join!(names, smarthosts(config, snapshot, running));
    found.take_in(names);
    found.take_in(hosts);
}

async fn in_the_dns(config: &Config, snapshot: &Snapshot, dns: &Dns, reach: &str, found: &mut Findings) {
    let mx = uses_mx(snapshot);
    let out = async {
        let mut found = Findings::aside();
        if mx {
            let mut outgoing = Findings::aside();
            tokio::join!(
                port_25(config, dns, reach, &mut found),
                super::outgoing::remote(config, snapshot, dns, reach, &mut outgoing)
            );
            found.take_in(outgoing);
        }
        found
    };
    let (ours, acme, out) = tokio::join!(names(config, dns, mx), acme_names(config, dns), out);
    for part in [ours, acme, out] {
        found.take_in(part);
    }
}

/// Whether the DNS answers, and says of us what others want to hear.
async fn names(config: &Config, dns: &Dns, mx: bool) -> Findings {
    let mut found = Findings::aside();
    let name = &config.hostname;
    let addresses = match dns.ask(name, dns.resolver.addresses(name)).await {
        Ok(answer) => {
            let addresses = answer.addresses;
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let text = format!("{name} is {}", list.join(", "));
            if mx && !addresses.iter().any(|ip| is_public(*ip)) {
                let help = "give hostname an address that the world can reach: servers that look it up find nobody there, and \
                            many refuse such mail; if mail leaves through NAT, the record names the outer address";
                found.warn("dns", format!("{text}, an address of a private network only"), help);
            } else {
                found.ok("dns", text);
            }
            addresses.to_vec()
        }
        Err(error) if is_silent(&error) => {
            let help = "correct /etc/resolv.conf, or set dns.servers to a resolver that answers";
            if mx {
                found.fail("dns", error.to_string(), help);
            } else {
                found.warn("dns", error.to_string(), help);
            }
            return found;
        }
        Err(error) => {
            let help = "give hostname an A or AAAA record: many servers refuse mail from a name without one";
            if mx {
                found.warn("dns", error.to_string(), help);
            } else {
                found.ok("dns", format!("{error}; with smart hosts alone that does not matter"));
            }
            Vec::new()
        }
    };
    if !mx {
        return found;
    }
    let mut ours: Vec<IpAddr> = addresses.into_iter().filter(|ip| is_public(*ip)).collect();
    ours.extend(sources().filter(|ip| is_public(*ip)));
    ours.sort_unstable();
    ours.dedup();
    let back = ours.into_iter().map(|ip| reverse(&config.hostname, dns, ip, "dns"));
    join_all(back).await.into_iter().for_each(|part| found.take_in(part));
    found
}

/// Whether the names of the certificate lead anywhere: the ACME server connects to each of them.
async fn acme_names(config: &Config, dns: &Dns) -> Findings {
    let mut found = Findings::aside();
    let Some(acme) = &config.acme else { return found };
    let names = if acme.domains.is_empty() { std::slice::from_ref(&config.hostname) } else { &acme.domains };
    let answers =
        names.iter().map(|name| async move { (name, dns.ask(name, dns.resolver.addresses(name)).await) });
    for (name, answer) in join_all(answers).await {
        let help = "give it an A or AAAA record that leads here, or take it out of acme.domains";
        match answer {
            Ok(answer) if !answer.addresses.iter().any(|ip| is_public(*ip)) && acme.ca_file.is_none() => {
                let text = format!("{name} has only addresses of private networks");
                found.warn("acme", format!("{text}: the ACME server cannot connect to it"), help);
            }
            Ok(_) => found.ok("acme", format!("{name} has an address")),
            Err(error) => found.fail("acme", error.to_string(), help),
        }
    }
    found
}

/// Whether an address leads back to our name (PTR), as receivers check.
pub(super) async fn reverse(name: &str, dns: &Dns, ip: IpAddr, about: &'static str) -> Findings {
    let mut found = Findings::aside();
    let help = "ask whoever gives you the address to set its PTR record to the name in EHLO";
    match dns.ask(&ip.to_string(), dns.resolver.ptr(ip)).await {
        Ok(names) if names.iter().any(|n| n.trim_end_matches('.').eq_ignore_ascii_case(name)) => {
            found.ok(about, format!("{ip} leads back to {name}"));
        }
        Ok(names) => {
            let text = format!("{ip} is called {}, not {name}", names.join(", "));
            found.warn(about, text, help);
        }
        Err(error) => found.warn(about, format!("{ip} has no name (PTR): {error}"), help),
    }
    found
}

/// The addresses that this machine sends from. Connecting a UDP socket sends nothing.
fn sources() -> impl Iterator<Item = IpAddr> {
    let pairs = [
        (SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), SocketAddr::from(([9, 9, 9, 9], 53))),
        (
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            SocketAddr::from(([0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe], 53)),
        ),
    ];
    pairs.into_iter().filter_map(|(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    })
}

/// Whether mail exchangers elsewhere can be reached: many providers block port 25.
async fn port_25(config: &Config, dns: &Dns, reach: &str, found: &mut Findings) {
    let answer = match dns.ask(reach, dns.resolver.mx(reach)).await {
        Ok(answer) => answer,
        Err(error) => {
            let help = "mail to other domains needs the DNS; check --reach DOMAIN asks about another domain";
            return found.fail(
                "port 25",
                format!("the mail exchangers of {reach} are not known: {error}"),
                help,
            );
        }
    };
    let port = config.delivery.mx_port;
    let options = DialOptions {
        timeout: PATIENCE,
        allow_private: config.dns.allow_private_targets,
        ..DialOptions::default()
    };
    let mut last = String::from("it has no addresses");
    for host in answer.hosts.iter().take(2) {
        let answer = dns.ask(&host.name, dns.resolver.addresses(&host.name)).await;
        for ip in answer.map(|answer| answer.addresses).unwrap_or_default().into_iter().take(2) {
            match greeting(SocketAddr::new(ip, port), &options).await {
                Ok(text) => {
                    let text = clean(&text);
                    return found.ok("port 25", format!("{} [{ip}]:{port} answers: {text}", host.name));
                }
                Err(error) => last = error,
            }
        }
    }
    let help = "most providers block port 25 until asked to open it; else send through a smart host";
    found.fail("port 25", format!("no mail exchanger of {reach} can be reached: {last}"), help);
}

async fn greeting(address: SocketAddr, options: &DialOptions) -> Result<String, String> {
    let mut stream = dial(address, options).await.map_err(|e| e.to_string())?;
    let mut text = [0; 200];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut text)).await;
    let read = read.map_err(|_| format!("{address} says nothing"))?.map_err(|e| format!("{address}: {e}"))?;
    let line = String::from_utf8_lossy(&text[..read]).lines().next().unwrap_or_default().to_owned();
    if line.starts_with("220") { Ok(line) } else { Err(format!("{address} answers {line:?}")) }
}

/// Whether each smart host takes our login: by the running relay, which knows all passwords, or from here.
async fn smarthosts(config: &Config, snapshot: &Snapshot, running: Option<&Client>) -> Findings {
    let mut found = Findings::aside();
    let hosts: Vec<_> = snapshot.smarthosts().collect();
    if hosts.is_empty() {
        return found;
    }
    let engine = match running {
        Some(_) => None,
        None => Some(engine(config, snapshot)),
    };
    let engine = &engine;
    let probes = hosts.iter().map(|host| async move {
        match (running, engine) {
            (Some(client), _) => {
                let path = format!("{}/probe", at("smarthosts", &host.name));
                client.call::<Probe>(Method::POST, &path, NOTHING).await.map_err(|e| e.to_string())
            }
            (None, Some(Ok(engine))) => {
                super::probe(engine, &host.name).await.map_err(|problem| problem.to_string())
            }
            (None, Some(Err(error))) => Err(error.clone()),
            (None, None) => Err("nobody could try it".into()),
        }
    });
    for (host, probe) in hosts.iter().zip(join_all(probes).await) {
        match probe {
            Err(error) => found.fail("smarthost", format!("{}: {error}", host.name), "see above"),
            Ok(probe) => tell(&probe, &mut found),
        }
    }
    found
}

fn engine(config: &Config, snapshot: &Snapshot) -> Result<Arc<deliver::Engine>, String> {
    let clock = Clock::system();
    let settings = crate::service::delivering(config, snapshot, &clock).map_err(|e| e.to_string())?;
    Ok(deliver::Engine::new(deliver::EngineConfig { settings, clock, permit: deliver::Permit::always() }))
}

fn tell(probe: &Probe, found: &mut Findings) {
    let usable = probe.steps.iter().any(|step| step.ok);
    for step in &probe.steps {
        let text = format!("{} at {}: {}", probe.name, step.host, step.text);
        if step.ok {
            found.ok("smarthost", text);
        } else if usable {
            found.warn("smarthost", text, "another of its hosts works; correct this one or take it out");
        } else {
            found.fail("smarthost", text, "correct hosts, tls, username and password of this smart host");
        }
    }
}

fn is_silent(error: &ResolveError) -> bool {
    matches!(error, ResolveError::Temporary { .. })
}
