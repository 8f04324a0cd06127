//! Slots: which delivery gets the next connection, and what becomes of connections.

use std::sync::Arc;

use mail::{DeliveryId, Destination, Outcome};

use crate::clock::Now;
use crate::effect::{Effect, Link, Next};
use crate::queue::Stage;
use crate::scheduler::Scheduler;
use crate::site::{ANSWERS_MAX, Connect, SiteIx, lane_of};

impl Scheduler {
    /// An attempt is over; the delivery stays in memory until [`Scheduler::finished`]. With [`Link::Kept`] the worker
    /// asks [`Scheduler::next_for`] at once, under the same lock. For an answered delivery `link` says nothing.
    pub fn attempted(&mut self, id: DeliveryId, link: Link, now: Now, out: &mut Vec<Effect>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let stage = std::mem::replace(&mut entry.stage, Stage::Settling);
        let ix = self.queues[entry.queue].site;
        match (stage, link) {
            (Stage::Ready | Stage::Settling, _) => {
                // Not under way: as it was.
                entry.stage = stage;
                return;
            }
            (Stage::Answered, _) => {
                self.sites[ix].answering -= 1;
                self.dispatch(ix, now, out);
            }
            (Stage::OnOpen, Link::Kept) => {}
            (Stage::OnNew, Link::Kept) => {
                self.sites[ix].open += 1;
                let was_ill = self.sites[ix].health.failures > 0;
                self.sites[ix].health.good();
                if was_ill {
                    self.dispatch(ix, now, out);
                }
            }
            (Stage::OnNew, Link::Closed) => {
                self.sites[ix].health.good();
                self.slot_freed(ix, false, now, out);
            }
            (Stage::OnOpen, Link::Closed) => self.slot_freed(ix, true, now, out),
            (stage, Link::Unreachable(outcome)) => {
                self.suspend(ix, outcome, now);
                self.slot_freed(ix, stage == Stage::OnOpen, now, out);
            }
        }
        self.arm(now, out);
    }

    /// A worker with an open connection to the site asks for more, right after [`Scheduler::attempted`] with
    /// [`Link::Kept`]. It keeps its slot unless the answer is [`Next::Close`].
    pub fn next_for(&mut self, site: &Destination, now: Now, out: &mut Vec<Effect>) -> Next {
        let Some(&ix) = self.site_by_key.get(site) else { return Next::Close };
        if self.sites[ix].slots > self.fair_share() {
            self.slot_freed(ix, true, now, out);
            self.arm(now, out);
            return Next::Close;
        }
        if let Some(id) = self.pop_ready(ix, Stage::OnOpen) {
            return Next::Deliver(id);
        }
        let site = &mut self.sites[ix];
        site.idle += 1;
        if !site.idle_listed {
            site.idle_listed = true;
            self.idle_sites.push_back(ix);
        }
        // Others may have been waiting for a connection before this one had nothing to do.
        self.feed_starved(now, out);
        Next::Wait
    }

    /// An idle worker closed its connection to the site, or found it closed.
    pub fn release_slot(&mut self, site: &Destination, now: Now, out: &mut Vec<Effect>) {
        let Some(&ix) = self.site_by_key.get(site) else { return };
        let site = &mut self.sites[ix];
        if site.idle == 0 {
            return;
        }
        site.idle -= 1;
        self.slot_freed(ix, true, now, out);
        self.arm(now, out);
    }

    /// Starts what can be started at a site.
    pub(crate) fn dispatch(&mut self, ix: SiteIx, now: Now, out: &mut Vec<Effect>) {
        while self.sites[ix].ready > 0 {
            if self.sites[ix].idle > 0 {
                self.sites[ix].idle -= 1;
                self.deliver(ix, Stage::OnOpen, out);
                continue;
            }
            let site = &self.sites[ix];
            match site.connect(now.mono) {
                Connect::Wait => return,
                Connect::Suspended if site.answering >= ANSWERS_MAX => return,
                Connect::Suspended => self.answer(ix, out),
                Connect::Yes if site.slots >= self.limits.connections_per_site.max(1) => return,
                Connect::Yes => {
                    if !self.find_slot(ix, out) {
                        return;
                    }
                    let site = &mut self.sites[ix];
                    site.health.probing = site.health.failures > 0;
                    self.busy_sites += usize::from(site.slots == 0);
                    site.slots += 1;
                    self.slots += 1;
                    self.deliver(ix, Stage::OnNew, out);
                }
            }
        }
    }

    /// Whether there is a connection left for this site; if not, an idle one elsewhere is closed for it, or it stands in
    /// line.
    fn find_slot(&mut self, ix: SiteIx, out: &mut Vec<Effect>) -> bool {
        if self.slots < self.limits.connections_total.max(1) {
            return true;
        }
        while let Some(other) = self.idle_sites.pop_front() {
            let Some(site) = self.sites.get_mut(other) else { continue };
            site.idle_listed = false;
            if site.idle == 0 {
                continue;
            }
            site.idle -= 1;
            if site.idle > 0 {
                site.idle_listed = true;
                self.idle_sites.push_back(other);
            }
            out.push(Effect::CloseIdle { site: self.sites[other].key.clone() });
            self.take_slot_away(other, true);
            self.drop_site_if_unused(other);
            return true;
        }
        let site = &mut self.sites[ix];
        if !site.starved {
            site.starved = true;
            self.starved.push_back(ix);
        }
        false
    }

