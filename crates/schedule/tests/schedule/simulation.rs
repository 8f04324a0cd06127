//! Hours of mail in milliseconds: a clock that jumps from event to event, and sites that behave well, badly and not at all. A
//! failing run names its seed; `POSTHOUSE_SEED=n` runs that one alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use mail::{
    DeliveryId, Destination, Disposition, EnhancedStatus, Mono, Notify, Outcome, QueueKey, RecipientOutcome,
    Timestamp,
};
use schedule::{ClockWatch, Facts, Fate, Limits, Link, Retry, decide};

use crate::world::{Flight, World, failure};

/// How a site treats what comes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Behaviour {
    /// Takes everything, in so many milliseconds each.
    Good(u64),
    /// No connection can be made, until then.
    DownUntil(Duration),
    /// Takes everything in ten milliseconds, but between these two moments nothing moves.
    Stalls(Duration, Duration),
    /// Refuses the first attempt at each message for now.
    Greylisting,
    /// Defers so many in a hundred.
    Moody(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(QueueKey),
    Attempted(DeliveryId),
    Committed(DeliveryId, Option<Timestamp>),
    Page(QueueKey),
    IdleTooLong(Destination),
    Tick,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) queue: QueueKey,
    pub(crate) came: Mono,
    /// It had to wait on disk first.
    pub(crate) parked: bool,
    pub(crate) attempts: u32,
    pub(crate) warnings: u32,
    pub(crate) end: Option<(Mono, &'static str)>,
}

impl Story {
    pub(crate) fn took(&self) -> Duration {
        self.end.map_or(Duration::MAX, |(at, _)| at.since(self.came))
    }
}

pub(crate) struct Simulation {
    pub(crate) world: World,
    pub(crate) stories: BTreeMap<DeliveryId, Story>,
    /// Connections made or tried, by site.
    pub(crate) connects: BTreeMap<Destination, usize>,
    pub(crate) retry: Retry,
    behaviours: BTreeMap<Destination, Behaviour>,
    events: BinaryHeap<Reverse<(Mono, u64, Event)>>,
    watch: ClockWatch,
    made: u64,
    random: u64,
    tick_at: Option<Mono>,
    paging: usize,
}

