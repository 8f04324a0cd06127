//! Situations, and what must come out of them.

use std::time::Duration;

use mail::Stream::{Bulk, Transactional};
use schedule::{Limits, Why};

use crate::simulation::{Behaviour, Simulation, for_seeds};
use crate::world::queue;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn every_message_ends_once_whatever_the_sites_do() {
    let sites = [
        ("mx:good.example", Behaviour::Good(20)),
        ("mx:slow.example", Behaviour::Good(9_000)),
        ("mx:grey.example", Behaviour::Greylisting),
        ("mx:moody.example", Behaviour::Moody(40)),
        ("mx:never.example", Behaviour::DownUntil(Duration::MAX)),
        ("smarthost:back", Behaviour::DownUntil(Duration::from_secs(3 * 3600))),
    ];
    for_seeds(6, |seed| {
        let limits = Limits { window: 20, active_total: 100, connections_total: 30, ..Limits::default() };
        let mut sim = Simulation::new(seed, Limits { connections_per_site: 5, ..limits }, &sites);
        for _ in 0..2000 {
            let site = sites[usize::try_from(sim.random(6)).unwrap()].0;
            let stream = if sim.random(2) == 0 { Transactional } else { Bulk };
            let org = i64::try_from(1 + sim.random(4)).unwrap();
            let after = Duration::from_millis(sim.random(2 * 3_600_000));
            sim.arrive_at(after, queue(org, stream, site));
        }
        sim.run(10 * DAY);
        assert!(sim.world.rows.is_empty(), "{} rows are left", sim.world.rows.len());
        assert_eq!(sim.stories.len(), 2000);
        for (id, story) in &sim.stories {
            let site = story.queue.destination.to_string();
            let (_, end) = story.end.unwrap();
            let expected = if site == "mx:never.example" { "expired" } else { "delivered" };
            assert_eq!(end, expected, "{id} {story:?}");
            assert!(story.warnings <= 1);
            match site.as_str() {
                "mx:good.example" => assert!(story.took() < 2 * SECOND, "{story:?}"),
                "mx:grey.example" => assert_eq!(story.attempts, 2),
                "mx:never.example" => {
                    assert_eq!(story.warnings, 1);
                    assert!(story.attempts > 30, "{story:?}");
                    assert!(story.took() >= 5 * DAY && story.took() < 5 * DAY + HOUR, "{story:?}");
                }
                "smarthost:back" => assert!(story.took() < 8 * HOUR, "{story:?}"),
                _ => {}
            }
        }
    });
}

#[test]
fn a_dead_smart_host_costs_one_connection_an_interval_and_every_message_its_attempt() {
    for_seeds(3, |seed| {
        let down = Duration::from_secs(6 * 3600);
        let mut sim =
            Simulation::new(seed, Limits::default(), &[("smarthost:up", Behaviour::DownUntil(down))]);
        for n in 0..5_000 {
            sim.arrive_at(Duration::from_millis(n * 120), queue(1, Transactional, "smarthost:up"));
        }
        sim.run(5 * HOUR);
        assert!(sim.stories.values().all(|s| s.attempts >= 5), "each was tried, or answered for");
        // Twenty at the first, then one each five minutes once the pause has grown.
        let connects = sim.connects[&"smarthost:up".parse().unwrap()];
        assert!(connects < 100, "{connects} connections to a dead host");
        let snapshot = sim.world.scheduler.snapshot(sim.world.now);
        assert!(snapshot.sites[0].failures > 15, "{}", snapshot.sites[0].failures);
        sim.run(DAY);
        assert!(sim.world.rows.is_empty());
        assert!(sim.stories.values().all(|s| s.end.is_some_and(|e| e.1 == "delivered")));
        assert!(sim.stories.values().all(|s| s.took() < 12 * HOUR));
    });
}

#[test]
fn a_mailing_to_one_site_delays_nobody_else() {
    for_seeds(3, |seed| {
        let mut sim = Simulation::new(seed, Limits::default(), &[("mx:a.example", Behaviour::Good(500))]);
        // At 20 connections and half a second each, 20,000 messages keep the site busy for more than eight minutes.
        for n in 0..20_000 {
            sim.arrive_at(Duration::from_millis(n), queue(1, Bulk, "mx:a.example"));
        }
        for n in 0..8 {
            sim.arrive_at(n * MINUTE, queue(2, Transactional, "mx:a.example"));
        }
        for n in 0..100 {
            sim.arrive_at(MINUTE + n * SECOND / 10, queue(3, Bulk, "mx:a.example"));
        }
        sim.run(HOUR);
        assert!(sim.world.rows.is_empty());
        for story in sim.of(|q| q.org.0 == 2) {
            assert!(story.took() < 2 * SECOND, "{story:?}");
        }
        // Half of the turns are theirs, for as long as they have something to send.
        for story in sim.of(|q| q.org.0 == 3) {
            assert!(story.took() < 15 * SECOND, "{story:?}");
        }
        let mailing = sim.of(|q| q.org.0 == 1);
        assert!(mailing.iter().all(|s| s.took() < 10 * MINUTE), "and it goes at the full pace");
    });
}

