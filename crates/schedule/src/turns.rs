//! Whose turn it is at a site: stream, then organisation by deficit round robin, then queue, then age.

use mail::DeliveryId;

use crate::clock::Now;
use crate::effect::Effect;
use crate::meter::Gate;
use crate::queue::{Entry, QueueIx, Stage};
use crate::scheduler::Scheduler;
use crate::share::ShareIx;
use crate::site::{GroupIx, TurnIx, lane_of};
use crate::timer::Timer;

/// What each visit adds to an organisation's credit: one message to one recipient ([`crate::Item::cost`]).
const QUANTUM: i32 = 10;

/// Deliveries of a credential that is over its ceiling that wait in memory; further ones get a time of their own on disk.
const ASIDE_MAX: usize = 32;

/// Deliveries that are put back in one search; the rest follows in the next.
const PUT_BACK_MAX: usize = 100;

/// The delivery whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) id: DeliveryId,
    turn: TurnIx,
    queue: QueueIx,
    lane: usize,
}

/// What becomes of a delivery whose credential is over its ceiling.
enum OverCeiling {
    No,
    SetAside,
    PutBack,
}

impl Scheduler {
    /// Puts a queue with something ready into its organisation's round robin, and that into its lane.
    pub(crate) fn list(&mut self, ix: QueueIx) {
        let q = &mut self.queues[ix];
        if q.listed || q.blocked || q.ready.is_empty() || q.turn == crate::queue::NONE {
            return;
        }
        q.listed = true;
        let (turn_ix, turn) = (q.turn, &mut self.turns[q.turn]);
        turn.queues.push_back(ix);
        if !turn.listed && !turn.blocked {
            turn.listed = true;
            self.groups[turn.group].lanes[lane_of(turn.stream)].push_back(turn_ix);
        }
    }

    /// The delivery whose turn it is in a group. Those that may not go yet, because of a ceiling, step aside on the way.
    pub(crate) fn head(&mut self, group: GroupIx, now: Now, out: &mut Vec<Effect>) -> Option<Head> {
        let mut put_back = 0;
        loop {
            let lane = self.groups[group].lane(self.policy.limits.bulk_turn)?;
            let turn_ix = *self.groups[group].lanes[lane].front()?;
            let org = self.turns[turn_ix].org;
            match self.orgs[org].meter.gate(&self.shares, now.mono) {
                Gate::Open => {}
                gate => {
                    self.block_turn(group, lane, turn_ix, gate, now);
                    continue;
                }
            }
            let turn = &mut self.turns[turn_ix];
            let Some(&queue) = turn.queues.front() else {
                turn.listed = false;
                turn.credit = turn.credit.min(0);
                self.groups[group].lanes[lane].pop_front();
                continue;
            };
            let Some(&id) = self.queues[queue].ready.front() else {
                turn.queues.pop_front();
                self.queues[queue].listed = false;
                continue;
            };
            if turn.credit <= 0 {
                turn.credit += QUANTUM;
                if turn.credit <= 0 {
                    self.groups[group].lanes[lane].rotate_left(1);
                    continue;
                }
            }
            if self.is_blocked_by_route(turn_ix, queue, now) {
                continue;
            }
            match self.over_ceiling(id, queue, now) {
                OverCeiling::No => return Some(Head { id, turn: turn_ix, queue, lane }),
                OverCeiling::SetAside => self.set_aside(group, queue),
                OverCeiling::PutBack => {
                    self.put_back(group, queue, now, out);
                    put_back += 1;
                    if put_back == PUT_BACK_MAX {
                        let path = self.groups[group].members[0].path;
                        self.set_timer(Timer::Path(path), now.mono);
                        return None;
                    }
                }
            }
        }
    }

