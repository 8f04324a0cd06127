//! What the scheduler must never exceed, counted from outside in the plainest way: by keeping all moments.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mail::{DeliveryId, Destination, Mono, OrgId, QueueKey, Timestamp};
use schedule::{Ceiling, Path, Policy, Rate};

/// The moments at which something went, under one rate.
#[derive(Debug, Default)]
struct Times(VecDeque<Mono>);

impl Times {
    fn take(&mut self, rate: Rate, now: Mono, what: &dyn std::fmt::Debug) {
        let n = usize::try_from(rate.n.get()).unwrap();
        if self.0.len() == n {
            let first = self.0.pop_front().unwrap();
            assert!(now.since(first) >= rate.period, "{what:?}: more than {rate}");
        }
        self.0.push_back(now);
    }
}

/// Whose ceiling it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Org(OrgId),
    Credential(Arc<str>),
    Route(Destination),
}

/// Counts what is under way, and when it began.
#[derive(Debug, Default)]
pub(crate) struct Model {
    messages: HashMap<Path, Times>,
    connections: HashMap<Path, Times>,
    rates: HashMap<Whose, Times>,
    taken: HashMap<Whose, u32>,
    under_way: BTreeMap<DeliveryId, Vec<Whose>>,
    warmup: HashMap<(Path, i64), u32>,
    day_of_start: BTreeMap<DeliveryId, (Path, i64)>,
}

fn day(at: Timestamp) -> i64 {
    at.millis().div_euclid(86_400_000)
}

impl Model {
    /// A delivery begins on a connection.
    pub(crate) fn start(
        &mut self,
        policy: &Policy,
        (id, queue, credential): (DeliveryId, &QueueKey, Option<&Arc<str>>),
        (path, is_new): (&Path, bool),
        (wall, now): (Timestamp, Mono),
    ) {
        let traffic = policy.traffic(&path.source, &path.site);
        if let Some(rate) = traffic.rate {
            self.messages.entry(path.clone()).or_default().take(rate, now, path);
        }
        if let Some(rate) = traffic.connection_rate.filter(|_| is_new) {
            self.connections.entry(path.clone()).or_default().take(rate, now, path);
        }
        let mut whose = vec![
            (Whose::Org(queue.org), policy.orgs.get(&queue.org)),
            (Whose::Route(queue.destination.clone()), policy.routes.get(&queue.destination)),
        ];
        if let Some(name) = credential {
            whose.push((Whose::Credential(name.clone()), policy.credentials.get(name)));
        }
        let whose: Vec<Whose> = whose
            .into_iter()
            .filter_map(|(whose, ceiling)| Some(self.under(whose, *ceiling?, now)))
            .collect();
        self.under_way.insert(id, whose);
        self.check_pool(policy, queue, path, wall);
        let plan = policy.sources.iter().find(|source| source.name == path.source);
        if let Some(plan) = plan.and_then(|source| source.warmup.as_ref()) {
            let sent = self.warmup.entry((path.clone(), day(wall))).or_default();
            *sent += 1;
            assert!(
                plan.limit_at(wall).is_none_or(|limit| *sent <= limit),
                "{path}: {sent} in a day of its plan"
            );
            self.day_of_start.insert(id, (path.clone(), day(wall)));
        }
    }

    fn under(&mut self, whose: Whose, ceiling: Ceiling, now: Mono) -> Whose {
        let taken = self.taken.entry(whose.clone()).or_default();
        *taken += 1;
        assert!(ceiling.connections.is_none_or(|most| *taken <= most), "{whose:?}: {taken} under way");
        if let Some(rate) = ceiling.rate {
            self.rates.entry(whose.clone()).or_default().take(rate, now, &whose);
        }
        whose
    }

    fn check_pool(&self, policy: &Policy, queue: &QueueKey, path: &Path, wall: Timestamp) {
        let name = policy.pool_of(queue);
        let pool = policy.pools.iter().find(|pool| *pool.name == *name);
        let fits = pool.map_or(&*path.source == "default", |p| p.sources.iter().any(|s| s.0 == path.source));
        assert!(fits, "{queue:?} goes by {path}");
        for stop in policy.suspensions.iter().filter(|s| s.until.is_none_or(|until| until > wall)) {
            let source = stop.scope.source.as_ref().is_none_or(|source| *source == path.source);
            assert!(
                !(source && stop.scope.covers(queue, Some(&path.site))),
                "{queue:?} by {path} is suspended"
            );
        }
    }

    /// It is over; `unsent`: no connection could be made.
    pub(crate) fn end(&mut self, id: DeliveryId, unsent: bool) {
        for whose in self.under_way.remove(&id).unwrap_or_default() {
            *self.taken.get_mut(&whose).unwrap() -= 1;
        }
        if let (Some(day), true) = (self.day_of_start.remove(&id), unsent) {
            *self.warmup.get_mut(&day).unwrap() -= 1;
        }
    }

    /// The process is gone. Rates hold across a stop that saved its state; after a crash they begin anew.
    pub(crate) fn restart(&mut self, crash: bool) {
        self.under_way.clear();
        self.taken.clear();
        self.day_of_start.clear();
        if crash {
            *self = Self::default();
        }
    }
}

/// A period in seconds.
pub(crate) fn rate(text: &str) -> Option<Rate> {
    Some(text.parse().unwrap())
}

pub(crate) fn ceiling(connections: Option<u32>, per: &str) -> Ceiling {
    Ceiling { connections, rate: if per.is_empty() { None } else { rate(per) } }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
