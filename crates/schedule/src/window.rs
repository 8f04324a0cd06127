//! Windows: how much of each queue is in memory, and when more of it is read from disk.

use std::time::Duration;

use mail::{DeliveryId, QueueKey, Timestamp};

use crate::clock::Now;
use crate::effect::{Effect, Item, Rest};
use crate::queue::{Page, QueueIx};
use crate::scheduler::Scheduler;

/// Due times further away than this are rounded up to the grain, so that rows which are due close together are paged
/// in together.
pub(crate) const GRAIN: Duration = Duration::from_millis(250);

/// How long to wait before a page that failed is asked for again.
const PAGE_AGAIN: Duration = Duration::from_secs(5);

/// How long to wait before a queue is read again whose due rows are all in the hands of other nodes.
const EMPTY_AGAIN: Duration = Duration::from_secs(2);

impl Scheduler {
    /// A page has come: rows of the queue that were due, smallest (due, id) first, and what is left behind them.
    /// Returns those that were taken. The others are in memory already, or left it just now, or found no room; they
    /// stay on disk as they are, and the driver drops its copy.
    pub fn paged(
        &mut self,
        queue: &QueueKey,
        items: Vec<Item>,
        rest: Rest,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Vec<DeliveryId> {
        self.seen = self.seen.max(now.mono);
        let Some(&ix) = self.queue_by_key.get(queue) else { return Vec::new() };
        let Some(mut page) = self.end_page(ix) else { return Vec::new() };
        page.gone.sort_unstable();
        let mut full = false;
        let mut taken = Vec::with_capacity(items.len().min(page.places));
        let mut places = page.places;
        for item in items {
            if page.gone.binary_search(&item.id).is_ok() || self.knows(item.id) {
                continue;
            }
            if places == 0 {
                full = true;
                break;
            }
            places -= 1;
            if self.make_ready(ix, &item, true, now, out) {
                taken.push(item.id);
            }
        }
        // It brought nothing, and none of what it showed was here meanwhile: what is due there is in another node's hands.
        // Asking at once would bring the same.
        let is_others = taken.is_empty() && page.gone.is_empty() && !full;
        let rest = match rest {
            Rest::Due if is_others => Rest::Later(now.wall.plus(EMPTY_AGAIN)),
            Rest::Later(due) if is_others && due <= now.wall => Rest::Later(now.wall.plus(EMPTY_AGAIN)),
            rest => rest,
        };
        let q = &mut self.queues[ix];
        // What became due while the page was under way has set it already.
        q.backlog |= full || rest == Rest::Due;
        if !q.backlog {
            q.since = Timestamp(i64::MAX);
        }
        if let Rest::Later(due) = rest {
            self.waits_until(ix, due, now);
        }
        self.want_page(ix);
        self.dispatch_queue(ix, now, out);
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
        self.note_idle(ix);
        self.arm(now, out);
    }

    fn end_page(&mut self, ix: QueueIx) -> Option<Page> {
        let page = *self.queues[ix].page.take()?;
        self.give_places(ix, page.places);
        self.pages -= 1;
        Some(page)
    }

    /// A row of this queue waits on disk until `due`.
    pub(crate) fn waits_until(&mut self, ix: QueueIx, due: Timestamp, now: Now) {
        self.busy(ix);
        if due <= now.wall {
            // A page under way may have missed it: another one follows.
            self.is_due(ix, due);
            return;
        }
        let due = if due.since(now.wall) > GRAIN * 4 { rounded_up(due) } else { due };
        let q = &mut self.queues[ix];
        if q.due.is_none_or(|earliest| due < earliest) {
            if let Some(earliest) = q.due.replace(due) {
                self.dues.remove(&(earliest, ix));
            }
            self.dues.insert((due, ix));
        }
        self.note_idle(ix);
    }

    /// Rows of this queue are due since then.
    pub(crate) fn is_due(&mut self, ix: QueueIx, since: Timestamp) {
        let q = &mut self.queues[ix];
        q.backlog = true;
        q.since = q.since.min(since);
        if q.dest == crate::queue::NONE {
            self.look_at_unattached(ix);
        }
        self.want_page(ix);
        self.note_idle(ix);
    }

    /// How many places the window of a queue has now: the configured number, or a quarter of what is free in all and of what
    /// is free to its organisation (three quarters of all), but one as long as anything is.
    pub(crate) fn allowance(&self, ix: QueueIx) -> usize {
        let limits = &self.policy.limits;
        let free = limits.active_total.saturating_sub(self.held);
        if free == 0 {
            return 0;
        }
        let own = (limits.active_total / 4 * 3).saturating_sub(self.orgs[self.queues[ix].org].held);
        limits.window.min((free.min(own) / 4).max(1))
    }

    /// Puts a queue in line for a page if it has rows on disk and half of its window is free. Smaller pages would read
    /// a row at a time.
    pub(crate) fn want_page(&mut self, ix: QueueIx) {
        let allowance = self.allowance(ix);
        let q = &mut self.queues[ix];
        if q.hungry || !q.backlog || q.page.is_some() || q.suspended.is_some() {
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
        while self.pages < self.policy.limits.pages.max(1) {
            if self.held >= self.policy.limits.active_total {
                return;
            }
            let Some(ix) = self.hungry.pop_front() else { return };
            let allowance = self.allowance(ix);
            let q = &mut self.queues[ix];
            q.hungry = false;
            // Half of the window is left for what comes meanwhile.
            let places = allowance.saturating_sub(q.held()).min(allowance.div_ceil(2));
            if !q.backlog || q.page.is_some() || places == 0 || q.suspended.is_some() {
                // When what it holds is done, it comes back: `place_freed`.
                continue;
            }
            q.backlog = false;
            q.page = Some(Box::new(Page { places, ..Page::default() }));
            let n = places + q.from_disk as usize;
            out.push(Effect::Page { queue: q.key.clone(), n });
            self.take_places(ix, places);
            self.pages += 1;
        }
    }

    /// Something left the queue's window.
    pub(crate) fn place_freed(&mut self, ix: QueueIx, now: Now, out: &mut Vec<Effect>) {
        self.want_page(ix);
        self.feed(now, out);
        self.seen = self.seen.max(now.mono);
        self.note_idle(ix);
        self.ask(now, out);
        self.arm(now, out);
    }
}

fn rounded_up(due: Timestamp) -> Timestamp {
    let grain = i64::try_from(GRAIN.as_millis()).unwrap_or(1);
    let over = due.millis().rem_euclid(grain);
    if over == 0 { due } else { Timestamp(due.millis().saturating_add(grain - over)) }
}
