//! How the hosts of a smart host do: who works, who rests after failures, and who may be tried again.

use std::sync::Arc;
use std::time::Duration;

use mail::{Clock, HostPort, Mono, Timestamp};
use serde::Serialize;

use super::{HostOrder, SmartHost, WeightedHost, order};

/// How long a host comes last after its first failure; twice as long after each further one.
const REST_FIRST: Duration = Duration::from_secs(15);
/// The longest.
const REST_MAX: Duration = Duration::from_secs(600);
/// How long one attempt has the right to be the only one that tries a host again.
const PROBE_MAX: Duration = Duration::from_secs(60);

/// How a smart host does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SmartHostHealth {
    /// Its name.
    pub name: Arc<str>,
    /// `ordered`, `weighted` or `sticky`.
    pub order: &'static str,
    /// Its hosts as they are written.
    pub hosts: Vec<HostHealth>,
    /// Its logins by access token.
    pub tokens: Vec<TokenHealth>,
}

/// How one host does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostHealth {
    /// `host:port`.
    pub host: String,
    /// Its share.
    pub weight: u32,
    /// Whether it is tried in its turn; else it comes last.
    pub up: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Until when it comes last.
    pub rests_until: Option<Timestamp>,
    /// What went wrong last, in words; none since it worked again.
    pub error: Option<Arc<str>>,
    /// When it last failed.
    pub last_failure: Option<Timestamp>,
    /// When it last worked.
    pub last_success: Option<Timestamp>,
    /// Connections made since the start.
    pub connections: u64,
}

/// How a login by access token does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenHealth {
    /// Who logs in.
    pub username: String,
    /// Whom we ask for tokens.
    pub token_url: String,
    /// Until when the token at hand is good; none when there is none.
    pub valid_until: Option<Timestamp>,
    /// Why there is no new one, in words.
    pub error: Option<String>,
    /// A new refresh token could not be written to its file, in words.
    pub not_kept: Option<String>,
}

/// What is known of one host.
#[derive(Clone, Debug, Default)]
struct Record {
    failures: u32,
    rests_until: Option<(Mono, Timestamp)>,
    /// Somebody tries it again; until then nobody else does.
    probed_until: Option<Mono>,
    error: Option<Arc<str>>,
    last_failure: Option<Timestamp>,
    last_success: Option<Timestamp>,
    connections: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Up,
    /// It has rested; one attempt may try it.
    Due,
    Resting,
}

impl Record {
    fn standing(&self, now: Mono) -> Standing {
        match self.rests_until {
            None => Standing::Up,
            Some((until, _)) if now < until || self.probed_until.is_some_and(|p| now < p) => {
                Standing::Resting
            }
            Some(_) => Standing::Due,
        }
    }
}

/// The hosts of one smart host, as long as they are the same.
#[derive(Debug, Default)]
pub(super) struct Group {
    hosts: Vec<WeightedHost>,
    records: Vec<Record>,
    /// What each host is owed ([`order::by_weight`]).
    credit: Vec<i64>,
}

impl Group {
    /// Takes the hosts as they are now; what is known of those that stay is kept.
    pub(super) fn follow(&mut self, hosts: &[WeightedHost]) {
        if self.hosts == hosts {
            return;
        }
        let mut known = std::mem::take(&mut self.records);
        let old: Vec<HostPort> = self.hosts.drain(..).map(|h| h.at).collect();
        let mut take = |at: &HostPort| {
            let place = old.iter().position(|o| o == at);
            place.map(|place| std::mem::take(&mut known[place])).unwrap_or_default()
        };
        self.records = hosts.iter().map(|h| take(&h.at)).collect();
        self.hosts = hosts.to_vec();
        self.credit = vec![0; hosts.len()];
    }

    /// The hosts in the order in which they are to be tried. Whoever takes a host that has rested to the head of the
    /// list tries it for all others.
    pub(super) fn plan(
        &mut self,
        smarthost: &SmartHost,
        sender: Option<&mail::Address>,
        now: Mono,
    ) -> Vec<usize> {
        let standing: Vec<Standing> = self.records.iter().map(|r| r.standing(now)).collect();
        let (mut places, mut resting): (Vec<usize>, Vec<usize>) =
            (0..self.hosts.len()).partition(|&place| standing[place] != Standing::Resting);
        match smarthost.order {
            HostOrder::Ordered => {}
            HostOrder::Weighted => order::by_weight(&self.hosts, &mut self.credit, &mut places),
            HostOrder::Sticky => order::by_sender(&self.hosts, sender, &mut places),
        }
        if let Some(&first) = places.first()
            && standing[first] == Standing::Due
        {
            self.records[first].probed_until = Some(now.plus(PROBE_MAX));
        }
        // When nothing else is left, whoever has rested longest.
        resting.sort_by_key(|&place| self.records[place].rests_until.map(|(until, _)| until));
        places.append(&mut resting);
        places
    }

    /// The host that a plan would begin with now, where that is not a matter of turns; changes nothing. A host that has
    /// rested counts: else a connection to a spare would be kept for as long as there is mail.
    pub(super) fn home(
        &self,
        order: HostOrder,
        sender: Option<&mail::Address>,
        now: Mono,
    ) -> Option<&HostPort> {
        let may_begin = |place: &usize| self.records[*place].standing(now) != Standing::Resting;
        let mut places: Vec<usize> = (0..self.hosts.len()).filter(may_begin).collect();
        if order == HostOrder::Sticky {
            order::by_sender(&self.hosts, sender, &mut places);
        }
        places.first().map(|&place| &self.hosts[place].at)
    }

    pub(super) fn host(&self, place: usize) -> &HostPort {
        &self.hosts[place].at
    }

    /// It let us in. Says whether that is news.
    pub(super) fn worked(&mut self, at: &HostPort, clock: &Clock) -> bool {
        let Some(record) = self.record(at) else { return false };
        let is_news = record.failures > 0;
        *record = Record {
            last_failure: record.last_failure,
            last_success: Some(clock.now()),
            connections: record.connections + 1,
            ..Record::default()
        };
        is_news
    }

    /// It did not work. Says for how long it rests, where that is news. Many attempts may be under way when a host goes:
    /// together they count as one failure.
    pub(super) fn failed(&mut self, at: &HostPort, error: &str, clock: &Clock) -> Option<Duration> {
        let (now, wall) = (clock.mono(), clock.now());
        let record = self.record(at)?;
        record.error = Some(error.into());
        record.last_failure = Some(wall);
        record.probed_until = None;
        if record.rests_until.is_some_and(|(until, _)| now < until) {
            return None;
        }
        let rest = REST_FIRST.saturating_mul(1 << record.failures.min(10)).min(REST_MAX);
        record.failures = record.failures.saturating_add(1);
        record.rests_until = Some((now.plus(rest), wall.plus(rest)));
        Some(rest)
    }

    fn record(&mut self, at: &HostPort) -> Option<&mut Record> {
        let place = self.hosts.iter().position(|h| h.at == *at)?;
        self.records.get_mut(place)
    }

    pub(super) fn health(&self, now: Mono) -> Vec<HostHealth> {
        let view = |(host, record): (&WeightedHost, &Record)| HostHealth {
            host: host.at.to_string(),
            weight: host.weight,
            up: record.standing(now) == Standing::Up,
            failures: record.failures,
            rests_until: record.rests_until.filter(|(until, _)| now < *until).map(|(_, wall)| wall),
            error: record.error.clone(),
            last_failure: record.last_failure,
            last_success: record.last_success,
            connections: record.connections,
        };
        self.hosts.iter().zip(&self.records).map(view).collect()
    }
}
