//! A simulated cluster: a database, nodes with clocks of their own, and what can befall them. The observers and leases
//! are the real ones; time is the simulator's, in milliseconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use cluster::{Lease, Observer, Sight, Token};
use mail::{Clock, ManualClock, Timestamp};

/// How far the rate of a node's clock may be off, in thousandths.
pub(crate) const DRIFT: u64 = 20;
/// A request that is lost counts as failed after this.
const LOST_AFTER: u64 = 1500;

pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `n` (xorshift64*).
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n.max(1)
    }

    pub(crate) fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

/// From when to when, and for which node; none: the database, for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) node: Option<usize>,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The process stands still; its clock runs on.
    Frozen,
    /// Nothing reaches the database, or nothing comes back.
    CutOff,
    /// A fail-over. Each node needs a while of its own to find the new server.
    Failover,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A node begins a beat.
    Begin(usize),
    /// Its transaction commits in the database.
    Commit { node: usize, life: i64, began: u64 },
    /// The answer reaches it; the number is that of what it saw.
    Answer { node: usize, life: i64, began: u64, saw: Option<usize> },
    /// It finds that nothing came.
    Fail { node: usize, life: i64 },
    /// Its declaration of a death commits.
    Declare { by: usize, node: usize, life: i64, beat: i64 },
}

struct Row {
    epoch: i64,
    beat: i64,
    up: bool,
    last_beat: u64,
}

struct Node {
    lease: Lease,
    clock: Clock,
    manual: ManualClock,
    observer: Observer,
    /// Thousandths; 1000 is right.
    rate: u64,
    local: u64,
    /// How long it takes to find the new server after a fail-over.
    reconnect: u64,
}

/// What came of a world.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) declared: Vec<Declared>,
    pub(crate) beats: u64,
    /// Beats that were committed while the node believed they had failed.
    pub(crate) unknown: u64,
}