    /// The head goes: it leaves its line, and its organisation pays for it.
    pub(crate) fn take(&mut self, head: Head, path: usize, stage: Stage, now: Now) {
        let Head { id, turn: turn_ix, queue, lane } = head;
        let q = &mut self.queues[queue];
        q.ready.pop_front();
        q.flying += 1;
        let has_more = !q.ready.is_empty();
        q.listed = has_more;
        let turn = &mut self.turns[turn_ix];
        turn.queues.pop_front();
        if has_more {
            turn.queues.push_back(queue);
        }
        let group = &mut self.groups[turn.group];
        group.ready -= 1;
        group.count(lane);
        if let Some(entry) = self.entries.get_mut(&id) {
            (entry.stage, entry.path, entry.began) = (stage, path, now.mono);
            turn.credit -= i32::from(entry.cost);
        }
        if turn.queues.is_empty() {
            turn.listed = false;
            turn.credit = turn.credit.min(0);
            group.lanes[lane].pop_front();
        } else if turn.credit <= 0 {
            group.lanes[lane].rotate_left(1);
        }
    }

    /// What a closed gate waits for: a moment, or a loan. A rate that holds somebody up is one to borrow more of.
    fn wait_for(&mut self, gate: Gate, sending: ShareIx, timer: Timer, now: Now) {
        match gate {
            Gate::Until(at) => {
                self.set_timer(timer, at);
                self.shares.want(sending, now.mono);
            }
            Gate::Lent(share) => self.shares.want(share, now.mono),
            Gate::Open | Gate::Full(_) => {}
        }
    }

    fn block_turn(&mut self, group: GroupIx, lane: usize, turn_ix: TurnIx, gate: Gate, now: Now) {
        self.groups[group].lanes[lane].pop_front();
        let turn = &mut self.turns[turn_ix];
        (turn.listed, turn.blocked) = (false, true);
        let org = turn.org;
        self.orgs[org].blocked.push_back(turn_ix);
        self.wait_for(gate, self.orgs[org].meter.sending, Timer::Org(org), now);
    }

    fn is_blocked_by_route(&mut self, turn: TurnIx, queue: QueueIx, now: Now) -> bool {
        let dest = self.queues[queue].dest;
        let gate = self.dests[dest].meter.gate(&self.shares, now.mono);
        if gate == Gate::Open {
            return false;
        }
        self.turns[turn].queues.pop_front();
        (self.queues[queue].listed, self.queues[queue].blocked) = (false, true);
        self.dests[dest].blocked.push_back(queue);
        self.wait_for(gate, self.dests[dest].meter.sending, Timer::Dest(dest), now);
        true
    }

    fn over_ceiling(&mut self, id: DeliveryId, queue: QueueIx, now: Now) -> OverCeiling {
        let Some(credential) = self.entries.get(&id).and_then(|e| self.credentials.get_mut(e.credential))
        else {
            return OverCeiling::No;
        };
        let gate = credential.meter.gate(&self.shares, now.mono);
        if gate == Gate::Open {
            return OverCeiling::No;
        }
        let places = (self.policy.limits.window / 4).max(1);
        if credential.aside.len() >= ASIDE_MAX || self.queues[queue].aside as usize >= places {
            return OverCeiling::PutBack;
        }
        let ix = self.entries[&id].credential;
        self.wait_for(gate, self.credentials[ix].meter.sending, Timer::Credential(ix), now);
        OverCeiling::SetAside
    }

