//! The driver: owns the scheduler, tells it what happened and carries out what it answers.
//!
//! A worker is a task that owns one connection and takes delivery after delivery for as long as there are any; there
//! is no task per message. Everything shared is behind one lock that is held for some hash look-ups and never across an
//! `await`. Settlements are handed to the store here and belong to it from then on: a task that ends, however it ends,
//! loses none.

mod actions;
pub(crate) mod attempts;
mod bounces;
mod locating;
mod memory;
mod paging;
mod reports;
mod settle;
mod sharing;
mod standing;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use directory::Directory;
use history::History;
use mail::{Clock, DeliveryId, QueueKey};
use parking_lot::Mutex;
use schedule::{ClockWatch, Effect, Item, Now, Path, Policy, Reservation, Retry, Scheduler};
use store::{Next, Settlement, Store, Waiting};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::Forwarding;

pub(crate) use bounces::SignedReturns;
pub(crate) use sharing::may_complete;

/// What of the configuration the driver uses; swapped as a whole on reload.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// When deliveries are tried again and given up.
    pub(crate) retry: Retry,
    /// Our name in reports.
    pub(crate) hostname: Arc<str>,
    /// How long a connection waits for its next message.
    pub(crate) idle: std::time::Duration,
    /// What the scheduler holds to.
    pub(crate) policy: Arc<Policy>,
    /// Says what a failure was about.
    pub(crate) classifier: Arc<report::Classifier>,
    /// Whose refused recipients are written to no more.
    pub(crate) suppress: Suppress,
    /// Aliases, rewritten senders, and our own return paths.
    pub(crate) forwarding: Arc<Forwarding>,
    /// Whose mail leaves with return paths of our own.
    pub(crate) signed: SignedReturns,
}

/// Which refusals of class `recipient` put an address on the suppression list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Suppress {
    /// None: people do that.
    Never,
    /// Those of bulk mail.
    #[default]
    Bulk,
    /// All.
    Always,
}

/// Questions for the site of a destination that are asked at a time.
const LOCATING_MAX: usize = 64;

/// What the driver works with.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) directory: Directory,
    pub(crate) history: History,
    pub(crate) engine: Arc<deliver::Engine>,
    pub(crate) clock: Clock,
    /// Where attempts are noted, if they are.
    pub(crate) attempts: Option<attempts::Attempts>,
    /// What this node is in its cluster; none for a relay alone.
    pub(crate) member: Option<cluster::Member>,
}

/// Delivers what is in the queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Driver(Arc<Inner>);

struct Inner {
    clock: Clock,
    store: Store,
    directory: Directory,
    history: History,
    engine: Arc<deliver::Engine>,
    settings: ArcSwap<Settings>,
    core: Mutex<Core>,
    /// Told when the next wake-up moved.
    rearmed: Notify,
    tally: Tally,
    /// Where it is noted what is under attempt, in a run that began after an unclean stop.
    attempts: Option<Arc<attempts::Attempts>>,
    /// Questions for sites that are under way.
    locating: tokio::sync::Semaphore,
    /// Deliveries to be answered. The scheduler bounds how many there are.
    answers: mpsc::UnboundedSender<Answer>,
    /// Limits that all nodes share.
    sharing: sharing::Sharing,
    tasks: TaskTracker,
    stopping: CancellationToken,
    /// What is under way is another node's by now.
    cut_off: CancellationToken,
    /// In a cluster: what this node may do.
    member: Option<cluster::Member>,
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
    idle: HashMap<Path, Vec<oneshot::Sender<Order>>>,
    wake_at: Option<mail::Mono>,
    /// Kept to save an allocation per event.
    effects: Vec<Effect>,
}

/// A delivery to a site that can't be reached at the moment, to be settled with what the last connection met.
struct Answer {
    id: DeliveryId,
    outcome: Arc<mail::Outcome>,
    source: mail::SourceName,
}

/// What an idle worker is told.
enum Order {
    Deliver(DeliveryId),
    Close,
}

