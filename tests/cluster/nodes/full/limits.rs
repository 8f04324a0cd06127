//! One limit for all relays together, kept also while the database fails over and a relay is killed.

use std::time::Duration;

use posthouse_tests::wait::eventually;

use crate::nodes::arrivals::Manner;
use crate::nodes::driver::Sizes;
use crate::nodes::world::{EVER, Nodes, Setup, cluster};

/// Connections to the next hop, for three relays.
const LIMIT: u64 = 6;

#[test]
fn the_limit_of_a_site_is_never_exceeded() {
    cluster!();
    let shape = format!("[[shape]]\nsites = [\"smtp://10.77.0.1:25\"]\nconnections = {LIMIT}\n");
    let mut nodes = Setup::relays(3).with(|builder| builder.toml(&shape)).start();
    for domain in ["one.example", "two.example"] {
        nodes.arrivals.treat(domain, Manner::Slowly(Duration::from_millis(200)));
    }
    let driver = nodes.drive(3, Sizes::Small);
    more(&nodes, 200);
    kept(&nodes, "in peace");
    assert_eq!(nodes.sink.connections_max(), LIMIT, "the limit was never reached: this has shown nothing");

    let old = nodes.leader();
    nodes.patroni.kill_engine(old);
    nodes.patroni.wait_leader("another engine leads", |n| n != old);
    more(&nodes, 200);
    kept(&nodes, "after a fail-over");

    nodes.kill(0);
    nodes.wait_given_back(0);
    more(&nodes, 200);
    nodes.start(0);
    more(&nodes, 200);
    kept(&nodes, "after a relay was killed");
    for domain in ["one.example", "two.example"] {
        nodes.arrivals.treat(domain, Manner::Slowly(Duration::ZERO));
    }
    nodes.judge("one limit", driver);
    kept(&nodes, "at the end");
    println!("MEASURED one limit: {} connections at a time, {LIMIT} allowed", nodes.sink.connections_max());
}

/// Waits until the next hop was given so many more.
fn more(nodes: &Nodes, n: usize) {
    let before = nodes.arrivals.taken();
    eventually("the next hop gets more", EVER, || (nodes.arrivals.taken() >= before + n).then_some(()));
}

fn kept(nodes: &Nodes, when: &str) {
    let most = nodes.sink.connections_max();
    assert!(most <= LIMIT, "{when}: {most} connections at a time");
}
