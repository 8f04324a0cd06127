//! Random events in any order. At every step: no limit exceeded, no window too full, nothing delivered twice at a time
//! nor after it is gone, few effects. In the end, with sites that work: everything is delivered, nothing is left in
//! memory, and nothing spins.

use std::sync::Arc;
use std::time::Duration;

use mail::{DeliveryId, QueueKey, Stream, Timestamp};
use proptest::prelude::*;
use schedule::{
    Egress, Limits, Link, Policy, Pool, Report, Reservation, Scope, Shape, Signal, Source, Suspension,
    Traffic, Warmup,
};

use crate::model::{DAY, ceiling, rate};
use crate::world::{Flight, World, failure, queue};

#[derive(Clone, Debug)]
enum Op {
    Arrive(usize, usize),
    Reserve(usize),
    Admit(usize),
    Cancel(usize),
    End(usize, Ended, Said),
    Commit(usize, Option<u16>),
    Lose(usize),
    ReadPage(usize),
    BringPage(usize),
    FailPage(usize),
    ReadHorizon,
    BringHorizon(bool),
    Locate(usize, usize),
    LoseIdle(usize),
    Hold(usize, bool),
    Release(usize),
    Suspend(usize, usize, bool),
    Restart(bool),
    Advance(u32),
    Tick,
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    Kept,
    Closed,
    Unreachable,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Nothing,
    Slow,
    Full(u32),
    Suspend,
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0usize..64;
    let ended = prop_oneof![3 => Just(Ended::Kept), 1 => Just(Ended::Closed), 1 => Just(Ended::Unreachable)];
    let said = prop_oneof![
        8 => Just(Said::Nothing), 1 => Just(Said::Slow), 1 => (0u32..4).prop_map(Said::Full), 1 => Just(Said::Suspend)
    ];
    prop_oneof![
        10 => (n.clone(), n.clone()).prop_map(|(n, by)| Op::Arrive(n, by)),
        2 => n.clone().prop_map(Op::Reserve),
        2 => n.clone().prop_map(Op::Admit),
        1 => n.clone().prop_map(Op::Cancel),
        8 => (n.clone(), ended, said).prop_map(|(n, ended, said)| Op::End(n, ended, said)),
        8 => (n.clone(), proptest::option::of(0u16..600)).prop_map(|(n, due)| Op::Commit(n, due)),
        1 => n.clone().prop_map(Op::Lose),
        2 => n.clone().prop_map(Op::ReadPage),
        3 => n.clone().prop_map(Op::BringPage),
        1 => n.clone().prop_map(Op::FailPage),
        1 => Just(Op::ReadHorizon),
        3 => prop_oneof![4 => Just(false), 1 => Just(true)].prop_map(Op::BringHorizon),
        4 => (n.clone(), n.clone()).prop_map(|(n, site)| Op::Locate(n, site)),
        1 => n.clone().prop_map(Op::LoseIdle),
        1 => (n.clone(), any::<bool>()).prop_map(|(n, remove)| Op::Hold(n, remove)),
        1 => n.clone().prop_map(Op::Release),
        1 => (n.clone(), n, any::<bool>()).prop_map(|(n, m, until)| Op::Suspend(n, m, until)),
        1 => prop_oneof![9 => Just(None), 1 => any::<bool>().prop_map(Some)]
            .prop_map(|crash| crash.map_or(Op::Tick, Op::Restart)),
        4 => (0u32..60_000).prop_map(Op::Advance),
        3 => Just(Op::Tick),
    ]
}

fn queues() -> Vec<QueueKey> {
    vec![
        queue(1, Stream::Transactional, "mx:a.example"),
        queue(1, Stream::Bulk, "mx:a.example"),
        queue(2, Stream::Transactional, "mx:a.example"),
        queue(1, Stream::Transactional, "mx:b.example"),
        queue(2, Stream::Bulk, "smarthost:c"),
        queue(3, Stream::Transactional, "mx:d.example"),
        queue(3, Stream::Bulk, "mx:e.example"),
        queue(4, Stream::Transactional, "mx:apart.example"),
    ]
}

const SITES: [&str; 3] = ["hosts:mx.one", "hosts:mx.two", "provider:big"];
const CREDENTIALS: [&str; 4] = ["", "", "printer", "app"];

