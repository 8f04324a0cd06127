//! What the driver, the store and the network would be: rows, connections, pages. Holds the scheduler to its promises
//! at every effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mail::{DeliveryId, Destination, MessageId, Mono, OrgId, Outcome, QueueKey, Stream, Timestamp};
use schedule::{Effect, Limits, Link, Next, Now, Removed, Reservation, Rest, Scheduler};

/// A row of the store.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) queue: QueueKey,
    /// None: active.
    pub(crate) due: Option<Timestamp>,
    pub(crate) held: bool,
}

/// A delivery that is under way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Flight {
    OnNew,
    OnOpen,
    Answer(Arc<Outcome>),
    /// Attempted; the settlement is not committed.
    Settling,
}

/// A page that was asked for; what it read, once it has.
#[derive(Clone, Debug)]
pub(crate) struct PageTask {
    pub(crate) queue: QueueKey,
    pub(crate) n: usize,
    pub(crate) read: Option<(Vec<DeliveryId>, Rest)>,
}

/// Connections to a site.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connections {
    pub(crate) all: usize,
    pub(crate) idle: usize,
}

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) limits: Limits,
    pub(crate) now: Now,
    pub(crate) rows: BTreeMap<DeliveryId, Row>,
    /// The index over rows that wait.
    pub(crate) waiting: BTreeSet<(QueueKey, Timestamp, DeliveryId)>,
    pub(crate) reserved: Vec<QueueKey>,
    pub(crate) flying: BTreeMap<DeliveryId, Flight>,
    pub(crate) sites: BTreeMap<Destination, Connections>,
    pub(crate) pages: Vec<PageTask>,
    pub(crate) wake: Option<Mono>,
    /// Deliveries that began since somebody looked.
    pub(crate) started: Vec<DeliveryId>,
    pub(crate) ticks: usize,
    made: u64,
}

