//! A thousand small worlds, each other than the others: sites of all kinds, sources, ceilings, operators, faults, restarts. What
//! must hold is checked at each step by `world` and `model`; here is what must have come of it in the end.

use std::sync::Arc;
use std::time::Duration;

use mail::{DeliveryId, OrgId, Site, Stream};
use schedule::{Egress, Limits, Policy, Pool, Retry, Scope, Shape, Source, Suspension, Traffic, Warmup};

use crate::model::{DAY, HOUR, MINUTE, ceiling, rate};
use crate::simulation::{Behaviour, Event, Simulation, for_seeds};
use crate::world::queue;

/// What the dice are asked for.
struct Dice<'a>(&'a mut dyn FnMut(u64) -> u64);

impl Dice<'_> {
    fn one_in(&mut self, n: u64) -> bool {
        (self.0)(n) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from((self.0)(all.len() as u64)).unwrap()].clone()
    }

    fn size(&mut self, from: u64, to: u64) -> usize {
        usize::try_from(from + (self.0)(to - from)).unwrap()
    }
}

fn behaviour(dice: &mut Dice<'_>) -> Behaviour {
    let all = [
        Behaviour::Good(20),
        Behaviour::Good(20),
        Behaviour::Good(2_000),
        Behaviour::Good(60_000),
        Behaviour::Greylisting,
        Behaviour::Moody(50),
        Behaviour::Moody(100),
        Behaviour::Limited(3),
        Behaviour::Narrow(1),
        Behaviour::Flapping,
        Behaviour::DownUntil(2 * HOUR),
        Behaviour::DownUntil(Duration::MAX),
        Behaviour::Blocks,
        Behaviour::Stalls(10 * MINUTE, 30 * MINUTE),
    ];
    dice.of(&all)
}

fn policy(dice: &mut Dice<'_>) -> Policy {
    let limits = Limits {
        window: dice.size(2, 20),
        active_total: dice.size(10, 60),
        connections_per_site: dice.size(1, 6),
        connections_first: dice.size(1, 4),
        connections_total: dice.size(2, 12),
        pages: dice.size(1, 4),
        queues: dice.size(6, 40),
        sites: dice.size(15, 30),
        ..Limits::default()
    };
    let start = mail::Timestamp(1_795_500_000_000);
    let warmup = dice.one_in(2).then(|| Warmup { start, plan: vec![4, 8, 16] });
    let pool =
        Pool { name: "two".into(), sources: vec![("default".into(), 1), ("b".into(), dice.of(&[0, 1, 5]))] };
    let orgs: Vec<OrgId> = if dice.one_in(2) { vec![OrgId(1), OrgId(2)] } else { Vec::new() };
    let traffic = Traffic {
        connections: dice.of(&[None, Some(1), Some(3)]),
        messages_per_connection: None,
        rate: dice.of(&[None, rate("5/10s"), rate("30/1m")]),
        connection_rate: dice.of(&[None, rate("6/1m")]),
    };
    let mut policy = Policy {
        limits,
        sources: vec![Source { name: "b".into(), warmup }],
        pools: vec![pool],
        egress: vec![Egress {
            orgs,
            streams: Vec::new(),
            domains: Vec::new(),
            destinations: Vec::new(),
            pool: "two".into(),
        }],
        ..Policy::default()
    };
    if dice.one_in(2) {
        policy.shapes.push(Shape {
            sites: vec!["hosts:s0".parse().unwrap(), "provider:s1".parse().unwrap()],
            domains: if dice.one_in(2) { vec!["d3.example".parse().unwrap()] } else { Vec::new() },
            sources: Vec::new(),
            traffic,
        });
    }
    if dice.one_in(2) {
        policy.orgs.insert(OrgId(1), ceiling(dice.of(&[None, Some(1), Some(3)]), dice.of(&["", "10/10s"])));
    }
    if dice.one_in(2) {
        policy.credentials.insert("app".into(), ceiling(dice.of(&[None, Some(1)]), dice.of(&["", "5/10s"])));
    }
    if dice.one_in(3) {
        policy.routes.insert("mx:d0.example".parse().unwrap(), ceiling(Some(1), dice.of(&["", "2/1s"])));
    }
    policy
}

fn scope(dice: &mut Dice<'_>) -> Scope {
    let mut scope = Scope::default();
    match (dice.0)(5) {
        0 => scope.org = Some(OrgId(dice.of(&[1, 2, 3]))),
        1 => scope.stream = Some(dice.of(&[Stream::Bulk, Stream::Transactional])),
        2 => scope.domain = Some(dice.of(&["d0.example", "*.example"]).parse().unwrap()),
        3 => scope.site = Some(dice.of(&["hosts:s0", "provider:s1"]).parse().unwrap()),
        _ => scope.source = Some(dice.of(&["default", "b"]).into()),
    }
    scope
}

const DOMAINS: u64 = 12;

