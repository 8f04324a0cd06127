//! Limits that several nodes share. At every step: never more than the limit over all nodes. In the end: everything delivered,
//! to everyone a fair part, and the limit made use of.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Claim, fair_share, share};
use mail::Stream::{Bulk, Transactional};
use mail::{OrgId, Timestamp};
use proptest::prelude::*;
use schedule::{Limits, Policy, Pool, Shape, Source, Traffic, Warmup};

use crate::model::{DAY, MINUTE, SECOND, ceiling, rate};
use crate::nodes::Nodes;
use crate::simulation::{Behaviour, Event, for_seeds};
use crate::world::queue;

const BIG: &str = "hosts:mx.big.example";

fn shaped(traffic: Traffic) -> Policy {
    let shape =
        Shape { sites: vec![BIG.parse().unwrap()], domains: Vec::new(), sources: Vec::new(), traffic };
    Policy { shapes: vec![shape], ..Policy::default() }
}

fn connections(n: u32) -> Policy {
    shaped(Traffic { connections: Some(n), ..Traffic::default() })
}

/// So many messages for the big site at each of these nodes, all at once.
fn load(nodes: &mut Nodes, which: &[usize], count: usize) {
    for &n in which {
        for _ in 0..count {
            nodes.all[n].sim.arrive_at(Duration::ZERO, queue(1, Transactional, "mx:big.example"));
        }
    }
}

#[test]
fn three_nodes_use_a_limit_of_seven_to_the_full_and_evenly() {
    for_seeds(0..4, |seed| {
        let mut nodes = Nodes::new(3, seed, connections(7), &[(BIG, Behaviour::Good(200))]);
        load(&mut nodes, &[0, 1, 2], 1500);
        nodes.run(90 * SECOND);
        let path = nodes.most.iter().next().unwrap();
        assert_eq!(*path.1, 7, "the limit is made use of");
        let done: Vec<usize> = (0..3).map(|n| nodes.delivered(n, 90 * SECOND)).collect();
        let all: usize = done.iter().sum();
        // Seven connections at some 200 ms a message.
        assert!(all > 90 * 33 * 3 / 4, "{done:?}");
        assert!(done.iter().all(|&n| n > all / 4 && n < all / 2), "{done:?}");
        nodes.run(400 * SECOND);
        assert_eq!(nodes.left(), 0);
    });
}

#[test]
fn a_single_connection_goes_around() {
    for_seeds(0..4, |seed| {
        let mut nodes = Nodes::new(3, seed, connections(1), &[(BIG, Behaviour::Good(100))]);
        load(&mut nodes, &[0, 1, 2], 600);
        nodes.run(120 * SECOND);
        let done: Vec<usize> = (0..3).map(|n| nodes.delivered(n, 120 * SECOND)).collect();
        let all: usize = done.iter().sum();
        assert!(all > 700 && done.iter().all(|&n| n > all / 6), "{done:?}");
        nodes.run(600 * SECOND);
        assert_eq!(nodes.left(), 0);
    });
}

#[test]
fn whoever_is_alone_has_it_all_and_at_once() {
    let policy = shaped(Traffic { connections: Some(10), rate: rate("600/1m"), ..Traffic::default() });
    let mut nodes = Nodes::new(3, 5, policy, &[(BIG, Behaviour::Good(20))]);
    load(&mut nodes, &[1], 1);
    nodes.run(20 * SECOND);
    let story = nodes.all[1].sim.stories.values().next().unwrap();
    assert!(story.took() < Duration::from_millis(400), "{story:?}");
    // Nine tenths of the rate, as soon as it is known that there is more to come.
    load(&mut nodes, &[1], 700);
    nodes.run(100 * SECOND);
    assert!(nodes.delivered(1, 80 * SECOND) > 540, "{}", nodes.delivered(1, 80 * SECOND));
    // The database is asked every few seconds, not with each message.
    assert!(nodes.bank.commits < 150, "{} commits", nodes.bank.commits);
    nodes.run(200 * SECOND);
    let before = nodes.bank.commits;
    nodes.run(1200 * SECOND);
    assert!(nodes.bank.commits < before + 30, "{} commits for nothing", nodes.bank.commits - before);
}