impl Driver {
    /// A driver over an open store; [`Driver::start`] sets it going.
    pub(crate) fn new(parts: Parts, settings: Settings) -> Self {
        let Parts { store, directory, history, engine, clock, attempts, member } = parts;
        let now = Now::from(&clock);
        let seed = settings.retry.seed;
        let (answers, to_answer) = mpsc::unbounded_channel();
        let driver = Self(Arc::new(Inner {
            clock,
            store,
            directory,
            history,
            engine,
            core: Mutex::new(Core {
                scheduler: Scheduler::new(Arc::clone(&settings.policy), seed),
                watch: ClockWatch::new(now),
                set_back: false,
                waiting: HashMap::new(),
                idle: HashMap::new(),
                wake_at: None,
                effects: Vec::new(),
            }),
            settings: ArcSwap::from_pointee(settings),
            rearmed: Notify::new(),
            tally: Tally::default(),
            attempts: attempts.map(Arc::new),
            locating: tokio::sync::Semaphore::new(LOCATING_MAX),
            answers,
            sharing: sharing::Sharing::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            cut_off: CancellationToken::new(),
            member,
            runtime: tokio::runtime::Handle::current(),
        }));
        driver.spawn(worker::answer_all(driver.clone(), to_answer));
        driver
    }

    /// Takes a new configuration.
    pub(crate) fn configure(&self, settings: Settings) {
        let policy = Arc::clone(&settings.policy);
        self.0.settings.store(Arc::new(settings));
        self.with_core(|core, now, out| core.scheduler.configure(policy, now, out));
    }

    /// Asks for a place in memory for each queue of a message, before it is admitted.
    pub(crate) fn reserve(
        &self,
        credential: Option<&str>,
        queues: impl Iterator<Item = QueueKey>,
    ) -> Reserved {
        let credential = self.ceiling_of(credential);
        let now = self.now();
        let mut core = self.0.core.lock();
        let places =
            queues.map(|queue| (core.scheduler.reserve(&queue, credential.as_ref(), now), queue)).collect();
        drop(core);
        let mut reserved = Reserved { driver: self.clone(), places };
        self.place_elsewhere(&mut reserved);
        reserved
    }

    /// A credential's name as the scheduler has it; none when nothing bounds it.
    fn ceiling_of(&self, credential: Option<&str>) -> Option<Arc<str>> {
        let settings = self.0.settings.load();
        settings.policy.credentials.get_key_value(credential?).map(|(name, _)| Arc::clone(name))
    }

    /// A delivery as the scheduler has to know it.
    fn item(&self, waiting: &Waiting) -> Item {
        Item {
            id: waiting.id,
            credential: self.ceiling_of(waiting.message.origin.credential.as_deref()),
            recipients: u16::try_from(waiting.recipients.len()).unwrap_or(u16::MAX),
        }
    }

    /// Sums, cheap enough for every scrape.
    pub(crate) fn totals(&self) -> schedule::Totals {
        self.0.core.lock().scheduler.totals()
    }

    /// Workers and other tasks under way.
    pub(crate) fn tasks(&self) -> usize {
        self.0.tasks.len()
    }

