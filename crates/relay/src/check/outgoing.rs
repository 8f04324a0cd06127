//! What mail needs to leave: outgoing addresses, rules that name what is there, data files, and what TLS is decided by.

use std::net::{IpAddr, UdpSocket};

use directory::Snapshot;
use directory::rule::{Alias, Ceiling, Egress, Entry, Mention, Named, Rewrite, Rule, Source, TlsPolicy};
use futures_util::future::join_all;
use mail::Timestamp;

use super::Findings;
use super::remote::{Dns, reverse};
use crate::config::Config;
use crate::service::convert_forward;

/// What can be looked at on this machine.
pub(super) fn look(config: &Config, snapshot: &Snapshot, now: Timestamp, found: &mut Findings) {
    for entry in snapshot.rules::<Source>() {
        source(entry, now, found);
    }
    named::<Egress>(config, "egress", snapshot, found);
    named::<Ceiling>(config, "ceiling", snapshot, found);
    named::<Alias>(config, "alias", snapshot, found);
    named::<Rewrite>(config, "rewrite", snapshot, found);
    aliases(config, snapshot, found);
    bounce_orgs(config, snapshot, found);
    policies(snapshot, found);
    client_certificates(snapshot, found);
    data_files(config, found);
}

/// Whether connections can come from an address at all. One behind a proxy is the proxy's business.
fn source(entry: &Entry<Source>, now: Timestamp, found: &mut Findings) {
    let rule = &entry.rule;
    let addresses: Vec<IpAddr> =
        rule.ipv4.map(IpAddr::V4).into_iter().chain(rule.ipv6.map(IpAddr::V6)).collect();
    for ip in addresses.iter().filter(|_| rule.proxy.is_none()) {
        match UdpSocket::bind((*ip, 0)) {
            Ok(_) => found.ok("source", format!("{}: {ip} is an address of this machine", entry.id)),
            Err(error) => {
                let text = format!("{}: {ip} cannot be used here: {error}", entry.id);
                found.fail("source", text, "add the address to an interface, or correct the source");
            }
        }
    }
    if let Some(warmup) = &rule.warmup
        && warmup.start.begins() > now
    {
        let text = format!("{}: it sends nothing before {}, when its warm-up begins", entry.id, warmup.start);
        found.warn("source", text, "leave it out of pools that have no other source until then");
    }
}

/// Whether every alias leads to somebody.
fn aliases(config: &Config, snapshot: &Snapshot, found: &mut Findings) {
    match convert_forward::rewriter(config, snapshot) {
        Err(error) => found.fail("alias", error, "correct the rule"),
        Ok(rewriter) => {
            for words in rewriter.warnings() {
                found.warn("alias", words, "mail for an alias that leads to nobody is refused: correct it");
            }
        }
    }
}

/// Rules of the file may name organisations and credentials that the directory does not have.
fn named<R: Rule>(config: &Config, section: &str, snapshot: &Snapshot, found: &mut Findings) {
    let of_file = snapshot.rules::<R>().filter(|entry| entry.kept == directory::Source::Config);
    for (i, entry) in of_file.enumerate() {
        for Mention { key, what, name } in entry.rule.mentions() {
            let (kind, is_there, help) = match what {
                Named::Org => {
                    ("organisation", snapshot.org_named(&name).is_some(), format!("posthouse org add {name}"))
                }
                Named::Credential => (
                    "credential",
                    snapshot.credential(&name).is_some(),
                    format!("posthouse credential add {name}"),
                ),
                // Those are looked at when the file is read.
                Named::Source | Named::Pool | Named::SmartHost => continue,
            };
            if !is_there {
                let place = config.source.place(&format!("{section}[{i}].{key}"));
                let text = format!("{place}: there is no {kind} {name:?}, so this rule is for nobody");
                found.warn("rules", text, &help);
            }
        }
    }
}

fn bounce_orgs(config: &Config, snapshot: &Snapshot, found: &mut Findings) {
    for (i, name) in config.forward.bounce_orgs.iter().enumerate() {
        if snapshot.org_named(name).is_none() {
            let place = config.source.place(&format!("forward.bounce_orgs[{i}]"));
            let help = format!("posthouse org add {name}");
            found.warn("rules", format!("{place}: there is no organisation {name:?}"), &help);
        }
    }
}

/// Whether the files of TLS policies can be used.
fn policies(snapshot: &Snapshot, found: &mut Findings) {
    for entry in snapshot.rules::<TlsPolicy>() {
        let rule = &entry.rule;
        let roots = rule.ca_file.as_deref().map(|path| net::Roots::load(path).map(|_| path));
        let pair = rule.client_certificate.as_deref().zip(rule.client_key.as_deref());
        let identity =
            pair.map(|(certificate, key)| net::ClientIdentity::load(certificate, key).map(|_| certificate));
        for result in roots.into_iter().chain(identity) {
            match result {
                Ok(path) => {
                    found.ok("tls", format!("TLS policy {}: {} can be used", entry.id, path.display()))
                }
                Err(error) => {
                    let help = "correct the file, or the policy: without it nothing is sent to these domains";
                    found.fail("tls", format!("TLS policy {}: {error}", entry.id), help);
                }
            }
        }
    }
}

/// Whether what is shown to smart hosts that ask for a certificate can be read.
fn client_certificates(snapshot: &Snapshot, found: &mut Findings) {
    for host in snapshot.smarthosts() {
        let pair = host.more.client_certificate.as_deref().zip(host.more.client_key.as_deref());
        let Some((certificate, key)) = pair else { continue };
        match net::ClientIdentity::load(certificate, key) {
            Ok(_) => {
                let text = format!("smart host {}: {} can be used", host.name, certificate.display());
                found.ok("tls", text);
            }
            Err(error) => {
                let help = "correct client_certificate and client_key: the relay does not start without them";
                found.fail("tls", format!("smart host {}: {error}", host.name), help);
            }
        }
    }
}

