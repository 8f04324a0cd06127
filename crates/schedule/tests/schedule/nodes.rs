//! Several nodes with limits that they share, a database between them that answers late, not at all, or after the fact, and
//! one count of everything for all.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use mail::Mono;
use schedule::{Granted, Policy, Wish};

use crate::bank::Bank;
use crate::model::SECOND;
use crate::simulation::{Behaviour, Simulation};

/// A renewal under way.
enum Renewal {
    /// On its way to the database; `answers`: the answer will come back.
    Asks { wishes: Vec<Wish>, asked: Mono, answers: bool },
    /// Carried out or not, and on its way back.
    Answers(Vec<Granted>),
}

pub(crate) struct Node {
    pub(crate) sim: Simulation,
    renewal: Option<(Mono, Renewal)>,
    pub(crate) is_dead: bool,
}

pub(crate) struct Nodes {
    pub(crate) all: Vec<Node>,
    pub(crate) bank: Bank,
    pub(crate) now: Mono,
    /// The database answers nobody until then.
    pub(crate) down_until: Mono,
    /// Of so many renewals one gets lost on the way there, and one on the way back; 0: none.
    pub(crate) losses: u64,
    policy: Policy,
    /// The most connections on a path that were seen, over all nodes.
    pub(crate) most: BTreeMap<schedule::Path, usize>,
    pub(crate) cuts: usize,
    random: u64,
}

impl Nodes {
    pub(crate) fn new(count: u16, seed: u64, policy: Policy, sites: &[(&str, Behaviour)]) -> Self {
        let mut all: Vec<Node> = Vec::new();
        for n in 0..count {
            let mut sim = Simulation::new(seed + u64::from(n) * 7919, policy.clone(), sites);
            if let Some(first) = all.first() {
                sim.world.model = Rc::clone(&first.sim.world.model);
            }
            sim.world.rows.made = u64::from(n) << 40;
            sim.world.tell(|s, now, out| s.set_sharing(true, now, out));
            sim.follow();
            all.push(Node { sim, renewal: None, is_dead: false });
        }
        Self {
            all,
            bank: Bank::default(),
            now: Mono(SECOND),
            down_until: Mono::default(),
            losses: 0,
            policy,
            most: BTreeMap::new(),
            cuts: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Runs until nothing happens any more, or so long after the start.
    pub(crate) fn run(&mut self, until: Duration) {
        let until = Mono(SECOND).plus(until);
        loop {
            let next = |node: &Node| {
                let renewal = node.renewal.as_ref().map(|renewal| renewal.0);
                node.sim.next().into_iter().chain(renewal).min()
            };
            let first = (0..self.all.len()).filter_map(|n| Some((next(&self.all[n])?, n))).min();
            let Some((at, n)) = first.filter(|(at, _)| *at <= until) else { break };
            self.now = self.now.max(at);
            if self.all[n].renewal.as_ref().is_some_and(|renewal| renewal.0 <= at) {
                self.renewal(n);
            } else {
                self.all[n].sim.run(at.since(Mono(SECOND)));
            }
            self.after(n);
        }
    }

    /// What came of a step of a node.
    fn after(&mut self, n: usize) {
        let node = &mut self.all[n];
        if node.is_dead {
            node.renewal = None;
            return;
        }
        self.cuts += node.sim.world.cut.len();
        node.sim.cut_off();
        if node.renewal.is_none() && std::mem::take(&mut node.sim.world.borrow) {
            let now = self.clock(n);
            let wishes = self.all[n].sim.world.scheduler.wishes(now);
            if wishes.is_empty() {
                self.all[n].sim.world.tell(|s, now, out| s.granted(&[], now, out));
                self.all[n].sim.follow();
            } else {
                let late = Duration::from_millis(1 + self.random(60));
                let losses = self.losses.max(1);
                let (is_lost, answers) = match self.random(losses) {
                    0 if self.losses > 0 => (true, false),
                    1 if self.losses > 1 => (false, false),
                    _ => (false, true),
                };
                let renewal = if is_lost {
                    (self.now.plus(5 * SECOND), Renewal::Answers(Vec::new()))
                } else {
                    (self.now.plus(late), Renewal::Asks { wishes, asked: self.now, answers })
                };
                self.all[n].renewal = Some(renewal);
            }
        }
        self.check();
    }

    /// A node's clocks stand where its last event was.
    fn clock(&mut self, n: usize) -> schedule::Now {
        let world = &mut self.all[n].sim.world;
        let passed = self.now.since(world.now.mono);
        world.advance(passed);
        world.now
    }

    fn renewal(&mut self, n: usize) {
        let now = self.now;
        self.clock(n);
        let late = now.plus(Duration::from_millis(1 + self.random(60)));
        let down = now < self.down_until;
        let node = &mut self.all[n];
        match node.renewal.take() {
            Some((_, Renewal::Asks { .. })) if down => {
                node.renewal = Some((now.plus(2 * SECOND), Renewal::Answers(Vec::new())));
            }
            Some((_, Renewal::Asks { wishes, asked, answers })) => {
                let granted = self.bank.lend(u16::try_from(n).unwrap(), &wishes, asked, now);
                let answer = if answers { (late, granted) } else { (now.plus(5 * SECOND), Vec::new()) };
                node.renewal = Some((answer.0, Renewal::Answers(answer.1)));
            }
            Some((_, Renewal::Answers(granted))) => {
                node.sim.world.tell(|s, now, out| s.granted(&granted, now, out));
                node.sim.follow();
            }
            None => {}
        }
    }

    /// A node's power fails.
    pub(crate) fn kill(&mut self, n: usize) {
        let node = &mut self.all[n];
        (node.is_dead, node.renewal) = (true, None);
        node.sim.die();
    }

    /// The limit of a path holds for all together, whatever each of them thinks.
    fn check(&mut self) {
        let mut open: BTreeMap<&schedule::Path, usize> = BTreeMap::new();
        for node in &self.all {
            for (path, connections) in &node.sim.world.paths {
                *open.entry(path).or_default() += connections.all;
            }
        }
        for (path, open) in open {
            let said = self.policy.traffic(&path.source, &path.site).connections;
            let limit = said.map_or(self.policy.limits.connections_per_site, |n| n as usize);
            assert!(open <= limit, "{open} connections on {path} at {:?}", self.now);
            let most = self.most.entry(path.clone()).or_default();
            *most = open.max(*most);
        }
    }

    /// Messages of a node that were delivered until then.
    pub(crate) fn delivered(&self, n: usize, until: Duration) -> usize {
        let until = Mono(SECOND).plus(until);
        let ends = self.all[n].sim.stories.values().filter_map(|story| story.end);
        ends.filter(|(at, what)| *what == "delivered" && *at <= until).count()
    }

    pub(crate) fn left(&self) -> usize {
        self.all.iter().filter(|node| !node.is_dead).map(|node| node.sim.world.rows.all.len()).sum()
    }
}
