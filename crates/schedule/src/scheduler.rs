//! The scheduler's state, and what the driver tells it about deliveries.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use mail::{DeliveryId, Destination, Mono, OrgId, QueueKey, Timestamp};
use slab::Slab;

use crate::clock::Now;
use crate::effect::{Effect, Item, Path, Removed, Reservation};
use crate::ids::IdMap;
use crate::meter::Meter;
use crate::path::{Learned, PathIx, PathState, SourceState, Warmups};
use crate::policy::Policy;
use crate::queue::{Entry, NONE, Queue, QueueIx, Stage};
use crate::rules::PoolState;
use crate::share::Shares;
use crate::site::{Credential, Dest, DestIx, Group, GroupIx, Org, Site, SiteIx, Turn, TurnIx};
use crate::timer::Timer;

/// Says what to deliver next. One for the whole relay, behind the driver's lock; every call is quick: some hash
/// look-ups per message, and no call yields more effects than there are free slots, answers, pages and unknown sites.
///
/// All methods that can lead to effects append them to `out`.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) policy: Arc<Policy>,
    pub(crate) seed: u64,
    pub(crate) queues: Slab<Queue>,
    pub(crate) queue_by_key: HashMap<QueueKey, QueueIx>,
    pub(crate) dests: Slab<Dest>,
    pub(crate) dest_by_key: HashMap<Destination, DestIx>,
    pub(crate) sites: Slab<Site>,
    pub(crate) site_by_key: HashMap<mail::Site, SiteIx>,
    pub(crate) groups: Slab<Group>,
    pub(crate) turns: Slab<Turn>,
    pub(crate) turn_by_key: HashMap<(GroupIx, OrgId, mail::Stream), TurnIx>,
    pub(crate) paths: Slab<PathState>,
    pub(crate) orgs: Slab<Org>,
    pub(crate) org_by_id: HashMap<OrgId, usize>,
    /// Credentials that have a ceiling, or had one.
    pub(crate) credentials: Vec<Credential>,
    pub(crate) credential_by_name: HashMap<Arc<str>, usize>,
    /// Sources that are configured, or were.
    pub(crate) sources: Vec<SourceState>,
    pub(crate) pools: Vec<PoolState>,
    /// Suspensions in force, by their number in the policy.
    pub(crate) stops: Vec<u32>,
    pub(crate) warmups: Warmups,
    /// What the last process knew of paths that have not been used since.
    pub(crate) restored: HashMap<Path, Learned>,
    /// When that was taken up.
    pub(crate) restored_at: Mono,
    /// Destinations to be lifted when something of them is in memory.
    pub(crate) lifts: HashSet<Destination>,
    /// Clocks of destinations that have a rate and no mail in memory.
    pub(crate) routes_kept: HashMap<Destination, Meter>,
    /// Clocks of organisations that an earlier process saved.
    pub(crate) org_clocks: HashMap<OrgId, Meter>,
    /// Every delivery in memory.
    pub(crate) entries: IdMap<Entry>,
    /// Places taken in all windows.
    pub(crate) held: usize,
    /// Queues by the time their earliest row is due.
    pub(crate) dues: BTreeSet<(Timestamp, QueueIx)>,
    /// Every queue with a row due up to here is known.
    pub(crate) horizon: Timestamp,
    /// The store is being asked what lies behind the horizon.
    pub(crate) asking: bool,
    /// What was forgotten meanwhile, so that the answer is not complete.
    pub(crate) missed: Timestamp,
    /// It is asked anew for what is due, in small pieces.
    pub(crate) again: bool,
    /// When the store is asked again after it failed.
    pub(crate) ask_again: Option<Mono>,
    /// Suspended queues with mail were forgotten.
    pub(crate) forgot_suspended: bool,
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
    /// Paths that may have idle connections.
    pub(crate) idle_paths: VecDeque<PathIx>,
    /// When something goes on by itself.
    pub(crate) timers: BTreeSet<(Mono, Timer)>,
    /// Queues that may be forgotten, by the time they became idle, and how many are.
    pub(crate) idle_queues: VecDeque<QueueIx>,
    pub(crate) idle: usize,
    /// Sites that nobody refers to, by the time of that.
    pub(crate) unused: VecDeque<(Mono, SiteIx)>,
    /// The wake-up that was asked for last.
    pub(crate) armed: Option<Mono>,
    /// The latest moment that an event told of.
    pub(crate) seen: Mono,
    /// Grows with everything that is to be saved.
    pub(crate) revision: u64,
    /// Limits that all nodes of a cluster share.
    pub(crate) shares: Shares,
    /// Kept to save an allocation per delivery.
    pub(crate) could: Vec<usize>,
}

