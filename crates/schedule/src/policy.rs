//! What the operator and the provider data say: limits, sources, pools, shapes, ceilings, suspensions. Pure data, swapped as
//! a whole.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use mail::{
    Destination, DestinationError, OrgId, QueueKey, Site, SourceName, Stream, Timestamp, default_source,
};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::providers::Providers;
use crate::traffic::{Rate, Traffic};

const DAY: Duration = Duration::from_secs(86_400);

/// Everything that the scheduler is told to hold to. Build one, wrap it in an [`Arc`], hand it to
/// [`crate::Scheduler::configure`]; what changed is found out there.
#[derive(Clone)]
pub struct Policy {
    /// Bounds of memory and connections.
    pub limits: Limits,
    /// What is known of providers.
    pub providers: Arc<Providers>,
    /// Outgoing addresses. `default` need not be among them: it is always there.
    pub sources: Vec<Source>,
    /// Weighted sources. A pool `default` that holds the source `default` is there unless it is named here.
    pub pools: Vec<Pool>,
    /// Which queue uses which pool; the first that matches counts, without any the pool `default` is used.
    pub egress: Vec<Egress>,
    /// What overrides the provider data; where several match, each value comes from the first that sets it.
    pub shapes: Vec<Shape>,
    /// What an organisation may take, over all sites.
    pub orgs: HashMap<OrgId, Ceiling>,
    /// What a credential or key may take, over all sites; by its name as messages carry it.
    pub credentials: HashMap<Arc<str>, Ceiling>,
    /// What may go to one destination, from all sources.
    pub routes: HashMap<Destination, Ceiling>,
    /// What an operator stopped.
    pub suspensions: Vec<Suspension>,
}

/// Without the provider data, which fill pages.
impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("sources", &self.sources)
            .field("pools", &self.pools)
            .field("suspensions", &self.suspensions)
            .finish_non_exhaustive()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            providers: Providers::builtin(),
            sources: Vec::new(),
            pools: Vec::new(),
            egress: Vec::new(),
            shapes: Vec::new(),
            orgs: HashMap::new(),
            credentials: HashMap::new(),
            routes: HashMap::new(),
            suspensions: Vec::new(),
        }
    }
}

impl Policy {
    /// The pool that this queue's mail leaves by, by name.
    pub fn pool_of(&self, queue: &QueueKey) -> &str {
        self.egress.iter().find(|rule| rule.matches(queue)).map_or(DEFAULT_POOL, |rule| &rule.pool)
    }

    /// The bounds of a path: shapes first, then the provider data, then the limits for any site.
    pub fn traffic(&self, source: &SourceName, site: &Site) -> Traffic {
        let shaped = self
            .shapes
            .iter()
            .filter(|shape| shape.matches(source, site))
            .fold(Traffic::default(), |said, shape| said.or(shape.traffic));
        shaped.or(self.providers.traffic(site))
    }

    /// Whether a shape names this destination's domain. Such a domain is a site of its own, whoever hosts it: its bounds are
    /// not those of its neighbours there.
    pub fn is_apart(&self, destination: &Destination) -> bool {
        self.shapes.iter().any(|shape| any_matches(&shape.domains, destination))
    }
}

/// The name of the pool that mail leaves by when no rule says otherwise.
pub const DEFAULT_POOL: &str = "default";

/// An outgoing address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: SourceName,
    /// The plan by which it gets known, if it is new.
    pub warmup: Option<Warmup>,
}

/// How many messages a new source may send to each site, day by day (UTC). Before the first day it sends none, after the
/// last one as many as it likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// Midnight (UTC) at which the first day begins.
    pub start: Timestamp,
    /// Messages to each site on the first day, the second, ….
    pub plan: Vec<u32>,
}

impl Warmup {
    /// Messages to each site on the day of `now`; none when there is no limit any more.
    pub fn limit_at(&self, now: Timestamp) -> Option<u32> {
        let day = day_of(now) - day_of(self.start);
        match usize::try_from(day) {
            Err(_) => Some(0),
            Ok(day) => self.plan.get(day).copied(),
        }
    }
}

/// The day (UTC) as a number.
pub(crate) fn day_of(at: Timestamp) -> i64 {
    at.millis().div_euclid(86_400_000)
}

/// When the next day begins (UTC).
pub(crate) fn midnight_after(at: Timestamp) -> Timestamp {
    Timestamp(day_of(at).saturating_mul(86_400_000)).plus(DAY)
}

/// Sources that share the mail of some queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// Sources with their weights: how mail is shared among those that have room. A weight of 0 means only when no other
    /// can.
    pub sources: Vec<(SourceName, u32)>,
}

impl Pool {
    /// The pool that is always there.
    pub fn default_pool() -> Self {
        Self { name: DEFAULT_POOL.into(), sources: vec![(default_source(), 1)] }
    }
}

