//! The scheduler's state, and what the driver tells it about deliveries.

use std::collections::{BTreeSet, HashMap, VecDeque};

use mail::{DeliveryId, Destination, Mono, OrgId, QueueKey, Stream, Timestamp};
use slab::Slab;

use crate::clock::Now;
use crate::effect::{Effect, Removed, Reservation};
use crate::limits::Limits;
use crate::queue::{Entry, Queue, QueueIx, Stage};
use crate::site::{Site, SiteIx, Turn, TurnIx, lane_of, site_of};

/// A wake-up is never further away than this: the wall clock may be set meanwhile.
const WAKE_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Says what to deliver next. One for the whole relay, behind the driver's lock; every call is quick: some hash
/// look-ups per message, and no call yields more effects than there are free slots, answers and pages.
///
/// All methods that can lead to effects append them to `out`.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) limits: Limits,
    pub(crate) seed: u64,
    pub(crate) queues: Slab<Queue>,
    pub(crate) queue_by_key: HashMap<QueueKey, QueueIx>,
    pub(crate) sites: Slab<Site>,
    pub(crate) site_by_key: HashMap<Destination, SiteIx>,
    pub(crate) turns: Slab<Turn>,
    pub(crate) turn_by_key: HashMap<(SiteIx, OrgId, Stream), TurnIx>,
    /// Every delivery in memory.
    pub(crate) entries: HashMap<DeliveryId, Entry>,
    /// Places taken in all windows.
    pub(crate) held: usize,
    /// Queues by the time their earliest row is due.
    pub(crate) dues: BTreeSet<(Timestamp, QueueIx)>,
    /// Queues that wait for their turn to be paged in.
    pub(crate) hungry: VecDeque<QueueIx>,
    /// Pages under way.
    pub(crate) pages: usize,
    /// When a page that failed is asked for again.
    pub(crate) page_again: Option<Mono>,
    /// Connections at all sites.
    pub(crate) slots: usize,
    /// Sites with at least one connection.
    pub(crate) busy_sites: usize,
    /// Sites that wait for a connection because all are taken.
    pub(crate) starved: VecDeque<SiteIx>,
    /// Sites that may have idle connections.
    pub(crate) idle_sites: VecDeque<SiteIx>,
    /// When suspended sites may be tried again.
    pub(crate) site_timers: BTreeSet<(Mono, SiteIx)>,
    /// Queues that may be evicted, by the time they became idle.
    pub(crate) idle_queues: VecDeque<QueueIx>,
    /// The wake-up that was asked for last.
    pub(crate) armed: Option<Mono>,
    /// The latest moment that an event told of.
    pub(crate) seen: Mono,
}

