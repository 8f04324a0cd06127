//! Random events in any order. At every step: no slot too many, no window too full, nothing delivered twice at a time
//! nor after it is gone, few effects. In the end, with sites that work: everything is delivered, nothing is left in
//! memory, and nothing spins.

use std::time::Duration;

use mail::{DeliveryId, QueueKey, Stream};
use proptest::prelude::*;
use schedule::{Limits, Link, Reservation};

use crate::world::{Flight, World, failure, queue};

#[derive(Clone, Debug)]
enum Op {
    Arrive(usize),
    Reserve(usize),
    Admit(usize),
    Cancel(usize),
    End(usize, Ended),
    Commit(usize, Option<u16>),
    Lose(usize),
    ReadPage(usize),
    BringPage(usize),
    FailPage(usize),
    LoseIdle(usize),
    Hold(usize, bool),
    Release(usize),
    Advance(u16),
    Tick,
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    Kept,
    Closed,
    Unreachable,
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0usize..64;
    let ended = prop_oneof![3 => Just(Ended::Kept), 1 => Just(Ended::Closed), 1 => Just(Ended::Unreachable)];
    prop_oneof![
        8 => n.clone().prop_map(Op::Arrive),
        2 => n.clone().prop_map(Op::Reserve),
        2 => n.clone().prop_map(Op::Admit),
        1 => n.clone().prop_map(Op::Cancel),
        8 => (n.clone(), ended).prop_map(|(n, ended)| Op::End(n, ended)),
        8 => (n.clone(), proptest::option::of(0u16..600)).prop_map(|(n, due)| Op::Commit(n, due)),
        1 => n.clone().prop_map(Op::Lose),
        2 => n.clone().prop_map(Op::ReadPage),
        3 => n.clone().prop_map(Op::BringPage),
        1 => n.clone().prop_map(Op::FailPage),
        1 => n.clone().prop_map(Op::LoseIdle),
        1 => (n.clone(), any::<bool>()).prop_map(|(n, remove)| Op::Hold(n, remove)),
        1 => n.prop_map(Op::Release),
        4 => (0u16..60_000).prop_map(Op::Advance),
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
    ]
}

fn limits() -> Limits {
    Limits {
        window: 5,
        active_total: 14,
        connections_per_site: 2,
        connections_total: 3,
        pages: 2,
        idle: Duration::from_secs(60),
        ..Limits::default()
    }
}

fn pick<T: Clone>(all: impl Iterator<Item = T>, n: usize) -> Option<T> {
    let all: Vec<T> = all.collect();
    (!all.is_empty()).then(|| all[n % all.len()].clone())
}

fn flying(world: &World, settling: bool) -> impl Iterator<Item = DeliveryId> {
    world.flying.iter().filter(move |(_, f)| (**f == Flight::Settling) == settling).map(|(id, _)| *id)
}

