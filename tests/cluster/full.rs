//! The full form: a cluster for each way to fail. Operators are promised that writes are back 10 s after an engine crashed and
//! 30 s after a node was lost; the bounds here are half as much again, for a busy machine. What it took is printed.

use std::time::Duration;

use nix::sys::signal::Signal;
use postgres::{Config, PgError, Pool};
use posthouse_tests::disk::Disk;
use posthouse_tests::neighbours;
use posthouse_tests::neighbours::patroni::{NEEDS, TTL_S};
use posthouse_tests::wait::eventually;

use crate::world::{CLIENTS, EVER, World};
use crate::writer::{Commit, Writer};

/// How long a commit is held: longer than a fail-over.
const HOLD: Duration = Duration::from_secs(100);

/// Writes must be back this long after an engine crashed.
const CRASHED: Duration = Duration::from_secs(15);

/// And this long after a node is lost, whose lock lives for 20 seconds.
const LOST: Duration = Duration::from_secs(45);

macro_rules! cluster {
    () => {
        if let Some(why) = neighbours::missing(&NEEDS) {
            return neighbours::skip(&why);
        }
    };
}

/// Waits until another node than `old` leads and acknowledges, and holds it to `bound` without an acknowledgement. Returns it.
fn taken_over(
    name: &str,
    world: &World,
    writer: &Writer,
    old: usize,
    since: Duration,
    bound: Duration,
) -> usize {
    let leader = world.patroni.wait_leader("another node leads", |n| n != old);
    let elected = writer.now();
    writer.wait_acknowledged("writes are back", elected, 20, EVER);
    let gap = writer.longest_gap(since);
    println!(
        "MEASURED {name}: another leader after {:.1?}, {gap:.1?} without an acknowledgement",
        elected - since
    );
    assert!(gap < bound, "{name}: {gap:?} without an acknowledgement");
    leader
}

#[test]
fn engine_and_agent_of_the_leader_are_killed() {
    cluster!();
    let mut world = World::new();
    let writer = world.writer(HOLD);
    let old = world.leader();
    world.patroni.kill_both(old);
    let dead = writer.now();
    taken_over("engine and agent killed", &world, &writer, old, dead, LOST);
    world.patroni.start_agent(old);
    world.judge("engine and agent killed", writer);
}

#[test]
fn the_machine_of_the_leader_loses_its_power() {
    cluster!();
    let mut world = World::new();
    let writer = world.writer(HOLD);
    let old = world.leader();
    world.patroni.power_off(old);
    let dead = writer.now();
    taken_over("machine without power", &world, &writer, old, dead, LOST);
    world.patroni.start_agent(old);
    world.judge("machine without power", writer);
}

/// The engine runs on with nobody to stop it, and another is promoted beside it: two servers take writes.
#[test]
fn the_agent_of_the_leader_is_killed() {
    cluster!();
    let mut world = World::new();
    let writer = world.writer(HOLD);
    let old = world.leader();
    world.patroni.kill_agent(old);
    let dead = writer.now();
    let leader = taken_over("agent killed", &world, &writer, old, dead, LOST);
    assert!(world.patroni.engine_runs(old), "the old engine runs beside the new one");
    // And a client that knows nothing of the past finds the right one.
    let late = world.pool(HOLD);
    let found = world.runtime.block_on(late.read(|session| async move {
        Ok(session.query_one("SELECT host(inet_server_addr())", &[]).await?.get::<_, String>(0))
    }));
    assert_eq!(found.unwrap(), world.patroni.address(leader).to_string(), "the new leader, not the old one");
    world.patroni.start_agent(old);
    world.judge("agent killed", writer);
}

#[test]
fn the_leader_is_cut_off_and_joined_again() {
    cluster!();
    let mut world = World::new();
    let writer = world.writer(HOLD);
    let old = world.leader();
    world.patroni.machine(old).cut_off();
    let cut = writer.now();
    taken_over("leader cut off", &world, &writer, old, cut, LOST);
    world.patroni.machine(old).join();
    world.judge("leader cut off", writer);
}