    /// Of the connections, how many a site may keep while others wait for one.
    fn fair_share(&self) -> usize {
        if self.starved.is_empty() {
            return usize::MAX;
        }
        (self.limits.connections_total / (self.busy_sites + self.starved.len()).max(1)).max(1)
    }

    fn deliver(&mut self, ix: SiteIx, stage: Stage, out: &mut Vec<Effect>) {
        let Some(id) = self.pop_ready(ix, stage) else { return };
        let queue = self.queues[self.entries[&id].queue].key.clone();
        out.push(Effect::Deliver { id, queue, on_open: stage == Stage::OnOpen });
    }

    fn answer(&mut self, ix: SiteIx, out: &mut Vec<Effect>) {
        let Some(outcome) = self.sites[ix].health.failure.clone() else { return };
        let Some(id) = self.pop_ready(ix, Stage::Answered) else { return };
        self.sites[ix].answering += 1;
        let queue = self.queues[self.entries[&id].queue].key.clone();
        out.push(Effect::Answer { id, queue, outcome });
    }

    /// The delivery whose turn it is at the site: stream, then organisation, then queue, then age.
    fn pop_ready(&mut self, ix: SiteIx, stage: Stage) -> Option<DeliveryId> {
        loop {
            let site = &mut self.sites[ix];
            let lane = site.lane(self.limits.bulk_turn)?;
            let turn_ix = site.lanes[lane].pop_front()?;
            let turn = &mut self.turns[turn_ix];
            let queue_ix = turn.queues.pop_front();
            let id = queue_ix.and_then(|q| self.queues[q].ready.pop_front());
            if let Some(q) = queue_ix {
                let q_has_more = !self.queues[q].ready.is_empty();
                self.queues[q].listed = q_has_more;
                if q_has_more {
                    turn.queues.push_back(q);
                }
            }
            turn.listed = !turn.queues.is_empty();
            if turn.listed {
                site.lanes[lane_of(turn.key.2)].push_back(turn_ix);
            }
            // Emptied by `remove` while it stood in line: the next one.
            let (Some(id), Some(q)) = (id, queue_ix) else { continue };
            site.ready -= 1;
            self.queues[q].flying += 1;
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.stage = stage;
            }
            return Some(id);
        }
    }

    /// An operator wants the site tried now: a suspension ends early. The next connection is still a probe that the others
    /// wait for.
    pub fn lift(&mut self, site: &Destination, now: Now, out: &mut Vec<Effect>) {
        let Some(&ix) = self.site_by_key.get(site) else { return };
        let health = &mut self.sites[ix].health;
        if health.closed_until.is_some_and(|until| until > now.mono) {
            health.closed_until = Some(now.mono);
            self.dispatch(ix, now, out);
            self.arm(now, out);
        }
    }

    fn suspend(&mut self, ix: SiteIx, outcome: Arc<Outcome>, now: Now) {
        let seed = self.seed ^ (ix as u64);
        if let Some(until) = self.sites[ix].health.bad(outcome, now.mono, &self.limits, seed) {
            self.site_timers.insert((until, ix));
        }
    }

    /// The driver says that a delivery is finished without having said what became of the connection: it is gone, and
    /// tells nothing about the site.
    pub(crate) fn connection_lost(&mut self, id: DeliveryId, now: Now, out: &mut Vec<Effect>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let stage = std::mem::replace(&mut entry.stage, Stage::Settling);
        let ix = self.queues[entry.queue].site;
        if stage == Stage::Answered {
            self.sites[ix].answering -= 1;
            self.dispatch(ix, now, out);
        } else {
            self.sites[ix].health.probing &= stage != Stage::OnNew;
            self.slot_freed(ix, stage == Stage::OnOpen, now, out);
        }
    }

    /// A slot at the site is free again; whoever waits may have it.
    fn slot_freed(&mut self, ix: SiteIx, was_open: bool, now: Now, out: &mut Vec<Effect>) {
        self.take_slot_away(ix, was_open);
        // Those that stand in line come first, or this site would take it back at once.
        self.feed_starved(now, out);
        self.dispatch(ix, now, out);
        self.drop_site_if_unused(ix);
    }

    fn take_slot_away(&mut self, ix: SiteIx, was_open: bool) {
        let site = &mut self.sites[ix];
        site.slots -= 1;
        site.open -= usize::from(was_open);
        self.slots -= 1;
        self.busy_sites -= usize::from(site.slots == 0);
    }

    /// Gives connections to sites that stand in line for one, one each, as long as there are any.
    fn feed_starved(&mut self, now: Now, out: &mut Vec<Effect>) {
        for _ in 0..self.starved.len() {
            let Some(ix) = self.starved.pop_front() else { return };
            let Some(site) = self.sites.get_mut(ix) else { continue };
            site.starved = false;
            self.dispatch(ix, now, out);
            if self.starved.back() == Some(&ix) {
                // It found none, or wants more: nothing is left for the others.
                return;
            }
        }
    }

    /// Forgets a site that no queue and no connection refers to.
    pub(crate) fn drop_site_if_unused(&mut self, ix: SiteIx) {
        let Some(site) = self.sites.get(ix) else { return };
        if !site.is_unused() {
            return;
        }
        let site = self.sites.remove(ix);
        self.site_by_key.remove(&site.key);
        self.starved.retain(|&other| other != ix);
        self.idle_sites.retain(|&other| other != ix);
        self.site_timers.retain(|&(_, other)| other != ix);
    }
}
