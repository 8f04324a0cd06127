//! Days of mail in milliseconds: a clock that jumps from event to event, and sites that behave well, badly and not at all. A
//! failing run names its seed; `SCHEDULE_SEED=n` runs that one alone, `SCHEDULE_TRACE=1` prints its events, `SCHEDULE_SOAK=n` runs n
//! times as many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use mail::{
    DeliveryId, Destination, Disposition, EnhancedStatus, Mono, Notify, Outcome, QueueKey, RecipientOutcome,
    Site, Timestamp,
};
use schedule::{Advice, ClockWatch, Facts, Fate, Link, Path, Policy, Report, Retry, Signal, decide};

use crate::model::{HOUR, SECOND};
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
    /// Defers the first attempt at each message, and says for how long.
    Greylisting,
    /// Defers so many in a hundred.
    Moody(u64),
    /// Takes so many in ten seconds, and answers 421 to the others.
    Limited(usize),
    /// Has so many connections for us, and closes others with a 421.
    Narrow(usize),
    /// Up for an hour, down for an hour.
    Flapping,
    /// Wants nothing from the source `default` for a day, once it has seen it.
    Blocks,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Arrive(QueueKey, Option<Arc<str>>),
    Attempted(DeliveryId),
    Committed(DeliveryId, Option<Timestamp>),
    Page(QueueKey, bool),
    Horizon(bool),
    Locate(Destination),
    IdleTooLong(Path),
    /// Something that an operator or a fault does; what, the test says.
    Act(usize),
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
    pub(crate) put_back: u32,
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
    pub(crate) connects: BTreeMap<Site, usize>,
    pub(crate) retry: Retry,
    pub(crate) behaviours: BTreeMap<Site, Behaviour>,
    /// Where domains are; a domain that is not named is at `hosts:mx.DOMAIN`.
    pub(crate) homes: BTreeMap<Destination, Site>,
    /// One in so many pages and horizons can't be read; 0: none.
    pub(crate) faults: u64,
    pub(crate) most_queues: usize,
    pub(crate) events_seen: u64,
    /// Events in a row with no time between them.
    at_once: u32,
    events: BinaryHeap<Reverse<(Mono, u64, Event)>>,
    watch: ClockWatch,
    /// Messages that a limited site has taken lately.
    recent: BTreeMap<Site, Vec<Mono>>,
    made: u64,
    random: u64,
    tick_at: Option<Mono>,
    asked: bool,
    paging: Vec<QueueKey>,
    locating: Vec<Destination>,
}