fn policy() -> Policy {
    let limits = Limits {
        window: 5,
        active_total: 14,
        connections_per_site: 2,
        connections_first: 1,
        connections_total: 3,
        pages: 2,
        idle: Duration::from_secs(60),
        queues: 5,
        sites: 20,
        remember: Duration::from_secs(600),
        ..Limits::default()
    };
    let shape = |site: &str, domain: Option<&str>, traffic| Shape {
        sites: vec![site.parse().unwrap()],
        domains: domain.into_iter().map(|d| d.parse().unwrap()).collect(),
        sources: Vec::new(),
        traffic,
    };
    let slow = Traffic { rate: rate("4/5s"), connection_rate: rate("2/3s"), ..Traffic::default() };
    // The day ends soon after the start, and the plan with the third day.
    let start = Timestamp(1_795_500_000_000 / 86_400_000 * 86_400_000);
    let warmup = Some(Warmup { start, plan: vec![3, 5, 10] });
    Policy {
        limits,
        sources: vec![Source { name: "b".into(), warmup }],
        pools: vec![Pool { name: "two".into(), sources: vec![("default".into(), 1), ("b".into(), 2)] }],
        egress: vec![Egress {
            orgs: vec![mail::OrgId(2), mail::OrgId(3)],
            streams: Vec::new(),
            domains: Vec::new(),
            destinations: Vec::new(),
            pool: "two".into(),
        }],
        shapes: vec![
            shape("hosts:mx.one", None, slow),
            shape("smarthost:c", Some("apart.example"), Traffic { connections: Some(1), ..slow }),
        ],
        orgs: [(mail::OrgId(3), ceiling(Some(1), "10/20s"))].into(),
        credentials: [("printer".into(), ceiling(Some(1), "3/10s")), ("app".into(), ceiling(Some(1), ""))]
            .into(),
        routes: [("mx:b.example".parse().unwrap(), ceiling(Some(1), "2/1s"))].into(),
        ..Policy::default()
    }
}

fn pick<T: Clone>(all: impl Iterator<Item = T>, n: usize) -> Option<T> {
    let all: Vec<T> = all.collect();
    (!all.is_empty()).then(|| all[n % all.len()].clone())
}

fn flying(world: &World, attempts: bool) -> impl Iterator<Item = DeliveryId> {
    world.flying.iter().filter(move |(_, f)| f.is_attempt() == attempts).map(|(id, _)| *id)
}

fn credential(n: usize) -> Option<Arc<str>> {
    Some(CREDENTIALS[n % CREDENTIALS.len()]).filter(|name| !name.is_empty()).map(Arc::from)
}

fn scope(n: usize, m: usize) -> Scope {
    let mut scope = Scope::default();
    match n % 6 {
        0 => scope.org = Some(mail::OrgId(1 + i64::try_from(m % 4).unwrap())),
        1 => scope.stream = Some(if m.is_multiple_of(2) { Stream::Bulk } else { Stream::Transactional }),
        2 => scope.domain = Some("a.example".parse().unwrap()),
        3 => scope.site = Some(SITES[m % SITES.len()].parse().unwrap()),
        4 => scope.destination = Some("smarthost:c".parse().unwrap()),
        _ => scope.source = Some(if m.is_multiple_of(2) { "b".into() } else { "default".into() }),
    }
    scope
}

fn apply(world: &mut World, queues: &[QueueKey], op: Op) {
    match op {
        Op::Arrive(n, by) => drop(world.arrive(&queues[n % queues.len()], credential(by).as_ref())),
        Op::Reserve(n) => {
            let queue = queues[n % queues.len()].clone();
            if world.scheduler.reserve(&queue, None, world.now) == Reservation::Active {
                world.reserved.push(queue);
            }
        }
        Op::Admit(n) if !world.reserved.is_empty() => {
            let at = n % world.reserved.len();
            let queue = world.reserved.swap_remove(at);
            world.admit(&queue, None);
        }
        Op::Cancel(n) if !world.reserved.is_empty() => {
            let at = n % world.reserved.len();
            let queue = world.reserved.swap_remove(at);
            world.tell(|s, now, out| s.cancel(&queue, now, out));
        }
        Op::End(n, ended, said) => {
            let Some(id) = pick(flying(world, true), n) else { return };
            let link = match ended {
                Ended::Kept => Link::Kept,
                Ended::Closed => Link::Closed,
                Ended::Unreachable => Link::Unreachable(failure()),
            };
            let signal = match said {
                Said::Nothing => None,
                Said::Slow => Some(Signal::Slow),
                Said::Full(connections) => Some(Signal::Full { connections }),
                Said::Suspend => {
                    Some(Signal::Suspend { path_for: Duration::from_secs(300), reason: "no".into() })
                }
            };
            let report = Report {
                link,
                latency: Some(Duration::from_millis(50)),
                signals: signal.into_iter().collect(),
            };
            world.end(id, report);
        }
        Op::Commit(n, due) => {
            let Some(id) = pick(flying(world, false), n) else { return };
            let due = due.map(|seconds| world.now.wall.plus(Duration::from_secs(u64::from(seconds))));
            world.commit(id, due);
        }
        Op::Lose(n) => {
            if let Some(id) = pick(flying(world, true), n) {
                world.lose(id);
            }
        }
        Op::ReadPage(n) if !world.pages.is_empty() => world.read_page(n % world.pages.len()),
        Op::BringPage(n) if !world.pages.is_empty() => world.bring_page(n % world.pages.len()),
        Op::FailPage(n) if !world.pages.is_empty() => world.fail_page(n % world.pages.len()),
        Op::ReadHorizon => world.read_horizon(),
        Op::BringHorizon(fails) => world.bring_horizon(fails),
        Op::Locate(n, site) if !world.locates.is_empty() => {
            let valid = Duration::from_secs(10 + 100 * (site as u64 % 7));
            world.located(n % world.locates.len(), SITES[site % SITES.len()].parse().unwrap(), valid);
        }
        Op::Restart(crash) => world.restart(crash),
        Op::Advance(ms) => world.advance(Duration::from_millis(u64::from(ms))),
        Op::Tick => world.tick(),
        other => operate(world, other),
    }
}

