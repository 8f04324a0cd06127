//! The full form: a cluster for each way to fail. Bounds are those that operators are promised for the usual Patroni times, with
//! room for a busy machine; what it took is printed.

use std::time::Duration;

use nix::sys::signal::Signal;
use postgres::{Config, PgError, Pool};
use posthouse_tests::disk::Disk;
use posthouse_tests::neighbours;
use posthouse_tests::neighbours::patroni::NEEDS;
use posthouse_tests::wait::eventually;

use crate::world::{CLIENTS, EVER, World};
use crate::writer::{Commit, Outcome, Writer};

/// How long a commit is held: longer than a fail-over.
const HOLD: Duration = Duration::from_secs(100);

/// Writes must be back this long after a node is gone for good: the lock of a leader lives 20 seconds.
const BACK: Duration = Duration::from_secs(60);

macro_rules! cluster {
    () => {
        if let Some(why) = neighbours::missing(&NEEDS) {
            return neighbours::skip(&why);
        }
    };
}

/// Waits until commits that began after `since` are acknowledged again by a node that is not `old`; prints how long none was.
fn taken_over(name: &str, world: &World, writer: &Writer, since: Duration, old: usize) -> usize {
    let leader = world.patroni.wait_leader("another node leads", |n| n != old);
    let elected = writer.now();
    writer.wait_acknowledged("writes are back", elected, 20, BACK);
    println!(
        "MEASURED {name}: another leader after {:.1?}, {:.1?} without an acknowledgement",
        elected - since,
        writer.longest_gap(since)
    );
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
    taken_over("engine and agent killed", &world, &writer, dead, old);
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
    taken_over("machine without power", &world, &writer, dead, old);
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
    let leader = taken_over("agent killed", &world, &writer, dead, old);
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
    taken_over("leader cut off", &world, &writer, cut, old);
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
    let cut = writer.now();
    // The third node alone may not lead: what was acknowledged may be on the two others only.
    std::thread::sleep(Duration::from_secs(45));
    let alone = world.patroni.leader();
    assert_eq!(writer.acknowledged_since(cut), 0, "acknowledged without the two, leader {alone:?}");
    for n in [old, with] {
        world.patroni.machine(n).join();
    }
    let joined = writer.now();
    writer.wait_acknowledged("writes are back", joined, 20, BACK);
    println!("MEASURED two of three cut off and joined: {:.1?} after it", first_after(&writer, joined));
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
    taken_over("leader frozen", &world, &writer, frozen, old);
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
        writer.wait_acknowledged("writes are back", awake, 20, BACK);
        println!("MEASURED frozen for 6 s: {:.1?} after it", first_after(&writer, awake));
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
    let alone = writer.now();
    eventually("every client was told twice", EVER, || {
        let told = writer.commits().iter().filter(|c| c.begun > alone).count();
        (told >= 2 * CLIENTS).then_some(())
    });
    let commits = writer.commits();
    let since: Vec<_> = commits.iter().filter(|c| c.begun > alone).collect();
    assert!(since.iter().all(|c| c.outcome != Outcome::Acknowledged), "acknowledged by one server alone");
    for commit in &since {
        let took = commit.ended - commit.begun;
        assert!(took < Duration::from_secs(20), "held for {took:?}: {commit:?}");
    }
    for standby in world.others(leader) {
        world.patroni.start_agent(standby);
    }
    let started = writer.now();
    writer.wait_acknowledged("writes are back with the standbys", started, 20, BACK);
    println!("MEASURED two of three gone: {:.1?} from the standbys' start", first_after(&writer, started));
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
    let alone = writer.now();
    let mut cancelled = 0;
    eventually("commits are cancelled", EVER, || {
        cancelled += world.to_waiting(leader, "pg_cancel_backend");
        (cancelled >= 20).then_some(())
    });
    world.patroni.power_off(leader);
    for standby in &standbys {
        world.patroni.machine(*standby).join();
    }
    writer.stop(&world.runtime);
    assert_eq!(writer.acknowledged_since(alone), 0, "acknowledged by one server alone");
    world.patroni.wait_leader("another node leads", |n| n != leader);
    world.patroni.start_agent(leader);
    let new = world.patroni.wait_settled();
    let stored = world.stored(new);
    let gone = writer.commits().iter().filter(|c| c.begun > alone && !stored.contains(&c.id)).count();
    println!("MEASURED cancelled and lost: {cancelled} commits cancelled, {gone} rows lost with the leader");
    assert!(gone > 0, "they were on the old leader alone");
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
    for standby in world.others(leader) {
        world.patroni.kill_both(standby);
    }
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
        let told = |c: &&Commit| c.begun > alone && format!("{:?}", c.outcome).contains("standby_names");
        (commits.iter().filter(told).count() >= CLIENTS).then_some(())
    });
    assert_eq!(writer.acknowledged_since(alone), 0, "acknowledged by one server alone");
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
        match round % 2 {
            0 => world.patroni.kill_engine(old),
            _ => world.patroni.power_off(old),
        }
        let dead = writer.now();
        taken_over(&format!("leader {}", round + 1), &world, &writer, dead, old);
        if round % 2 == 1 {
            world.patroni.start_agent(old);
        }
        world.patroni.wait_settled();
    }
    world.judge("leader after leader", writer);
}

fn first_after(writer: &Writer, since: Duration) -> Duration {
    let commits = writer.commits();
    let first = commits.iter().find(|c| c.outcome == Outcome::Acknowledged && c.ended > since);
    first.expect("one commit after it").ended - since
}
