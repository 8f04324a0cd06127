//! How mail would leave: what aliases make of a recipient, pool and sources, site, TLS, and what bounds it.

use api::types::ExplainedRecipient;
use directory::Snapshot;
use directory::rule::{Ceiling, CeilingOf, Shape, Source, Suspension};
use mail::{Address, Destination, OrgId, Recipient, Site, Stream};

use super::Relay;

/// The mail that is asked about.
#[derive(Clone, Copy)]
pub(super) struct Mail<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) org: OrgId,
    pub(super) stream: Stream,
    pub(super) sender: Option<&'a Address>,
    pub(super) login: Option<&'a str>,
}

impl Relay {
    /// Whom an alias or a rewriting rule makes of a recipient; nobody where it stays what it is.
    pub(super) fn becomes(&self, mail: &Mail<'_>, to: &Address) -> Vec<Address> {
        let forwarding = self.forwarding.load();
        if !forwarding.rewriter.speaks_of(mail.org, to) {
            return Vec::new();
        }
        let expansion = forwarding.rewriter.expand(mail.org, mail.sender, &[Recipient::new(to.clone())]);
        expansion.recipients.into_iter().map(|expanded| expanded.recipient.address).collect()
    }

    /// What is known of the way out to a destination.
    pub(super) async fn outgoing(&self, mail: &Mail<'_>, destination: &Destination) -> ExplainedRecipient {
        let connects = !matches!(
            destination,
            Destination::Maildir(_) | Destination::Sandbox | Destination::Discard | Destination::Bounces
        );
        if !connects {
            let bounds = self.bounds(mail, destination, None);
            return ExplainedRecipient { bounds, ..ExplainedRecipient::default() };
        }
        let located = self.engine.locate(destination).await;
        let choice = mail.snapshot.pool(mail.org, mail.stream, destination);
        let because = match &choice.rule {
            Some(rule) => format!("egress rule {}", rule.id),
            None if mail
                .snapshot
                .org(mail.org)
                .is_some_and(|org| org.pool.as_ref() == Some(&choice.pool)) =>
            {
                "the organisation's own".into()
            }
            None => "no egress rule matches".into(),
        };
        let source = |(name, weight): &(mail::SourceName, u32)| {
            let share = if choice.sources.len() > 1 { format!(", weight {weight}") } else { String::new() };
            format!("{name}: {}{share}", addresses(mail.snapshot, name))
        };
        ExplainedRecipient {
            pool: Some(format!("{} ({because})", choice.pool)),
            sources: choice.sources.iter().map(source).collect(),
            tls: self.protection(destination).await,
            bounds: self.bounds(mail, destination, Some(&located.site)),
            site: Some(located.site.to_string()),
            ..ExplainedRecipient::default()
        }
    }

    /// How the connection has to be protected, and why.
    async fn protection(&self, destination: &Destination) -> Option<String> {
        match destination {
            Destination::Mx(domain) => {
                let mx = self.engine.settings().resolver.mx(domain).await.ok()?;
                let (host, security) = self.engine.protection(domain, &mx).await?;
                Some(format!("{} at {host}: {}", security.level, security.why))
            }
            Destination::SmartHost(name) => {
                let snapshot = self.directory.snapshot();
                let host = snapshot.smarthost(name)?;
                Some(format!("{}: the smart host's `tls`", host.tls.as_str()))
            }
            _ => None,
        }
    }

    /// Ceilings, shapes and suspensions that this mail meets.
    fn bounds(&self, mail: &Mail<'_>, destination: &Destination, site: Option<&Site>) -> Vec<String> {
        let org = mail.snapshot.org(mail.org).map(|org| org.name.to_string()).unwrap_or_default();
        let mut found = Vec::new();
        for entry in mail.snapshot.rules::<Ceiling>() {
            let whom = match entry.rule.of() {
                Some(CeilingOf::Org(name)) if name.eq_ignore_ascii_case(&org) => {
                    format!("organisation {name}")
                }
                Some(CeilingOf::Credential(login))
                    if mail.login.is_some_and(|l| l.eq_ignore_ascii_case(login)) =>
                {
                    format!("credential {login}")
                }
                Some(CeilingOf::To(to)) if to == destination => to.to_string(),
                _ => continue,
            };
            let said = said(&[
                ("connections", entry.rule.connections.map(|n| n.to_string())),
                ("rate", entry.rule.rate.map(|r| r.to_string())),
            ]);
            found.push(format!("ceiling {} for {whom}: {said}", entry.id));
        }
        let domain = match destination {
            Destination::Mx(domain) => Some(&**domain),
            _ => None,
        };
        let by_domain =
            |patterns: &[mail::Pattern]| domain.is_some_and(|d| patterns.iter().any(|p| p.matches_domain(d)));
        for entry in mail.snapshot.rules::<Shape>() {
            let rule = &entry.rule;
            let at_site =
                rule.sites.iter().any(|text| Shape::site(text).ok().as_ref() == site && site.is_some());
            if (rule.sites.is_empty() && rule.domains.is_empty()) || at_site || by_domain(&rule.domains) {
                let said = said(&[
                    ("connections", rule.connections.map(|n| n.to_string())),
                    ("messages per connection", rule.messages_per_connection.map(|n| n.to_string())),
                    ("rate", rule.rate.map(|r| r.to_string())),
                    ("connection rate", rule.connection_rate.map(|r| r.to_string())),
                ]);
                let of = if rule.sources.is_empty() {
                    String::new()
                } else {
                    format!(" from {}", rule.sources.join(", "))
                };
                found.push(format!("shape {}{of}: {said}", entry.id));
            }
        }
        let now = self.clock.now();
        for entry in mail.snapshot.rules::<Suspension>().filter(|entry| !entry.rule.is_over(now)) {
            let rule = &entry.rule;
            let hit = rule.org.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(&org))
                && rule.stream.is_none_or(|stream| stream == mail.stream)
                && rule.domain.as_ref().is_none_or(|pattern| by_domain(std::slice::from_ref(pattern)))
                && rule.destination.as_ref().is_none_or(|to| to == destination)
                && (rule.site.is_none() || rule.at_site().as_ref() == site);
            if hit {
                let until = rule.until.map_or_else(|| "it is resumed".into(), |until| until.to_string());
                let why = if rule.reason.is_empty() { String::new() } else { format!(": {}", rule.reason) };
                found.push(format!(
                    "suspension {} ({}) by {} until {until}{why}",
                    entry.id,
                    rule.scope(),
                    rule.by
                ));
            }
        }
        found
    }
}

fn said(parts: &[(&str, Option<String>)]) -> String {
    let said = parts.iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
    said.collect::<Vec<_>>().join(", ")
}

/// Where a source's connections come from, in words.
fn addresses(snapshot: &Snapshot, name: &str) -> String {
    let Some(entry) = snapshot.rule::<Source>(name) else { return "the system's choice of address".into() };
    let rule = &entry.rule;
    let mut parts: Vec<String> = rule.ipv4.iter().map(ToString::to_string).collect();
    parts.extend(rule.ipv6.iter().map(ToString::to_string));
    if parts.is_empty() {
        parts.push("the system's choice of address".into());
    }
    if let Some(ehlo) = &rule.ehlo {
        parts.push(format!("as {ehlo}"));
    }
    if let Some(proxy) = &rule.proxy {
        parts.push(format!("through {proxy}"));
    }
    if let Some(warmup) = &rule.warmup {
        parts.push(format!("warming up since {}", warmup.start));
    }
    parts.join(", ")
}
