//! Bounded memory: which queues are known, which are forgotten, and when the store is asked for them again.
//!
//! Up to the *horizon*, a moment, every queue that has a row due is known. What is due behind it is on disk, and the store is
//! asked for it when the horizon has come near and there is room. A queue with nothing in memory whose rows are all due
//! behind the horizon needs no state. When there is no room for a newcomer, who brings mail, the horizon is drawn in: the queue that is
//! due last is forgotten, or one that waits for a page.

use std::time::Duration;

use mail::{Mono, QueueKey, Timestamp};

use crate::clock::Now;
use crate::effect::Effect;
use crate::queue::QueueIx;
use crate::scheduler::Scheduler;
use crate::window::GRAIN;

/// How long to wait before the store is asked again after it failed.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// How long to wait when the answer brought nothing new.
const NO_ROOM: Duration = Duration::from_secs(1);

/// So many queues are asked for at a time when the store is asked again: only what is due has to be known.
const LOOK_AGAIN: usize = 1000;

/// So many queues in line for a page are looked at for one to forget.
const LOOK_AT: usize = 32;

impl Scheduler {
    /// The store's answer to [`Effect::Horizon`]: queues with the time at which something in them is due, earliest first, and up to
    /// which time there are no others.
    pub fn horizon(
        &mut self,
        found: Vec<(QueueKey, Timestamp)>,
        complete_until: Timestamp,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.seen = self.seen.max(now.mono);
        let mut until = complete_until;
        for (key, due) in found {
            let ix = match self.queue_by_key.get(&key).copied() {
                Some(ix) => ix,
                None if !self.stops.is_empty() && self.is_suspended(&key, None) => {
                    self.forgot_suspended = true;
                    continue;
                }
                None if self.has_room() => self.insert_queue(&key),
                None => {
                    until = until.min(before(due));
                    break;
                }
            };
            self.waits_until(ix, due, now);
        }
        self.asking = false;
        let asked = self.horizon;
        self.horizon = until.min(self.missed);
        self.missed = Timestamp(i64::MAX);
        self.again &= self.horizon <= now.wall;
        if self.horizon <= asked {
            // No room for what is due next: asking again at once would bring the same.
            self.ask_again = Some(now.mono.plus(NO_ROOM));
        }
        self.feed(now, out);
        self.ask(now, out);
        self.arm(now, out);
    }

    /// The store could not answer. It is asked again after a while.
    pub fn horizon_failed(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.asking = false;
        self.horizon = self.horizon.min(self.missed);
        self.missed = Timestamp(i64::MAX);
        self.ask_again = Some(now.mono.plus(ASK_AGAIN));
        self.arm(now, out);
    }

    /// In a cluster others put mail into the store, and give theirs back: asks the store anew what is due, from the beginning.
    /// What is in memory stays there. To be said every few seconds, and when a node is gone.
    pub fn look_again(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.seen = self.seen.max(now.mono);
        self.again = true;
        self.lower_horizon(Timestamp(i64::MIN));
        self.ask(now, out);
        self.arm(now, out);
    }

    /// Asks the store what lies behind the horizon, when that has come and there is room for the answer.
    pub(crate) fn ask(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.wants_more() || self.horizon > now.wall || self.ask_again.is_some_and(|at| at > now.mono) {
            return;
        }
        self.asking = true;
        let most = self.policy.limits.queues.max(1);
        let n = if self.again { most.min(LOOK_AGAIN) } else { most };
        out.push(Effect::Horizon { after: self.horizon, n });
    }

    /// When the store is to be asked.
    pub(crate) fn next_ask(&self, now: Now) -> Option<Mono> {
        let at = self.wants_more().then(|| now.mono_at(self.horizon))?;
        Some(self.ask_again.map_or(at, |again| at.max(again)))
    }

    /// Whether something is behind the horizon, and there is room for a good part of it.
    fn wants_more(&self) -> bool {
        let busy = self.queues.len() - self.idle;
        !self.asking && self.horizon < Timestamp(i64::MAX) && busy <= self.policy.limits.queues / 4 * 3
    }

    /// A row waits in a queue whose state is not in memory.
    pub(crate) fn waits_unknown(&mut self, key: &QueueKey, due: Timestamp, now: Now) {
        if due > self.horizon && !self.asking {
            return;
        }
        if !self.stops.is_empty() && self.is_suspended(key, None) {
            self.forgot_suspended = true;
            return;
        }
        let ix = if due > now.wall {
            self.has_room().then(|| self.insert_queue(key))
        } else {
            self.make_queue(key)
        };
        match ix {
            Some(ix) => self.waits_until(ix, due, now),
            None => self.lower_horizon(before(due)),
        }
    }

    /// The state of a queue that brings mail; another one may have to be forgotten for it. None when that is not possible.
    pub(crate) fn make_queue(&mut self, key: &QueueKey) -> Option<QueueIx> {
        let fits = self.has_room() || self.forget_last_due() || self.forget_hungry();
        fits.then(|| self.insert_queue(key))
    }