/// Which queues use a pool. An empty list means any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Organisations.
    pub orgs: Vec<OrgId>,
    /// Streams.
    pub streams: Vec<Stream>,
    /// Recipient domains, for mail that goes by MX.
    pub domains: Vec<DomainPattern>,
    /// Destinations, beside the domains: mail to one of either is meant.
    pub destinations: Vec<Destination>,
    /// The pool's name. One that does not exist counts as `default`.
    pub pool: Arc<str>,
}

impl Egress {
    fn matches(&self, queue: &QueueKey) -> bool {
        (self.orgs.is_empty() || self.orgs.contains(&queue.org))
            && (self.streams.is_empty() || self.streams.contains(&queue.stream))
            && self.is_for(&queue.destination)
    }

    fn is_for(&self, destination: &Destination) -> bool {
        (self.domains.is_empty() && self.destinations.is_empty())
            || any_matches(&self.domains, destination)
            || self.destinations.contains(destination)
    }
}

/// Only mail by MX has a recipient domain in its queue (ADR-0004); what a route sends elsewhere is named by its destination.
fn any_matches(patterns: &[DomainPattern], destination: &Destination) -> bool {
    matches!(destination, Destination::Mx(domain) if patterns.iter().any(|pattern| pattern.matches(domain)))
}

/// Bounds for some paths. A shape with neither sites nor domains is for all sites; one without sources for all sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sites ([`site_named`]).
    pub sites: Vec<Site>,
    /// Recipient domains; each becomes a site of its own.
    pub domains: Vec<DomainPattern>,
    /// Sources.
    pub sources: Vec<SourceName>,
    /// The bounds.
    pub traffic: Traffic,
}

impl Shape {
    fn matches(&self, source: &SourceName, site: &Site) -> bool {
        let domain = match site {
            Site::Alone(destination) => any_matches(&self.domains, destination),
            _ => false,
        };
        let everywhere = self.sites.is_empty() && self.domains.is_empty();
        (self.sources.is_empty() || self.sources.contains(source))
            && (everywhere || domain || self.sites.contains(site))
    }
}

/// What somebody may take in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// Most deliveries under way on connections at a time.
    pub connections: Option<u32>,
    /// Most attempts.
    pub rate: Option<Rate>,
}

/// An operator's stop. The mail stays in the queue untouched, and goes on when the suspension is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// Its number in the directory.
    pub id: i64,
    /// What it stops.
    pub scope: Scope,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    /// Why, in the operator's words.
    pub reason: String,
}

/// What a suspension stops: mail for which all that is given is true. With a source, other sources of the pool go on with the
/// mail; without one nothing of it goes. With nothing given it stops everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Mail of this organisation.
    pub org: Option<OrgId>,
    /// Of this stream.
    pub stream: Option<Stream>,
    /// To this domain, by MX.
    pub domain: Option<DomainPattern>,
    /// To this destination.
    pub destination: Option<Destination>,
    /// At this site.
    pub site: Option<Site>,
    /// From this source.
    pub source: Option<SourceName>,
}

impl Scope {
    /// Whether mail of this queue at this site is meant, by whatever source. A site that is not known yet is not meant.
    pub fn covers(&self, queue: &QueueKey, site: Option<&Site>) -> bool {
        self.org.is_none_or(|org| org == queue.org)
            && self.stream.is_none_or(|stream| stream == queue.stream)
            && self.domain.as_ref().is_none_or(|d| any_matches(std::slice::from_ref(d), &queue.destination))
            && self.destination.as_ref().is_none_or(|to| *to == queue.destination)
            && (self.site.is_none() || self.site.as_ref() == site)
    }
}

/// A domain, or everything below one: `example.com`, `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainPattern {
    /// In lower case, without the `*.`.
    name: Arc<str>,
    below: bool,
}