fn site(n: usize) -> Site {
    if n.is_multiple_of(2) { format!("hosts:s{n}") } else { format!("provider:s{n}") }.parse().unwrap()
}

fn act(sim: &mut Simulation, what: usize) {
    let until = sim.world.now.wall.plus(30 * MINUTE);
    let mut random = |below| sim.random(below);
    let mut dice = Dice(&mut random);
    let (scope, n, pick) = (scope(&mut dice), (dice.0)(DOMAINS), dice.size(0, 1000));
    let forever = dice.one_in(2);
    match what % 8 {
        0 | 1 => sim.world.configure(|policy| {
            let until = (!forever).then_some(until);
            policy.suspensions.push(Suspension { id: 1, scope, until, reason: "test".into() });
        }),
        2 => sim.world.configure(|policy| policy.suspensions.clear()),
        3 => sim.restart(false),
        4 if forever => sim.restart(true),
        5 => {
            let domain = format!("mx:d{n}.example").parse().unwrap();
            sim.homes.insert(domain, site(pick % 5));
        }
        _ => {
            // An operator wants one tried now, or holds one for a moment.
            let ids: Vec<DeliveryId> = sim.world.rows.all.keys().copied().collect();
            if let Some(&id) =
                ids.get(pick % ids.len().max(1)).filter(|id| !sim.world.flying.contains_key(id))
            {
                sim.world.hold(id, false);
                let destination = sim.world.rows.all[&id].queue.destination.clone();
                sim.world.tell(|s, now, out| s.lift(&destination, now, out));
                sim.world.release(id);
            }
        }
    }
}

fn run(seed: u64) {
    let mut state = seed.wrapping_add(77).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let mut dice = Dice(&mut random);
    let policy = policy(&mut dice);
    let behaviours: Vec<(String, Behaviour)> =
        (0..5).map(|n| (site(n).to_string(), behaviour(&mut dice))).collect();
    let sites: Vec<(&str, Behaviour)> = behaviours.iter().map(|(s, b)| (s.as_str(), *b)).collect();
    let mut sim = Simulation::new(seed, policy, &sites);
    sim.faults = dice.of(&[0, 0, 5, 20]);
    // Some live as long as mail does by default.
    let lifetime = if seed.is_multiple_of(100) { 5 * DAY } else { 8 * HOUR };
    sim.retry = Retry { lifetime, warn_after: 2 * HOUR, ..sim.retry };
    for n in 0..DOMAINS {
        sim.homes.insert(format!("mx:d{n}.example").parse().unwrap(), site(dice.size(0, 5)));
    }
    let messages = dice.size(20, 120);
    for _ in 0..messages {
        let to = format!("mx:d{}.example", (dice.0)(DOMAINS));
        let stream = dice.of(&[Stream::Bulk, Stream::Transactional]);
        let credential: Option<Arc<str>> = dice.one_in(3).then(|| "app".into());
        let span = dice.of(&[1_000, 600_000, 7_200_000]);
        let after = Duration::from_millis((dice.0)(span));
        sim.event_at(after, Event::Arrive(queue(dice.of(&[1, 2, 3]), stream, &to), credential));
    }
    for _ in 0..dice.size(0, 12) {
        sim.event_at(Duration::from_millis((dice.0)(4 * 3_600_000)), Event::Act(dice.size(0, 8)));
    }
    sim.run_with(5 * HOUR, act);
    sim.world.configure(|policy| policy.suspensions.clear());
    sim.follow();
    let before = sim.world.now.mono;
    sim.run_with(30 * DAY, act);
    assert!(sim.world.rows.all.is_empty(), "{:#?}", sim.waiting());
    let late = sim.retry.lifetime + 7 * HOUR + 4 * DAY;
    for story in sim.stories.values() {
        let (end, how) = story.end.expect("it has ended");
        assert!(how == "delivered" || how == "expired", "{story:?}");
        assert!(how == "delivered" || story.took() >= sim.retry.lifetime, "{story:?}");
        assert!(end.since(story.came) <= late && story.warnings <= 1, "{story:?}");
    }
    // Nothing spins: so many events for each attempt and each half minute, and no more.
    let attempts: u64 = sim.stories.values().map(|s| u64::from(s.attempts + s.put_back) + 1).sum();
    let minutes = sim.world.now.mono.since(before).as_secs() / 60;
    let seen = sim.events_seen;
    assert!(
        seen < 4_000 + 30 * attempts + 6 * (minutes + 300),
        "{seen} events, {attempts} attempts, {minutes} min"
    );
}

#[test]
fn seeds_0_to_249() {
    for_seeds(0..250, run);
}

#[test]
fn seeds_250_to_499() {
    for_seeds(250..500, run);
}

#[test]
fn seeds_500_to_749() {
    for_seeds(500..750, run);
}

#[test]
fn seeds_750_to_999() {
    for_seeds(750..1000, run);
}
