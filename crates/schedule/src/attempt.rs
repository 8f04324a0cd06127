//! What became of attempts and of connections.

use mail::{DeliveryId, Destination};

use crate::clock::Now;
use crate::dispatch::Started;
use crate::effect::{Effect, Link, Next, Path, Report};
use crate::flow::Slowed;
use crate::health::Door;
use crate::path::PathIx;
use crate::queue::{Entry, Stage};
use crate::scheduler::Scheduler;
use crate::signal::Signal;

/// Destinations that an operator wants tried now and of which nothing is in memory yet.
const LIFTS_MAX: usize = 10_000;

impl Scheduler {
    /// An attempt is over; the delivery stays in memory until [`Scheduler::finished`]. With [`Link::Kept`] the worker
    /// asks [`Scheduler::next_for`] at once, under the same lock. For an answered delivery the report says nothing.
    pub fn attempted(&mut self, id: DeliveryId, report: Report, now: Now, out: &mut Vec<Effect>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let was = *entry;
        match was.stage {
            // Not under way.
            Stage::Ready | Stage::Aside | Stage::Settling => return,
            Stage::Answered => {
                entry.stage = Stage::Settling;
                self.answered(was.path, now, out);
            }
            Stage::OnNew | Stage::OnOpen => {
                entry.stage = Stage::Settling;
                self.learn(&was, &report, now);
                let (path, is_new) = (was.path, was.stage == Stage::OnNew);
                let site = self.paths[path].site;
                if report.link == Link::Kept {
                    let was_ill = self.paths[path].health.probing;
                    self.paths[path].open += usize::from(is_new);
                    self.paths[path].health.connected();
                    self.meters_end(was, now, out);
                    if was_ill {
                        self.dispatch(site, now, out);
                    }
                } else {
                    if report.link == Link::Closed {
                        self.paths[path].health.connected();
                    }
                    self.take_slot_away(path, !is_new);
                    self.meters_end(was, now, out);
                    self.after_slot(path, now, out);
                }
            }
        }
        self.arm(now, out);
    }

    /// What an attempt tells about its path.
    fn learn(&mut self, was: &Entry, report: &Report, now: Now) {
        let limits = self.policy.limits.clone();
        let seed = self.seed ^ (was.path as u64) ^ now.mono.0.subsec_nanos().rotate_left(9) as u64;
        let path = &mut self.paths[was.path];
        let before = path.flow.saved();
        if let Link::Unreachable(outcome) = &report.link {
            path.health.bad(outcome.clone(), now.mono, &limits, seed);
            let open = path.open - usize::from(was.stage == Stage::OnOpen);
            if open > 0 {
                path.flow.full(open + 1, now.mono);
            }
            // Nothing was sent.
            if self.sources[path.source].warmup.is_some() {
                self.warmups.count(path, true, now.wall);
            }
            self.revision += 1;
            return;
        }
        for signal in &report.signals {
            match signal {
                Signal::Slow => {
                    if path.flow.slow(was.began, now.mono) == Slowed::AtFloor {
                        path.health.rest(now.mono, &limits, seed);
                    }
                }
                Signal::Full { connections } => {
                    let connections = usize::try_from(*connections).unwrap_or(usize::MAX);
                    path.flow.full(if connections == 0 { path.slots } else { connections }, now.mono);
                }
                Signal::Suspend { path_for, reason } => {
                    path.health.suspend(*path_for, reason, now.mono);
                    path.flow.restart();
                }
            }
        }
        if report.signals.is_empty() {
            let limit = path.limit(&limits);
            let is_used = path.slots >= path.flow.allows(limit);
            path.health.good(now.mono);
            path.flow.good(report.latency, is_used, limit, now.mono);
        }
        self.revision += u64::from(!report.signals.is_empty() || before != path.flow.saved());
    }

    fn answered(&mut self, path: PathIx, now: Now, out: &mut Vec<Effect>) {
        let site = self.paths[path].site;
        self.sites[site].answering -= 1;
        self.dispatch(site, now, out);
        self.let_go(site);
    }

    /// A worker with an open connection on the path asks for more, right after [`Scheduler::attempted`] with
    /// [`Link::Kept`]. It keeps its slot unless the answer is [`Next::Close`].
    pub fn next_for(&mut self, path: &Path, now: Now, out: &mut Vec<Effect>) -> Next {
        let Some(ix) = self.path_ix(path).filter(|&ix| self.paths[ix].slots > self.paths[ix].idle) else {
            return Next::Close;
        };
        let state = &self.paths[ix];
        let site = state.site;
        let closed = matches!(state.health.door(state.open, now.mono), Door::Closed { .. });
        let too_many = state.slots > state.window(&self.policy.limits)
            || !self.shares.has_place(state.shares.connections, state.slots - 1, now.mono)
            || self.sites[site].slots > self.fair_share()
            || self.slots > self.policy.limits.connections_total.max(1);
        if closed || too_many || !self.sources[state.source].is_there {
            self.take_slot_away(ix, true);
            self.after_slot(ix, now, out);
            self.arm(now, out);
            return Next::Close;
        }
        loop {
            match self.start_one(site, Some(ix), now, out) {
                Started::Asker(id) => return Next::Deliver(id),
                Started::Yes => {}
                Started::No => break,
            }
        }
        let state = &mut self.paths[ix];
        state.idle += 1;
        if !state.idle_listed {
            state.idle_listed = true;
            self.idle_paths.push_back(ix);
        }
        // Others may have been waiting for a connection before this one had nothing to do.
        self.feed_starved(now, out);
        self.arm(now, out);
        Next::Wait
    }