impl DomainPattern {
    /// Whether a domain (A-label form, lower case) is meant.
    pub fn matches(&self, name: &str) -> bool {
        if !self.below {
            return *self.name == *name;
        }
        name.strip_suffix(&*self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

impl FromStr for DomainPattern {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        let fits = !name.is_empty() && !name.contains(|c: char| c == '*' || c.is_whitespace());
        if !fits {
            return Err(DestinationError(format!("{text:?} is no domain: example.com or *.example.com")));
        }
        Ok(Self { name: name.to_ascii_lowercase().into(), below })
    }
}

impl TryFrom<String> for DomainPattern {
    type Error = DestinationError;

    fn try_from(text: String) -> Result<Self, DestinationError> {
        text.parse()
    }
}

impl From<DomainPattern> for String {
    fn from(pattern: DomainPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

/// A site as people name it: `gmail` (a provider), `hosts:mx1.example.net,mx2.example.net`, or a destination's text.
///
/// # Errors
/// When it is none of these.
pub fn site_named(text: &str) -> Result<Site, DestinationError> {
    let is_word =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if is_word && !matches!(text, "sandbox" | "discard") {
        return Ok(Site::Provider(text.into()));
    }
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(org: i64, stream: Stream, to: &str) -> QueueKey {
        QueueKey { org: OrgId(org), stream, destination: to.parse().unwrap() }
    }

    #[test]
    fn patterns_match_domains_and_what_is_below() {
        let matches = |p: &str, n: &str| p.parse::<DomainPattern>().unwrap().matches(n);
        assert!(matches("Example.com", "example.com") && !matches("example.com", "a.example.com"));
        assert!(matches("*.example.com", "a.b.example.com") && !matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", "badexample.com"));
        for bad in ["", "*.", "a b", "*", "*.*.x"] {
            assert!(bad.parse::<DomainPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn warm_up_by_days() {
        let day = |n: i64| Timestamp(n * 86_400_000 + 5);
        let plan = Warmup { start: Timestamp(10 * 86_400_000), plan: vec![50, 100] };
        assert_eq!([9, 10, 11, 12].map(|n| plan.limit_at(day(n))), [Some(0), Some(50), Some(100), None]);
        assert_eq!(midnight_after(day(9)), plan.start);
    }

    #[test]
    fn the_first_egress_rule_that_matches_counts() {
        let rule = |orgs: &[i64], domains: &[&str], destinations: &[&str], pool: &str| Egress {
            orgs: orgs.iter().map(|&o| OrgId(o)).collect(),
            streams: vec![Stream::Bulk],
            domains: domains.iter().map(|d| d.parse().unwrap()).collect(),
            destinations: destinations.iter().map(|d| d.parse().unwrap()).collect(),
            pool: pool.into(),
        };
        let egress = vec![
            rule(&[7], &["*.example.com"], &[], "a"),
            rule(&[], &[], &["smarthost:up.example.com"], "b"),
            rule(&[], &["c.example"], &["smtp://10.0.0.5:25"], "c"),
        ];
        let policy = Policy { egress, ..Policy::default() };
        let bulk = |to: &str| policy.pool_of(&queue(7, Stream::Bulk, to));
        assert_eq!(bulk("mx:x.example.com"), "a");
        assert_eq!(bulk("smarthost:up.example.com"), "b", "a domain is none of a smart host's name");
        assert_eq!((bulk("mx:c.example"), bulk("smtp://10.0.0.5:25")), ("c", "c"), "either is enough");
        assert_eq!(bulk("smtp://10.0.0.5:26"), DEFAULT_POOL);
        let other = queue(7, Stream::Transactional, "smarthost:up.example.com");
        assert_eq!(policy.pool_of(&other), DEFAULT_POOL);
    }

    #[test]
    fn a_suspension_is_for_a_domain_by_mx_or_for_a_destination() {
        let covers = |scope: &Scope, to: &str| scope.covers(&queue(1, Stream::Bulk, to), None);
        let domain = Scope { domain: Some("*.example".parse().unwrap()), ..Scope::default() };
        assert!(covers(&domain, "mx:a.example") && !covers(&domain, "smarthost:a.example"));
        assert!(!covers(&domain, "lmtp:/run/a.example"));
        let route = Scope { destination: Some("smarthost:up".parse().unwrap()), ..Scope::default() };
        assert!(
            covers(&route, "smarthost:up") && !covers(&route, "smarthost:Up") && !covers(&route, "mx:up")
        );
    }

    #[test]
    fn shapes_override_and_a_domain_with_a_shape_is_a_site_of_its_own() {
        let shape = |sites: &[&str], domains: &[&str], connections| Shape {
            sites: sites.iter().map(|s| site_named(s).unwrap()).collect(),
            domains: domains.iter().map(|d| d.parse().unwrap()).collect(),
            sources: Vec::new(),
            traffic: Traffic { connections: Some(connections), ..Traffic::default() },
        };
        let shapes = vec![shape(&["bigmail"], &[], 3), shape(&[], &["vip.example"], 2), shape(&[], &[], 9)];
        let policy = Policy { shapes, ..Policy::default() };
        let connections = |site: &str| policy.traffic(&default_source(), &site.parse().unwrap()).connections;
        assert_eq!(connections("provider:bigmail"), Some(3));
        assert_eq!(connections("mx:vip.example"), Some(2));
        assert_eq!(connections("hosts:mx.example"), Some(9));
        assert!(policy.is_apart(&"mx:vip.example".parse().unwrap()));
        assert!(!policy.is_apart(&"mx:other.example".parse().unwrap()));
    }
}