impl Scheduler {
    /// A scheduler that knows of nothing yet. The driver says [`Scheduler::restore`], then [`Scheduler::tick`], which asks for
    /// what waits on disk ([`Effect::Horizon`]). The same seed and events give the same effects.
    pub fn new(policy: Arc<Policy>, seed: u64) -> Self {
        let mut new = Self {
            policy: policy.clone(),
            seed,
            queues: Slab::new(),
            queue_by_key: HashMap::new(),
            dests: Slab::new(),
            dest_by_key: HashMap::new(),
            sites: Slab::new(),
            site_by_key: HashMap::new(),
            groups: Slab::new(),
            turns: Slab::new(),
            turn_by_key: HashMap::new(),
            paths: Slab::new(),
            orgs: Slab::new(),
            org_by_id: HashMap::new(),
            credentials: Vec::new(),
            credential_by_name: HashMap::new(),
            sources: Vec::new(),
            pools: Vec::new(),
            stops: Vec::new(),
            warmups: Warmups::default(),
            restored: HashMap::new(),
            restored_at: Mono::default(),
            lifts: HashSet::new(),
            routes_kept: HashMap::new(),
            org_clocks: HashMap::new(),
            entries: IdMap::default(),
            held: 0,
            dues: BTreeSet::new(),
            horizon: Timestamp(i64::MIN),
            asking: false,
            missed: Timestamp(i64::MAX),
            again: false,
            ask_again: None,
            forgot_suspended: false,
            hungry: VecDeque::new(),
            pages: 0,
            page_again: None,
            slots: 0,
            busy_sites: 0,
            starved: VecDeque::new(),
            idle_paths: VecDeque::new(),
            timers: BTreeSet::new(),
            idle_queues: VecDeque::new(),
            idle: 0,
            unused: VecDeque::new(),
            armed: None,
            seen: Mono::default(),
            revision: 0,
            shares: Shares::default(),
            could: Vec::new(),
        };
        new.take_rules(&policy);
        new.take_credentials(&policy);
        // Until the clock is known, everything that could be in force is.
        new.stops = (0..u32::try_from(policy.suspensions.len()).unwrap_or(0)).collect();
        new
    }

    /// Asks for a place in the queue's window, before admission. With more rows of the queue waiting on disk than a page
    /// under way brings, the answer is *parked*, so that mail leaves in the order in which it came, give or take a page; also when
    /// it is suspended, or over a rate: then with a time of its own.
    pub fn reserve(&mut self, queue: &QueueKey, credential: Option<&Arc<str>>, now: Now) -> Reservation {
        self.seen = self.seen.max(now.mono);
        let parked = Reservation::Parked { due: now.wall };
        let known = self.queue_by_key.get(queue).copied();
        if !self.stops.is_empty() && self.is_suspended(queue, known) {
            return parked;
        }
        if let Some(due) = self.book_credential(credential, now) {
            return Reservation::Parked { due };
        }
        let Some(ix) = known.or_else(|| self.make_queue(queue)) else { return parked };
        if let Some(due) = self.book_ceilings(ix, now) {
            self.note_idle(ix);
            return Reservation::Parked { due };
        }
        let q = &self.queues[ix];
        // A page under way alone is no reason: under load something would always arrive during it, and all mail would
        // go by way of the disk for ever after one hiccup.
        if q.backlog || q.held() >= self.allowance(ix) {
            self.note_idle(ix);
            return parked;
        }
        self.queues[ix].reserved += 1;
        self.take_places(ix, 1);
        Reservation::Active
    }

    /// Gives back an *active* reservation: the message was not admitted.
    pub fn cancel(&mut self, queue: &QueueKey, now: Now, out: &mut Vec<Effect>) {
        let Some(&ix) = self.queue_by_key.get(queue) else { return };
        if self.queues[ix].reserved == 0 {
            return;
        }
        self.queues[ix].reserved -= 1;
        self.give_places(ix, 1);
        self.place_freed(ix, now, out);
    }

