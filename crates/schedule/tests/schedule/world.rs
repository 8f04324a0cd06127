//! What the driver and the network would be: connections, pages, look-ups. Holds the scheduler to its promises at every
//! effect.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mail::{DeliveryId, Destination, Mono, OrgId, Outcome, QueueKey, Site, Stream, Timestamp};
use schedule::{Effect, Link, Next, Now, Path, Policy, Removed, Report, Reservation, Rest, Scheduler};

use crate::model::Model;
use crate::store::{Row, Rows};

/// A delivery that is under way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Flight {
    OnNew(Path),
    OnOpen(Path),
    Answer(Arc<Outcome>),
    /// Attempted; the settlement is not committed.
    Settling,
    /// To wait on disk until then; not committed.
    PutBack(Timestamp),
}

impl Flight {
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Flight::OnNew(path) | Flight::OnOpen(path) => Some(path),
            _ => None,
        }
    }

    pub(crate) fn is_attempt(&self) -> bool {
        matches!(self, Flight::OnNew(_) | Flight::OnOpen(_) | Flight::Answer(_))
    }
}

/// A page that was asked for; what it read, once it has.
#[derive(Clone, Debug)]
pub(crate) struct PageTask {
    pub(crate) queue: QueueKey,
    pub(crate) n: usize,
    pub(crate) read: Option<(Vec<DeliveryId>, Rest)>,
}

/// Connections on a path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connections {
    pub(crate) all: usize,
    pub(crate) idle: usize,
}

/// When the world begins, with a second on the monotonic clock.
const START: Timestamp = Timestamp(1_795_500_000_000);

type Found = (Vec<(QueueKey, Timestamp)>, Timestamp);

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) policy: Arc<Policy>,
    pub(crate) now: Now,
    pub(crate) rows: Rows,
    pub(crate) model: Rc<RefCell<Model>>,
    pub(crate) reserved: Vec<QueueKey>,
    pub(crate) flying: BTreeMap<DeliveryId, Flight>,
    pub(crate) paths: BTreeMap<Path, Connections>,
    pub(crate) pages: Vec<PageTask>,
    pub(crate) locates: Vec<Destination>,
    /// What the store was asked, and what it has found.
    pub(crate) horizon: Option<(Timestamp, usize, Option<Found>)>,
    pub(crate) wake: Option<Mono>,
    /// Deliveries that began, and were put back, since somebody looked.
    pub(crate) started: Vec<DeliveryId>,
    pub(crate) put_back: Vec<DeliveryId>,
    /// Something is to be borrowed, and attempts that are to be cut off.
    pub(crate) borrow: bool,
    pub(crate) cut: Vec<DeliveryId>,
    /// Wake-ups before the usual half minute was over, and effects in all.
    pub(crate) ticks: usize,
    pub(crate) effects: usize,
    seed: u64,
}

impl World {
    pub(crate) fn new(policy: Policy, seed: u64) -> Self {
        let policy = Arc::new(policy);
        let now = Now { wall: START, mono: Mono(Duration::from_secs(1)) };
        let mut world = Self {
            scheduler: Scheduler::new(policy.clone(), seed),
            policy,
            now,
            rows: Rows::default(),
            model: Rc::default(),
            reserved: Vec::new(),
            flying: BTreeMap::new(),
            paths: BTreeMap::new(),
            pages: Vec::new(),
            locates: Vec::new(),
            horizon: None,
            wake: None,
            started: Vec::new(),
            put_back: Vec::new(),
            borrow: false,
            cut: Vec::new(),
            ticks: 0,
            effects: 0,
            seed,
        };
        world.tick();
        world
    }

