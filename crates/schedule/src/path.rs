//! A path: connections from one source to one site, how many there may be, how fast, and whether it is open.

use std::collections::HashMap;

use mail::{Mono, Timestamp};

use crate::clock::Now;
use crate::effect::Path;
use crate::flow::Flow;
use crate::health::{Door, Health};
use crate::ids::stable_hash;
use crate::limits::Limits;
use crate::pace::Pace;
use crate::policy::{Warmup, day_of, midnight_after};
use crate::queue::NONE;
use crate::share::{Free, Kind, Share, ShareIx, Shares};
use crate::site::SiteIx;
use crate::traffic::Traffic;

/// Index of a path in the scheduler's slab.
pub(crate) type PathIx = usize;

/// Sites whose warm-up counts are kept apart; further ones share counters, which can only make them send less.
const WARMUP_SITES_MAX: usize = 100_000;

/// A source at a site.
#[derive(Debug)]
pub(crate) struct PathState {
    pub(crate) name: Path,
    pub(crate) source: usize,
    pub(crate) site: SiteIx,
    pub(crate) traffic: Traffic,
    /// Connections, or attempts to make one.
    pub(crate) slots: usize,
    /// Of these, known to be open.
    pub(crate) open: usize,
    /// Of these, waiting for something to do.
    pub(crate) idle: usize,
    pub(crate) flow: Flow,
    pub(crate) health: Health,
    pub(crate) messages: Pace,
    pub(crate) connections: Pace,
    pub(crate) timer: Option<Mono>,
    /// It stands in the list of paths that may have an idle connection.
    pub(crate) idle_listed: bool,
    /// Its limits as shares, if all nodes share them.
    pub(crate) shares: PathShares,
}

/// The limits of a path, each by its share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathShares {
    pub(crate) connections: ShareIx,
    pub(crate) messages: ShareIx,
    pub(crate) new_connections: ShareIx,
    pub(crate) warmup: ShareIx,
}

impl PathShares {
    /// All are this node's own.
    pub(crate) const OWN: Self =
        Self { connections: NONE, messages: NONE, new_connections: NONE, warmup: NONE };

    pub(crate) fn all(self) -> impl Iterator<Item = ShareIx> {
        [self.connections, self.messages, self.new_connections, self.warmup]
            .into_iter()
            .filter(|ix| *ix != NONE)
    }
}

/// What is remembered of a path that is not in use.
#[derive(Clone, Debug)]
pub(crate) struct Learned {
    pub(crate) flow: Flow,
    pub(crate) health: Health,
    /// Where the clocks of its rates stand.
    pub(crate) messages: Option<Mono>,
    pub(crate) connections: Option<Mono>,
}

/// Whether a path can take a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// On a connection that is open and idle.
    Open,
    /// On a new connection.
    New,
    /// When a connection is free or known, which somebody will say.
    Busy,
    /// At that moment.
    Until(Mono, Held),
    /// At that moment; meanwhile its mail is answered for.
    Answers(Mono),
    /// When more of this share is lent to this node.
    Lent(ShareIx),
    /// Never again: the source is not configured any more.
    Gone,
}

/// What holds a path until a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Closed,
    Rate,
    ConnectionRate,
    Warmup(u32),
}

impl PathState {
    pub(crate) fn new(name: Path, source: usize, site: SiteIx, traffic: Traffic, limits: &Limits) -> Self {
        Self {
            name,
            source,
            site,
            traffic,
            slots: 0,
            open: 0,
            idle: 0,
            flow: Flow::new(limits.connections_first),
            health: Health::default(),
            messages: Pace::default(),
            connections: Pace::default(),
            timer: None,
            idle_listed: false,
            shares: PathShares::OWN,
        }
    }

    /// Takes up what an earlier process knew of it.
    pub(crate) fn learn(&mut self, learned: Learned, now: Mono) {
        self.flow = learned.flow;
        self.health = learned.health;
        if let (Some(rate), Some(at)) = (self.traffic.rate, learned.messages) {
            self.messages = Pace::from(at, rate, now);
        }
        if let (Some(rate), Some(at)) = (self.traffic.connection_rate, learned.connections) {
            self.connections = Pace::from(at, rate, now);
        }
    }

    /// What there is to remember of it.
    pub(crate) fn learned(&self) -> Learned {
        Learned {
            flow: self.flow,
            health: self.health.clone(),
            messages: self.traffic.rate.map(|_| self.messages.stands_at()),
            connections: self.traffic.connection_rate.map(|_| self.connections.stands_at()),
        }
    }

    /// Connections it may have at best.
    pub(crate) fn limit(&self, limits: &Limits) -> usize {
        let said = self.traffic.connections.map_or(limits.connections_per_site, |n| n as usize);
        said.clamp(1, limits.connections_total.max(1))
    }