/// The side with one standby still has somebody to replicate to, but neither etcd nor clients.
#[test]
fn the_leader_is_cut_off_together_with_a_standby() {
    cluster!();
    let mut world = World::new();
    let writer = world.writer(HOLD);
    let old = world.leader();
    let with = world.others(old)[0];
    for n in [old, with] {
        world.patroni.machine(n).cut_off();
    }
    // Answers that were on their way have come; then comes nothing.
    std::thread::sleep(Duration::from_secs(2));
    let before = writer.acknowledged();
    // The third node alone may not lead: what was acknowledged may be on the two others only. Twice the life of a lock.
    std::thread::sleep(Duration::from_secs(2 * TTL_S));
    assert_eq!(writer.acknowledged(), before, "acknowledged by one server alone");
    assert_eq!(world.patroni.leader(), None, "one of three leads");
    for n in [old, with] {
        world.patroni.machine(n).join();
    }
    let joined = writer.now();
    writer.wait_acknowledged("writes are back", joined, 20, EVER);
    println!("MEASURED two of three cut off and joined: {:.1?} after it", writer.first_after(joined));
    world.judge("two of three cut off", writer);
}

/// A machine that stands still for half a minute, and then goes on as if nothing had been.
#[test]
fn the_leader_freezes_and_wakes_up() {
    cluster!();
    let world = World::new();
    let writer = world.writer(HOLD);
    let old = world.leader();
    world.freeze(old, Signal::SIGSTOP);
    let frozen = writer.now();
    taken_over("leader frozen", &world, &writer, old, frozen, LOST);
    world.freeze(old, Signal::SIGCONT);
    world.judge("leader frozen", writer);
}

/// Frozen and woken before anybody takes over: clients wait, and go on.
#[test]
fn a_short_freeze_loses_nothing() {
    cluster!();
    let world = World::new();
    let writer = world.writer(HOLD);
    for _ in 0..3 {
        let leader = world.leader();
        world.freeze(leader, Signal::SIGSTOP);
        std::thread::sleep(Duration::from_secs(6));
        world.freeze(leader, Signal::SIGCONT);
        let awake = writer.now();
        writer.wait_acknowledged("writes are back", awake, 20, EVER);
        println!("MEASURED frozen for 6 s: {:.1?} after it", writer.first_after(awake));
    }
    world.judge("short freezes", writer);
}

/// Longer than a commit is held: clients are told, and told the truth.
#[test]
fn two_of_three_stay_away_for_longer_than_the_hold() {
    cluster!();
    let mut world = World::new();
    let writer = world.writer(Duration::from_secs(8));
    let leader = world.leader();
    for standby in world.others(leader) {
        world.patroni.kill_both(standby);
    }
    let before = world.all_wait(&writer, leader);
    let alone = writer.now();
    eventually("every client was told twice", EVER, || {
        let told = writer.commits().iter().filter(|c| c.ended > alone).count();
        (told >= 2 * CLIENTS).then_some(())
    });
    let commits = writer.commits();
    let since: Vec<_> = commits.iter().filter(|c| c.ended > alone).collect();
    assert_eq!(writer.acknowledged(), before, "acknowledged by one server alone");
    for commit in &since {
        let took = commit.ended - commit.begun;
        assert!(took < Duration::from_secs(20), "held for {took:?}: {commit:?}");
    }
    for standby in world.others(leader) {
        world.patroni.start_agent(standby);
    }
    let started = writer.now();
    writer.wait_acknowledged("writes are back with the standbys", started, 20, EVER);
    println!("MEASURED two of three gone: {:.1?} from the standbys' start", writer.first_after(started));
    world.judge("two of three gone for long", writer);
}