    /// An idle worker closed its connection on the path, or found it closed.
    pub fn release_slot(&mut self, path: &Path, now: Now, out: &mut Vec<Effect>) {
        let Some(ix) = self.path_ix(path).filter(|&ix| self.paths[ix].idle > 0) else { return };
        self.paths[ix].idle -= 1;
        self.take_slot_away(ix, true);
        self.after_slot(ix, now, out);
        self.arm(now, out);
    }

    /// An operator wants mail of this destination tried now: pauses of the paths to its site end early, whatever their
    /// cause. The next connection is still a probe that the others wait for.
    pub fn lift(&mut self, destination: &Destination, now: Now, out: &mut Vec<Effect>) {
        let known = self.dest_by_key.get(destination).copied();
        let Some(site) = known.and_then(|ix| self.dests[ix].site) else {
            // Where it is will be known when something of it is in memory, and DNS has answered.
            match known {
                Some(ix) => self.dests[ix].to_be_lifted = true,
                None if self.lifts.len() < LIFTS_MAX => drop(self.lifts.insert(destination.clone())),
                None => {}
            }
            // Nothing of it is in memory; what is remembered of its own site may stand in the way.
            if let Some(&site) = self.site_by_key.get(&mail::Site::Alone(destination.clone())) {
                self.lift_site(site, now);
            }
            return;
        };
        self.lift_site(site, now);
        self.dispatch(site, now, out);
        self.arm(now, out);
    }

    pub(crate) fn lift_site(&mut self, site: usize, now: Now) {
        let key = &self.sites[site].key;
        // What an earlier process learned of paths that nothing has gone by since.
        for (_, learned) in self.restored.iter_mut().filter(|(path, _)| path.site == *key) {
            learned.health.closed_until = learned.health.closed_until.map(|until| until.min(now.mono));
        }
        for &path in &self.sites[site].paths {
            let health = &mut self.paths[path].health;
            if health.closed_until.is_some_and(|until| until > now.mono) {
                health.closed_until = Some(now.mono);
                self.revision += 1;
            }
        }
    }

    /// The driver says that a delivery is finished without having said what became of the connection: it is gone, and
    /// tells nothing about the site.
    pub(crate) fn connection_lost(&mut self, id: DeliveryId, now: Now, out: &mut Vec<Effect>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let was = *entry;
        entry.stage = Stage::Settling;
        if was.stage == Stage::Answered {
            return self.answered(was.path, now, out);
        }
        self.paths[was.path].health.probing &= was.stage != Stage::OnNew;
        self.take_slot_away(was.path, was.stage == Stage::OnOpen);
        self.meters_end(was, now, out);
        self.after_slot(was.path, now, out);
    }

    /// A slot of the path is free again; whoever waits may have it.
    fn after_slot(&mut self, path: PathIx, now: Now, out: &mut Vec<Effect>) {
        // What went on in between may have closed the site's last idle connection, and nobody refers to it any more.
        let Some(site) = self.paths.get(path).map(|path| path.site) else {
            return self.feed_starved(now, out);
        };
        // Those that stand in line come first, or this site would take it back at once.
        self.feed_starved(now, out);
        self.dispatch(site, now, out);
        self.let_go(site);
    }

    pub(crate) fn take_slot_away(&mut self, path: PathIx, was_open: bool) {
        let path = &mut self.paths[path];
        path.slots -= 1;
        path.open -= usize::from(was_open);
        self.shares.freed(path.shares.connections, self.seen);
        let site = &mut self.sites[path.site];
        site.slots -= 1;
        self.slots -= 1;
        self.busy_sites -= usize::from(site.slots == 0);
    }

    /// Of the connections, how many a site may keep while others wait for one.
    fn fair_share(&self) -> usize {
        if self.starved.is_empty() {
            return usize::MAX;
        }
        (self.policy.limits.connections_total / (self.busy_sites + self.starved.len()).max(1)).max(1)
    }

    /// Gives connections to sites that stand in line for one, one each, as long as there are any.
    fn feed_starved(&mut self, now: Now, out: &mut Vec<Effect>) {
        for _ in 0..self.starved.len() {
            let Some(ix) = self.starved.pop_front() else { return };
            let Some(site) = self.sites.get_mut(ix).filter(|site| site.starved) else { continue };
            site.starved = false;
            self.dispatch(ix, now, out);
            if self.starved.back() == Some(&ix) {
                // It found none, or wants more: nothing is left for the others.
                return;
            }
        }
    }
}