    /// Connections it may have at the moment.
    pub(crate) fn window(&self, limits: &Limits) -> usize {
        self.flow.allows(self.limit(limits))
    }

    /// Whether it can take a delivery; `asks`: a worker with an open connection asks for one.
    pub(crate) fn room(
        &self,
        asks: bool,
        source: &SourceState,
        warmups: &Warmups,
        (limits, shares): (&Limits, &Shares),
        now: Now,
    ) -> Room {
        if !source.is_there {
            return Room::Gone;
        }
        let door = self.health.door(self.open, now.mono);
        match door {
            Door::Closed { until, answers: true } => return Room::Answers(until),
            Door::Closed { until, answers: false } => return Room::Until(until, Held::Closed),
            Door::Probing => return Room::Busy,
            Door::Open | Door::Inside => {}
        }
        let has_open = asks || self.idle > 0;
        if !has_open && (door == Door::Inside || self.slots >= self.window(limits)) {
            return Room::Busy;
        }
        let lent = &self.shares;
        if let Some(limit) = source.warmup.as_ref().and_then(|plan| plan.limit_at(now.wall)) {
            let sent = warmups.sent(self, now.wall);
            if sent >= limit {
                return Room::Until(now.mono_at(midnight_after(now.wall)), Held::Warmup(limit));
            }
            let share = shares.all.get(lent.warmup);
            let is_lent = |share: &Share| {
                share.kind == Kind::Warmup(day_of(now.wall)) && u64::from(sent) < share.usable(now.mono)
            };
            if !share.is_none_or(is_lent) {
                return Room::Lent(lent.warmup);
            }
        }
        // A connection that is open stays usable: it has its place. Unless the loan is over.
        let places = if has_open { self.slots.saturating_sub(1) } else { self.slots };
        if !shares.has_place(lent.connections, places, now.mono) {
            return Room::Lent(lent.connections);
        }
        let paced = |rate, pace: Pace, share, held| match shares.may_send(share, now.mono) {
            Free::No => Some(Room::Lent(share)),
            Free::Until(end) => Some(Room::Until(end.max(pace.free_at(rate)), held)),
            Free::Yes => Some(pace.free_at(rate)).filter(|at| *at > now.mono).map(|at| Room::Until(at, held)),
        };
        let by_rate = self.traffic.rate.and_then(|r| paced(r, self.messages, lent.messages, Held::Rate));
        if let Some(waits) = by_rate {
            return waits;
        }
        if has_open {
            return Room::Open;
        }
        let (rate, share) = (self.traffic.connection_rate, lent.new_connections);
        rate.and_then(|rate| paced(rate, self.connections, share, Held::ConnectionRate)).unwrap_or(Room::New)
    }

    /// Whether there is nothing to remember of it.
    pub(crate) fn is_fresh(&self, limits: &Limits, now: Mono) -> bool {
        self.health.is_fresh()
            && self.flow.is_fresh(limits.connections_first)
            && !self.messages.is_ahead(now)
            && !self.connections.is_ahead(now)
    }
}

/// A source as it is configured.
#[derive(Clone, Debug)]
pub(crate) struct SourceState {
    pub(crate) name: mail::SourceName,
    pub(crate) warmup: Option<Warmup>,
    /// It is configured.
    pub(crate) is_there: bool,
}

/// How many messages sources with a plan have sent today, by site. Counts outlive the state of their paths, and the process.
#[derive(Debug, Default)]
pub(crate) struct Warmups {
    /// The day (UTC) that they are of.
    pub(crate) day: i64,
    pub(crate) counts: HashMap<(usize, u64), u32>,
}

impl Warmups {
    /// What a path's source sent to its site today.
    pub(crate) fn sent(&self, path: &PathState, now: Timestamp) -> u32 {
        if self.is_over(now) {
            return 0;
        }
        self.counts.get(&self.key(path)).copied().unwrap_or(0)
    }

    /// One more, or one less that did not leave.
    pub(crate) fn count(&mut self, path: &PathState, less: bool, now: Timestamp) {
        if self.is_over(now) {
            self.day = day_of(now);
            self.counts.clear();
        }
        let count = self.counts.entry(self.key(path)).or_default();
        *count = if less { count.saturating_sub(1) } else { count.saturating_add(1) };
    }

    /// Whether the counts are of another day. A clock that is set back a little does not open the day again.
    fn is_over(&self, now: Timestamp) -> bool {
        let today = day_of(now);
        today > self.day || today < self.day - 1
    }

    fn key(&self, path: &PathState) -> (usize, u64) {
        let site = path.name.site.to_string();
        let key = (path.source, stable_hash([site.as_bytes()]));
        if self.counts.len() < WARMUP_SITES_MAX || self.counts.contains_key(&key) {
            return key;
        }
        (key.0, key.1 % 4096)
    }
}
