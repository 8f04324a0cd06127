//! Engines that are killed and cut off under relays that go on. Operators are promised that writes are back 10 s after an engine
//! crashed and 30 s after a node was lost; the bounds here are half as much again, for a busy machine. What it took is printed.

use std::time::Duration;

use posthouse_tests::client::Smtp;
use posthouse_tests::disk::Disk;
use posthouse_tests::wait::eventually;

use crate::nodes::driver::{Driver, Sizes};
use crate::nodes::world::{EVER, Nodes, Setup, cluster};

/// Writes must be back this long after an engine crashed.
const CRASHED: Duration = Duration::from_secs(15);

/// And this long after a node is lost, whose lock lives for 20 seconds.
const LOST: Duration = Duration::from_secs(45);

/// Something happens to the leader. Another one takes over in time, no relay dies of it, and nothing comes twice.
fn the_leader_is(
    name: &str,
    bound: Duration,
    attack: impl Fn(&mut Nodes, usize),
    heal: impl Fn(&mut Nodes, usize),
) {
    let mut nodes = Setup::relays(2).start();
    let driver = nodes.drive(8, Sizes::Small);
    let (epochs, old) = (nodes.epochs(), nodes.leader());
    attack(&mut nodes, old);
    let dead = driver.now();
    nodes.patroni.wait_leader("another engine leads", |n| n != old);
    writes_are_back(name, &driver, dead, bound);
    let beats = nodes.beats();
    heal(&mut nodes, old);
    nodes.patroni.wait_settled();
    every_node_lived(name, &nodes, &epochs, &beats);
    assert_eq!(nodes.judge(name, driver).copies, 0, "{name}: no node failed");
}

fn writes_are_back(name: &str, driver: &Driver, since: Duration, bound: Duration) {
    driver.wait_since("writes are back", driver.now(), 30, EVER);
    let gap = driver.longest_gap(since);
    println!("MEASURED {name}: {gap:.1?} without an acknowledgement");
    assert!(gap < bound, "{name}: {gap:?} without an acknowledgement");
}

/// Each node goes on beating in the life that it had.
fn every_node_lived(
    name: &str,
    nodes: &Nodes,
    epochs: &std::collections::BTreeMap<String, i64>,
    beats: &std::collections::BTreeMap<String, i64>,
) {
    assert_eq!(&nodes.epochs(), epochs, "{name}: a node that lived was declared dead");
    eventually("each node beats on", Duration::from_secs(20), || {
        let now = nodes.beats();
        beats.iter().all(|(name, before)| now.get(name).is_some_and(|n| n > before)).then_some(())
    });
}

#[test]
fn the_engine_of_the_leader_is_killed() {
    cluster!();
    the_leader_is("engine killed", CRASHED, |nodes, old| nodes.patroni.kill_engine(old), |_, _| ());
}

#[test]
fn engine_and_agent_of_the_leader_are_killed() {
    cluster!();
    let heal = |nodes: &mut Nodes, old| nodes.patroni.start_agent(old);
    the_leader_is("engine and agent killed", LOST, |nodes, old| nodes.patroni.kill_both(old), heal);
}

/// The old engine runs on beside the new one, with nobody to stop it.
#[test]
fn the_agent_of_the_leader_is_killed() {
    cluster!();
    let heal = |nodes: &mut Nodes, old| nodes.patroni.start_agent(old);
    the_leader_is("agent killed", LOST, |nodes, old| nodes.patroni.kill_agent(old), heal);
}

#[test]
fn the_leader_is_cut_off_and_joined_again() {
    cluster!();
    let heal = |nodes: &mut Nodes, old: usize| nodes.patroni.machine(old).join();
    the_leader_is("leader cut off", LOST, |nodes, old| nodes.patroni.machine(old).cut_off(), heal);
}

/// They see one another, and nobody else does: that relay could store, were a commit not to wait for a standby.
#[test]
fn the_leader_and_a_relay_are_cut_off_together() {
    cluster!();
    let mut nodes = Setup::relays(2).start();
    let driver = nodes.drive(8, Sizes::Small);
    let (epoch, first, old) = (nodes.epochs()[nodes.name(0)], nodes.address(0), nodes.leader());
    nodes.patroni.machine(old).cut_off();
    nodes.cut_off(0);
    let cut = driver.now();
    nodes.patroni.wait_leader("another engine leads", |n| n != old);
    writes_are_back("leader and a relay cut off", &driver, cut, LOST);
    nodes.wait_given_back(0);
    nodes.patroni.machine(old).join();
    nodes.join(0);
    let reborn = nodes.wait_reborn(0, epoch);
    driver.wait_for("it takes mail again", 20, EVER, |t| t.node == first && t.begun > reborn);
    nodes.patroni.wait_settled();
    nodes.judge("leader and a relay cut off", driver);
}