#[test]
fn bulk_is_not_starved_by_a_flood_of_transactional_mail() {
    let mut sim = Simulation::new(1, Limits::default(), &[("mx:a.example", Behaviour::Good(500))]);
    for n in 0..20_000 {
        sim.arrive_at(Duration::from_millis(n), queue(1, Transactional, "mx:a.example"));
    }
    for n in 0..200 {
        sim.arrive_at(MINUTE + n * SECOND / 10, queue(1, Bulk, "mx:a.example"));
    }
    sim.run(HOUR);
    // One turn of five, and there are 40 turns a second.
    assert!(sim.of(|q| q.stream == Bulk).iter().all(|s| s.took() < 30 * SECOND));
}

#[test]
fn many_slow_sites_do_not_take_all_connections() {
    let names: Vec<String> = (0..40).map(|n| format!("mx:slow{n}.example")).collect();
    let mut sites: Vec<(&str, Behaviour)> =
        names.iter().map(|name| (name.as_str(), Behaviour::Good(20_000))).collect();
    sites.push(("mx:good.example", Behaviour::Good(20)));
    for_seeds(3, |seed| {
        let limits = Limits { connections_total: 50, active_total: 1000, window: 50, ..Limits::default() };
        let mut sim = Simulation::new(seed, limits, &sites);
        for n in 0..4000u64 {
            let site = &names[usize::try_from(sim.random(40)).unwrap()];
            sim.arrive_at(Duration::from_millis(n), queue(1, Transactional, site));
        }
        for n in 0..200 {
            sim.arrive_at(2 * MINUTE + n * SECOND, queue(2, Transactional, "mx:good.example"));
        }
        sim.run(DAY);
        assert!(sim.world.rows.is_empty());
        let good = sim.of(|q| q.org.0 == 2);
        // It waits for a slow transaction to end at worst, not for a queue of them.
        assert!(good.iter().all(|s| s.took() < 25 * SECOND), "{:?}", good.iter().map(|s| s.took()).max());
    });
}

#[test]
fn it_can_say_why_something_waits() {
    let sites = [
        ("mx:dead.example", Behaviour::DownUntil(Duration::MAX)),
        ("mx:slow.example", Behaviour::Good(60_000)),
    ];
    let limits = Limits { connections_per_site: 2, window: 10, ..Limits::default() };
    let mut sim = Simulation::new(1, limits, &sites);
    let (dead, slow) =
        (queue(1, Transactional, "mx:dead.example"), queue(1, Transactional, "mx:slow.example"));
    sim.arrive_at(SECOND, dead.clone());
    (0..20).for_each(|_| sim.arrive_at(SECOND, slow.clone()));
    sim.run(10 * SECOND);
    let why = |sim: &Simulation, queue| sim.world.scheduler.why(queue, sim.world.now);
    assert!(matches!(why(&sim, &dead), Why::NotDue(_)), "{:?}", why(&sim, &dead));
    assert_eq!(why(&sim, &slow), Why::SiteFull);
    assert_eq!(why(&sim, &queue(1, Bulk, "mx:dead.example")), Why::Empty);
    let snapshot = sim.world.scheduler.snapshot(sim.world.now);
    let slow_view = snapshot.queues.iter().find(|q| q.key == slow).unwrap();
    assert_eq!((slow_view.ready, slow_view.in_flight, slow_view.backlog), (8, 2, true));
    let dead_site = sim.world.scheduler.site(&dead).unwrap();
    assert_eq!(dead_site.failures, 1);
    assert!(dead_site.failure.unwrap().text.contains("refused"));
}

#[test]
fn after_a_hiccup_mail_stays_in_memory_again() {
    // 500 a second come, and twice as many can go; for ten seconds nothing can.
    let stalls = Behaviour::Stalls(20 * SECOND, 30 * SECOND);
    let mut sim = Simulation::new(1, Limits::default(), &[("mx:a.example", stalls)]);
    for n in 0..30_000 {
        sim.arrive_at(Duration::from_millis(2 * n), queue(1, Transactional, "mx:a.example"));
    }
    sim.run(HOUR);
    assert!(sim.world.rows.is_empty());
    let parked = |from: u64, to: u64| {
        sim.stories.values().filter(|s| s.parked && (from..to).contains(&s.came.0.as_secs())).count()
    };
    assert_eq!(parked(1, 20), 0, "the window never fills up");
    assert!(parked(22, 30) > 3_500, "it is full, and what comes waits on disk");
    assert_eq!(parked(50, 60), 0, "and memory is used again");
}