impl World {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(limits.clone(), seed),
            limits,
            now: Now { wall: Timestamp(1_795_500_000_000), mono: Mono(Duration::from_secs(1)) },
            rows: BTreeMap::new(),
            waiting: BTreeSet::new(),
            reserved: Vec::new(),
            flying: BTreeMap::new(),
            sites: BTreeMap::new(),
            pages: Vec::new(),
            wake: None,
            started: Vec::new(),
            ticks: 0,
            made: 0,
        }
    }

    /// Says something to the scheduler, and carries out what it answers.
    pub(crate) fn tell<R>(&mut self, say: impl FnOnce(&mut Scheduler, Now, &mut Vec<Effect>) -> R) -> R {
        let mut out = Vec::new();
        let result = say(&mut self.scheduler, self.now, &mut out);
        let bound = self.limits.connections_total * 2 + self.limits.pages + 50 + 1;
        assert!(out.len() <= bound, "{} effects of one event", out.len());
        for effect in out {
            self.perform(effect);
        }
        result
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Deliver { id, queue, on_open } => {
                self.check_start(id, &queue);
                let site = self.sites.entry(queue.destination).or_default();
                if on_open {
                    assert!(site.idle > 0, "no idle connection to give {id} to");
                    site.idle -= 1;
                } else {
                    site.all += 1;
                    assert!(site.all <= self.limits.connections_per_site, "too many connections to a site");
                }
                self.flying.insert(id, if on_open { Flight::OnOpen } else { Flight::OnNew });
                self.started.push(id);
                let all: usize = self.sites.values().map(|s| s.all).sum();
                assert!(all <= self.limits.connections_total, "too many connections");
            }
            Effect::Answer { id, queue, outcome } => {
                self.check_start(id, &queue);
                self.flying.insert(id, Flight::Answer(outcome));
                self.started.push(id);
            }
            Effect::Page { queue, n } => {
                assert!(n > 0 && self.pages.len() < self.limits.pages);
                assert!(!self.pages.iter().any(|p| p.queue == queue), "one page of a queue at a time");
                self.pages.push(PageTask { queue, n, read: None });
            }
            Effect::CloseIdle { site } => {
                let site = self.sites.get_mut(&site).unwrap();
                assert!(site.idle > 0, "no idle connection to close");
                site.idle -= 1;
                site.all -= 1;
            }
            Effect::Wake { at } => {
                assert!(at.since(self.now.mono) <= Duration::from_secs(30));
                self.wake = Some(at);
            }
        }
    }

    fn check_start(&self, id: DeliveryId, queue: &QueueKey) {
        assert!(!self.flying.contains_key(&id), "{id} is delivered twice at a time");
        let row = self.rows.get(&id).unwrap_or_else(|| panic!("{id} is gone and delivered again"));
        assert_eq!(&row.queue, queue);
        assert!(!row.held, "{id} is held");
        assert!(row.due.is_none_or(|due| due <= self.now.wall), "{id} is not due");
    }

    /// A message comes: true when there was room for it in memory.
    pub(crate) fn arrive(&mut self, queue: &QueueKey) -> (DeliveryId, bool) {
        match self.scheduler.reserve(queue) {
            Reservation::Active => (self.admit(queue), true),
            Reservation::Parked => (self.park(queue), false),
        }
    }

    pub(crate) fn admit(&mut self, queue: &QueueKey) -> DeliveryId {
        let id = self.row(queue, None);
        self.tell(|s, now, out| s.admitted(queue, id, now, out));
        id
    }

    pub(crate) fn park(&mut self, queue: &QueueKey) -> DeliveryId {
        let due = self.now.wall;
        let id = self.row(queue, Some(due));
        self.tell(|s, now, out| s.parked(queue, due, now, out));
        id
    }

    pub(crate) fn row(&mut self, queue: &QueueKey, due: Option<Timestamp>) -> DeliveryId {
        self.made += 1;
        let id = DeliveryId { message: MessageId(self.made), index: 0 };
        self.rows.insert(id, Row { queue: queue.clone(), due: None, held: false });
        self.set(id, due, false);
        id
    }

    fn set(&mut self, id: DeliveryId, due: Option<Timestamp>, held: bool) {
        let row = self.rows.get_mut(&id).unwrap();
        if let Some(old) = row.due.take() {
            self.waiting.remove(&(row.queue.clone(), old, id));
        }
        (row.due, row.held) = (due, held);
        if let Some(due) = due {
            self.waiting.insert((row.queue.clone(), due, id));
        }
    }

    fn delete(&mut self, id: DeliveryId) {
        self.set(id, None, false);
        self.rows.remove(&id);
    }

    /// An attempt ends; a worker that keeps its connection asks for more.
    pub(crate) fn end(&mut self, id: DeliveryId, link: Link) {
        let site = self.rows[&id].queue.destination.clone();
        let flight = self.flying.insert(id, Flight::Settling).unwrap();
        let answered = matches!(flight, Flight::Answer(_));
        let kept = link == Link::Kept;
        if !answered && !kept {
            self.sites.get_mut(&site).unwrap().all -= 1;
        }
        self.tell(|s, now, out| s.attempted(id, link, now, out));
        if answered || !kept {
            return;
        }
        // The worker counts as idle before the effects are carried out, as in the driver.
        let mut out = Vec::new();
        let next = self.scheduler.next_for(&site, self.now, &mut out);
        match next {
            Next::Deliver(next) => {
                self.check_start(next, &self.rows[&next].queue);
                self.flying.insert(next, Flight::OnOpen);
                self.started.push(next);
            }
            Next::Wait => self.sites.get_mut(&site).unwrap().idle += 1,
            Next::Close => self.sites.get_mut(&site).unwrap().all -= 1,
        }
        out.into_iter().for_each(|effect| self.perform(effect));
    }

    /// The settlement of an attempted delivery is committed.
    pub(crate) fn commit(&mut self, id: DeliveryId, due: Option<Timestamp>) {
        assert_eq!(self.flying.remove(&id), Some(Flight::Settling));
        match due {
            None => self.delete(id),
            Some(due) => self.set(id, Some(due), false),
        }
        self.tell(|s, now, out| s.finished(id, due, now, out));
    }

    /// A worker is gone with its connection and said nothing; the delivery is put back by whoever finds out.
    pub(crate) fn lose(&mut self, id: DeliveryId) {
        let flight = self.flying.remove(&id).unwrap();
        let due = self.now.wall.plus(Duration::from_secs(60));
        self.set(id, Some(due), false);
        let row = &self.rows[&id];
        if matches!(flight, Flight::OnNew | Flight::OnOpen) {
            self.sites.get_mut(&row.queue.destination).unwrap().all -= 1;
        }
        self.tell(|s, now, out| s.finished(id, Some(due), now, out));
    }

    pub(crate) fn read_page(&mut self, at: usize) {
        let page = &self.pages[at];
        let first = DeliveryId { message: MessageId(0), index: 0 };
        let mut rows = self.waiting.range((page.queue.clone(), Timestamp(i64::MIN), first)..);
        let (mut due, mut later) = (Vec::new(), None);
        while due.len() < page.n {
            match rows.next().filter(|row| row.0 == page.queue) {
                Some((_, at, id)) if *at <= self.now.wall => due.push(*id),
                found => {
                    later = found.map(|row| row.1);
                    break;
                }
            }
        }
        let rest = match later {
            _ if due.len() == page.n => Rest::Due,
            Some(later) => Rest::Later(later),
            None => Rest::Nothing,
        };
        self.pages[at].read = Some((due, rest));
    }

    pub(crate) fn bring_page(&mut self, at: usize) {
        if self.pages[at].read.is_none() {
            self.read_page(at);
        }
        let page = self.pages.swap_remove(at);
        let (ids, rest) = page.read.unwrap();
        let taken = self.tell(|s, now, out| s.paged(&page.queue, ids.clone(), rest, now, out));
        assert!(taken.iter().all(|id| ids.contains(id)));
    }

    pub(crate) fn fail_page(&mut self, at: usize) {
        let page = self.pages.swap_remove(at);
        self.tell(|s, now, out| s.page_failed(&page.queue, now, out));
    }

    /// An idle connection is closed by the peer.
    pub(crate) fn lose_idle(&mut self, site: &Destination) {
        let Some(connections) = self.sites.get_mut(site).filter(|c| c.idle > 0) else { return };
        connections.idle -= 1;
        connections.all -= 1;
        self.tell(|s, now, out| s.release_slot(site, now, out));
    }

    /// An operator holds or removes a delivery; a held one may be released.
    pub(crate) fn hold(&mut self, id: DeliveryId, remove: bool) {
        let queue = self.rows[&id].queue.clone();
        let removed = self.tell(|s, now, out| s.remove(&queue, id, now, out));
        assert_eq!(removed == Removed::InFlight, self.flying.contains_key(&id));
        if removed == Removed::InFlight {
            return;
        }
        if remove {
            self.delete(id);
        } else {
            self.set(id, None, true);
        }
    }

    pub(crate) fn release(&mut self, id: DeliveryId) {
        let due = self.now.wall;
        self.set(id, Some(due), false);
        let queue = self.rows[&id].queue.clone();
        self.tell(|s, now, out| s.parked(&queue, due, now, out));
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now.mono = self.now.mono.plus(by);
        self.now.wall = self.now.wall.plus(by);
    }

    pub(crate) fn tick(&mut self) {
        self.wake = None;
        self.ticks += 1;
        self.tell(|s, now, out| s.tick(now, out));
    }

    /// Holds windows to their bounds, by counting from outside.
    pub(crate) fn check(&self) {
        let mut held: BTreeMap<&QueueKey, usize> = BTreeMap::new();
        for queue in &self.reserved {
            *held.entry(queue).or_default() += 1;
        }
        for (id, row) in &self.rows {
            *held.entry(&row.queue).or_default() += usize::from(self.scheduler.knows(*id));
        }
        for (queue, count) in &held {
            assert!(*count <= self.limits.window, "{count} of {queue:?} in memory");
        }
        let all: usize = held.values().sum();
        assert!(all <= self.limits.active_total && all <= self.scheduler.totals().active);
        for site in self.sites.values() {
            assert!(site.idle <= site.all);
        }
        let all: usize = self.sites.values().map(|s| s.all).sum();
        assert_eq!(all, self.scheduler.totals().connections);
        assert_eq!(self.pages.len(), self.scheduler.totals().pages);
    }
}

pub(crate) fn queue(org: i64, stream: Stream, destination: &str) -> QueueKey {
    QueueKey { org: OrgId(org), stream, destination: destination.parse().unwrap() }
}

pub(crate) fn failure() -> Arc<Outcome> {
    use mail::{Disposition, EnhancedStatus};
    Arc::new(Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 4, 1), "connection refused"))
}