impl Simulation {
    pub(crate) fn new(seed: u64, policy: Policy, sites: &[(&str, Behaviour)]) -> Self {
        let world = World::new(policy, seed);
        let watch = ClockWatch::new(world.now);
        let behaviours = sites.iter().map(|(site, b)| (site.parse().unwrap(), *b)).collect();
        let mut new = Self {
            world,
            stories: BTreeMap::new(),
            connects: BTreeMap::new(),
            retry: Retry { seed, ..Retry::default() },
            behaviours,
            homes: BTreeMap::new(),
            faults: 0,
            most_queues: 0,
            events_seen: 0,
            at_once: 0,
            events: BinaryHeap::new(),
            watch,
            recent: BTreeMap::new(),
            made: 0,
            random: seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            tick_at: None,
            asked: false,
            paging: Vec::new(),
            locating: Vec::new(),
        };
        new.follow();
        new
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// A message comes so long after the start.
    pub(crate) fn arrive_at(&mut self, after: Duration, queue: QueueKey) {
        self.event_at(after, Event::Arrive(queue, None));
    }

    pub(crate) fn event_at(&mut self, after: Duration, event: Event) {
        self.at(Mono(SECOND).plus(after), event);
    }

    /// Runs until nothing happens any more, or so long after the start. What is to be done at an [`Event::Act`] is `act`'s.
    pub(crate) fn run_with(&mut self, until: Duration, mut act: impl FnMut(&mut Self, usize)) {
        let until = Mono(SECOND).plus(until);
        while let Some(Reverse((at, ..))) = self.events.peek() {
            if *at > until {
                return;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else { return };
            let passed = at.since(self.world.now.mono);
            self.world.advance(passed);
            self.at_once = if passed < SECOND / 1000 { self.at_once + 1 } else { 0 };
            if self.at_once > 20_000 {
                panic!("it spins: {event:?} {:?} {:#?}", self.world.scheduler.totals(), self.waiting());
            }
            if std::env::var("SCHEDULE_TRACE").is_ok() {
                eprintln!("{:?} {event:?} {:?}", self.world.now.mono, self.world.wake);
            }
            match event {
                Event::Act(what) => act(self, what),
                event => self.happen(event),
            }
            self.follow();
            self.events_seen += 1;
            self.most_queues = self.most_queues.max(self.world.scheduler.totals().queues);
            if self.events_seen.is_multiple_of(997) && self.world.rows.all.len() < 3000 {
                self.world.check();
            }
        }
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<Mono> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    /// The loan of these attempts has run out.
    pub(crate) fn cut_off(&mut self) {
        for id in std::mem::take(&mut self.world.cut) {
            if !self.world.flying.get(&id).is_some_and(Flight::is_attempt) {
                continue;
            }
            self.events.retain(|Reverse((_, _, event))| *event != Event::Attempted(id));
            self.world.end(id, Report::of(Link::Closed));
            let due = self.world.now.wall;
            self.after(5, Event::Committed(id, Some(due)));
        }
        self.follow();
    }

    /// The node is gone, and nothing happens here any more.
    pub(crate) fn die(&mut self) {
        self.events.clear();
        self.world.vanish();
    }

    /// What is left, and why.
    pub(crate) fn waiting(&self) -> Vec<String> {
        let now = self.world.now;
        let rows = self.world.rows.all.iter();
        rows.map(|(id, row)| {
            let why = self.world.scheduler.why(&row.queue, now).text(now.wall);
            let (org, flight) = (row.queue.org.0, self.world.flying.get(id));
            format!(
                "{id} {org} {} {:?} {:?} {flight:?}: {why}",
                row.queue.destination, row.queue.stream, row.due
            )
        })
        .collect()
    }

    pub(crate) fn run(&mut self, until: Duration) {
        self.run_with(until, |_, _| {});
    }

    /// Messages whose queue fits.
    pub(crate) fn of(&self, fits: impl Fn(&QueueKey) -> bool) -> Vec<&Story> {
        self.stories.values().filter(|s| fits(&s.queue)).collect()
    }

    /// The process ends, and another one begins at once.
    pub(crate) fn restart(&mut self, crash: bool) {
        self.events.retain(|Reverse((_, _, event))| matches!(event, Event::Arrive(..) | Event::Act(_)));
        self.paging.clear();
        self.locating.clear();
        (self.tick_at, self.asked) = (None, false);
        self.world.restart(crash);
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
            Event::Arrive(queue, credential) => {
                let (id, active) = self.world.arrive(&queue, credential.as_ref());
                let came = self.world.now.mono;
                let story =
                    Story { queue, came, parked: !active, attempts: 0, warnings: 0, put_back: 0, end: None };
                self.stories.insert(id, story);
            }
            Event::Attempted(id) => self.attempted(id),
            Event::Committed(id, due) => self.world.commit(id, due),
            Event::Page(queue, fails) => {
                self.paging.retain(|other| *other != queue);
                let at = self.world.pages.iter().position(|p| p.queue == queue).unwrap();
                if fails { self.world.fail_page(at) } else { self.world.bring_page(at) }
            }
            Event::Horizon(fails) => {
                self.asked = false;
                self.world.bring_horizon(fails);
            }
            Event::Locate(destination) => {
                self.locating.retain(|other| *other != destination);
                let at = self.world.locates.iter().position(|d| *d == destination).unwrap();
                let site = self.home(&destination);
                self.world.located(at, site, HOUR);
            }
            Event::IdleTooLong(path) => self.world.lose_idle(&path),
            // Replaced by a sooner one.
            Event::Tick if self.tick_at != Some(self.world.now.mono) => {}
            Event::Tick => {
                self.tick_at = None;
                if self.world.wake.is_some_and(|at| at <= self.world.now.mono) {
                    self.watch.observe(self.world.now);
                    self.world.tick();
                }
            }
            Event::Act(_) => {}
        }
    }

    fn home(&self, destination: &Destination) -> Site {
        match (self.homes.get(destination), destination) {
            (Some(site), _) => site.clone(),
            (None, Destination::Mx(domain)) => Site::Hosts(format!("mx.{domain}").into()),
            (None, other) => Site::Alone(other.clone()),
        }
    }

    /// What the effects lead to.
    pub(crate) fn follow(&mut self) {
        for id in std::mem::take(&mut self.world.started) {
            let flight = self.world.flying[&id].clone();
            let took = match flight.path() {
                None => 1,
                Some(path) => {
                    let is_new = matches!(flight, Flight::OnNew(_));
                    *self.connects.entry(path.site.clone()).or_default() += usize::from(is_new);
                    let behaviour = self.behaviour(&path.site);
                    self.random(10) + if is_new { 50 } else { 0 } + took(behaviour, self.world.now.mono)
                }
            };
            self.after(took, Event::Attempted(id));
        }
        for id in std::mem::take(&mut self.world.put_back) {
            self.stories.get_mut(&id).unwrap().put_back += 1;
            self.after(5, Event::Committed(id, None));
        }
        let new: Vec<QueueKey> = self.world.pages.iter().map(|page| page.queue.clone()).collect();
        for queue in new.into_iter().filter(|queue| !self.paging.contains(queue)).collect::<Vec<_>>() {
            self.paging.push(queue.clone());
            let fails = self.fails();
            self.after(3, Event::Page(queue, fails));
        }
        let new = self.world.locates.clone();
        for destination in new.into_iter().filter(|d| !self.locating.contains(d)).collect::<Vec<_>>() {
            self.locating.push(destination.clone());
            self.after(20, Event::Locate(destination));
        }
        if self.world.horizon.is_some() && !self.asked {
            self.asked = true;
            let fails = self.fails();
            self.after(10, Event::Horizon(fails));
        }
        if let Some(at) = self.world.wake.filter(|&at| self.tick_at.is_none_or(|armed| at < armed)) {
            let at = at.max(self.world.now.mono);
            self.tick_at = Some(at);
            self.at(at, Event::Tick);
        }
    }

    fn fails(&mut self) -> bool {
        self.faults > 0 && self.random(self.faults) == 0
    }

    fn behaviour(&self, site: &Site) -> Behaviour {
        self.behaviours.get(site).copied().unwrap_or(Behaviour::Good(20))
    }

    fn attempted(&mut self, id: DeliveryId) {
        let attempts = self.stories[&id].attempts;
        let flight = self.world.flying[&id].clone();
        let (outcome, report, advice) = self.outcome(attempts, &flight);
        let idle = |sim: &Self| flight.path().and_then(|p| sim.world.paths.get(p)).map_or(0, |c| c.idle);
        let before = idle(self);
        self.world.end(id, report);
        if let Some(path) = flight.path().filter(|_| idle(self) > before) {
            self.after(5_000, Event::IdleTooLong(path.clone()));
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
        let advice: Vec<(u16, Advice)> = advice.into_iter().map(|advice| (0, advice)).collect();
        let decision = decide(&self.retry, &facts, &[RecipientOutcome::new(0, outcome)], &advice, now.wall);
        story.attempts = decision.attempts;
        story.warnings += u32::from(!decision.warn.is_empty());
        let end = match &decision.recipients[0].1 {
            Fate::Delivered(_) => Some("delivered"),
            Fate::Expired(_) => Some("expired"),
            Fate::Refused(_) => Some("refused"),
            Fate::Retry(_) => None,
        };
        // A crash before the settlement may deliver twice, and only that.
        story.end = story.end.or(end.map(|end| (now.mono, end)));
        self.after(5, Event::Committed(id, decision.retry_at));
    }

    fn outcome(&mut self, attempts: u32, flight: &Flight) -> (Outcome, Report, Option<Advice>) {
        let good = || Outcome::own(Disposition::Delivered, EnhancedStatus::new(2, 0, 0), "ok");
        let later = || Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 7, 1), "later");
        let says = |outcome, link, signal: Option<Signal>, advice| {
            let latency = Some(Duration::from_millis(20));
            (outcome, Report { link, latency, signals: signal.into_iter().collect() }, advice)
        };
        let path = match flight {
            Flight::Answer(outcome) => return says((**outcome).clone(), Link::Closed, None, None),
            flight => flight.path().unwrap().clone(),
        };
        let now = self.world.now.mono;
        let down = || says((*failure()).clone(), Link::Unreachable(failure()), None, None);
        let open = self.world.paths.get(&path).map_or(0, |c| c.all);
        match self.behaviour(&path.site) {
            Behaviour::DownUntil(until) if now.0 < until => down(),
            Behaviour::Flapping if (now.0.as_secs() / 3600).is_multiple_of(2) => down(),
            Behaviour::Greylisting if attempts == 0 => {
                says(later(), Link::Kept, None, Some(Advice::RetryAfter(Duration::from_secs(300))))
            }
            Behaviour::Greylisting => says(good(), Link::Closed, None, None),
            Behaviour::Moody(percent) if self.random(100) < percent => {
                says(later(), Link::Closed, None, None)
            }
            Behaviour::Limited(most) => {
                let recent = self.recent.entry(path.site.clone()).or_default();
                recent.retain(|at| now.since(*at) < 10 * SECOND);
                if recent.len() >= most {
                    return says(later(), Link::Closed, Some(Signal::Slow), None);
                }
                recent.push(now);
                says(good(), Link::Kept, None, None)
            }
            Behaviour::Narrow(most) if open > most => {
                let connections = u32::try_from(open).unwrap();
                says(later(), Link::Closed, Some(Signal::Full { connections }), None)
            }
            Behaviour::Blocks if *path.source == *"default" => {
                let signal = Signal::Suspend { path_for: 24 * HOUR, reason: "blocked".into() };
                says(later(), Link::Closed, Some(signal), None)
            }
            _ => says(good(), Link::Kept, None, None),
        }
    }
}

fn took(behaviour: Behaviour, now: Mono) -> u64 {
    match behaviour {
        Behaviour::Good(ms) => ms,
        Behaviour::DownUntil(until) if now.0 < until => 3_000,
        Behaviour::Stalls(from, to) if (from..to).contains(&now.0) => {
            u64::try_from((to - now.0).as_millis()).unwrap()
        }
        Behaviour::Stalls(..) => 10,
        Behaviour::Moody(_) => 200,
        _ => 20,
    }
}

/// Runs a test for some seeds, and says which one failed.
pub(crate) fn for_seeds(seeds: std::ops::Range<u64>, test: impl Fn(u64)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with SCHEDULE_SEED={}", self.0);
            }
        }
    }
    let only = std::env::var("SCHEDULE_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    // A soak: so many times as many seeds.
    let times = std::env::var("SCHEDULE_SOAK").ok().map_or(1, |times| times.parse::<u64>().unwrap());
    let many = seeds.start * times..seeds.end * times;
    for seed in only.map_or(many, |seed| seed..seed + 1) {
        let _named = Named(seed);
        test(seed);
    }
}