impl Simulation {
    pub(crate) fn new(seed: u64, limits: Limits, sites: &[(&str, Behaviour)]) -> Self {
        let world = World::new(limits, seed);
        let watch = ClockWatch::new(world.now);
        let behaviours = sites.iter().map(|(site, b)| (site.parse().unwrap(), *b)).collect();
        Self {
            world,
            stories: BTreeMap::new(),
            connects: BTreeMap::new(),
            retry: Retry { seed, ..Retry::default() },
            behaviours,
            events: BinaryHeap::new(),
            watch,
            made: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            tick_at: None,
            paging: 0,
        }
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// A message comes so long after the start.
    pub(crate) fn arrive_at(&mut self, after: Duration, queue: QueueKey) {
        self.at(Mono(Duration::from_secs(1)).plus(after), Event::Arrive(queue));
    }

    /// Runs until nothing happens any more, or so long after the start.
    pub(crate) fn run(&mut self, until: Duration) {
        let until = Mono(Duration::from_secs(1)).plus(until);
        let mut count = 0u64;
        while let Some(Reverse((at, ..))) = self.events.peek() {
            if *at > until {
                return;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else { return };
            self.world.advance(at.since(self.world.now.mono));
            self.happen(event);
            self.follow();
            count += 1;
            if count.is_multiple_of(997) && self.world.rows.len() < 3000 {
                self.world.check();
            }
        }
    }

    /// Messages whose queue fits.
    pub(crate) fn of(&self, fits: impl Fn(&QueueKey) -> bool) -> Vec<&Story> {
        self.stories.values().filter(|s| fits(&s.queue)).collect()
    }

    fn at(&mut self, at: Mono, event: Event) {
        self.made += 1;
        self.events.push(Reverse((at, self.made, event)));
    }

    fn after(&mut self, ms: u64, event: Event) {
        let at = self.world.now.mono.plus(Duration::from_millis(ms));
        self.at(at, event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(queue) => {
                let (id, active) = self.world.arrive(&queue);
                let came = self.world.now.mono;
                self.stories
                    .insert(id, Story { queue, came, parked: !active, attempts: 0, warnings: 0, end: None });
            }
            Event::Attempted(id) => self.attempted(id),
            Event::Committed(id, due) => self.world.commit(id, due),
            Event::Page(queue) => {
                self.paging -= 1;
                let at = self.world.pages.iter().position(|p| p.queue == queue).unwrap();
                self.world.bring_page(at);
            }
            Event::IdleTooLong(site) => self.world.lose_idle(&site),
            // Replaced by a sooner one.
            Event::Tick if self.tick_at != Some(self.world.now.mono) => {}
            Event::Tick => {
                self.tick_at = None;
                if self.world.wake.is_some_and(|at| at <= self.world.now.mono) {
                    self.watch.observe(self.world.now);
                    self.world.tick();
                }
            }
        }
    }

    /// What the effects lead to.
    fn follow(&mut self) {
        for id in std::mem::take(&mut self.world.started) {
            let site = self.stories[&id].queue.destination.clone();
            let took = match (&self.world.flying[&id], self.behaviours[&site]) {
                (Flight::Answer(_), _) => 1,
                (flight, behaviour) => {
                    let is_new = *flight == Flight::OnNew;
                    *self.connects.entry(site).or_default() += usize::from(is_new);
                    let jitter = self.random(10);
                    jitter + if is_new { 50 } else { 0 } + took(behaviour, self.world.now.mono)
                }
            };
            self.after(took, Event::Attempted(id));
        }
        while self.paging < self.world.pages.len() {
            let queue = self.world.pages[self.paging].queue.clone();
            self.paging += 1;
            self.after(3, Event::Page(queue));
        }
        if let Some(at) = self.world.wake.filter(|&at| self.tick_at.is_none_or(|armed| at < armed)) {
            self.tick_at = Some(at);
            self.at(at, Event::Tick);
        }
    }

    fn attempted(&mut self, id: DeliveryId) {
        let site = self.stories[&id].queue.destination.clone();
        let attempts = self.stories[&id].attempts;
        let flight = self.world.flying[&id].clone();
        let (outcome, link) = self.outcome(&site, attempts, &flight);
        let idle = self.world.sites.get(&site).map_or(0, |s| s.idle);
        self.world.end(id, link);
        if self.world.sites.get(&site).is_some_and(|s| s.idle > idle) {
            self.after(5_000, Event::IdleTooLong(site));
        }
        let story = self.stories.get_mut(&id).unwrap();
        let now = self.world.now;
        let came =
            Timestamp(now.wall.millis() - i64::try_from(now.mono.since(story.came).as_millis()).unwrap());
        let facts = Facts {
            id,
            attempts,
            age: self.watch.age(came, now),
            warned: story.warnings > 0,
            recipients: &[(0, Notify::Unset)],
        };
        let decision = decide(&self.retry, &facts, &[RecipientOutcome::new(0, outcome)], now.wall);
        story.attempts = decision.attempts;
        story.warnings += u32::from(!decision.warn.is_empty());
        let end = match &decision.recipients[0].1 {
            Fate::Delivered(_) => Some("delivered"),
            Fate::Expired(_) => Some("expired"),
            Fate::Refused(_) => Some("refused"),
            Fate::Retry(_) => None,
        };
        assert!(story.end.is_none(), "{id} ends twice");
        story.end = end.map(|end| (now.mono, end));
        self.after(5, Event::Committed(id, decision.retry_at));
    }

    fn outcome(&mut self, site: &Destination, attempts: u32, flight: &Flight) -> (Outcome, Link) {
        let good = Outcome::own(Disposition::Delivered, EnhancedStatus::new(2, 0, 0), "ok");
        let later = Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 7, 1), "later");
        if let Flight::Answer(outcome) = flight {
            return ((**outcome).clone(), Link::Closed);
        }
        let behaviour = self.behaviours[site];
        match behaviour {
            Behaviour::Good(_) | Behaviour::Stalls(..) => (good, Link::Kept),
            Behaviour::DownUntil(until) if self.world.now.mono.0 < until => {
                ((*failure()).clone(), Link::Unreachable(failure()))
            }
            Behaviour::DownUntil(_) => (good, Link::Kept),
            Behaviour::Greylisting if attempts == 0 => (later, Link::Kept),
            Behaviour::Greylisting => (good, Link::Closed),
            Behaviour::Moody(percent) if self.random(100) < percent => (later, Link::Closed),
            Behaviour::Moody(_) => (good, Link::Kept),
        }
    }
}

fn took(behaviour: Behaviour, now: Mono) -> u64 {
    match behaviour {
        Behaviour::Good(ms) => ms,
        Behaviour::DownUntil(until) if now.0 < until => 3_000,
        Behaviour::DownUntil(_) => 20,
        Behaviour::Stalls(from, to) if (from..to).contains(&now.0) => {
            u64::try_from((to - now.0).as_millis()).unwrap()
        }
        Behaviour::Stalls(..) => 10,
        Behaviour::Greylisting => 30,
        Behaviour::Moody(_) => 200,
    }
}

/// Runs a test for some seeds, and says which one failed.
pub(crate) fn for_seeds(count: u64, test: impl Fn(u64)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with POSTHOUSE_SEED={}", self.0);
            }
        }
    }
    let only = std::env::var("POSTHOUSE_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        let _named = Named(seed);
        test(seed);
    }
}