    /// Whether one more queue fits; one with nothing in it may be forgotten for it.
    fn has_room(&mut self) -> bool {
        let most = self.policy.limits.queues.max(1);
        while self.queues.len() >= most {
            let Some(ix) = self.idle_queues.pop_front() else { return false };
            self.queues[ix].idle_listed = false;
            if self.is_idle(ix) {
                self.drop_queue(ix);
            } else {
                self.busy(ix);
            }
        }
        true
    }

    /// Forgets the queue that is due last.
    fn forget_last_due(&mut self) -> bool {
        let last = self.dues.iter().rev().take(LOOK_AT).copied().find(|&(_, ix)| {
            let q = &self.queues[ix];
            q.is_empty() && !q.backlog
        });
        let Some((due, ix)) = last else { return false };
        self.lower_horizon(before(due));
        self.unlist_idle(ix);
        self.drop_queue(ix);
        true
    }

    /// Forgets a queue that waits for a page, from the end of the line.
    fn forget_hungry(&mut self) -> bool {
        let back = self.hungry.iter().rev().take(LOOK_AT).position(|&ix| self.queues[ix].is_empty());
        let Some(back) = back else { return false };
        let Some(ix) = self.hungry.remove(self.hungry.len() - 1 - back) else { return false };
        self.queues[ix].hungry = false;
        let q = &self.queues[ix];
        self.lower_horizon(before(q.due.map_or(q.since, |due| due.min(q.since))));
        self.unlist_idle(ix);
        self.drop_queue(ix);
        true
    }

    /// Only up to here is every queue known.
    pub(crate) fn lower_horizon(&mut self, to: Timestamp) {
        self.horizon = self.horizon.min(to);
        if self.asking {
            self.missed = self.missed.min(to);
        }
    }

    /// Whether the queue's state can be forgotten without asking anybody.
    fn is_idle(&self, ix: QueueIx) -> bool {
        let q = &self.queues[ix];
        let is_known = || !q.backlog && q.due.is_none_or(|due| before(due) >= self.horizon);
        q.is_empty() && (q.suspended.is_some() || is_known())
    }

    /// Puts a queue that can be forgotten in line for it.
    pub(crate) fn note_idle(&mut self, ix: QueueIx) {
        if !self.is_idle(ix) {
            return self.busy(ix);
        }
        let q = &mut self.queues[ix];
        if q.idle_since.is_none() {
            q.idle_since = Some(self.seen);
            self.idle += 1;
        }
        if !q.idle_listed {
            q.idle_listed = true;
            self.idle_queues.push_back(ix);
        }
    }

    /// The queue can't be forgotten.
    pub(crate) fn busy(&mut self, ix: QueueIx) {
        if self.queues[ix].idle_since.take().is_some() {
            self.idle -= 1;
        }
    }

    fn unlist_idle(&mut self, ix: QueueIx) {
        if self.queues[ix].idle_listed {
            self.queues[ix].idle_listed = false;
            self.idle_queues.retain(|&other| other != ix);
        }
    }

    /// When something may be forgotten that has been idle long enough.
    pub(crate) fn next_eviction(&self) -> Option<Mono> {
        let limits = &self.policy.limits;
        let queue = self.idle_queues.front().map(|&first| {
            let since = self.queues[first].idle_since.unwrap_or(self.seen);
            since.plus(limits.idle)
        });
        let site = self.unused.front().map(|&(since, _)| since.plus(limits.remember));
        queue.into_iter().chain(site).min()
    }

    /// Forgets queues that have been idle for long or are too many, and what was learned of sites long ago.
    pub(crate) fn evict(&mut self, now: Mono) {
        for _ in 0..self.idle_queues.len() {
            let Some(&ix) = self.idle_queues.front() else { break };
            let since = self.queues[ix].idle_since;
            let is_over = self.queues.len() > self.policy.limits.queues;
            if since.is_some_and(|since| now.since(since) < self.policy.limits.idle) && !is_over {
                // In the order in which they became idle, or later: the others are not over either.
                break;
            }
            self.idle_queues.pop_front();
            self.queues[ix].idle_listed = false;
            if self.is_idle(ix) {
                self.drop_queue(ix);
            } else {
                self.busy(ix);
            }
        }
        while let Some(&(since, ix)) = self.unused.front() {
            let too_many = self.unused.len() > self.policy.limits.sites;
            if now.since(since) < self.policy.limits.remember && !too_many {
                break;
            }
            self.unused.pop_front();
            if self.sites.get(ix).is_some_and(|site| site.unused_since == Some(since)) {
                self.drop_site(ix);
            }
        }
        if self.restored.len() > self.policy.limits.sites
            || now.since(self.restored_at) > self.policy.limits.remember
        {
            self.restored.clear();
        }
    }
}

/// Just before the due time of a row; the scheduler's own is rounded up.
pub(crate) fn before(due: Timestamp) -> Timestamp {
    let grain = i64::try_from(GRAIN.as_millis()).unwrap_or(0);
    Timestamp(due.millis().saturating_sub(grain + 1))
}