#[test]
fn idle_connections_are_closed_when_another_node_wants_them() {
    let mut nodes = Nodes::new(2, 9, connections(4), &[(BIG, Behaviour::Good(100))]);
    // One message every two seconds for each connection keeps all of them at the first node, most of the time idle.
    for n in 0..600u64 {
        let at = Duration::from_millis(n * 500);
        nodes.all[0].sim.arrive_at(at, queue(1, Transactional, "mx:big.example"));
    }
    for n in 0..20 {
        let at = MINUTE + Duration::from_millis(n);
        nodes.all[1].sim.arrive_at(at, queue(1, Transactional, "mx:big.example"));
    }
    nodes.run(80 * SECOND);
    assert_eq!(nodes.delivered(1, 75 * SECOND), 20);
    nodes.run(400 * SECOND);
    assert_eq!(nodes.left(), 0);
}

#[test]
fn rates_hold_over_all_nodes_and_are_made_use_of() {
    for (per, each, least) in [("40/10s", 200, 110), ("3/5s", 40, 25), ("1/10s", 12, 7), ("100/1m", 200, 170)]
    {
        for_seeds(0..3, |seed| {
            let policy =
                shaped(Traffic { rate: rate(per), connection_rate: rate("20/10s"), ..Traffic::default() });
            let mut nodes = Nodes::new(3, seed, policy, &[(BIG, Behaviour::Good(20))]);
            load(&mut nodes, &[0, 1, 2], each);
            nodes.run(2 * MINUTE);
            let done: Vec<usize> = (0..3).map(|n| nodes.delivered(n, 2 * MINUTE)).collect();
            let all: usize = done.iter().sum();
            assert!(all >= least, "{per}: {done:?}");
            nodes.run(40 * MINUTE);
            assert_eq!(nodes.left(), 0, "{per}");
        });
    }
}

#[test]
fn ceilings_hold_over_all_nodes() {
    for_seeds(0..3, |seed| {
        let mut policy = Policy::default();
        policy.orgs.insert(OrgId(1), ceiling(Some(3), ""));
        policy.orgs.insert(OrgId(2), ceiling(None, "60/10s"));
        policy.routes.insert("smarthost:back".parse().unwrap(), ceiling(Some(2), "50/10s"));
        policy.credentials.insert("printer".into(), ceiling(Some(1), "30/10s"));
        let mut nodes = Nodes::new(3, seed, policy, &[("smarthost:back", Behaviour::Good(100))]);
        let printer: Arc<str> = "printer".into();
        for n in 0..3 {
            for at in 0..100u64 {
                let sim = &mut nodes.all[n].sim;
                let at = Duration::from_millis(at * 10);
                sim.arrive_at(at, queue(1, Transactional, "mx:a.example"));
                sim.arrive_at(at, queue(2, Transactional, "mx:b.example"));
                sim.arrive_at(at, queue(3, Bulk, "smarthost:back"));
                let queue = queue(4, Transactional, "mx:c.example");
                sim.event_at(at, Event::Arrive(queue, Some(printer.clone())));
            }
        }
        nodes.run(10 * MINUTE);
        let left: Vec<String> = nodes.all.iter().flat_map(|node| node.sim.waiting()).collect();
        assert!(left.is_empty(), "{} left: {:#?}", left.len(), &left[..left.len().min(5)]);
    });
}

#[test]
fn a_warm_up_plan_is_one_for_all_nodes() {
    let start = Timestamp(1_795_500_000_000 / 86_400_000 * 86_400_000);
    let policy = Policy {
        sources: vec![Source { name: "new".into(), warmup: Some(Warmup { start, plan: vec![20, 50, 90] }) }],
        pools: vec![Pool { name: "default".into(), sources: vec![("new".into(), 1)] }],
        ..Policy::default()
    };
    for_seeds(0..3, |seed| {
        let mut nodes = Nodes::new(3, seed, policy.clone(), &[(BIG, Behaviour::Good(20))]);
        load(&mut nodes, &[0, 1, 2], 80);
        nodes.run(4 * DAY);
        assert_eq!(nodes.left(), 0);
        // A few a minute for each node, with mail waiting for the next day.
        assert!(nodes.bank.commits < 100_000, "{} commits", nodes.bank.commits);
    });
}