    /// Says something to the scheduler, and carries out what it answers.
    pub(crate) fn tell<R>(&mut self, say: impl FnOnce(&mut Scheduler, Now, &mut Vec<Effect>) -> R) -> R {
        let mut out = Vec::new();
        let result = say(&mut self.scheduler, self.now, &mut out);
        let limits = &self.policy.limits;
        // Slots twice over (closed for others, and used), pages, answers for each site, put back, look-ups.
        let dead = 50 * self.scheduler.totals().sites;
        let bound = limits.connections_total * 2 + limits.pages + dead.min(limits.active_total) + 100 + 600;
        assert!(out.len() <= bound, "{} effects of one event", out.len());
        self.effects += out.len();
        out.into_iter().for_each(|effect| self.perform(effect));
        result
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Deliver { id, queue, path, on_open } => {
                self.check_start(id, &queue);
                let connections = self.paths.entry(path.clone()).or_default();
                if on_open {
                    assert!(connections.idle > 0, "no idle connection to give {id} to");
                    connections.idle -= 1;
                } else {
                    connections.all += 1;
                    let said = self.policy.traffic(&path.source, &path.site).connections;
                    let most = said.map_or(self.policy.limits.connections_per_site, |n| n as usize);
                    assert!(connections.all <= most, "too many connections on {path}");
                }
                self.begin(id, path, on_open);
                let all: usize = self.paths.values().map(|s| s.all).sum();
                assert!(all <= self.policy.limits.connections_total, "too many connections");
            }
            Effect::Answer { id, queue, outcome, .. } => {
                self.check_start(id, &queue);
                self.flying.insert(id, Flight::Answer(outcome));
                self.started.push(id);
            }
            Effect::Page { queue, n } => {
                assert!(n > 0 && self.pages.len() < self.policy.limits.pages);
                assert!(!self.pages.iter().any(|p| p.queue == queue), "one page of a queue at a time");
                self.pages.push(PageTask { queue, n, read: None });
            }
            Effect::CloseIdle { path } => {
                let connections = self.paths.get_mut(&path).unwrap();
                assert!(connections.idle > 0, "no idle connection to close");
                connections.idle -= 1;
                connections.all -= 1;
            }
            Effect::Locate { destination } => self.locates.push(destination),
            Effect::PutBack { id, queue, due } => {
                self.check_start(id, &queue);
                assert!(due > self.now.wall && due <= self.now.wall.plus(Duration::from_secs(12 * 3600 + 1)));
                self.flying.insert(id, Flight::PutBack(due));
                self.put_back.push(id);
            }
            Effect::Horizon { after, n } => {
                assert!(self.horizon.is_none(), "asked twice at a time");
                self.horizon = Some((after, n, None));
            }
            Effect::Borrow => self.borrow = true,
            Effect::Cut { id } => self.cut.push(id),
            Effect::Wake { at } => {
                assert!(at.since(self.now.mono) <= Duration::from_secs(30));
                self.wake = Some(at);
            }
        }
    }

    fn check_start(&self, id: DeliveryId, queue: &QueueKey) {
        assert!(!self.flying.contains_key(&id), "{id} is delivered twice at a time");
        let row = self.rows.all.get(&id).unwrap_or_else(|| panic!("{id} is gone and delivered again"));
        assert_eq!(&row.queue, queue);
        assert!(!row.held, "{id} is held");
        assert!(row.due.is_none_or(|due| due <= self.now.wall), "{id} is not due");
    }

    fn begin(&mut self, id: DeliveryId, path: Path, on_open: bool) {
        let row = &self.rows.all[&id];
        let what = (id, &row.queue, row.credential.as_ref());
        self.model.borrow_mut().start(&self.policy, what, (&path, !on_open), (self.now.wall, self.now.mono));
        self.flying.insert(id, if on_open { Flight::OnOpen(path) } else { Flight::OnNew(path) });
        self.started.push(id);
    }

    /// A message comes: true when there was room for it in memory.
    pub(crate) fn arrive(&mut self, queue: &QueueKey, credential: Option<&Arc<str>>) -> (DeliveryId, bool) {
        match self.scheduler.reserve(queue, credential, self.now) {
            Reservation::Active => (self.admit(queue, credential), true),
            Reservation::Parked { due } => (self.park(queue, credential, due), false),
        }
    }

    pub(crate) fn admit(&mut self, queue: &QueueKey, credential: Option<&Arc<str>>) -> DeliveryId {
        let id = self.row(queue, credential, None);
        let item = self.rows.item(id);
        self.tell(|s, now, out| s.admitted(queue, item, now, out));
        id
    }

    pub(crate) fn park(
        &mut self,
        queue: &QueueKey,
        credential: Option<&Arc<str>>,
        due: Timestamp,
    ) -> DeliveryId {
        let id = self.row(queue, credential, Some(due));
        self.tell(|s, now, out| s.parked(queue, due, now, out));
        id
    }

    fn row(&mut self, queue: &QueueKey, credential: Option<&Arc<str>>, due: Option<Timestamp>) -> DeliveryId {
        let credential = credential.cloned();
        self.rows.insert(Row { queue: queue.clone(), due, held: false, credential, recipients: 1 })
    }

    /// An attempt ends; a worker that keeps its connection asks for more.
    pub(crate) fn end(&mut self, id: DeliveryId, report: Report) {
        let flight = self.flying.insert(id, Flight::Settling).unwrap();
        let kept = report.link == Link::Kept;
        self.model.borrow_mut().end(id, matches!(report.link, Link::Unreachable(_)));
        if let Some(path) = flight.path().filter(|_| !kept) {
            self.paths.get_mut(path).unwrap().all -= 1;
        }
        self.tell(|s, now, out| s.attempted(id, report, now, out));
        let Some(path) = flight.path().filter(|_| kept) else { return };
        // The worker counts as idle before the effects are carried out, as in the driver.
        let mut out = Vec::new();
        let next = self.scheduler.next_for(path, self.now, &mut out);
        self.effects += out.len();
        match next {
            Next::Deliver(next) => {
                let queue = self.rows.all[&next].queue.clone();
                self.check_start(next, &queue);
                self.begin(next, path.clone(), true);
            }
            Next::Wait => self.paths.get_mut(path).unwrap().idle += 1,
            Next::Close => self.paths.get_mut(path).unwrap().all -= 1,
        }
        out.into_iter().for_each(|effect| self.perform(effect));
    }

    /// The settlement of an attempted delivery is committed, or of one that was put back.
    pub(crate) fn commit(&mut self, id: DeliveryId, due: Option<Timestamp>) {
        let due = match self.flying.remove(&id) {
            Some(Flight::PutBack(due)) => Some(due),
            Some(Flight::Settling) => due,
            other => panic!("{id} is {other:?}"),
        };
        match due {
            None => self.rows.delete(id),
            Some(due) => self.rows.set(id, Some(due), false),
        }
        self.tell(|s, now, out| s.finished(id, due, now, out));
    }

    /// A worker is gone with its connection and said nothing; the delivery is put back by whoever finds out.
    pub(crate) fn lose(&mut self, id: DeliveryId) {
        let flight = self.flying.remove(&id).unwrap();
        let due = self.now.wall.plus(Duration::from_secs(60));
        self.rows.set(id, Some(due), false);
        self.model.borrow_mut().end(id, false);
        if let Some(path) = flight.path() {
            self.paths.get_mut(path).unwrap().all -= 1;
        }
        self.tell(|s, now, out| s.finished(id, Some(due), now, out));
    }

    pub(crate) fn read_page(&mut self, at: usize) {
        let page = &self.pages[at];
        let read = self.rows.page(&page.queue, page.n, self.now.wall);
        self.pages[at].read = Some(read);
    }

    pub(crate) fn bring_page(&mut self, at: usize) {
        if self.pages[at].read.is_none() {
            self.read_page(at);
        }
        let page = self.pages.swap_remove(at);
        let (ids, rest) = page.read.unwrap();
        // A row that is gone by now is brought all the same: the page was read before.
        let item = |id: &DeliveryId| match self.rows.all.get(id) {
            Some(_) => self.rows.item(*id),
            None => schedule::Item { id: *id, credential: None, recipients: 1 },
        };
        let items = ids.iter().map(item).collect();
        let taken = self.tell(|s, now, out| s.paged(&page.queue, items, rest, now, out));
        assert!(taken.iter().all(|id| ids.contains(id)));
    }

    pub(crate) fn fail_page(&mut self, at: usize) {
        let page = self.pages.swap_remove(at);
        self.tell(|s, now, out| s.page_failed(&page.queue, now, out));
    }

    pub(crate) fn read_horizon(&mut self) {
        if let Some((after, n, found)) = &mut self.horizon {
            *found = Some(self.rows.horizon(*after, *n));
        }
    }

    pub(crate) fn bring_horizon(&mut self, fails: bool) {
        let Some((after, n, found)) = self.horizon.take() else { return };
        if fails {
            return self.tell(|s, now, out| s.horizon_failed(now, out));
        }
        let (found, until) = found.unwrap_or_else(|| self.rows.horizon(after, n));
        self.tell(|s, now, out| s.horizon(found, until, now, out));
    }

    pub(crate) fn located(&mut self, at: usize, site: Site, valid: Duration) {
        let destination = self.locates.swap_remove(at);
        self.tell(|s, now, out| s.located(&destination, site, valid, now, out));
    }

    /// An idle connection is closed by the peer.
    pub(crate) fn lose_idle(&mut self, path: &Path) {
        let Some(connections) = self.paths.get_mut(path).filter(|c| c.idle > 0) else { return };
        connections.idle -= 1;
        connections.all -= 1;
        self.tell(|s, now, out| s.release_slot(path, now, out));
    }

    /// An operator holds or removes a delivery; a held one may be released.
    pub(crate) fn hold(&mut self, id: DeliveryId, remove: bool) {
        let queue = self.rows.all[&id].queue.clone();
        let removed = self.tell(|s, now, out| s.remove(&queue, id, now, out));
        assert_eq!(removed == Removed::InFlight, self.flying.contains_key(&id));
        if removed == Removed::InFlight {
            return;
        }
        if remove {
            self.rows.delete(id);
        } else {
            self.rows.set(id, None, true);
        }
    }

    pub(crate) fn release(&mut self, id: DeliveryId) {
        let due = self.now.wall;
        self.rows.set(id, Some(due), false);
        let queue = self.rows.all[&id].queue.clone();
        self.tell(|s, now, out| s.parked(&queue, due, now, out));
    }

    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Policy)) {
        let mut policy = Policy::clone(&self.policy);
        change(&mut policy);
        self.policy = Arc::new(policy);
        let policy = self.policy.clone();
        self.tell(|s, now, out| s.configure(policy, now, out));
    }

    /// The process ends and another one begins. After a stop it finds what was saved at the end, after a crash nothing.
    pub(crate) fn restart(&mut self, crash: bool) {
        let saved = self.scheduler.state(self.now);
        self.scheduler = Scheduler::new(self.policy.clone(), self.seed);
        if !crash {
            let text = serde_json::to_string(&saved).unwrap();
            self.scheduler.restore(serde_json::from_str(&text).unwrap(), self.now);
        }
        self.reserved.clear();
        self.flying.clear();
        self.paths.clear();
        self.pages.clear();
        self.locates.clear();
        self.horizon = None;
        self.wake = None;
        self.started.clear();
        self.put_back.clear();
        self.model.borrow_mut().restart(crash);
        self.rows.recover(self.now.wall);
        self.tick();
    }

    /// This node is gone with all it had; others go on.
    pub(crate) fn vanish(&mut self) {
        for id in self.flying.keys() {
            self.model.borrow_mut().end(*id, false);
        }
        self.flying.clear();
        self.paths.clear();
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now.mono = self.now.mono.plus(by);
        // From the start: milliseconds would lose what is less.
        self.now.wall = START.plus(self.now.mono.since(Mono(Duration::from_secs(1))));
    }

    pub(crate) fn tick(&mut self) {
        self.wake = None;
        self.ticks += 1;
        self.tell(|s, now, out| s.tick(now, out));
    }

    /// Holds windows and memory to their bounds, by counting from outside.
    pub(crate) fn check(&self) {
        let limits = &self.policy.limits;
        let mut held: BTreeMap<&QueueKey, usize> = BTreeMap::new();
        for queue in &self.reserved {
            *held.entry(queue).or_default() += 1;
        }
        for (id, row) in &self.rows.all {
            *held.entry(&row.queue).or_default() += usize::from(self.scheduler.knows(*id));
        }
        for (queue, count) in &held {
            assert!(*count <= limits.window, "{count} of {queue:?} in memory");
        }
        let totals = self.scheduler.totals();
        let all: usize = held.values().sum();
        assert!(all <= limits.active_total && all <= totals.active);
        assert!(totals.queues <= limits.queues, "{} queue states", totals.queues);
        assert!(self.paths.values().all(|c| c.idle <= c.all));
        let all: usize = self.paths.values().map(|s| s.all).sum();
        assert_eq!(all, totals.connections);
        assert_eq!(self.pages.len(), totals.pages);
    }
}

pub(crate) fn queue(org: i64, stream: Stream, destination: &str) -> QueueKey {
    QueueKey { org: OrgId(org), stream, destination: destination.parse().unwrap() }
}

pub(crate) fn failure() -> Arc<Outcome> {
    use mail::{Disposition, EnhancedStatus};
    Arc::new(Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 4, 1), "connection refused"))
}
