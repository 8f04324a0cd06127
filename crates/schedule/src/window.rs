//! Windows: how much of each queue is in memory, when more of it is read from disk, and when it is forgotten.

use std::time::Duration;

use mail::{DeliveryId, Mono, QueueKey, Timestamp};

use crate::clock::Now;
use crate::effect::{Effect, Rest};
use crate::queue::{Page, QueueIx};
use crate::scheduler::Scheduler;

/// Due times further away than this are rounded up to the grain, so that rows which are due close together are paged
/// in together.
const GRAIN: Duration = Duration::from_millis(250);

/// How long to wait before a page that failed is asked for again.
const PAGE_AGAIN: Duration = Duration::from_secs(5);

/// Idle queues that are kept at most.
const IDLE_MAX: usize = 10_000;

impl Scheduler {
    /// A page has come: rows of the queue that were due, smallest (due, id) first, and what is left behind them.
    /// Returns those that were taken. The others are in memory already, or left it just now, or found no room; they
    /// stay on disk as they are, and the driver drops its copy.
    pub fn paged(
        &mut self,
        queue: &QueueKey,
        ids: Vec<DeliveryId>,
        rest: Rest,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Vec<DeliveryId> {
        let Some(&ix) = self.queue_by_key.get(queue) else { return Vec::new() };
        let Some(mut page) = self.end_page(ix) else { return Vec::new() };
        page.gone.sort_unstable();
        let mut full = false;
        let mut taken = ids;
        let mut places = page.places;
        taken.retain(|&id| {
            if page.gone.binary_search(&id).is_ok() || self.knows(id) {
                return false;
            }
            if places == 0 {
                full = true;
                return false;
            }
            places -= 1;
            self.make_ready(ix, id, true)
        });
        let q = &mut self.queues[ix];
        // What became due while the page was under way has set it already.
        q.backlog |= full || rest == Rest::Due;
        if let Rest::Later(due) = rest {
            self.waits_until(ix, due, now);
        }
        self.want_page(ix);
        self.dispatch(self.queues[ix].site, now, out);
        self.place_freed(ix, now, out);
        taken
    }

    /// The page could not be read. It is asked for again after a while.
    pub fn page_failed(&mut self, queue: &QueueKey, now: Now, out: &mut Vec<Effect>) {
        let Some(&ix) = self.queue_by_key.get(queue) else { return };
        if self.end_page(ix).is_none() {
            return;
        }
        self.queues[ix].backlog = true;
        self.page_again = Some(now.mono.plus(PAGE_AGAIN));
        self.want_page(ix);
        self.arm(now, out);
    }

    fn end_page(&mut self, ix: QueueIx) -> Option<Page> {
        let page = self.queues[ix].page.take()?;
        self.held -= page.places;
        self.pages -= 1;
        Some(page)
    }

    /// A row of this queue waits on disk until `due`.
    pub(crate) fn waits_until(&mut self, ix: QueueIx, due: Timestamp, now: Now) {
        let q = &mut self.queues[ix];
        q.idle_since = None;
        if due <= now.wall {
            // A page under way may have missed it: another one follows.
            q.backlog = true;
            self.want_page(ix);
            return;
        }
        let due = if due.since(now.wall) > GRAIN * 4 { rounded_up(due) } else { due };
        if q.due.is_none_or(|earliest| due < earliest) {
            if let Some(earliest) = q.due.replace(due) {
                self.dues.remove(&(earliest, ix));
            }
            self.dues.insert((due, ix));
        }
    }

    /// How many places a queue's window has now: the configured number, or a quarter of what is free in all, but one as
    /// long as anything is.
    pub(crate) fn allowance(&self) -> usize {
        let free = self.limits.active_total.saturating_sub(self.held);
        if free == 0 { 0 } else { self.limits.window.min((free / 4).max(1)) }
    }

    /// Puts a queue in line for a page if it has rows on disk and half of its window is free. Smaller pages would read
    /// a row at a time.
    pub(crate) fn want_page(&mut self, ix: QueueIx) {
        let allowance = self.allowance();
        let q = &mut self.queues[ix];
        if q.hungry || !q.backlog || q.page.is_some() {
            return;
        }
        let held = q.held();
        if held == 0 || held * 2 <= allowance {
            q.hungry = true;
            self.hungry.push_back(ix);
        }
    }

    /// Asks for pages, as long as there is room in memory and not too many are under way.
    pub(crate) fn feed(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.page_again.is_some_and(|at| at > now.mono) {
            return;
        }
        while self.pages < self.limits.pages.max(1) {
            let allowance = self.allowance();
            if allowance == 0 {
                return;
            }
            let Some(ix) = self.hungry.pop_front() else { return };
            let q = &mut self.queues[ix];
            q.hungry = false;
            // Half of the window is left for what comes meanwhile.
            let places = allowance.saturating_sub(q.held()).min(allowance.div_ceil(2));
            if !q.backlog || q.page.is_some() || places == 0 {
                // When what it holds is done, it comes back: `place_freed`.
                continue;
            }
            q.backlog = false;
            q.page = Some(Page { places, ..Page::default() });
            self.held += places;
            self.pages += 1;
            out.push(Effect::Page { queue: q.key.clone(), n: places + q.from_disk });
        }
    }

    /// Something left the queue's window.
    pub(crate) fn place_freed(&mut self, ix: QueueIx, now: Now, out: &mut Vec<Effect>) {
        self.want_page(ix);
        self.feed(now, out);
        self.seen = self.seen.max(now.mono);
        self.note_idle(ix);
        self.arm(now, out);
    }

    /// Puts a queue with nothing in it in line for eviction.
    pub(crate) fn note_idle(&mut self, ix: QueueIx) {
        let q = &mut self.queues[ix];
        if !q.is_idle() {
            return;
        }
        q.idle_since = Some(self.seen);
        if !q.idle_listed {
            q.idle_listed = true;
            self.idle_queues.push_back(ix);
        }
    }

    /// When the queue that has been idle longest may be evicted.
    pub(crate) fn next_eviction(&self) -> Option<Mono> {
        let first = *self.idle_queues.front()?;
        Some(self.queues[first].idle_since.unwrap_or(self.seen).plus(self.limits.idle))
    }

    /// Forgets queues that have been idle for long, or are too many.
    pub(crate) fn evict(&mut self, now: Mono) {
        for _ in 0..self.idle_queues.len() {
            let Some(ix) = self.idle_queues.pop_front() else { return };
            let over = self.idle_queues.len() >= IDLE_MAX;
            let q = &mut self.queues[ix];
            q.idle_listed = false;
            let Some(since) = q.idle_since.filter(|_| q.is_idle()) else { continue };
            if !over && now.since(since) < self.limits.idle {
                // Used again since it was put in line: it lines up anew.
                q.idle_listed = true;
                self.idle_queues.push_back(ix);
                continue;
            }
            self.drop_queue(ix);
        }
    }

    fn drop_queue(&mut self, ix: QueueIx) {
        if self.queues[ix].hungry {
            self.hungry.retain(|&other| other != ix);
        }
        if self.queues[ix].listed {
            // Emptied by `remove` while it stood in the round robin.
            let turn = &mut self.turns[self.queues[ix].turn];
            turn.queues.retain(|&other| other != ix);
        }
        let q = self.queues.remove(ix);
        self.queue_by_key.remove(&q.key);
        let turn = &mut self.turns[q.turn];
        turn.members -= 1;
        let site = &mut self.sites[q.site];
        site.queues -= 1;
        if turn.members == 0 {
            if turn.listed {
                site.lanes.iter_mut().for_each(|lane| lane.retain(|&other| other != q.turn));
            }
            let turn = self.turns.remove(q.turn);
            self.turn_by_key.remove(&turn.key);
        }
        self.drop_site_if_unused(q.site);
    }
}

fn rounded_up(due: Timestamp) -> Timestamp {
    let grain = i64::try_from(GRAIN.as_millis()).unwrap_or(1);
    let over = due.millis().rem_euclid(grain);
    if over == 0 { due } else { Timestamp(due.millis().saturating_add(grain - over)) }
}