impl Scheduler {
    /// An empty scheduler. The same seed and events give the same effects.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            seed,
            queues: Slab::new(),
            queue_by_key: HashMap::new(),
            sites: Slab::new(),
            site_by_key: HashMap::new(),
            turns: Slab::new(),
            turn_by_key: HashMap::new(),
            entries: HashMap::new(),
            held: 0,
            dues: BTreeSet::new(),
            hungry: VecDeque::new(),
            pages: 0,
            page_again: None,
            slots: 0,
            busy_sites: 0,
            starved: VecDeque::new(),
            idle_sites: VecDeque::new(),
            site_timers: BTreeSet::new(),
            idle_queues: VecDeque::new(),
            armed: None,
            seen: Mono::default(),
        }
    }

    /// Takes new limits. What is over a smaller limit runs out by itself.
    pub fn configure(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Asks for a place in the queue's window, before admission. With more rows of the queue waiting on disk than a page
    /// under way brings, the answer is *parked*, so that mail leaves in the order in which it came, give or take a page.
    pub fn reserve(&mut self, queue: &QueueKey) -> Reservation {
        let ix = self.queue(queue);
        let q = &self.queues[ix];
        // A page under way alone is no reason: under load something would always arrive during it, and all mail would
        // go by way of the disk for ever after one hiccup.
        if q.backlog || q.held() >= self.allowance() {
            self.note_idle(ix);
            return Reservation::Parked;
        }
        self.queues[ix].reserved += 1;
        self.held += 1;
        Reservation::Active
    }

    /// Gives back an *active* reservation: the message was not admitted.
    pub fn cancel(&mut self, queue: &QueueKey, now: Now, out: &mut Vec<Effect>) {
        let ix = self.queue(queue);
        if self.queues[ix].reserved == 0 {
            return;
        }
        self.queues[ix].reserved -= 1;
        self.held -= 1;
        self.place_freed(ix, now, out);
    }

    /// A delivery with an *active* reservation is on disk. One without a reservation is taken as well: it is there.
    pub fn admitted(&mut self, queue: &QueueKey, id: DeliveryId, now: Now, out: &mut Vec<Effect>) {
        let ix = self.queue(queue);
        if self.queues[ix].reserved > 0 {
            self.queues[ix].reserved -= 1;
            self.held -= 1;
        }
        if self.make_ready(ix, id, false) {
            self.dispatch(self.queues[ix].site, now, out);
        }
        self.arm(now, out);
    }

    /// A row waits on disk until `due`: it was parked at admission, deferred in an earlier life of this process, released,
    /// told to be retried, or moved here from another queue. Also for each queue that the store knows of at the
    /// start, with the earliest due time in it.
    pub fn parked(&mut self, queue: &QueueKey, due: Timestamp, now: Now, out: &mut Vec<Effect>) {
        let ix = self.queue(queue);
        self.waits_until(ix, due, now);
        self.feed(now, out);
        self.arm(now, out);
    }

    /// The settlement of a delivery is committed: it is done, held, or deferred until then. Only now may it be
    /// forgotten; its row no longer shows as it was.
    pub fn finished(
        &mut self,
        id: DeliveryId,
        deferred_until: Option<Timestamp>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(stage) = self.entries.get(&id).map(|e| e.stage) else { return };
        match stage {
            Stage::Ready => self.unready(id),
            Stage::Settling => {}
            Stage::OnNew | Stage::OnOpen | Stage::Answered => self.connection_lost(id, now, out),
        }
        let Some(ix) = self.forget(id) else { return };
        if let Some(due) = deferred_until {
            self.waits_until(ix, due, now);
        }
        self.place_freed(ix, now, out);
    }

    /// An operator removed, held, rerouted or retried a delivery (the store has it already). A ready one is forgotten;
    /// the driver then says [`Scheduler::parked`] for where it waits now, if it does.
    pub fn remove(&mut self, queue: &QueueKey, id: DeliveryId, now: Now, out: &mut Vec<Effect>) -> Removed {
        match self.entries.get(&id).map(|e| e.stage) {
            Some(Stage::Ready) => {
                self.unready(id);
                if let Some(ix) = self.forget(id) {
                    self.place_freed(ix, now, out);
                }
                Removed::Gone
            }
            Some(_) => Removed::InFlight,
            None => {
                // A page under way may still show it.
                if let Some(&ix) = self.queue_by_key.get(queue) {
                    self.queues[ix].page.iter_mut().for_each(|page| page.gone.push(id));
                }
                Removed::Gone
            }
        }
    }

    /// Whether a delivery is in memory.
    pub fn knows(&self, id: DeliveryId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Time has passed. To be called when an [`Effect::Wake`] says, and whenever else the driver likes.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.armed = None;
        self.seen = self.seen.max(now.mono);
        while let Some(&(due, ix)) = self.dues.first() {
            if due > now.wall {
                break;
            }
            self.dues.pop_first();
            self.queues[ix].due = None;
            self.queues[ix].backlog = true;
            self.want_page(ix);
        }
        while let Some(&(until, ix)) = self.site_timers.first() {
            if until > now.mono {
                break;
            }
            self.site_timers.pop_first();
            if self.sites.contains(ix) {
                self.dispatch(ix, now, out);
            }
        }
        if self.page_again.is_some_and(|at| at <= now.mono) {
            self.page_again = None;
        }
        self.feed(now, out);
        self.evict(now.mono);
        self.arm(now, out);
    }

    /// Puts a delivery in line for a slot. False when it is in memory already.
    pub(crate) fn make_ready(&mut self, ix: QueueIx, id: DeliveryId, from_disk: bool) -> bool {
        let entry = Entry { queue: ix, from_disk, stage: Stage::Ready };
        match self.entries.entry(id) {
            std::collections::hash_map::Entry::Occupied(_) => return false,
            std::collections::hash_map::Entry::Vacant(place) => place.insert(entry),
        };
        let q = &mut self.queues[ix];
        q.ready.push_back(id);
        q.from_disk += usize::from(from_disk);
        q.idle_since = None;
        self.held += 1;
        self.sites[q.site].ready += 1;
        self.list(ix);
        true
    }

    /// Takes a ready delivery out of its line; it is under way then.
    fn unready(&mut self, id: DeliveryId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.stage = Stage::Settling;
        let q = &mut self.queues[entry.queue];
        // At most a window long. The queue keeps its place in the round robin: an empty one is passed over.
        if let Some(at) = q.ready.iter().position(|&other| other == id) {
            q.ready.remove(at);
            q.flying += 1;
            self.sites[q.site].ready -= 1;
        }
    }

    /// Forgets a delivery that is under way.
    fn forget(&mut self, id: DeliveryId) -> Option<QueueIx> {
        let entry = self.entries.remove(&id)?;
        let q = &mut self.queues[entry.queue];
        q.flying -= 1;
        q.from_disk -= usize::from(entry.from_disk);
        if let Some(page) = &mut q.page {
            page.gone.push(id);
        }
        self.held -= 1;
        Some(entry.queue)
    }

    /// Puts a queue with something ready into its organisation's round robin, and that into its lane.
    pub(crate) fn list(&mut self, ix: QueueIx) {
        let q = &mut self.queues[ix];
        if q.listed || q.ready.is_empty() {
            return;
        }
        q.listed = true;
        let turn = &mut self.turns[q.turn];
        turn.queues.push_back(ix);
        if !turn.listed {
            turn.listed = true;
            self.sites[q.site].lanes[lane_of(q.key.stream)].push_back(q.turn);
        }
    }

    /// The queue of this key; made when it is not there.
    fn queue(&mut self, key: &QueueKey) -> QueueIx {
        if let Some(&ix) = self.queue_by_key.get(key) {
            return ix;
        }
        let site_key = site_of(key);
        let site = match self.site_by_key.get(site_key) {
            Some(&site) => site,
            None => {
                let site = self.sites.insert(Site::new(site_key.clone()));
                self.site_by_key.insert(site_key.clone(), site);
                site
            }
        };
        self.sites[site].queues += 1;
        let turn_key = (site, key.org, key.stream);
        let turns = &mut self.turns;
        let turn = *self.turn_by_key.entry(turn_key).or_insert_with(|| {
            turns.insert(Turn { key: turn_key, queues: VecDeque::new(), members: 0, listed: false })
        });
        self.turns[turn].members += 1;
        let ix = self.queues.insert(Queue::new(key.clone(), site, turn));
        self.queue_by_key.insert(key.clone(), ix);
        ix
    }

    /// Asks to be woken for what comes next, if that is sooner than what was asked for.
    pub(crate) fn arm(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.seen = self.seen.max(now.mono);
        let due = self.dues.first().map(|&(due, _)| now.mono_at(due));
        let site = self.site_timers.first().map(|&(until, _)| until);
        let idle = self.next_eviction();
        let Some(at) = [due, site, idle, self.page_again].into_iter().flatten().min() else { return };
        let at = at.min(now.mono.plus(WAKE_MAX)).max(now.mono);
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            out.push(Effect::Wake { at });
        }
    }
}
