//! Relays that are killed, frozen and cut off.

use std::sync::Arc;
use std::time::Duration;

use posthouse_tests::sink::{Act, reply};

use crate::nodes::arrivals::{Arrival, Gate, Manner};
use crate::nodes::driver::Sizes;
use crate::nodes::world::{EVER, Nodes, Setup, TAKEN_OVER, cluster};

/// A wait that differs from round to round in a way that can be repeated.
fn odd_wait(round: usize, most_ms: u64) -> Duration {
    let mixed = (u64::try_from(round).unwrap() + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    Duration::from_millis(50 + mixed % most_ms)
}

/// Letters of every size, relays that die at any moment, and others that finish what they had begun.
#[test]
fn relays_are_killed_at_random_points() {
    cluster!();
    let mut nodes = Setup::relays(3).start();
    let driver = nodes.drive(8, Sizes::All);
    for round in 0..9 {
        driver.wait_more("letters are acknowledged", 30, EVER);
        std::thread::sleep(odd_wait(round, 1_500));
        let victim = (round * 2) % 3;
        nodes.kill(victim);
        if round % 3 == 0 {
            let killed = nodes.now();
            let gone = nodes.wait_given_back(victim);
            println!("MEASURED relay killed: given back {:.1?} after it", gone - killed);
        }
        nodes.start(victim);
    }
    // What was under way when its node was killed, seen to arrive by way of another one.
    taken_over(&mut nodes);
    nodes.judge("relays killed", driver);
}

/// How long the mail lies still that a killed relay had in hand.
fn taken_over(nodes: &mut Nodes) {
    let gate = Arc::new(Gate::default());
    nodes.arrivals.treat("held.example", Manner::BeforeAnswer(Arc::clone(&gate)));
    for n in 0..5 {
        nodes.send(0, &format!("held-{n}"), "someone@held.example");
    }
    let first = nodes.address(0);
    nodes.arrivals.wait_offered("held-", Some(first), 5, EVER);
    gate.answer(nodes.address(1), Act::Usual);
    gate.answer(nodes.address(2), Act::Usual);
    nodes.kill(0);
    let killed = nodes.now();
    let all = nodes.arrivals.wait_offered("held-", None, 10, EVER);
    let last = all.iter().map(|a| a.at).max().unwrap() - killed;
    println!("MEASURED relay killed: what it had in hand is offered again {last:.1?} after it");
    assert!(last < TAKEN_OVER, "taken over only after {last:?}");
    gate.answer(first, Act::Close);
    nodes.start(0);
}

/// A relay that stands still for half a minute with mail in the middle of its way: before the content was asked for, and before
/// the answer was read. When it goes on it must finish none of it, for others have it now.
#[test]
fn a_frozen_relay_finishes_nothing_when_it_wakes_up() {
    cluster!();
    let nodes = Setup::relays(3).start();
    let (content, answer) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    nodes.arrivals.treat("content.example", Manner::BeforeContent(Arc::clone(&content)));
    nodes.arrivals.treat("answer.example", Manner::BeforeAnswer(Arc::clone(&answer)));
    let driver = nodes.drive(6, Sizes::Small);
    for n in 0..3 {
        nodes.send(0, &format!("content-{n}"), "someone@content.example");
        nodes.send(0, &format!("answer-{n}"), "someone@answer.example");
    }
    let first = nodes.address(0);
    assert_eq!(nodes.arrivals.wait_asked("content.example", 3), [first; 3], "who took it sends it");
    nodes.arrivals.wait_offered("answer-", Some(first), 3, EVER);

    let epoch = nodes.epochs()[nodes.name(0)];
    nodes.freeze(0);
    let frozen = nodes.now();
    // Its 354 and its 250 lie in its sockets until it wakes up; the others are served, but for their answers.
    for node in [0, 1, 2] {
        content.answer(nodes.address(node), Act::Usual);
    }
    answer.answer(first, Act::Usual);
    let again = nodes.arrivals.wait_offered("answer-", None, 6, EVER);
    let late = again.iter().filter(|a| a.from != first).map(|a| a.at).max().unwrap() - frozen;
    println!("MEASURED relay frozen: what it had in hand is offered again {late:.1?} after it");
    assert!(late < TAKEN_OVER, "taken over only after {late:?}");
    nodes.arrivals.wait_offered("content-", None, 3, EVER);
    std::thread::sleep((frozen + Duration::from_secs(30)).saturating_sub(nodes.now()));

    nodes.thaw(0);
    let awake = nodes.now();
    let reborn = nodes.wait_reborn(0, epoch);
    println!("MEASURED relay frozen: a new epoch {:.1?} after it woke up", reborn - awake);
    // It had the time to settle by its old epoch what the next hop has answered meanwhile. Had that counted, nobody would try
    // a third time what the second node is refused now.
    std::thread::sleep(Duration::from_secs(2));
    for node in [1, 2] {
        answer.answer(nodes.address(node), reply("451 4.2.0 Come back later"));
    }
    let offered = nodes.arrivals.wait_offered("answer-", None, 9, EVER);
    assert!(offered.iter().filter(|a| a.from == first && a.at < reborn).count() == 3, "{offered:#?}");
    for node in [1, 2] {
        answer.answer(nodes.address(node), Act::Usual);
    }
    driver.wait_for("it takes mail again", 20, EVER, |t| t.node == first && t.begun > reborn);
    nodes.judge("relay frozen", driver);
    let content = nodes.arrivals.wait_offered("content-", None, 3, EVER);
    assert_eq!(content.len(), 3, "a final dot after the deadline: {content:#?}");
    let woken = |a: &Arrival| a.from == first && a.at > frozen + Duration::from_secs(6) && a.at < reborn;
    let late: Vec<_> = nodes.arrivals.all().into_iter().filter(woken).collect();
    assert!(late.is_empty(), "a final dot after the deadline: {late:#?}");
}

/// Its machine is off the network, with all that it had under way.
#[test]
fn a_relay_is_cut_off_and_joined_again() {
    cluster!();
    let mut nodes = Setup::relays(3).start();
    let driver = nodes.drive(6, Sizes::Small);
    let (epoch, first) = (nodes.epochs()[nodes.name(0)], nodes.address(0));
    nodes.cut_off(0);
    let cut = nodes.now();
    let gone = nodes.wait_given_back(0);
    println!("MEASURED relay cut off: given back {:.1?} after it", gone - cut);
    assert!(gone - cut < TAKEN_OVER, "{:?}", gone - cut);
    driver.wait_more("the others go on", 100, EVER);
    nodes.join(0);
    let joined = nodes.now();
    let reborn = nodes.wait_reborn(0, epoch);
    driver.wait_for("it takes mail again", 20, EVER, |t| t.node == first && t.begun > reborn);
    println!("MEASURED relay cut off: back {:.1?} after it was joined", nodes.now() - joined);
    nodes.judge("relay cut off", driver);
}

/// It sees its clients and the next hop, but no engine: others take its mail for lost, so it must have stopped before.
#[test]
fn a_relay_without_engines_stops_by_itself() {
    cluster!();
    let nodes = Setup::relays(2).start();
    nodes.arrivals.treat("slow.example", Manner::Slowly(Duration::from_secs(1)));
    let driver = nodes.drive(6, Sizes::Small);
    let (epoch, first) = (nodes.epochs()[nodes.name(0)], nodes.address(0));
    // Something for it to go on with, if it did.
    for n in 0..60 {
        nodes.send(0, &format!("slow-{n}"), "someone@slow.example");
    }
    nodes.without_engines(0, true);
    let cut = nodes.now();
    let gone = nodes.wait_given_back(0);
    println!("MEASURED relay without engines: given back {:.1?} after it", gone - cut);
    driver.wait_more("the other one goes on", 100, EVER);
    std::thread::sleep((cut + Duration::from_secs(25)).saturating_sub(nodes.now()));
    // A lease is six seconds from the start of the last good beat, which was at most two before.
    let stopped = cut + Duration::from_secs(6);
    let late: Vec<_> =
        nodes.arrivals.all().into_iter().filter(|a| a.from == first && a.at > stopped).collect();
    assert!(late.is_empty(), "sent without a lease: {late:#?}");
    // Answers that were on their way at that moment come within a second.
    let on_its_way = cut + Duration::from_secs(1);
    let acknowledged = driver.count(|t| t.node == first && t.ended > on_its_way);
    assert_eq!(acknowledged, 0, "acknowledged without an engine");
    nodes.without_engines(0, false);
    let reborn = nodes.wait_reborn(0, epoch);
    driver.wait_for("it takes mail again", 20, EVER, |t| t.node == first && t.begun > reborn);
    nodes.judge("relay without engines", driver);
}

/// One after the other is stopped in order and started again, as for a new version: no copies at all.
#[test]
fn relays_are_restarted_in_turn_under_load() {
    cluster!();
    let mut nodes = Setup::relays(3).start();
    let driver = nodes.drive(8, Sizes::All);
    for n in 0..3 {
        driver.wait_more("letters are acknowledged", 60, EVER);
        assert!(nodes.relays[n].relay.stop().success());
        driver.wait_more("the others go on", 60, EVER);
        nodes.start(n);
    }
    assert_eq!(nodes.judge("relays restarted in turn", driver).copies, 0);
}