fn apply(world: &mut World, queues: &[QueueKey], op: Op) {
    match op {
        Op::Arrive(n) => drop(world.arrive(&queues[n % queues.len()])),
        Op::Reserve(n) => {
            let queue = queues[n % queues.len()].clone();
            if world.scheduler.reserve(&queue) == Reservation::Active {
                world.reserved.push(queue);
            }
        }
        Op::Admit(n) if !world.reserved.is_empty() => {
            let at = n % world.reserved.len();
            let queue = world.reserved.swap_remove(at);
            world.admit(&queue);
        }
        Op::Cancel(n) if !world.reserved.is_empty() => {
            let at = n % world.reserved.len();
            let queue = world.reserved.swap_remove(at);
            world.tell(|s, now, out| s.cancel(&queue, now, out));
        }
        Op::End(n, ended) => {
            let Some(id) = pick(flying(world, false), n) else { return };
            let link = match ended {
                Ended::Kept => Link::Kept,
                Ended::Closed => Link::Closed,
                Ended::Unreachable => Link::Unreachable(failure()),
            };
            world.end(id, link);
        }
        Op::Commit(n, due) => {
            let Some(id) = pick(flying(world, true), n) else { return };
            let due = due.map(|seconds| world.now.wall.plus(Duration::from_secs(u64::from(seconds))));
            world.commit(id, due);
        }
        Op::Lose(n) => {
            if let Some(id) = pick(flying(world, false), n) {
                world.lose(id);
            }
        }
        Op::ReadPage(n) if !world.pages.is_empty() => world.read_page(n % world.pages.len()),
        Op::BringPage(n) if !world.pages.is_empty() => world.bring_page(n % world.pages.len()),
        Op::FailPage(n) if !world.pages.is_empty() => world.fail_page(n % world.pages.len()),
        Op::LoseIdle(n) => {
            if let Some(site) = pick(world.sites.keys().cloned(), n) {
                world.lose_idle(&site);
            }
        }
        Op::Hold(n, remove) => {
            if let Some(id) = pick(world.rows.iter().filter(|r| !r.1.held).map(|r| *r.0), n) {
                world.hold(id, remove);
            }
        }
        Op::Release(n) => {
            if let Some(id) = pick(world.rows.iter().filter(|r| r.1.held).map(|r| *r.0), n) {
                world.release(id);
            }
        }
        Op::Advance(ms) => world.advance(Duration::from_millis(u64::from(ms))),
        Op::Tick => world.tick(),
        _ => {}
    }
}

/// From here on every site works and the store answers. Everything must leave, in a number of steps that grows with what
/// there is and not with how long one waits.
fn drain(world: &mut World) {
    let queues = std::mem::take(&mut world.reserved);
    queues.iter().for_each(|queue| world.tell(|s, now, out| s.cancel(queue, now, out)));
    let held: Vec<DeliveryId> = world.rows.iter().filter(|r| r.1.held).map(|r| *r.0).collect();
    held.into_iter().for_each(|id| world.release(id));
    let bound = 200 + 20 * world.rows.len();
    let mut steps = 0;
    world.ticks = 0;
    while !world.rows.is_empty() {
        steps += 1;
        assert!(steps < bound * 3, "{:#?} {:#?}", world.rows, world.scheduler.snapshot(world.now));
        if let Some(id) = pick(flying(world, false), 0) {
            let answered = matches!(world.flying[&id], Flight::Answer(_));
            world.end(id, Link::Kept);
            let due = answered.then(|| world.now.wall.plus(Duration::from_secs(60)));
            world.commit(id, due);
        } else if let Some(id) = pick(flying(world, true), 0) {
            world.commit(id, None);
        } else if !world.pages.is_empty() {
            world.bring_page(0);
        } else {
            let at = world.wake.expect("something waits, and nobody is to be woken for it");
            world.advance(at.since(world.now.mono));
            world.tick();
        }
        world.check();
    }
    assert!(world.ticks < bound, "{} ticks for nothing", world.ticks);
    // And it forgets all about it.
    let sites: Vec<_> = world.sites.iter().map(|(site, c)| (site.clone(), c.idle)).collect();
    for (site, idle) in sites {
        (0..idle).for_each(|_| world.lose_idle(&site));
    }
    let mut wakes = 0;
    loop {
        while !world.pages.is_empty() {
            world.bring_page(0);
        }
        let Some(at) = world.wake else { break };
        wakes += 1;
        assert!(wakes < 100, "it wants to be woken for ever");
        world.advance(at.since(world.now.mono));
        world.tick();
    }
    assert_eq!(world.scheduler.totals(), schedule::Totals::default());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_whatever_happens(ops in proptest::collection::vec(op(), 0..250), seed: u64) {
        let queues = queues();
        let mut world = World::new(limits(), seed);
        for op in ops {
            apply(&mut world, &queues, op);
            world.check();
        }
        drain(&mut world);
    }
}