#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) node: usize,
    pub(crate) at: u64,
    pub(crate) silent_for: u64,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    now: u64,
    rows: Vec<Row>,
    nodes: Vec<Node>,
    /// Leases of lives that were declared over: none of them may permit anything any more.
    over: Vec<(usize, Lease)>,
    steps: BinaryHeap<Reverse<(u64, Step)>>,
    views: Vec<Vec<Sight>>,
    pub(crate) faults: Vec<Fault>,
    /// Of a hundred requests or answers so many are lost.
    pub(crate) loss: u64,
    /// How long the slowest answers take.
    pub(crate) slow: u64,
    outcome: Outcome,
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let mut dice = Dice::new(seed);
        let mut world = Self {
            now: 0,
            rows: Vec::new(),
            nodes: Vec::new(),
            over: Vec::new(),
            steps: BinaryHeap::new(),
            views: Vec::new(),
            faults: Vec::new(),
            loss: 0,
            slow: 1000,
            outcome: Outcome::default(),
            dice: Dice::new(0),
        };
        for i in 0..nodes {
            let manual = ManualClock::new(Timestamp(0));
            manual.advance(Duration::from_millis(dice.below(1_000_000)));
            let clock = manual.clock();
            world.rows.push(Row { epoch: 1, beat: 0, up: true, last_beat: 0 });
            let token = Token { node: number(i), epoch: 1 };
            world.nodes.push(Node {
                lease: Lease::new(token, clock.clone()),
                clock,
                manual,
                observer: Observer::default(),
                rate: 1000 - DRIFT + dice.below(2 * DRIFT + 1),
                local: 0,
                reconnect: dice.below(4000),
            });
            world.at(dice.below(2000), Step::Begin(i));
        }
        world.dice = dice;
        world
    }

    pub(crate) fn run(mut self, until: u64) -> Outcome {
        while let Some(Reverse((at, step))) = self.steps.pop() {
            if at > until {
                break;
            }
            self.now = self.now.max(at);
            // A process that stands still does nothing; what the database does goes on.
            if let Some(i) = actor(step)
                && let Some(thaw) = self.fault(Kind::Frozen, Some(i))
            {
                self.steps.push(Reverse((thaw, step)));
                continue;
            }
            self.step(step);
            self.nobody_acts_on_a_life_that_is_over();
        }
        self.outcome
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin(node) => {
                let life = self.nodes[node].lease.token().epoch;
                if self.lost(node) {
                    return self.after(LOST_AFTER, Step::Fail { node, life });
                }
                let way = 1 + self.dice.below(40);
                self.after(way, Step::Commit { node, life, began: self.now });
            }
            Step::Commit { node, life, began } => self.commit(node, life, began),
            Step::Answer { node, life, began, saw } => self.answer(node, life, began, saw),
            Step::Fail { node, life } => {
                if self.nodes[node].lease.token().epoch == life {
                    self.nodes[node].observer.failed();
                    self.after(500, Step::Begin(node));
                }
            }
            Step::Declare { by, node, life, beat } => self.declare(by, node, life, beat),
        }
    }

    fn commit(&mut self, node: usize, life: i64, began: u64) {
        if self.fault(Kind::Failover, None).is_some() {
            return self.after(LOST_AFTER, Step::Fail { node, life });
        }
        let row = &mut self.rows[node];
        let valid = row.epoch == life && row.up;
        if valid {
            row.beat += 1;
            row.last_beat = self.now;
            self.outcome.beats += 1;
        }
        let others = (0..self.rows.len()).filter(|i| *i != node && self.rows[*i].up);
        let seen = others.map(|i| self.sight(i)).collect();
        self.views.push(seen);
        let saw = valid.then(|| self.views.len() - 1);
        if self.lost(node) {
            self.outcome.unknown += u64::from(valid);
            return self.after(LOST_AFTER, Step::Fail { node, life });
        }
        // Now and then an answer is slow.
        let way = if self.dice.percent(2) { self.dice.below(self.slow) } else { 1 + self.dice.below(40) };
        self.after(way, Step::Answer { node, life, began, saw });
    }

    fn answer(&mut self, node: usize, life: i64, began: u64, saw: Option<usize>) {
        self.tick(node);
        if self.nodes[node].lease.token().epoch != life {
            return;
        }
        let Some(saw) = saw else { return self.rejoin(node) };
        let rate = self.nodes[node].rate;
        let me = &mut self.nodes[node];
        let ended = me.clock.mono();
        let started = mail::Mono(ended.0 - Duration::from_millis((self.now - began) * rate / 1000));
        me.lease.renew(started, false);
        let dead = me.observer.cycle(started, ended, &self.views[saw]);
        for sight in dead {
            let other = usize::from(sight.token.node) - 1;
            let way = 1 + self.dice.below(200);
            let declare = Step::Declare { by: node, node: other, life: sight.token.epoch, beat: sight.beat };
            self.after(way, declare);
        }
        let due = self.nodes[node]
            .observer
            .due()
            .map(|due| due.since(ended))
            .map(|d| u64::try_from(d.as_millis()).unwrap());
        let due = due.map_or(2000, |local| local * 1000 / rate + 5).max(100);
        let next = (began + 2000).saturating_sub(self.now).min(due);
        self.after(next, Step::Begin(node));
    }

    /// It has learnt that it was declared dead.
    fn rejoin(&mut self, node: usize) {
        self.nodes[node].lease.depose();
        let row = &mut self.rows[node];
        row.epoch += 1;
        row.up = true;
        row.last_beat = self.now;
        let token = Token { node: number(node), epoch: row.epoch };
        let clock = self.nodes[node].clock.clone();
        self.nodes[node].lease = Lease::new(token, clock);
        self.nodes[node].observer = Observer::default();
        self.after(10, Step::Begin(node));
    }

    fn declare(&mut self, by: usize, node: usize, life: i64, beat: i64) {
        let row = &self.rows[node];
        let changed = row.epoch != life || row.beat != beat || !row.up;
        if changed || self.lost(by) || self.fault(Kind::Failover, None).is_some() {
            return;
        }
        let silent_for = self.now - self.rows[node].last_beat;
        self.outcome.declared.push(Declared { node, at: self.now, silent_for });
        self.over.push((node, self.nodes[node].lease.clone()));
        self.rows[node].epoch += 1;
        self.rows[node].up = false;
    }

    /// The heart of the matter. It is asked at every step, also while the node stands still: the right to act must be
    /// gone by its own clock, not because it was told.
    fn nobody_acts_on_a_life_that_is_over(&mut self) {
        for i in 0..self.nodes.len() {
            self.tick(i);
        }
        for (node, lease) in &self.over {
            assert!(!lease.may_finish(), "node {node} may act on a life that is over, at {} ms", self.now);
        }
    }

    /// Brings a node's clock up to date.
    fn tick(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let local = self.now * node.rate / 1000;
        node.manual.advance(Duration::from_millis(local - node.local));
        node.local = local;
    }

    fn sight(&self, node: usize) -> Sight {
        let row = &self.rows[node];
        Sight { token: Token { node: number(node), epoch: row.epoch }, beat: row.beat }
    }

    fn lost(&mut self, node: usize) -> bool {
        let reconnect = self.nodes[node].reconnect;
        let now = self.now;
        self.dice.percent(self.loss)
            || self.fault(Kind::CutOff, Some(node)).is_some()
            || self
                .faults
                .iter()
                .any(|f| f.kind == Kind::Failover && (f.from..f.to + reconnect).contains(&now))
    }

    /// Until when a fault lasts that is now.
    fn fault(&self, kind: Kind, node: Option<usize>) -> Option<u64> {
        let now = |f: &&Fault| f.kind == kind && f.node == node && (f.from..f.to).contains(&self.now);
        self.faults.iter().filter(now).map(|f| f.to).max()
    }

    fn after(&mut self, ms: u64, step: Step) {
        self.at(self.now + ms, step);
    }

    fn at(&mut self, at: u64, step: Step) {
        self.steps.push(Reverse((at, step)));
    }
}

fn number(i: usize) -> u16 {
    u16::try_from(i + 1).unwrap()
}

/// Whose process does it; none: the database.
fn actor(step: Step) -> Option<usize> {
    match step {
        Step::Begin(node) | Step::Answer { node, .. } | Step::Fail { node, .. } => Some(node),
        Step::Commit { .. } | Step::Declare { .. } => None,
    }
}