/// What was cancelled is on the leader alone, and the leader is lost before anybody else has it.
#[test]
fn cancelled_commits_are_lost_with_the_leader_and_nobody_was_told_otherwise() {
    cluster!();
    let mut world = World::new();
    let mut writer = world.writer(Duration::from_secs(6));
    let leader = world.leader();
    let standbys = world.others(leader);
    // Until their connections time out, they count as standbys that are a little late: one of them may lead.
    for standby in &standbys {
        world.patroni.machine(*standby).cut_off();
    }
    let before = world.all_wait(&writer, leader);
    let alone = writer.now();
    world.cancel(leader, 3 * CLIENTS);
    world.patroni.power_off(leader);
    for standby in &standbys {
        world.patroni.machine(*standby).join();
    }
    writer.stop(&world.runtime);
    assert_eq!(writer.acknowledged(), before, "acknowledged by one server alone");
    world.patroni.wait_leader("another node leads", |n| n != leader);
    world.patroni.start_agent(leader);
    let stored = world.stored(world.patroni.wait_settled());
    let gone = writer.commits().iter().filter(|c| c.ended > alone && !stored.contains(&c.id)).count();
    println!("MEASURED cancelled and lost: {gone} rows were on the old leader alone");
    assert!(gone > 0, "nothing was lost with the old leader: this has shown nothing");
    world.judge("cancelled and lost", writer);
}

/// Without strict mode Patroni lets the last server go on alone. We do not.
#[test]
fn a_cluster_that_gives_up_its_standbys_is_refused() {
    cluster!();
    let mut world = World::with(|cluster| cluster.strict(false));
    let writer = world.writer(Duration::from_secs(5));
    let leader = world.leader();
    let pool = world.pool(HOLD);
    // Its agent sees it only when every commit waits: these are let go as well.
    world.patroni.signal_agent(leader, Signal::SIGSTOP);
    for standby in world.others(leader) {
        world.patroni.kill_both(standby);
    }
    let before = world.all_wait(&writer, leader);
    world.patroni.signal_agent(leader, Signal::SIGCONT);
    let alone = writer.now();
    eventually("Patroni empties the standby names", EVER, || {
        world.patroni.sql(leader, "postgres", "SHOW synchronous_standby_names").is_empty().then_some(())
    });
    let refused = eventually("the guard sees it", EVER, || world.runtime.block_on(pool.check()).err());
    assert!(
        matches!(&refused, PgError::Unsafe { setting, .. } if setting == "synchronous_standby_names"),
        "{refused}"
    );
    let config = Config { hold: Duration::from_secs(2), ..world.config() };
    let refused = world.runtime.block_on(Pool::connect(config)).err().unwrap();
    assert!(matches!(refused, PgError::Unsafe { .. }), "{refused}");
    eventually("clients are told", EVER, || {
        let commits = writer.commits();
        let told = |c: &&Commit| c.ended > alone && format!("{:?}", c.outcome).contains("standby_names");
        (commits.iter().filter(told).count() >= CLIENTS).then_some(())
    });
    assert_eq!(writer.acknowledged(), before, "acknowledged by one server alone");
    for standby in world.others(leader) {
        world.patroni.start_agent(standby);
    }
    let started = writer.now();
    writer.wait_acknowledged("writes are back with the standbys", started, 20, EVER);
    world.judge("not strict", writer);
}

/// All machines at once, their disks as well: nothing that was not synced is there afterwards.
#[test]
fn every_node_loses_its_power() {
    cluster!();
    if let Some(why) = neighbours::missing(&["mounts"]) {
        return neighbours::skip(&why);
    }
    let mut disk = Disk::ext4(2048);
    let place = disk.path();
    let mut world = World::with(|cluster| cluster.on(&place));
    let writer = world.writer(HOLD);
    disk.power_cut();
    world.patroni.power_off_all();
    let dead = writer.now();
    disk.power_on();
    world.patroni.start_all();
    writer.wait_acknowledged("writes are back", dead, 20, EVER);
    println!(
        "MEASURED power loss of every node: {:.1?} without an acknowledgement",
        writer.longest_gap(dead)
    );
    world.judge("power loss of every node", writer);
    drop(world);
}

/// Leader after leader, while clients never stop.
#[test]
fn leader_after_leader() {
    cluster!();
    let mut world = World::new();
    let writer = world.writer(HOLD);
    for round in 0..5 {
        let old = world.leader();
        let bound = match round % 2 {
            0 => {
                world.patroni.kill_engine(old);
                CRASHED
            }
            _ => {
                world.patroni.power_off(old);
                LOST
            }
        };
        let dead = writer.now();
        taken_over(&format!("leader {}", round + 1), &world, &writer, old, dead, bound);
        if round % 2 == 1 {
            world.patroni.start_agent(old);
        }
        world.patroni.wait_settled();
    }
    world.judge("leader after leader", writer);
}