/// Whether the operator's own data on providers and bounces can be read.
fn data_files(config: &Config, found: &mut Findings) {
    type Parse = fn(&str) -> Result<(), String>;
    let providers: Parse =
        |text| schedule::Providers::builtin().with(text).map(|_| ()).map_err(|error| error.to_string());
    let bounces: Parse =
        |text| report::Classifier::builtin().with(text).map(|_| ()).map_err(|error| error.to_string());
    let files = [
        ("delivery.providers", &config.delivery.providers, providers),
        ("delivery.bounces", &config.delivery.bounces, bounces),
    ];
    for (key, path, parse) in files {
        let Some(path) = path else { continue };
        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        match read.and_then(|text| parse(&text)) {
            Ok(()) => found.ok("data", format!("{key}: {} can be used", path.display())),
            Err(error) => {
                let text = format!("{key}: {}: {error}", path.display());
                found.fail("data", text, "correct the file, or leave the key out");
            }
        }
    }
}

/// What can only be looked at over the network.
pub(super) async fn remote(
    config: &Config,
    snapshot: &Snapshot,
    dns: &Dns,
    reach: &str,
    found: &mut Findings,
) {
    let sources = snapshot.rules::<Source>().map(|entry| source_names(config, entry, dns));
    let (sources, dane, sts) =
        tokio::join!(join_all(sources), dane(config, dns, reach), mta_sts(config, dns, reach));
    for part in sources.into_iter().chain([dane, sts]) {
        found.take_in(part);
    }
}

/// Whether a source is who it says.
async fn source_names(config: &Config, entry: &Entry<Source>, dns: &Dns) -> Findings {
    let rule = &entry.rule;
    let name = rule.ehlo.as_deref().unwrap_or(&config.hostname);
    let ours: Vec<IpAddr> = rule.ipv4.map(IpAddr::V4).into_iter().chain(rule.ipv6.map(IpAddr::V6)).collect();
    let back = ours.iter().filter(|ip| net::is_public(**ip)).map(|ip| reverse(name, dns, *ip, "source"));
    let mut found = Findings::aside();
    let forth = async {
        let mut found = Findings::aside();
        if rule.ehlo.is_some() {
            ehlo(entry, name, &ours, dns, &mut found).await;
        }
        found
    };
    let (back, forth) = tokio::join!(join_all(back), forth);
    back.into_iter().chain([forth]).for_each(|part| found.take_in(part));
    found
}

/// Whether the name in EHLO leads to the source's own addresses.
async fn ehlo(entry: &Entry<Source>, name: &str, ours: &[IpAddr], dns: &Dns, found: &mut Findings) {
    let help = "give the name an A or AAAA record with the source's address: many servers compare them";
    match dns.ask(name, dns.resolver.addresses(name)).await {
        Err(error) => found.warn("source", format!("{}: EHLO {name}: {error}", entry.id), help),
        Ok(answer) => match ours.iter().find(|ip| !answer.addresses.contains(ip)) {
            Some(ip) => found.warn("source", format!("{}: {name} does not lead to {ip}", entry.id), help),
            None => found.ok("source", format!("{}: {name} leads to its addresses", entry.id)),
        },
    }
}

/// Whether the resolver's answers are authenticated: without that there is no DANE.
async fn dane(config: &Config, dns: &Dns, reach: &str) -> Findings {
    let mut found = Findings::aside();
    if !config.delivery.dane {
        return found;
    }
    let help = "run a resolver that validates on this machine (unbound, knot-resolver) and name it in dns.servers, or \
                dns.dnssec = \"validate\"";
    if !dns.resolver.authenticates() {
        let text =
            "DANE is asked for, but the DNS answers of these resolvers are not taken for authenticated";
        found.warn("dane", text, help);
        return found;
    }
    // The root is signed: a resolver that validates says so of whatever is signed below it.
    let signed = ["nic.cz", "ietf.org", reach];
    let answers = join_all(signed.map(|domain| dns.ask(domain, dns.resolver.mx(domain)))).await;
    let is_secure = |answer: &Result<net::MxAnswer, _>| answer.as_ref().is_ok_and(|it| it.secure);
    match signed.iter().zip(&answers).find(|(_, answer)| is_secure(answer)) {
        Some((domain, _)) => found.ok("dane", format!("signed answers are recognised ({domain})")),
        None => {
            let text = "no answer about a signed domain was authenticated: the resolver does not validate";
            found.warn("dane", text, help);
        }
    }
    found
}

/// Whether policy servers can be reached: they are asked over HTTPS.
async fn mta_sts(config: &Config, dns: &Dns, reach: &str) -> Findings {
    let mut found = Findings::aside();
    if !config.delivery.mta_sts {
        return found;
    }
    let name = format!("mta-sts.{reach}");
    let Ok(answer) = dns.ask(&name, dns.resolver.addresses(&name)).await else { return found };
    let Some(ip) = answer.addresses.first() else { return found };
    let options = net::DialOptions { timeout: super::remote::PATIENCE, ..net::DialOptions::default() };
    match net::dial((*ip, 443).into(), &options).await {
        Ok(_) => found.ok("mta-sts", format!("{name} [{ip}]:443 can be reached")),
        Err(error) => {
            let help = "let this machine make connections to port 443, or delivery.mta_sts = false";
            found.warn("mta-sts", format!("policy servers cannot be reached: {error}"), help);
        }
    }
    found
}