/// What operators do, and the peers by themselves.
fn operate(world: &mut World, op: Op) {
    match op {
        Op::LoseIdle(n) => {
            if let Some(path) = pick(world.paths.keys().cloned(), n) {
                world.lose_idle(&path);
            }
        }
        Op::Hold(n, remove) => {
            if let Some(id) = pick(world.rows.all.iter().filter(|r| !r.1.held).map(|r| *r.0), n) {
                world.hold(id, remove);
            }
        }
        Op::Release(n) => {
            if let Some(id) = pick(world.rows.all.iter().filter(|r| r.1.held).map(|r| *r.0), n) {
                world.release(id);
            }
        }
        Op::Suspend(n, m, until) => {
            let until = until.then(|| world.now.wall.plus(Duration::from_secs(120)));
            world.configure(|policy| {
                if m.is_multiple_of(3) {
                    policy.suspensions.pop();
                } else {
                    let reason = "test".to_owned();
                    policy.suspensions.push(Suspension { id: 1, scope: scope(n, m), until, reason });
                }
            });
        }
        _ => {}
    }
}

/// Everything that would come by itself, but time. False when nothing would.
fn step(world: &mut World) -> bool {
    if let Some(id) = pick(flying(world, true), 0) {
        let answered = matches!(world.flying[&id], Flight::Answer(_));
        world.end(id, Report::of(Link::Kept));
        let due = answered.then(|| world.now.wall.plus(Duration::from_secs(60)));
        world.commit(id, due);
    } else if let Some(id) = pick(flying(world, false), 0) {
        world.commit(id, None);
    } else if !world.pages.is_empty() {
        world.bring_page(0);
    } else if world.horizon.is_some() {
        world.bring_horizon(false);
    } else if !world.locates.is_empty() {
        world.located(0, "hosts:mx.two".parse().unwrap(), DAY);
    } else {
        return false;
    }
    true
}

/// From here on every site works and the store answers. Everything must leave, in a number of steps that grows with what
/// there is and not with how long one waits.
fn drain(world: &mut World) {
    world.configure(|policy| policy.suspensions.clear());
    let queues = std::mem::take(&mut world.reserved);
    queues.iter().for_each(|queue| world.tell(|s, now, out| s.cancel(queue, now, out)));
    let held: Vec<DeliveryId> = world.rows.all.iter().filter(|r| r.1.held).map(|r| *r.0).collect();
    held.into_iter().for_each(|id| world.release(id));
    let bound = 300 + 40 * world.rows.all.len();
    let (mut steps, mut early) = (0, 0);
    while !world.rows.all.is_empty() {
        if step(world) {
            steps += 1;
        } else {
            let Some(at) = world.wake else {
                panic!("nobody is to be woken for {:#?} {:#?}", world.rows.all, world.scheduler.totals());
            };
            let wait = at.since(world.now.mono);
            early += usize::from(wait < Duration::from_secs(30));
            world.advance(wait);
            world.tick();
        }
        if steps + 30 > bound * 3 {
            let asked = (&world.pages, &world.horizon, &world.locates);
            eprintln!("{:?} {:?} {asked:?}", world.now.wall, world.flying);
        }
        assert!(steps < bound * 3, "{:?}", world.scheduler.totals());
        world.check();
    }
    assert!(early < bound, "{early} ticks for nothing");
    // And it forgets all about it.
    let paths: Vec<_> = world.paths.iter().map(|(path, c)| (path.clone(), c.idle)).collect();
    for (path, idle) in paths {
        (0..idle).for_each(|_| world.lose_idle(&path));
    }
    let mut wakes = 0;
    loop {
        while step(world) {}
        let Some(at) = world.wake else { break };
        wakes += 1;
        assert!(wakes < 3000, "it wants to be woken for ever");
        world.advance(at.since(world.now.mono));
        world.tick();
    }
    assert_eq!(world.scheduler.totals(), schedule::Totals::default());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_whatever_happens(ops in proptest::collection::vec(op(), 0..300), seed: u64) {
        let queues = queues();
        let mut world = World::new(policy(), seed);
        for op in ops {
            apply(&mut world, &queues, op);
            world.check();
        }
        drain(&mut world);
    }
}

/// The clock of a rate has to be saved also when it lets the next one go already: the slack is used up.
#[test]
fn rates_of_paths_hold_over_a_restart() {
    let queues = queues();
    let mut world = World::new(policy(), 1);
    let ops = [
        Op::Arrive(23, 0),
        Op::End(0, Ended::Closed, Said::Nothing),
        Op::Advance(1426),
        Op::Restart(false),
        Op::Arrive(7, 0),
        Op::End(0, Ended::Closed, Said::Nothing),
        Op::Arrive(39, 0),
    ];
    ops.into_iter().for_each(|op| apply(&mut world, &queues, op));
    drain(&mut world);
}