    /// The first of the queue waits for its credential; nobody waits behind it.
    fn set_aside(&mut self, group: GroupIx, queue: QueueIx) {
        let q = &mut self.queues[queue];
        let Some(id) = q.ready.pop_front() else { return };
        q.aside += 1;
        self.groups[group].ready -= 1;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stage = Stage::Aside;
            self.credentials[entry.credential].aside.push_back(id);
        }
    }

    /// The first of the queue gets a time of its own on disk.
    fn put_back(&mut self, group: GroupIx, queue: QueueIx, now: Now, out: &mut Vec<Effect>) {
        let q = &mut self.queues[queue];
        let Some(id) = q.ready.pop_front() else { return };
        q.flying += 1;
        self.groups[group].ready -= 1;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.stage = Stage::Settling;
        let credential = &mut self.credentials[entry.credential];
        let (before, took) = (credential.aside.len(), credential.took);
        let due = now.wall_at(credential.meter.book(&self.shares, before, took, now.mono));
        self.revision += 1;
        out.push(Effect::PutBack { id, queue: self.queues[queue].key.clone(), due });
    }

    /// Somebody starts: those whose ceilings count it are told.
    pub(crate) fn meters_start(&mut self, entry: Entry, now: Now) {
        let q = &self.queues[entry.queue];
        self.orgs[q.org].meter.start(&mut self.shares, now.mono);
        self.dests[q.dest].meter.start(&mut self.shares, now.mono);
        if let Some(credential) = self.credentials.get_mut(entry.credential) {
            credential.meter.start(&mut self.shares, now.mono);
            self.revision += 1;
        }
    }

    /// It is over: others may go in its place.
    pub(crate) fn meters_end(&mut self, entry: Entry, now: Now, out: &mut Vec<Effect>) {
        let q = &self.queues[entry.queue];
        let (org, dest) = (q.org, q.dest);
        self.orgs[org].meter.end(&mut self.shares, now.mono);
        self.dests[dest].meter.end(&mut self.shares, now.mono);
        if let Some(credential) = self.credentials.get_mut(entry.credential) {
            credential.meter.end(&mut self.shares, now.mono);
            credential.took = (credential.took * 7 + now.mono.since(entry.began)) / 8;
            self.credential_opened(entry.credential, now, out);
        }
        if !self.orgs[org].blocked.is_empty() {
            self.org_opened(org, now, out);
        }
        if !self.dests[dest].blocked.is_empty() {
            self.dest_opened(dest, now, out);
        }
    }

    /// An organisation may send again: its turns go back in line, one after the other as long as it may.
    pub(crate) fn org_opened(&mut self, ix: usize, now: Now, out: &mut Vec<Effect>) {
        while let Some(org) = self.orgs.get_mut(ix) {
            match org.meter.gate(&self.shares, now.mono) {
                Gate::Open => {}
                _ if org.blocked.is_empty() => return,
                gate => {
                    let sending = org.meter.sending;
                    return self.wait_for(gate, sending, Timer::Org(ix), now);
                }
            }
            let Some(turn_ix) = org.blocked.pop_front() else { return };
            let Some(turn) = self.turns.get_mut(turn_ix).filter(|turn| turn.blocked) else { continue };
            turn.blocked = false;
            let group = turn.group;
            if !turn.queues.is_empty() {
                turn.listed = true;
                self.groups[group].lanes[lane_of(turn.stream)].push_back(turn_ix);
            }
            self.dispatch(self.groups[group].site, now, out);
        }
    }

    /// More may go to a destination: its queues go back in line.
    pub(crate) fn dest_opened(&mut self, ix: usize, now: Now, out: &mut Vec<Effect>) {
        while let Some(dest) = self.dests.get_mut(ix) {
            match dest.meter.gate(&self.shares, now.mono) {
                Gate::Open => {}
                _ if dest.blocked.is_empty() => return,
                gate => {
                    let sending = dest.meter.sending;
                    return self.wait_for(gate, sending, Timer::Dest(ix), now);
                }
            }
            let Some(queue) = dest.blocked.pop_front() else { return };
            self.queues[queue].blocked = false;
            self.list(queue);
            self.dispatch_queue(queue, now, out);
        }
    }

    /// A credential may send again: what was set aside goes back to the head of its queue.
    pub(crate) fn credential_opened(&mut self, ix: usize, now: Now, out: &mut Vec<Effect>) {
        // Once through those that wait: one that can't go for another reason waits in its queue.
        for _ in 0..self.credentials[ix].aside.len() {
            let credential = &mut self.credentials[ix];
            match credential.meter.gate(&self.shares, now.mono) {
                Gate::Open => {}
                gate => {
                    let sending = credential.meter.sending;
                    return self.wait_for(gate, sending, Timer::Credential(ix), now);
                }
            }
            let Some(id) = credential.aside.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.stage = Stage::Ready;
            let queue = entry.queue;
            let q = &mut self.queues[queue];
            q.aside -= 1;
            q.ready.push_front(id);
            if q.turn != crate::queue::NONE {
                self.groups[self.turns[q.turn].group].ready += 1;
                self.list(queue);
                self.dispatch_queue(queue, now, out);
            }
        }
    }
}