/// Slow messages, so that attempts are under way when the loans run out.
#[test]
fn what_is_not_renewed_ends_in_time() {
    let mut nodes = Nodes::new(2, 3, connections(6), &[(BIG, Behaviour::Good(25_000))]);
    load(&mut nodes, &[0, 1], 30);
    nodes.run(20 * SECOND);
    let before = nodes.cuts;
    nodes.down_until = nodes.now.plus(40 * SECOND);
    nodes.run(50 * SECOND);
    assert!(nodes.cuts > before, "loans ran out, and nothing was cut off");
    for node in &nodes.all {
        let open: usize = node.sim.world.paths.values().map(|path| path.all).sum();
        assert_eq!(open, 0, "nothing is used that is not lent");
    }
    nodes.bank.fail_over(nodes.now);
    nodes.run(20 * MINUTE);
    assert_eq!(nodes.left(), 0);
}

#[test]
fn a_dead_nodes_part_goes_to_the_others_when_its_time_is_over() {
    let mut nodes = Nodes::new(2, 4, connections(6), &[(BIG, Behaviour::Good(300))]);
    load(&mut nodes, &[0, 1], 2000);
    nodes.run(20 * SECOND);
    nodes.kill(0);
    let open = |nodes: &Nodes| -> usize { nodes.all[1].sim.world.paths.values().map(|path| path.all).sum() };
    nodes.run(24 * SECOND);
    assert!(open(&nodes) <= 4, "the dead one's part is its own for ten seconds");
    nodes.run(40 * SECOND);
    assert_eq!(open(&nodes), 6);
}

/// Everything at once: late answers, lost ones, a database that is away, fail-overs, deaths.
#[test]
fn whatever_happens_the_sum_stays_below_the_limit() {
    for_seeds(0..60, |seed| {
        let limits = Limits { connections_total: 40, window: 20, active_total: 200, ..Limits::default() };
        let per = ["10/10s", "200/1m", "7/3s"][usize::try_from(seed % 3).unwrap()];
        let traffic = Traffic {
            connections: Some(1 + u32::try_from(seed % 9).unwrap()),
            rate: rate(per),
            connection_rate: if seed % 2 == 0 { rate("9/4s") } else { None },
            ..Traffic::default()
        };
        let mut policy = Policy { limits, ..shaped(traffic) };
        policy.orgs.insert(OrgId(1), ceiling(Some(5), ""));
        let sites = [
            (BIG, if seed % 4 == 0 { Behaviour::Moody(30) } else { Behaviour::Good(200 + seed * 37) }),
            ("hosts:mx.other.example", Behaviour::Flapping),
        ];
        let mut nodes = Nodes::new(3, seed, policy, &sites);
        nodes.losses = 2 + seed % 20;
        for n in 0..3 {
            for _ in 0..80 {
                let to = if nodes.random(4) == 0 { "mx:other.example" } else { "mx:big.example" };
                let org = i64::try_from(1 + nodes.random(3)).unwrap();
                let at = Duration::from_millis(nodes.random(240_000));
                nodes.all[n].sim.arrive_at(at, queue(org, Transactional, to));
            }
        }
        let mut at = Duration::ZERO;
        while at < 5 * MINUTE {
            at += Duration::from_millis(5_000 + nodes.random(30_000));
            nodes.run(at);
            match nodes.random(5) {
                0 => nodes.down_until = nodes.now.plus(Duration::from_millis(nodes.random(40_000))),
                1 => nodes.bank.fail_over(nodes.now),
                2 if at > 2 * MINUTE && !nodes.all.iter().any(|node| node.is_dead) => nodes.kill(0),
                _ => {}
            }
        }
        nodes.losses = 0;
        nodes.run(4 * DAY);
        let left: Vec<String> =
            nodes.all.iter().filter(|n| !n.is_dead).flat_map(|n| n.sim.waiting()).collect();
        assert!(left.is_empty(), "{} left: {:#?}", left.len(), &left[..left.len().min(5)]);
    });
}

