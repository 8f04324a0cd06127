//! Which pool mail leaves by, as the rules say it.

use std::sync::Arc;

use mail::{Destination, OrgId, SourceName, Stream, default_source};

use crate::rule::{Egress, Entry, Pool};
use crate::snapshot::Snapshot;

/// The pool that is always there.
pub const DEFAULT_POOL: &str = "default";

/// Which pool mail leaves by, and why.
#[derive(Clone, Debug)]
pub struct PoolChoice {
    /// The pool.
    pub pool: Arc<str>,
    /// Its sources with their weights.
    pub sources: Vec<(SourceName, u32)>,
    /// The rule that says so; none when it is the organisation's own pool or `default`.
    pub rule: Option<Arc<Entry<Egress>>>,
}

impl Snapshot {
    /// Which pool mail of this organisation and stream leaves by on its way to `destination`: the first `egress` rule that
    /// matches, else the organisation's own pool, else `default`.
    pub fn pool(&self, org: OrgId, stream: Stream, destination: &Destination) -> PoolChoice {
        let name = self.org(org).map(|org| &*org.name);
        let matches = |rule: &Egress| {
            let by_org = rule.orgs.is_empty()
                || name.is_some_and(|name| rule.orgs.iter().any(|o| o.eq_ignore_ascii_case(name)));
            let is_for = (rule.domains.is_empty() && rule.destinations.is_empty())
                || rule.destinations.contains(destination)
                || matches!(destination, Destination::Mx(domain) if rule.domains.iter().any(|p| p.matches_domain(domain)));
            by_org && is_for && (rule.streams.is_empty() || rule.streams.contains(&stream))
        };
        let rule = self.rules::<Egress>().find(|entry| matches(&entry.rule)).cloned();
        let own = self.org(org).and_then(|org| org.pool.clone());
        let pool = match &rule {
            Some(entry) => entry.rule.pool.as_str().into(),
            None => own.unwrap_or_else(|| DEFAULT_POOL.into()),
        };
        PoolChoice { sources: self.sources_of(&pool), pool, rule }
    }

    /// The sources of a pool with their weights. `default` is the source `default` unless a pool of that name says
    /// otherwise; so is a pool that is not there (any more).
    pub fn sources_of(&self, pool: &str) -> Vec<(SourceName, u32)> {
        match self.rule::<Pool>(pool) {
            Some(entry) => {
                entry.rule.sources.iter().map(|(name, weight)| (name.as_str().into(), *weight)).collect()
            }
            None => vec![(default_source(), 1)],
        }
    }
}
