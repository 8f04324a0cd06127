//! Situations, and what must come out of them.

use std::time::Duration;

use mail::Stream::{Bulk, Transactional};
use mail::{OrgId, Site};
use schedule::{Egress, Limits, Policy, Pool, Scope, Shape, Source, Suspension, Traffic, Waits, Warmup};

use crate::model::{DAY, HOUR, MINUTE, SECOND, ceiling, rate};
use crate::simulation::{Behaviour, Event, Simulation, for_seeds};
use crate::world::queue;

fn with(limits: Limits) -> Policy {
    Policy { limits, ..Policy::default() }
}

fn shape(site: &str, traffic: Traffic) -> Shape {
    Shape { sites: vec![site.parse().unwrap()], domains: Vec::new(), sources: Vec::new(), traffic }
}

#[test]
fn every_message_ends_once_whatever_the_sites_do() {
    let sites = [
        ("hosts:mx.good.example", Behaviour::Good(20)),
        ("hosts:mx.slow.example", Behaviour::Good(9_000)),
        ("hosts:mx.grey.example", Behaviour::Greylisting),
        ("hosts:mx.moody.example", Behaviour::Moody(40)),
        ("hosts:mx.never.example", Behaviour::DownUntil(Duration::MAX)),
        ("smarthost:back", Behaviour::DownUntil(Duration::from_secs(3 * 3600))),
    ];
    let queues = ["good", "slow", "grey", "moody", "never"].map(|n| format!("mx:{n}.example"));
    for_seeds(0..3, |seed| {
        let limits = Limits { window: 20, active_total: 100, connections_total: 30, ..Limits::default() };
        let mut sim = Simulation::new(seed, with(Limits { connections_per_site: 5, ..limits }), &sites);
        for _ in 0..1500 {
            let n = usize::try_from(sim.random(6)).unwrap();
            let to = queues.get(n).map_or("smarthost:back", |to| to);
            let stream = if sim.random(2) == 0 { Transactional } else { Bulk };
            let org = i64::try_from(1 + sim.random(4)).unwrap();
            let after = Duration::from_millis(sim.random(2 * 3_600_000));
            sim.arrive_at(after, queue(org, stream, to));
        }
        sim.run(10 * DAY);
        assert!(sim.world.rows.all.is_empty(), "{} rows are left", sim.world.rows.all.len());
        for (id, story) in &sim.stories {
            let site = story.queue.destination.to_string();
            let (_, end) = story.end.unwrap();
            let expected = if site == "mx:never.example" { "expired" } else { "delivered" };
            assert_eq!(end, expected, "{id} {story:?}");
            assert!(story.warnings <= 1);
            match site.as_str() {
                "mx:good.example" => assert!(story.took() < 2 * SECOND, "{story:?}"),
                "mx:grey.example" => {
                    assert_eq!(story.attempts, 2);
                    assert!(story.took() < 310 * SECOND, "back when the site said: {story:?}");
                }
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
    for_seeds(0..2, |seed| {
        let down = Duration::from_secs(6 * 3600);
        let mut sim =
            Simulation::new(seed, Policy::default(), &[("smarthost:up", Behaviour::DownUntil(down))]);
        for n in 0..5_000 {
            sim.arrive_at(Duration::from_millis(n * 120), queue(1, Transactional, "smarthost:up"));
        }
        sim.run(5 * HOUR);
        assert!(sim.stories.values().all(|s| s.attempts >= 5), "each was tried, or answered for");
        let connects = sim.connects[&"smarthost:up".parse().unwrap()];
        assert!(connects < 100, "{connects} connections to a dead host");
        let snapshot = sim.world.scheduler.snapshot(sim.world.now);
        assert!(snapshot.paths[0].failures > 15, "{}", snapshot.paths[0].failures);
        sim.run(DAY);
        assert!(sim.world.rows.all.is_empty());
        assert!(sim.stories.values().all(|s| s.end.is_some_and(|e| e.1 == "delivered")));
    });
}

#[test]
fn a_mailing_to_one_site_delays_nobody_else_there() {
    let site = [("provider:big", Behaviour::Good(500))];
    let mut sim = Simulation::new(1, Policy::default(), &site);
    for domain in ["mx:a.example", "mx:b.example", "mx:c.example"] {
        sim.homes.insert(domain.parse().unwrap(), Site::Provider("big".into()));
    }
    // At 20 connections and half a second each, 20,000 messages keep the site busy for more than eight minutes.
    for n in 0..20_000 {
        sim.arrive_at(Duration::from_millis(n), queue(1, Bulk, "mx:a.example"));
    }
    for n in 0..8 {
        sim.arrive_at(n * MINUTE, queue(2, Transactional, "mx:b.example"));
    }
    for n in 0..100 {
        sim.arrive_at(MINUTE + n * SECOND / 10, queue(3, Bulk, "mx:c.example"));
    }
    sim.run(HOUR);
    assert!(sim.world.rows.all.is_empty());
    assert!(sim.of(|q| q.org.0 == 2).iter().all(|s| s.took() < 2 * SECOND));
    // Half of the turns are theirs, for as long as they have something to send.
    assert!(sim.of(|q| q.org.0 == 3).iter().all(|s| s.took() < 15 * SECOND));
    assert!(sim.of(|q| q.org.0 == 1).iter().all(|s| s.took() < 10 * MINUTE), "and it goes at the full pace");
}

#[test]
fn thirty_organisations_share_evenly_and_bulk_gets_its_fifth() {
    // One connection and 100 ms a message: ten turns a second.
    let limits = Limits { connections_per_site: 1, connections_first: 1, ..Limits::default() };
    let mut sim = Simulation::new(1, with(limits), &[("hosts:mx.a.example", Behaviour::Good(95))]);
    for org in 1..=30 {
        let stream = if org % 2 == 0 { Bulk } else { Transactional };
        let many = if org == 1 { 3_000 } else { 60 };
        (0..many).for_each(|_| sim.arrive_at(SECOND, queue(org, stream, "mx:a.example")));
    }
    sim.run(HOUR);
    assert!(sim.world.rows.all.is_empty());
    let mut order: Vec<(mail::Mono, OrgId, mail::Stream)> =
        sim.stories.values().map(|s| (s.end.unwrap().0, s.queue.org, s.queue.stream)).collect();
    order.sort();
    // While all wait: between two of one organisation's there is at most one of each other of its stream, and every fifth is
    // bulk.
    let busy = &order[..600];
    for (stream, share, most) in [(Transactional, 480, 15 * 5 / 4 + 1), (Bulk, 120, 15 * 5)] {
        let count = busy.iter().filter(|o| o.2 == stream).count();
        assert!(count.abs_diff(share) <= 2, "{count} of {stream:?} in 600");
        for org in busy.iter().filter(|o| o.2 == stream).map(|o| o.1) {
            let turns: Vec<usize> =
                busy.iter().enumerate().filter(|(_, o)| o.1 == org).map(|(n, _)| n).collect();
            assert!(turns.windows(2).all(|pair| pair[1] - pair[0] <= most), "{org:?}: {turns:?}");
        }
    }
}

#[test]
fn many_slow_sites_do_not_take_all_connections() {
    let names: Vec<String> = (0..40).map(|n| format!("hosts:mx.slow{n}.example")).collect();
    let sites: Vec<(&str, Behaviour)> =
        names.iter().map(|name| (name.as_str(), Behaviour::Good(20_000))).collect();
    let limits = Limits { connections_total: 50, active_total: 1000, window: 50, ..Limits::default() };
    let mut sim = Simulation::new(1, with(limits), &sites);
    for n in 0..4000u64 {
        let to = format!("mx:slow{}.example", sim.random(40));
        sim.arrive_at(Duration::from_millis(n), queue(1, Transactional, &to));
    }
    for n in 0..200 {
        sim.arrive_at(2 * MINUTE + n * SECOND, queue(2, Transactional, "mx:good.example"));
    }
    sim.run(DAY);
    assert!(sim.world.rows.all.is_empty());
    let good = sim.of(|q| q.org.0 == 2);
    // It waits for a slow transaction to end at worst, not for a queue of them.
    assert!(good.iter().all(|s| s.took() < 25 * SECOND), "{:?}", good.iter().map(|s| s.took()).max());
}

#[test]
fn a_site_that_limits_us_is_used_at_its_pace_and_few_are_turned_away() {
    let mut sim = Simulation::new(1, Policy::default(), &[("hosts:mx.a.example", Behaviour::Limited(20))]);
    (0..2_000).for_each(|n| sim.arrive_at(Duration::from_millis(n), queue(1, Bulk, "mx:a.example")));
    sim.run(DAY);
    assert!(sim.world.rows.all.is_empty());
    let attempts: u32 = sim.stories.values().map(|s| s.attempts).sum();
    assert!(attempts < 2_600, "{attempts} attempts for 2,000 messages");
    let longest = sim.stories.values().map(|s| s.took()).max().unwrap();
    assert!(longest < 2 * HOUR, "it could take 1,000 s: {longest:?}");
}

#[test]
fn a_blocked_source_is_replaced_by_others_of_its_pool() {
    let mut policy = Policy {
        sources: vec![Source { name: "b".into(), warmup: None }],
        pools: vec![Pool { name: "two".into(), sources: vec![("default".into(), 1), ("b".into(), 1)] }],
        ..Policy::default()
    };
    let egress = Egress {
        orgs: Vec::new(),
        streams: Vec::new(),
        domains: Vec::new(),
        destinations: Vec::new(),
        pool: "two".into(),
    };
    policy.egress.push(egress);
    let mut sim = Simulation::new(1, policy, &[("hosts:mx.a.example", Behaviour::Blocks)]);
    (0..500).for_each(|n| sim.arrive_at(n * SECOND, queue(1, Bulk, "mx:a.example")));
    sim.run(DAY);
    assert!(sim.world.rows.all.is_empty());
    let twice = sim.stories.values().filter(|s| s.attempts > 1).count();
    assert!(twice <= 5, "{twice} met the block");
}

#[test]
fn a_warm_up_plan_is_held_to_over_days_and_restarts() {
    let start = mail::Timestamp(1_795_500_000_000 / 86_400_000 * 86_400_000);
    let warmup = Some(Warmup { start, plan: vec![5, 10, 20] });
    let policy = Policy {
        sources: vec![Source { name: "new".into(), warmup }],
        pools: vec![Pool { name: "default".into(), sources: vec![("new".into(), 1)] }],
        ..Policy::default()
    };
    let mut sim = Simulation::new(1, policy, &[]);
    (0..60).for_each(|n| sim.arrive_at(n * SECOND, queue(1, Bulk, "mx:a.example")));
    (1..50).for_each(|n| sim.event_at(n * HOUR, Event::Act(0)));
    let mut delivered = Vec::new();
    sim.run_with(4 * DAY, |sim, _| {
        sim.restart(false);
        delivered.push(sim.stories.values().filter(|s| s.end.is_some()).count());
    });
    assert!([5, 15, 35].iter().all(|n| delivered.contains(n)), "{delivered:?}");
    assert!(sim.world.rows.all.is_empty(), "after the plan there is no limit");
    assert!(sim.stories.values().all(|s| s.attempts == 1), "waiting is no attempt");
}

#[test]
fn a_credential_over_its_rate_delays_nobody_in_its_queue() {
    let policy = Policy { credentials: [("app".into(), ceiling(None, "60/1m"))].into(), ..Policy::default() };
    let mut sim = Simulation::new(1, policy, &[]);
    for n in 0..600 {
        let to = queue(1, Transactional, "mx:a.example");
        sim.event_at(SECOND + n * MINUTE / 6000, Event::Arrive(to.clone(), Some("app".into())));
        sim.event_at(SECOND + n * SECOND, Event::Arrive(to, None));
    }
    sim.run(HOUR);
    assert!(sim.world.rows.all.is_empty());
    let slow = sim.stories.values().filter(|s| s.took() > 2 * SECOND).count();
    assert!((500..600).contains(&slow), "{slow} waited for the rate, and no others");
    let bounced: u32 = sim.stories.values().map(|s| s.put_back).sum();
    assert!(bounced < 700, "{bounced} writes to put back 600 messages");
    let longest = sim.stories.values().map(|s| s.took()).max().unwrap();
    assert!(longest < 14 * MINUTE, "600 at one a second: {longest:?}");
}

#[test]
fn organisations_and_routes_at_their_ceiling_step_out_of_the_line() {
    let policy = Policy {
        orgs: [(OrgId(1), ceiling(Some(2), "120/1m"))].into(),
        routes: [("mx:b.example".parse().unwrap(), ceiling(Some(1), "1/1s"))].into(),
        ..Policy::default()
    };
    let mut sim = Simulation::new(1, policy, &[]);
    for to in ["mx:a.example", "mx:b.example"] {
        sim.homes.insert(to.parse().unwrap(), Site::Provider("big".into()));
        for n in 0..300 {
            sim.arrive_at(Duration::from_millis(n), queue(1, Transactional, to));
            sim.arrive_at(Duration::from_millis(n), queue(2, Bulk, to));
        }
    }
    sim.run(HOUR);
    assert!(sim.world.rows.all.is_empty());
    let free = sim.of(|q| q.org.0 == 2 && q.destination.to_string() == "mx:a.example");
    assert!(free.iter().all(|s| s.took() < 10 * SECOND), "{:?}", free.iter().map(|s| s.took()).max());
    assert!(sim.stories.values().all(|s| s.took() < 13 * MINUTE && s.attempts == 1));
}

#[test]
fn suspended_mail_is_left_alone_and_goes_on_at_once() {
    let mut sim = Simulation::new(1, Policy::default(), &[]);
    (0..300).for_each(|n| sim.arrive_at(n * SECOND, queue(1, Bulk, "mx:a.example")));
    (0..300).for_each(|n| sim.arrive_at(n * SECOND, queue(2, Bulk, "mx:a.example")));
    sim.event_at(100 * SECOND, Event::Act(1));
    sim.event_at(150 * SECOND, Event::Act(2));
    sim.event_at(6 * DAY, Event::Act(3));
    let mut ended = Vec::new();
    sim.run_with(7 * DAY, |sim, what| {
        let count = |sim: &Simulation| sim.of(|q| q.org.0 == 1).iter().filter(|s| s.end.is_some()).count();
        ended.push(count(sim));
        match what {
            1 => sim.world.configure(|policy| {
                let scope = Scope { org: Some(OrgId(1)), stream: Some(Bulk), ..Scope::default() };
                policy.suspensions.push(Suspension { id: 7, scope, until: None, reason: "asked".into() });
            }),
            2 => sim.restart(true),
            _ => {
                let why = sim.world.scheduler.why(&queue(1, Bulk, "mx:a.example"), sim.world.now);
                assert!(matches!(&why.waits, Waits::Suspended { id: 7, .. }), "{why:?}");
                sim.world.configure(|policy| policy.suspensions.clear());
            }
        }
    });
    assert!(ended[0] >= 98 && ended[1] <= ended[0] + 2 && ended[2] == ended[1], "{ended:?}");
    assert!(sim.world.rows.all.is_empty());
    assert!(sim.of(|q| q.org.0 == 2).iter().all(|s| s.took() < 3 * SECOND));
    for story in sim.of(|q| q.org.0 == 1) {
        assert!(story.attempts == 1 && story.end.unwrap().1 == "delivered", "{story:?}");
        assert!(story.took() < 2 * SECOND || story.end.unwrap().0.0 < 6 * DAY + MINUTE, "{story:?}");
    }
}

#[test]
fn mail_follows_its_domain_to_another_site() {
    let sites = [("hosts:mx.old.example", Behaviour::DownUntil(Duration::MAX))];
    let mut sim = Simulation::new(1, Policy::default(), &sites);
    let domain = "mx:a.example".parse::<mail::Destination>().unwrap();
    sim.homes.insert(domain.clone(), "hosts:mx.old.example".parse().unwrap());
    (0..50).for_each(|n| sim.arrive_at(n * MINUTE, queue(1, Bulk, "mx:a.example")));
    sim.event_at(2 * HOUR, Event::Act(0));
    sim.run_with(3 * DAY, |sim, _| {
        sim.homes.insert(domain.clone(), "hosts:mx.new.example".parse().unwrap());
    });
    assert!(sim.stories.values().all(|s| s.end.is_some_and(|e| e.1 == "delivered")));
    assert!(sim.connects[&"hosts:mx.new.example".parse().unwrap()] > 0);
}

#[test]
fn thousands_of_domains_need_few_states_and_all_are_served() {
    let limits = Limits { queues: 150, ..Limits::default() };
    let mut sim = Simulation::new(1, with(limits), &[]);
    // They wait on disk when the process begins, due over half an hour.
    for n in 0..2_000u64 {
        let to = queue(1, Bulk, &format!("mx:d{n}.example"));
        let due = sim.world.now.wall.plus(Duration::from_millis(n * 900));
        let id = sim.world.park(&to, None, due);
        let came = sim.world.now.mono;
        let story = crate::simulation::Story {
            queue: to,
            came,
            parked: true,
            attempts: 0,
            warnings: 0,
            put_back: 0,
            end: None,
        };
        sim.stories.insert(id, story);
    }
    // A newcomer finds room at any time.
    (0..100)
        .for_each(|n| sim.arrive_at(n * 10 * SECOND, queue(2, Transactional, &format!("mx:n{n}.example"))));
    sim.restart(true);
    sim.run(HOUR);
    assert!(sim.world.rows.all.is_empty(), "{} are left", sim.world.rows.all.len());
    assert!(sim.most_queues <= 150, "{}", sim.most_queues);
    assert!(sim.of(|q| q.org.0 == 2).iter().all(|s| s.took() < 2 * SECOND));
    for (n, story) in (0..).zip(sim.of(|q| q.org.0 == 1)) {
        let late = story.took().saturating_sub(Duration::from_millis(n * 900));
        assert!(late < 20 * SECOND, "{n} is {late:?} late");
    }
}

#[test]
fn a_throttled_backlog_does_not_poll() {
    let slow = Traffic { rate: rate("1/1m"), ..Traffic::default() };
    let policy = Policy { shapes: vec![shape("hosts:mx.a.example", slow)], ..Policy::default() };
    let mut sim = Simulation::new(1, policy, &[]);
    (0..1_000).for_each(|n| sim.arrive_at(Duration::from_millis(n), queue(1, Bulk, "mx:a.example")));
    sim.run(10 * MINUTE);
    let (ticks, effects) = (sim.world.ticks, sim.world.effects);
    sim.run(10 * MINUTE + 10 * HOUR);
    // One a minute goes; the clock is looked at twice a minute, and a connection closes itself.
    let (ticks, effects) = (sim.world.ticks - ticks, sim.world.effects - effects);
    assert!(ticks <= 600 * 4 && effects <= 600 * 7, "{ticks} wake-ups, {effects} effects for 600 messages");
    let why = sim.world.scheduler.why(&queue(1, Bulk, "mx:a.example"), sim.world.now);
    assert!(matches!(why.waits, Waits::Rate(..)) && why.next.is_some(), "{why:?}");
}

#[test]
fn after_a_hiccup_mail_stays_in_memory_again() {
    // 500 a second come, and twice as many can go; for ten seconds nothing can.
    let stalls = Behaviour::Stalls(20 * SECOND, 30 * SECOND);
    let mut sim = Simulation::new(1, Policy::default(), &[("hosts:mx.a.example", stalls)]);
    for n in 0..30_000 {
        sim.arrive_at(Duration::from_millis(2 * n), queue(1, Transactional, "mx:a.example"));
    }
    sim.run(HOUR);
    assert!(sim.world.rows.all.is_empty());
    let parked = |from: u64, to: u64| {
        sim.stories.values().filter(|s| s.parked && (from..to).contains(&s.came.0.as_secs())).count()
    };
    assert_eq!(parked(2, 20), 0, "the window never fills up");
    assert!(parked(22, 30) > 3_500, "it is full, and what comes waits on disk");
    assert_eq!(parked(50, 60), 0, "and memory is used again");
}
