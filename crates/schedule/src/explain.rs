//! Answers to "why does it wait", and the views of everything.

use std::collections::HashMap;

use mail::{DeliveryId, QueueKey, SourceName, Timestamp, default_source};

use crate::clock::Now;
use crate::effect::Path;
use crate::health::Cause;
use crate::meter::{Gate, Meter};
use crate::path::{Held, PathIx, PathState, Room};
use crate::policy::{DEFAULT_POOL, Suspension};
use crate::queue::{NONE, Queue, QueueIx, Stage};
use crate::scheduler::Scheduler;
use crate::share::ShareIx;
use crate::site::{GroupIx, Site, SiteIx, lane_of};
use crate::snapshot::{PathView, QueueView, SiteView, Snapshot, Totals, WarmupView};
use crate::traffic::Traffic;
use crate::why::{Owner, Turns, Waits, Why};

impl Scheduler {
    /// Everything, sorted. Takes time in proportion to the number of queues in memory.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut queues: Vec<QueueView> = self.queues.iter().map(|(ix, q)| self.view(ix, q, now)).collect();
        queues.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let mut by_site: HashMap<SiteIx, usize> = HashMap::new();
        for (_, dest) in &self.dests {
            if let Some(site) = dest.site {
                *by_site.entry(site).or_default() += dest.queues.len();
            }
        }
        let queues_at = |ix| by_site.get(&ix).copied().unwrap_or(0);
        let mut sites: Vec<SiteView> =
            self.sites.iter().map(|(ix, site)| self.site_view(site, queues_at(ix))).collect();
        sites.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Snapshot { queues, sites, paths: self.path_views(now), totals: self.totals() }
    }

    /// The paths alone, sorted.
    pub fn path_views(&self, now: Now) -> Vec<PathView> {
        let mut paths: Vec<PathView> = self.paths.iter().map(|(_, path)| self.path_view(path, now)).collect();
        paths.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        paths
    }

    /// The sums alone.
    pub fn totals(&self) -> Totals {
        Totals {
            active: self.held,
            connections: self.slots,
            queues: self.queues.len(),
            sites: self.sites.len(),
            paths: self.paths.len(),
            starved_sites: self.starved.len(),
            pages: self.pages,
        }
    }

    /// The bounds of a path. A worker closes its connection after [`Traffic::messages_per_connection`].
    pub fn traffic(&self, path: &Path) -> Traffic {
        match self.path_ix(path) {
            Some(ix) => self.paths[ix].traffic,
            None => self.policy.traffic(&path.source, &path.site),
        }
    }

    /// Why the deliveries of this queue wait. A queue that is not in memory waits for its time, or has nothing in it.
    pub fn why(&self, queue: &QueueKey, now: Now) -> Why {
        match self.queue_by_key.get(queue) {
            Some(&ix) => self.why_of(ix, now),
            None => {
                let stop = self.stop_of(queue);
                let waits = stop.map_or(Waits::Nothing, |s| Waits::Suspended {
                    id: s.id,
                    reason: s.reason.clone(),
                    until: s.until,
                });
                let next = stop.and_then(|s| s.until);
                Why {
                    waits,
                    next,
                    in_memory: 0,
                    window: self.policy.limits.window,
                    backlog: false,
                    turns: None,
                }
            }
        }
    }

    /// The suspension that stops a queue: one that says nothing of sources, or the last of those that leave it none.
    fn stop_of(&self, queue: &QueueKey) -> Option<&Suspension> {
        let site = self.site_of(&queue.destination);
        let stops = self.stops.iter().filter_map(|&n| self.policy.suspensions.get(n as usize));
        let covering: Vec<&Suspension> = stops.filter(|s| s.scope.covers(queue, site.as_ref())).collect();
        if let Some(&whole) = covering.iter().find(|s| s.scope.source.is_none()) {
            return Some(whole);
        }
        let name = self.policy.pool_of(queue);
        let pool = self.policy.pools.iter().find(|pool| *pool.name == *name);
        let default = default_source();
        let sources: Vec<&SourceName> = match pool {
            Some(pool) => pool.sources.iter().map(|(source, _)| source).collect(),
            None => vec![&default],
        };
        let is_stopped =
            |source: &SourceName| covering.iter().any(|s| s.scope.source.as_ref() == Some(source));
        if sources.iter().all(|source| is_stopped(source)) { covering.last().copied() } else { None }
    }

    /// Why this delivery waits. None when it is not in memory: then its row says when it is due, and [`Scheduler::why`] of its
    /// queue why it is not taken up when it is.
    pub fn why_delivery(&self, id: DeliveryId, now: Now) -> Option<Why> {
        let entry = self.entries.get(&id)?;
        let mut why = self.why_of(entry.queue, now);
        match entry.stage {
            Stage::Ready => {
                if let Some((waits, next)) = self.ready_waits(entry.queue, now) {
                    (why.waits, why.next) = (waits, next);
                }
            }
            Stage::Aside => {
                let meter = &self.credentials[entry.credential].meter;
                (why.waits, why.next) =
                    self.meter_waits(meter, Owner::Credential, now).unwrap_or((Waits::Turn, None));
            }
            Stage::OnNew | Stage::OnOpen | Stage::Answered | Stage::Settling => {
                (why.waits, why.next, why.turns) = (Waits::Working, None, None);
            }
        }
        Some(why)
    }

    fn why_of(&self, ix: QueueIx, now: Now) -> Why {
        let q = &self.queues[ix];
        let ready = self.ready_waits(ix, now);
        let (waits, next) = match (ready, q.due) {
            (Some(ready), _) => ready,
            _ if q.flying > 0 || q.page.is_some() || q.reserved > 0 => (Waits::Working, None),
            _ if q.aside > 0 => {
                let first = self.credentials.iter().find(|c| !c.aside.is_empty());
                first
                    .and_then(|c| self.meter_waits(&c.meter, Owner::Credential, now))
                    .unwrap_or((Waits::Turn, None))
            }
            _ if q.backlog => (Waits::Window, None),
            (_, Some(due)) => (Waits::Due, Some(due)),
            _ => (Waits::Nothing, None),
        };
        let turns =
            matches!(waits, Waits::Turn | Waits::Connections { .. } | Waits::Relay { .. } | Waits::Rate(..));
        Why {
            waits,
            next,
            in_memory: q.held(),
            window: self.allowance(ix).max(q.held().min(self.policy.limits.window)),
            backlog: q.backlog || q.page.is_some(),
            turns: turns.then(|| self.turns_of(q)).flatten(),
        }
    }

    /// What the ready deliveries of a queue wait for; none when it has none and is not suspended.
    fn ready_waits(&self, ix: QueueIx, now: Now) -> Option<(Waits, Option<Timestamp>)> {
        let q = &self.queues[ix];
        if let Some(stop) = q.suspended.and_then(|n| self.policy.suspensions.get(n as usize)) {
            let has_mail = !q.ready.is_empty() || q.backlog || q.due.is_some();
            let waits = Waits::Suspended { id: stop.id, reason: stop.reason.clone(), until: stop.until };
            return has_mail.then_some((waits, stop.until));
        }
        if q.ready.is_empty() {
            return None;
        }
        if q.turn == NONE {
            return Some((Waits::Site, None));
        }
        let turn = &self.turns[q.turn];
        let org = self.meter_waits(&self.orgs[q.org].meter, Owner::Org, now);
        let route = || self.meter_waits(&self.dests[q.dest].meter, Owner::Route, now);
        Some(org.or_else(route).unwrap_or_else(|| self.group_waits(turn.group, now)))
    }

    fn meter_waits(&self, meter: &Meter, of: Owner, now: Now) -> Option<(Waits, Option<Timestamp>)> {
        match meter.gate(&self.shares, now.mono) {
            Gate::Open => None,
            Gate::Lent(share) => Some((self.shared_waits(share), None)),
            Gate::Full(limit) => Some((Waits::Ceiling { of, limit }, None)),
            Gate::Until(at) => {
                meter.ceiling.rate.map(|rate| (Waits::OverRate { of, rate }, Some(now.wall_at(at))))
            }
        }
    }

    /// What the next delivery of a group waits for.
    fn group_waits(&self, group: GroupIx, now: Now) -> (Waits, Option<Timestamp>) {
        let group = &self.groups[group];
        let site = &self.sites[group.site];
        let rooms: Vec<(PathIx, Room)> =
            group.members.iter().map(|m| (m.path, self.room(m.path, false, now))).collect();
        let can = rooms.iter().any(|(_, room)| matches!(room, Room::Open | Room::New));
        if can {
            let limit = self.policy.limits.connections_total;
            return if site.starved { (Waits::Relay { limit }, None) } else { (Waits::Turn, None) };
        }
        // The path that has the best prospects: one that is merely busy, then the one that is held for the shortest time.
        let order = |room: &Room| match room {
            Room::Busy | Room::Open | Room::New => (0, now.mono),
            Room::Lent(_) => (1, now.mono),
            Room::Until(at, _) => (1, *at),
            Room::Answers(at) => (2, *at),
            Room::Gone => (3, now.mono),
        };
        let best = rooms.iter().min_by_key(|(_, room)| order(room));
        best.map_or((Waits::Turn, None), |&(path, room)| self.path_waits(path, room, now))
    }

    fn path_waits(&self, path: PathIx, room: Room, now: Now) -> (Waits, Option<Timestamp>) {
        let state = &self.paths[path];
        let name = state.name.clone();
        let (messages, connections) = (state.traffic.rate, state.traffic.connection_rate);
        let down = |failure| Waits::Down { path: name.clone(), failure };
        match room {
            Room::Busy if state.health.probing => (down(None), None),
            Room::Answers(at) => (down(state.health.failure.clone()), Some(now.wall_at(at))),
            Room::Until(at, held) => {
                let waits = match held {
                    Held::Closed if state.health.cause == Cause::Slowed => Waits::Slowed(name),
                    Held::Closed => down(state.health.failure.clone()),
                    Held::Rate => messages.map_or(Waits::Turn, |rate| Waits::Rate(name, rate)),
                    Held::ConnectionRate => {
                        connections.map_or(Waits::Turn, |rate| Waits::ConnectionRate(name, rate))
                    }
                    Held::Warmup(limit) => Waits::Warmup { source: name.source, limit },
                };
                (waits, Some(now.wall_at(at)))
            }
            Room::Lent(share) => (self.shared_waits(share), None),
            Room::Busy | Room::Open | Room::New | Room::Gone => {
                let limits = &self.policy.limits;
                let (window, limit) = (state.window(limits), state.limit(limits));
                (Waits::Connections { path: name, taken: state.slots, window, limit }, None)
            }
        }
    }

    fn shared_waits(&self, share: ShareIx) -> Waits {
        let share = self.shares.all.get(share);
        let of = share.map_or_else(|| "".into(), |share| share.key.clone());
        Waits::Shared {
            of,
            lent: share.map_or(0, |share| share.amount),
            limit: share.map_or(0, |share| share.capacity),
        }
    }

    fn turns_of(&self, q: &Queue) -> Option<Turns> {
        let turn = self.turns.get(q.turn)?;
        let group = &self.groups[turn.group];
        let lane = &group.lanes[lane_of(turn.stream)];
        let before = lane.iter().position(|&ix| ix == q.turn).unwrap_or(lane.len());
        let next = lane.front().map(|&ix| self.orgs[self.turns[ix].org].id);
        Some(Turns { site: self.sites[group.site].key.clone(), orgs: lane.len(), before, next })
    }

    fn view(&self, ix: QueueIx, q: &Queue, now: Now) -> QueueView {
        let group = (q.turn != NONE).then(|| &self.groups[self.turns[q.turn].group]);
        let pool = match group {
            Some(group) => self.pools[group.pool].name.clone(),
            None => {
                let name = self.policy.pool_of(&q.key);
                self.pools
                    .iter()
                    .find(|p| *p.name == *name)
                    .map_or_else(|| DEFAULT_POOL.into(), |p| p.name.clone())
            }
        };
        QueueView {
            key: q.key.clone(),
            site: self.site_of(&q.key.destination),
            pool,
            ready: q.ready.len() + q.aside as usize,
            in_flight: q.flying as usize,
            backlog: q.backlog || q.page.is_some(),
            next_due: q.due,
            why: self.why_of(ix, now),
        }
    }

    fn site_view(&self, site: &Site, queues: usize) -> SiteView {
        SiteView {
            key: site.key.clone(),
            queues,
            ready: site.groups.iter().map(|&g| self.groups[g].ready).sum(),
            connections: site.slots,
            idle: site.paths.iter().map(|&p| self.paths[p].idle).sum(),
            starved: site.starved,
        }
    }

    fn path_view(&self, path: &PathState, now: Now) -> PathView {
        let limits = &self.policy.limits;
        let later = |at: mail::Mono| (at > now.mono).then(|| now.wall_at(at));
        let plan = self.sources[path.source].warmup.as_ref();
        let lent = self.shares.usable(path.shares.connections, now.mono);
        PathView {
            path: path.name.clone(),
            connections: path.slots,
            idle: path.idle,
            window: path.window(limits).min(usize::try_from(lent).unwrap_or(usize::MAX)),
            limit: path.limit(limits),
            traffic: path.traffic,
            failures: path.health.failures,
            closed_until: path.health.closed_until.and_then(later),
            failure: path.health.failure.clone(),
            next_message: path.traffic.rate.and_then(|rate| later(path.messages.free_at(rate))),
            latency: path.flow.latency(),
            warmup: plan
                .and_then(|plan| plan.limit_at(now.wall))
                .map(|limit| WarmupView { sent: self.warmups.sent(path, now.wall), limit }),
        }
    }
}