/// Who may log in is asked of every node, and changed at any of them, while the engine that knows of it is replaced.
#[test]
fn the_directory_follows_a_fail_over() {
    cluster!();
    let nodes = Setup::relays(2).start();
    let login = |n: usize, name: &str, password: &str| {
        let mut smtp = Smtp::connect(nodes.relays[n].relay.submission());
        smtp.ehlo();
        smtp.auth_plain(name, password).code
    };
    let before = nodes.relays[0].relay.credential("before", &[]);
    let old = nodes.leader();
    nodes.patroni.kill_engine(old);
    for n in 0..2 {
        assert_eq!(login(n, "before", &before), 235, "what is known is known without an engine");
    }
    let killed = nodes.now();
    // Waits for an engine that takes it.
    let during = nodes.relays[0].relay.credential("during", &[]);
    println!("MEASURED directory: a change {:.1?} after the engine was killed", nodes.now() - killed);
    for n in 0..2 {
        eventually("every node knows it", Duration::from_secs(5), || {
            (login(n, "during", &during) == 235).then_some(())
        });
    }
    nodes.relays[1].relay.cli(&["credential", "remove", "before"]);
    eventually("every node knows that it is gone", Duration::from_secs(5), || {
        (login(0, "before", &before) == 535).then_some(())
    });
}

#[test]
fn with_two_engines_gone_nothing_is_acknowledged() {
    cluster!();
    let mut nodes = Setup::relays(2).start();
    let driver = nodes.drive(8, Sizes::Small);
    let leader = nodes.leader();
    let standbys = nodes.standbys(leader);
    for standby in &standbys {
        nodes.patroni.kill_both(*standby);
    }
    let before = all_wait(&nodes, &driver, leader);
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(driver.acknowledged(), before, "acknowledged by one engine alone");
    let started = driver.now();
    nodes.patroni.start_agent(standbys[0]);
    driver.wait_since("writes are back", started, 30, EVER);
    let back = driver.first_after(started);
    println!("MEASURED two engines gone: {back:.1?} from the start of one of them");
    assert!(back < Duration::from_secs(30), "{back:?}");
    nodes.patroni.start_agent(standbys[1]);
    nodes.patroni.wait_settled();
    assert_eq!(nodes.judge("two engines gone", driver).copies, 0);
}

/// Waits until a commit of each relay hangs for want of a standby. Returns how many letters were acknowledged by then: none more
/// may be from now on.
fn all_wait(nodes: &Nodes, driver: &Driver, leader: usize) -> usize {
    let relays = nodes.relays.len();
    eventually("commits wait for a standby", EVER, || (nodes.waiting(leader) >= relays).then_some(()));
    // Answers that were on their way.
    std::thread::sleep(Duration::from_secs(1));
    driver.acknowledged()
}

/// PostgreSQL calls a commit done that was cancelled while it waited; a relay that is told so knows better, and what it tries
/// again has to wait again.
#[test]
fn cancelled_commits_are_not_acknowledged_and_wait_again() {
    cluster!();
    let mut nodes = Setup::relays(2).start();
    let driver = nodes.drive(8, Sizes::Small);
    let leader = nodes.leader();
    let standbys = nodes.standbys(leader);
    for standby in &standbys {
        nodes.patroni.kill_both(*standby);
    }
    let before = all_wait(&nodes, &driver, leader);
    let mut cancelled = 0;
    eventually("commits are cancelled, and tried and cancelled again", EVER, || {
        cancelled += nodes.to_waiting(leader, "pg_cancel_backend");
        (cancelled >= 20).then_some(())
    });
    all_wait(&nodes, &driver, leader);
    assert_eq!(driver.acknowledged(), before, "acknowledged by one engine alone");
    let started = driver.now();
    for standby in standbys {
        nodes.patroni.start_agent(standby);
    }
    driver.wait_since("writes are back", started, 30, EVER);
    nodes.patroni.wait_settled();
    println!("MEASURED commits cancelled: {cancelled}");
    assert_eq!(nodes.judge("commits cancelled", driver).copies, 0);
}

/// Every machine, relays and engines and etcd, and the disk that all of them are on.
#[test]
fn everything_loses_its_power() {
    cluster!("mounts");
    let mut disk = Disk::ext4(4096);
    let place = disk.path();
    let mut nodes = Setup::relays(2).on(&place).start();
    let driver = nodes.drive(8, Sizes::All);
    driver.wait_more("letters are acknowledged", 100, EVER);
    nodes.power_off_all(|| disk.power_cut());
    let dead = driver.now();
    disk.power_on();
    nodes.power_on_all();
    driver.wait_since("writes are back", dead, 30, EVER);
    println!(
        "MEASURED power loss of everything: {:.1?} without an acknowledgement",
        driver.longest_gap(dead)
    );
    nodes.judge("power loss of everything", driver);
    drop(nodes);
}