    /// A delivery with an *active* reservation is on disk. One without a reservation is taken as well: it is there.
    pub fn admitted(&mut self, queue: &QueueKey, item: Item, now: Now, out: &mut Vec<Effect>) {
        self.seen = self.seen.max(now.mono);
        let ix = match self.queue_by_key.get(queue) {
            Some(&ix) => ix,
            None => self.insert_queue(queue),
        };
        if self.queues[ix].reserved > 0 {
            self.queues[ix].reserved -= 1;
            self.give_places(ix, 1);
        }
        if self.make_ready(ix, &item, false, now, out) {
            self.dispatch_queue(ix, now, out);
        }
        self.arm(now, out);
    }

    /// A row waits on disk until `due`: it was parked at admission, released, told to be retried, or moved here from another
    /// queue. What was in the store when the process began is not said here: it is asked for ([`Effect::Horizon`]).
    pub fn parked(&mut self, queue: &QueueKey, due: Timestamp, now: Now, out: &mut Vec<Effect>) {
        self.seen = self.seen.max(now.mono);
        match self.queue_by_key.get(queue) {
            Some(&ix) => self.waits_until(ix, due, now),
            None => self.waits_unknown(queue, due, now),
        }
        self.feed(now, out);
        self.ask(now, out);
        self.arm(now, out);
    }

    /// The settlement of a delivery is committed: it is done, held, or waits until then. Only now may it be
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
            Stage::Ready | Stage::Aside => self.unready(id),
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
            Some(Stage::Ready | Stage::Aside) => {
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

    /// Puts a delivery in line for a slot. False when it is in memory already.
    pub(crate) fn make_ready(
        &mut self,
        ix: QueueIx,
        item: &Item,
        from_disk: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> bool {
        let entry = Entry {
            queue: ix,
            path: NONE,
            credential: self.credential(item.credential.as_ref()),
            began: Mono::default(),
            cost: Item::cost(item.recipients),
            from_disk,
            stage: Stage::Ready,
        };
        match self.entries.entry(item.id) {
            std::collections::hash_map::Entry::Occupied(_) => return false,
            std::collections::hash_map::Entry::Vacant(place) => place.insert(entry),
        };
        self.take_places(ix, 1);
        let q = &mut self.queues[ix];
        q.ready.push_back(item.id);
        q.from_disk += u32::from(from_disk);
        if q.dest == NONE {
            self.attach(ix, now, out);
        } else if q.turn != NONE {
            self.groups[self.turns[q.turn].group].ready += 1;
            self.list(ix);
        }
        true
    }

    /// Takes a ready delivery out of its line; it is under way then.
    fn unready(&mut self, id: DeliveryId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let was = std::mem::replace(&mut entry.stage, Stage::Settling);
        let (ix, credential) = (entry.queue, entry.credential);
        let q = &mut self.queues[ix];
        if was == Stage::Aside {
            q.aside -= 1;
            q.flying += 1;
            self.credentials[credential].aside.retain(|&other| other != id);
            return;
        }
        // At most a window long. The queue keeps its place in the round robin: an empty one is passed over.
        if let Some(at) = q.ready.iter().position(|&other| other == id) {
            q.ready.remove(at);
            q.flying += 1;
            if q.turn != NONE {
                self.groups[self.turns[q.turn].group].ready -= 1;
            }
        }
    }

    /// Forgets a delivery that is under way.
    fn forget(&mut self, id: DeliveryId) -> Option<QueueIx> {
        let entry = self.entries.remove(&id)?;
        let q = &mut self.queues[entry.queue];
        q.flying -= 1;
        q.from_disk -= u32::from(entry.from_disk);
        if let Some(page) = &mut q.page {
            page.gone.push(id);
        }
        self.give_places(entry.queue, 1);
        Some(entry.queue)
    }

    /// So many places of a window are taken.
    pub(crate) fn take_places(&mut self, ix: QueueIx, n: usize) {
        let q = &mut self.queues[ix];
        if q.idle_since.take().is_some() {
            self.idle -= 1;
        }
        self.held += n;
        self.orgs[q.org].held += n;
    }

    pub(crate) fn give_places(&mut self, ix: QueueIx, n: usize) {
        self.held -= n;
        self.orgs[self.queues[ix].org].held -= n;
    }
}
