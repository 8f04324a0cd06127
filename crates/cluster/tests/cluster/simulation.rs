//! A few thousand seeded worlds. In each of them, at every step, no life that was declared over may act; see `world`.

use crate::world::{DRIFT, Fault, Kind, World};

const SEEDS: u64 = 2000;
const MINUTES: u64 = 5 * 60_000;

fn fault(world: &mut World, kind: Kind, nodes: u64, longest: u64) -> Fault {
    let from = world.dice.below(MINUTES);
    let node = (kind != Kind::Failover).then(|| usize::try_from(world.dice.below(nodes)).unwrap());
    Fault { kind, node, from, to: from + world.dice.below(longest) }
}

/// Everything at once: nobody who has beaten within eight seconds is declared dead.
#[test]
fn no_living_node_is_declared_dead_and_no_dead_one_acts() {
    let (mut declared, mut unknown, mut beats) = (0, 0, 0);
    for seed in 1..=SEEDS {
        let nodes = 2 + seed % 4;
        let mut world = World::new(seed, usize::try_from(nodes).unwrap());
        world.loss = world.dice.below(15);
        world.slow = 9000;
        for kind in [Kind::Frozen, Kind::Frozen, Kind::CutOff, Kind::CutOff, Kind::Failover, Kind::Failover] {
            let fault = fault(&mut world, kind, nodes, 30_000);
            world.faults.push(fault);
        }
        let outcome = world.run(MINUTES);
        for dead in &outcome.declared {
            let least = 8000 * 1000 / (1000 + DRIFT);
            assert!(dead.silent_for >= least, "seed {seed}: {dead:?}");
        }
        declared += outcome.declared.len();
        unknown += outcome.unknown;
        beats += outcome.beats;
    }
    // Or these worlds are too kind to prove anything.
    assert!(declared > 1000 && unknown > 1000 && beats > 100_000, "{declared} {unknown} {beats}");
}

/// Fail-overs and lost requests alone cost nobody its life, however long they take.
#[test]
fn a_failover_reaps_nobody() {
    for seed in 1..=SEEDS {
        let nodes = 2 + seed % 4;
        let mut world = World::new(seed, usize::try_from(nodes).unwrap());
        for _ in 0..4 {
            let fault = fault(&mut world, Kind::Failover, nodes, 60_000);
            world.faults.push(fault);
        }
        let outcome = world.run(MINUTES);
        assert!(outcome.declared.is_empty(), "seed {seed}: {:?}", outcome.declared);
        assert!(outcome.beats > 50);
    }
}

/// One that is gone is declared dead within twelve seconds, by however many others.
#[test]
fn a_dead_node_is_noticed_in_time() {
    for seed in 1..=SEEDS {
        let nodes = 2 + seed % 4;
        let mut world = World::new(seed, usize::try_from(nodes).unwrap());
        let from = 10_000 + world.dice.below(20_000);
        world.faults.push(Fault { kind: Kind::Frozen, node: Some(0), from, to: 2 * MINUTES });
        let outcome = world.run(MINUTES);
        let dead: Vec<_> = outcome.declared.iter().filter(|d| d.node == 0).collect();
        assert_eq!(dead.len(), 1, "seed {seed}: {:?}", outcome.declared);
        assert!(dead[0].at - from < 12_000, "seed {seed}: {:?} of {from}", dead[0]);
    }
}
