//! The driver: owns the scheduler, tells it what happened and carries out what it answers.
//!
//! A worker is a task that owns one connection and takes delivery after delivery for as long as there are any; there
//! is no task per message. Everything shared is behind one lock that is held for some hash look-ups and never across an
//! `await`. Settlements are handed to the store here and belong to it from then on: a task that ends, however it ends,
//! loses none.

mod actions;
mod paging;
mod reports;
mod settle;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use directory::Directory;
use mail::{Clock, DeliveryId, Destination, QueueKey};
use parking_lot::Mutex;
use schedule::{ClockWatch, Effect, Limits, Now, Reservation, Retry, Scheduler};
use store::{Store, Waiting};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What of the configuration the driver uses; swapped as a whole on reload.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// When deliveries are tried again and given up.
    pub(crate) retry: Retry,
    /// Our name in reports.
    pub(crate) hostname: Arc<str>,
    /// How long a connection waits for its next message.
    pub(crate) idle: std::time::Duration,
}

/// Delivers what is in the queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Driver(Arc<Inner>);

struct Inner {
    clock: Clock,
    store: Store,
    directory: Directory,
    engine: Arc<deliver::Engine>,
    settings: ArcSwap<Settings>,
    core: Mutex<Core>,
    /// Told when the next wake-up moved.
    rearmed: Notify,
    tally: Tally,
    tasks: TaskTracker,
    stopping: CancellationToken,
    runtime: tokio::runtime::Handle,
}

/// Recipients by what became of them, since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) delivered: AtomicU64,
    pub(crate) deferred: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// What the lock guards.
struct Core {
    scheduler: Scheduler,
    watch: ClockWatch,
    /// The clock was set back: what waits on disk may be due weeks from now.
    set_back: bool,
    /// Deliveries in memory that no worker has taken yet.
    waiting: HashMap<DeliveryId, Waiting>,
    /// Workers with an open connection and nothing to do.
    idle: HashMap<Destination, Vec<oneshot::Sender<Order>>>,
    wake_at: Option<mail::Mono>,
    /// Kept to save an allocation per event.
    effects: Vec<Effect>,
}

/// What an idle worker is told.
enum Order {
    Deliver(DeliveryId),
    Close,
}

impl Driver {
    /// A driver over an open store; [`Driver::start`] sets it going.
    pub(crate) fn new(
        store: Store,
        directory: Directory,
        engine: Arc<deliver::Engine>,
        clock: Clock,
        limits: Limits,
        settings: Settings,
    ) -> Self {
        let now = Now::from(&clock);
        let seed = settings.retry.seed;
        Self(Arc::new(Inner {
            clock,
            store,
            directory,
            engine,
            settings: ArcSwap::from_pointee(settings),
            core: Mutex::new(Core {
                scheduler: Scheduler::new(limits, seed),
                watch: ClockWatch::new(now),
                set_back: false,
                waiting: HashMap::new(),
                idle: HashMap::new(),
                wake_at: None,
                effects: Vec::new(),
            }),
            rearmed: Notify::new(),
            tally: Tally::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
        }))
    }

    /// Takes a new configuration.
    pub(crate) fn configure(&self, limits: Limits, settings: Settings) {
        self.0.core.lock().scheduler.configure(limits);
        self.0.settings.store(Arc::new(settings));
    }

    /// Asks for a place in memory for each queue of a message, before it is admitted.
    pub(crate) fn reserve(&self, queues: impl Iterator<Item = QueueKey>) -> Reserved {
        let mut core = self.0.core.lock();
        let places = queues.map(|queue| (core.scheduler.reserve(&queue), queue)).collect();
        Reserved { driver: self.clone(), places }
    }

    /// Sums, cheap enough for every scrape.
    pub(crate) fn totals(&self) -> schedule::Totals {
        self.0.core.lock().scheduler.totals()
    }

    /// Recipients by what became of them.
    pub(crate) fn tally(&self) -> &Tally {
        &self.0.tally
    }

    /// Lets attempts that are under way finish, for at most `patience`; what is left waits on disk.
    pub(crate) async fn stop(&self, patience: std::time::Duration) {
        self.0.stopping.cancel();
        let idle = std::mem::take(&mut self.0.core.lock().idle);
        drop(idle);
        self.0.tasks.close();
        if tokio::time::timeout(patience, self.0.tasks.wait()).await.is_err() {
            tracing::warn!(
                left = self.0.tasks.len(),
                "deliveries under way were cut off; they will be tried again"
            );
        }
    }