#[test]
fn mail_that_others_put_into_the_store_is_found_and_what_is_in_their_hands_makes_nobody_spin() {
    let mut nodes = Nodes::new(1, 1, Policy::default(), &[]);
    nodes.run(SECOND);
    let sim = &mut nodes.all[0].sim;
    let row = crate::store::Row {
        queue: queue(1, Transactional, "mx:elsewhere.example"),
        due: Some(sim.world.now.wall),
        held: false,
        credential: None,
        recipients: 1,
    };
    // Nobody says so here.
    let id = sim.world.rows.insert(row);
    nodes.run(30 * SECOND);
    let sim = &mut nodes.all[0].sim;
    assert!(!sim.world.scheduler.knows(id) && sim.world.started.is_empty());
    sim.world.tell(|s, now, out| s.look_again(now, out));
    let effects = sim.world.effects;
    sim.world.bring_horizon(false);
    assert_eq!(sim.world.pages.len(), 1);
    // Another node was faster: the row is not shown, though the queue seemed to have something due.
    let page = sim.world.pages.remove(0);
    let now = sim.world.now.wall;
    for rest in [schedule::Rest::Later(now), schedule::Rest::Due] {
        sim.world.tell(|s, now, out| s.paged(&page.queue, Vec::new(), rest, now, out));
        assert!(sim.world.pages.is_empty(), "it is not read again at once");
        sim.world.advance(3 * SECOND);
        sim.world.tick();
        assert_eq!(sim.world.pages.len(), 1, "but a little later");
        sim.world.pages.clear();
    }
    assert!(sim.world.effects < effects + 20);
}

fn claims() -> impl Strategy<Value = Vec<Claim>> {
    let claim = (0u64..40, 0u64..40, 0i64..9);
    proptest::collection::vec(claim, 1..6).prop_map(|all| {
        let numbered = (1u16..).zip(all);
        numbered.map(|(node, (wanted, held, served))| Claim { node, wanted, held, served }).collect()
    })
}

proptest! {
    #[test]
    fn fair_parts_are_all_of_it_and_nobody_who_wants_more_has_less(claims in claims(), capacity in 0u64..60) {
        let fair: Vec<u64> = claims.iter().map(|c| fair_share(capacity, &claims, c.node)).collect();
        let wanted: u64 = claims.iter().map(|c| c.wanted).sum();
        prop_assert_eq!(fair.iter().sum::<u64>(), capacity.min(wanted));
        for (a, b) in claims.iter().zip(&fair) {
            prop_assert!(*b <= a.wanted);
            for (c, d) in claims.iter().zip(&fair) {
                prop_assert!(b + 1 >= *d || *b == a.wanted, "{:?} has {} and {:?} {}", a, b, c, d);
            }
        }
    }

    /// In whatever order nodes renew, and whatever they keep, the sum of what they have is never above the limit.
    #[test]
    fn the_sum_is_bounded(
        capacity in 0u64..30,
        steps in proptest::collection::vec((0usize..4, 0u64..40, 0u64..40), 1..60),
    ) {
        let mut claims: Vec<Claim> =
            (1..5).map(|node| Claim { node, wanted: 0, held: 0, served: 0 }).collect();
        for (now, (n, wanted, keeps)) in (1..).zip(steps) {
            let in_use = keeps.min(claims[n].held);
            claims[n].wanted = wanted.max(in_use);
            claims[n].held = share(capacity, &claims, claims[n].node, in_use);
            claims[n].served = now;
            prop_assert!(claims.iter().map(|c| c.held).sum::<u64>() <= capacity);
        }
    }
}