    /// What the scheduler holds to.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.0.settings.load().policy)
    }

    /// Everything that the scheduler knows. Takes time in proportion to it.
    pub(crate) fn snapshot(&self) -> schedule::Snapshot {
        let now = self.now();
        self.0.core.lock().scheduler.snapshot(now)
    }

    /// Why a delivery waits, in plain words.
    pub(crate) fn why(&self, delivery: DeliveryId, queue: &QueueKey) -> String {
        let now = self.now();
        let core = self.0.core.lock();
        let why = core.scheduler.why_delivery(delivery, now);
        why.unwrap_or_else(|| core.scheduler.why(queue, now)).text(now.wall)
    }

    /// The site that a destination is known to be at.
    pub(crate) fn site_of(&self, destination: &mail::Destination) -> Option<mail::Site> {
        self.0.core.lock().scheduler.site_of(destination)
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
                Effect::Deliver { id, path, on_open, .. } => self.hand_out(core, id, path, on_open),
                Effect::Answer { id, outcome, source, .. } => {
                    // Nobody takes it while the relay stops: it is active on disk and waits there for the next start.
                    let _ = self.0.answers.send(Answer { id, outcome, source });
                }
                Effect::Locate { destination } => self.spawn(locating::locate(self.clone(), destination)),
                Effect::PutBack { id, due, .. } => self.put_back(core, id, due),
                // A node that drains takes nothing; it asks again a little later whether it still does.
                Effect::Horizon { .. } if self.is_draining() => {
                    let driver = self.clone();
                    self.spawn(async move {
                        driver.with_core(|core, now, out| core.scheduler.horizon_failed(now, out));
                    });
                }
                Effect::Page { queue, .. } if self.is_draining() => {
                    let driver = self.clone();
                    self.spawn(async move {
                        driver.with_core(|core, now, out| core.scheduler.page_failed(&queue, now, out));
                    });
                }
                Effect::Horizon { after, n } => self.spawn(paging::horizon(self.clone(), after, n)),
                Effect::Page { queue, n } => self.spawn(paging::page(self.clone(), queue, n)),
                Effect::CloseIdle { path } => {
                    core.tell_idle(&path, || Order::Close);
                }
                Effect::Borrow => self.0.sharing.wanted(),
                Effect::Cut { id } => self.0.sharing.cut(id),
                Effect::Wake { at } => {
                    core.wake_at = Some(at);
                    self.0.rearmed.notify_one();
                }
            }
        }
    }

    /// Gives a delivery to an idle worker, or to a new one.
    fn hand_out(&self, core: &mut Core, id: DeliveryId, path: Path, on_open: bool) {
        if on_open && core.tell_idle(&path, || Order::Deliver(id)) {
            return;
        }
        self.spawn(worker::work(self.clone(), path, id));
    }

    /// Over a rate: it goes back to disk until its time comes. Nothing was attempted.
    fn put_back(&self, core: &mut Core, id: DeliveryId, due: mail::Timestamp) {
        let warned = core.waiting.remove(&id).is_some_and(|waiting| waiting.warned);
        let settlement = Settlement {
            delivery: id,
            recipients: Vec::new(),
            next: Next::Parked { due },
            warned,
            reports: Vec::new(),
            events: Vec::new(),
        };
        let driver = self.clone();
        // Not from here: the store may answer at once, and the lock is held.
        self.spawn(async move { driver.commit(settlement, Some(due), Vec::new()) });
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
    /// What the `index`th delivery was promised: a place in memory, or its time.
    pub(crate) fn place(&self, index: usize) -> Option<Reservation> {
        self.places.get(index).map(|place| place.0)
    }

    /// The message is on disk: its deliveries begin.
    pub(crate) fn admitted(mut self, deliveries: Vec<Waiting>) {
        let places = std::mem::take(&mut self.places);
        let driver = &self.driver;
        driver.with_core(|core, now, out| core.admit(driver, places, deliveries, now, out));
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

    /// Puts a worker of the path on the list of those with nothing to do.
    fn wait_idle(&mut self, path: &Path) -> oneshot::Receiver<Order> {
        let (order, told) = oneshot::channel();
        self.idle.entry(path.clone()).or_default().push(order);
        told
    }

    /// Tells one idle worker of the path. False when none is left: they gave up just now, and their slots stand for
    /// whoever comes instead.
    fn tell_idle(&mut self, path: &Path, order: impl Fn() -> Order) -> bool {
        while let Some(worker) = self.idle.get_mut(path).and_then(Vec::pop) {
            if worker.send(order()).is_ok() {
                return true;
            }
        }
        false
    }

    fn admit(
        &mut self,
        driver: &Driver,
        places: Vec<(Reservation, QueueKey)>,
        deliveries: Vec<Waiting>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        for ((reservation, queue), waiting) in places.into_iter().zip(deliveries) {
            match (waiting.state, reservation) {
                (mail::State::Active, _) => {
                    let item = driver.item(&waiting);
                    self.waiting.insert(waiting.id, waiting);
                    self.scheduler.admitted(&queue, item, now, out);
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
