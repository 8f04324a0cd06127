//! What the scheduler holds to: limits, provider data, sources, pools, bounds and suspensions, from configuration and
//! directory.

use std::collections::HashMap;
use std::sync::Arc;

use directory::Snapshot;
use directory::rule::{CeilingOf, Entry, Rule};
use mail::{OrgId, Pattern, Timestamp};
use schedule::{Ceiling, DomainPattern, Policy, Providers, Traffic};

use crate::config::Config;

/// The policy of this configuration and directory.
///
/// # Errors
/// In words: a file of provider data that can't be used.
pub(super) fn policy(config: &Config, directory: &Snapshot, now: Timestamp) -> Result<Policy, String> {
    let convert = Convert { directory };
    let (orgs, credentials, routes) = convert.ceilings();
    Ok(Policy {
        limits: super::convert::scheduling(config),
        providers: providers(config)?,
        sources: convert.all(Convert::source),
        pools: convert.all(Convert::pool),
        egress: convert.egress(),
        shapes: convert.all(Convert::shape),
        orgs,
        credentials,
        routes,
        suspensions: convert.suspensions(now),
    })
}

/// The provider data that come with the program, with the operator's own over them.
pub(crate) fn providers(config: &Config) -> Result<Arc<Providers>, String> {
    let builtin = Providers::builtin();
    let Some(path) = &config.delivery.providers else { return Ok(builtin) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("delivery.providers: {} cannot be read: {error}", path.display()))?;
    let merged = builtin.with(&text);
    merged.map(Arc::new).map_err(|error| format!("delivery.providers: {}: {error}", path.display()))
}

struct Convert<'a> {
    directory: &'a Snapshot,
}

impl Convert<'_> {
    fn all<R: Rule, T>(&self, convert: fn(&Self, &Entry<R>) -> Option<T>) -> Vec<T> {
        self.directory.rules::<R>().filter_map(|entry| convert(self, entry)).collect()
    }

    /// None for an organisation that has been removed since.
    fn org(&self, name: &str) -> Option<OrgId> {
        self.directory.org_named(name).map(|org| org.id)
    }

    fn source(&self, entry: &Entry<directory::rule::Source>) -> Option<schedule::Source> {
        let warmup = entry
            .rule
            .warmup
            .as_ref()
            .map(|warmup| schedule::Warmup { start: warmup.start.begins(), plan: warmup.plan.clone() });
        Some(schedule::Source { name: Arc::clone(&entry.id), warmup })
    }

    fn pool(&self, entry: &Entry<directory::rule::Pool>) -> Option<schedule::Pool> {
        let sources = entry.rule.sources.iter().map(|(name, weight)| (name.as_str().into(), *weight));
        Some(schedule::Pool { name: Arc::clone(&entry.id), sources: sources.collect() })
    }

    /// The rules in their order, then the pools that organisations have of their own.
    fn egress(&self) -> Vec<schedule::Egress> {
        let mut all = self.all(|of, entry: &Entry<directory::rule::Egress>| {
            let rule = &entry.rule;
            let orgs: Vec<OrgId> = rule.orgs.iter().filter_map(|name| of.org(name)).collect();
            // Only for organisations that are gone: for nobody, not for everyone.
            let is_for_nobody = orgs.is_empty() && !rule.orgs.is_empty();
            (!is_for_nobody).then(|| schedule::Egress {
                orgs,
                streams: rule.streams.clone(),
                domains: domains(&rule.domains),
                destinations: rule.destinations.clone(),
                pool: rule.pool.as_str().into(),
            })
        });
        all.extend(self.directory.orgs().filter_map(|org| {
            let pool = org.pool.clone()?;
            Some(schedule::Egress {
                orgs: vec![org.id],
                streams: Vec::new(),
                domains: Vec::new(),
                destinations: Vec::new(),
                pool,
            })
        }));
        all
    }

    fn shape(&self, entry: &Entry<directory::rule::Shape>) -> Option<schedule::Shape> {
        let rule = &entry.rule;
        Some(schedule::Shape {
            sites: rule.sites.iter().filter_map(|text| directory::rule::Shape::site(text).ok()).collect(),
            domains: domains(&rule.domains),
            sources: rule.sources.iter().map(|name| name.as_str().into()).collect(),
            traffic: Traffic {
                connections: rule.connections,
                messages_per_connection: rule.messages_per_connection,
                rate: rule.rate,
                connection_rate: rule.connection_rate,
            },
        })
    }

    #[allow(clippy::type_complexity, reason = "three maps that are taken apart at once")]
    fn ceilings(
        &self,
    ) -> (HashMap<OrgId, Ceiling>, HashMap<Arc<str>, Ceiling>, HashMap<mail::Destination, Ceiling>) {
        let (mut orgs, mut credentials, mut routes) = (HashMap::new(), HashMap::new(), HashMap::new());
        for entry in self.directory.rules::<directory::rule::Ceiling>() {
            let rule = &entry.rule;
            let ceiling = Ceiling { connections: rule.connections, rate: rule.rate };
            // The first one counts, as with all rules.
            match rule.of() {
                Some(CeilingOf::Org(name)) => {
                    if let Some(org) = self.org(name) {
                        orgs.entry(org).or_insert(ceiling);
                    }
                }
                Some(CeilingOf::Credential(login)) => {
                    // As messages name it.
                    let known = self.directory.credential(login).map(|c| Arc::clone(&c.login));
                    credentials.entry(known.unwrap_or_else(|| login.into())).or_insert(ceiling);
                }
                Some(CeilingOf::To(destination)) => {
                    routes.entry(destination.clone()).or_insert(ceiling);
                }
                None => {}
            }
        }
        (orgs, credentials, routes)
    }

    fn suspensions(&self, now: Timestamp) -> Vec<schedule::Suspension> {
        let current =
            self.directory.rules::<directory::rule::Suspension>().filter(|entry| !entry.rule.is_over(now));
        let convert = |entry: &Arc<Entry<directory::rule::Suspension>>| {
            let rule = &entry.rule;
            let org = match &rule.org {
                // Of an organisation that is gone: there is no mail of it.
                Some(name) => Some(self.org(name)?),
                None => None,
            };
            let domain = match &rule.domain {
                // One that is not understood stops nothing, rather than everything.
                Some(pattern) => Some(pattern.to_string().parse().ok()?),
                None => None,
            };
            Some(schedule::Suspension {
                id: entry.id.parse().unwrap_or_default(),
                scope: schedule::Scope {
                    org,
                    stream: rule.stream,
                    domain,
                    destination: rule.destination.clone(),
                    site: rule.at_site(),
                    source: rule.source.as_deref().map(Into::into),
                },
                until: rule.until,
                reason: rule.reason.clone(),
            })
        };
        current.filter_map(convert).collect()
    }
}

/// The directory's patterns were checked to be of domains alone.
fn domains(patterns: &[Pattern]) -> Vec<DomainPattern> {
    patterns.iter().filter_map(|pattern| pattern.to_string().parse().ok()).collect()
}

/// Says what failures are about: the data that come with the program, with the operator's own over them.
pub(super) fn classifier(config: &Config) -> Result<Arc<report::Classifier>, String> {
    let builtin = report::Classifier::builtin();
    let Some(path) = &config.delivery.bounces else { return Ok(builtin) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("delivery.bounces: {} cannot be read: {error}", path.display()))?;
    let merged = builtin.with(&text);
    merged.map(Arc::new).map_err(|error| format!("delivery.bounces: {}: {error}", path.display()))
}