    fn now(&self) -> Now {
        Now::from(&self.0.clock)
    }

    /// Tells the scheduler something and carries out its answer.
    fn with_core<R>(&self, tell: impl FnOnce(&mut Core, Now, &mut Vec<Effect>) -> R) -> R {
        let now = self.now();
        let mut core = self.0.core.lock();
        let mut effects = std::mem::take(&mut core.effects);
        let result = tell(&mut core, now, &mut effects);
        self.perform(&mut core, &mut effects);
        core.effects = effects;
        result
    }

    fn perform(&self, core: &mut Core, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Deliver { id, queue, on_open } => self.hand_out(core, id, queue.destination, on_open),
                Effect::Answer { id, outcome, .. } => self.spawn(worker::answer(self.clone(), id, outcome)),
                Effect::Page { queue, n } => self.spawn(paging::page(self.clone(), queue, n)),
                Effect::CloseIdle { site } => {
                    core.tell_idle(&site, || Order::Close);
                }
                Effect::Wake { at } => {
                    core.wake_at = Some(at);
                    self.0.rearmed.notify_one();
                }
            }
        }
    }

    /// Gives a delivery to an idle worker, or to a new one.
    fn hand_out(&self, core: &mut Core, id: DeliveryId, site: Destination, on_open: bool) {
        if on_open && core.tell_idle(&site, || Order::Deliver(id)) {
            return;
        }
        self.spawn(worker::work(self.clone(), site, id));
    }

    /// From any thread: the store's writer calls back here, and it is no worker of the runtime.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn_on(task, &self.0.runtime);
    }
}

/// Places kept for the deliveries of one message. Dropped without [`Reserved::admitted`], they are given back.
pub(crate) struct Reserved {
    driver: Driver,
    places: Vec<(Reservation, QueueKey)>,
}

impl Reserved {
    /// Whether the `index`th delivery begins in memory.
    pub(crate) fn is_active(&self, index: usize) -> bool {
        self.places.get(index).is_some_and(|place| place.0 == Reservation::Active)
    }

    /// The message is on disk: its deliveries begin.
    pub(crate) fn admitted(mut self, deliveries: Vec<Waiting>) {
        let places = std::mem::take(&mut self.places);
        self.driver.with_core(|core, now, out| core.admit(places, deliveries, now, out));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let places = std::mem::take(&mut self.places);
        if !places.is_empty() {
            self.driver.with_core(|core, now, out| core.give_back(&places, now, out));
        }
    }
}

impl Core {
    /// Compares the clocks; to be called before anything is decided by a message's age.
    fn look_at_clock(&mut self, now: Now) {
        if let Some(jump) = self.watch.observe(now) {
            tracing::warn!(from = %jump.from, to = %jump.to, "the clock was set; messages age as if it had not been");
            self.set_back |= jump.to < jump.from;
        }
    }

    /// Puts a worker of the site on the list of those with nothing to do.
    fn wait_idle(&mut self, site: &Destination) -> oneshot::Receiver<Order> {
        let (order, told) = oneshot::channel();
        self.idle.entry(site.clone()).or_default().push(order);
        told
    }

    /// Tells one idle worker of the site. False when none is left: they gave up just now, and their slots stand for
    /// whoever comes instead.
    fn tell_idle(&mut self, site: &Destination, order: impl Fn() -> Order) -> bool {
        while let Some(worker) = self.idle.get_mut(site).and_then(Vec::pop) {
            if worker.send(order()).is_ok() {
                return true;
            }
        }
        false
    }

    fn admit(
        &mut self,
        places: Vec<(Reservation, QueueKey)>,
        deliveries: Vec<Waiting>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        for ((reservation, queue), waiting) in places.into_iter().zip(deliveries) {
            match (waiting.state, reservation) {
                (mail::State::Active, _) => {
                    let id = waiting.id;
                    self.waiting.insert(id, waiting);
                    self.scheduler.admitted(&queue, id, now, out);
                }
                (state, reservation) => {
                    if reservation == Reservation::Active {
                        self.scheduler.cancel(&queue, now, out);
                    }
                    if let (mail::State::Waiting, Some(due)) = (state, waiting.due) {
                        self.scheduler.parked(&queue, due, now, out);
                    }
                }
            }
        }
    }

    fn give_back(&mut self, places: &[(Reservation, QueueKey)], now: Now, out: &mut Vec<Effect>) {
        for (reservation, queue) in places {
            if *reservation == Reservation::Active {
                self.scheduler.cancel(queue, now, out);
            }
        }
    }
}
