//! The short form: one cluster, and what most often goes wrong.

use std::time::Duration;

use posthouse_tests::neighbours;
use posthouse_tests::neighbours::patroni::NEEDS;

use crate::world::{CLIENTS, World};
use crate::writer::Writer;

/// How long a commit is held: longer than anything here lasts.
const HOLD: Duration = Duration::from_secs(100);

#[test]
fn what_was_acknowledged_survives_and_nothing_else_is_acknowledged() {
    if let Some(why) = neighbours::missing(&NEEDS) {
        return neighbours::skip(&why);
    }
    let mut world = World::new();
    let writer = world.writer(HOLD);
    let old = the_engine_of_the_leader_crashes(&world, &writer);
    two_of_three_are_gone(&mut world, &writer, old);
    world.judge("short form", writer);
}

/// A standby takes over, and the clients find it by themselves. Returns the node that crashed.
fn the_engine_of_the_leader_crashes(world: &World, writer: &Writer) -> usize {
    let old = world.leader();
    world.patroni.kill_engine(old);
    let dead = writer.now();
    writer.wait_acknowledged("writes are back after a crash", dead, 20, Duration::from_secs(30));
    println!("MEASURED engine killed: {:.1?} without an acknowledgement", writer.longest_gap(dead));
    old
}

/// Nothing is acknowledged while no standby is left, not even when the server is made to say that a commit is done.
fn two_of_three_are_gone(world: &mut World, writer: &Writer, old: usize) {
    let leader = world.patroni.wait_leader("another node leads", |n| n != old);
    for standby in world.others(leader) {
        world.patroni.kill_both(standby);
    }
    let before = world.all_wait(writer, leader);
    world.cancel(leader, 3 * CLIENTS);
    world.all_wait(writer, leader);
    let ended = world.to_waiting(leader, "pg_terminate_backend");
    world.all_wait(writer, leader);
    assert_eq!(writer.acknowledged(), before, "acknowledged by one server alone");
    let back = world.others(leader).into_iter().find(|n| *n != old).unwrap();
    let started = writer.now();
    world.patroni.start_agent(back);
    writer.wait_acknowledged("writes are back with the standby", started, 20, Duration::from_secs(60));
    println!(
        "MEASURED two of three gone, commits cancelled, {ended} sessions ended: {:.1?} from the standby's start",
        writer.first_after(started)
    );
}
