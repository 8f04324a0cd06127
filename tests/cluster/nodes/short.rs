//! The short form: two relays before three engines, one of each is killed.

use std::time::Duration;

use super::driver::Sizes;
use super::world::{EVER, Setup, TAKEN_OVER, cluster};

#[test]
fn a_relay_and_the_leading_engine_are_killed_and_nothing_is_lost() {
    cluster!();
    let mut nodes = Setup::relays(2).start();
    let driver = nodes.drive(6, Sizes::Small);
    let epochs = nodes.epochs();

    let old = nodes.leader();
    nodes.patroni.kill_engine(old);
    let dead = driver.now();
    driver.wait_since("writes are back after a crash", dead, 20, Duration::from_secs(40));
    println!("MEASURED engine killed: {:.1?} without an acknowledgement", driver.longest_gap(dead));
    assert_eq!(nodes.epochs(), epochs, "a fail-over costs no node its life");

    nodes.kill(0);
    let killed = driver.now();
    let second = nodes.address(1);
    driver.wait_for("the other relay goes on", 20, EVER, |t| t.node == second && t.begun > killed);
    // Declared dead, and what it had in hand given back.
    let gone = nodes.wait_given_back(0);
    println!("MEASURED relay killed: given back {:.1?} after it", gone - killed);
    assert!(gone - killed < TAKEN_OVER, "{:?}", gone - killed);
    nodes.start(0);
    let (first, started) = (nodes.address(0), driver.now());
    driver.wait_for("the relay takes mail again", 20, EVER, |t| t.node == first && t.begun > started);
    nodes.judge("short form of the nodes", driver);
}
