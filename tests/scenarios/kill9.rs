//! kill -9 again and again under load: what was acknowledged is delivered, queued or reported; nothing partial, nothing
//! changed, and copies only where the crash fell between the next hop's 250 and our record of it.

use posthouse_tests::prelude::*;
use posthouse_tests::sink::{self, Options};

posthouse_tests::on_both_engines!(
    nothing_acknowledged_is_lost,
    what_waits_for_a_dead_next_hop_survives_and_arrives_when_it_is_back,
    refusals_become_reports_however_often_it_is_killed,
);

fn rounds(quick: usize, soak: usize) -> usize {
    if std::env::var_os("POSTHOUSE_SOAK").is_some() { soak } else { quick }
}

/// A wait that differs from round to round in a way that can be repeated.
fn odd_wait(round: usize, most_ms: u64) -> Duration {
    let mixed = (u64::try_from(round).unwrap() + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    Duration::from_millis(20 + mixed % most_ms)
}

fn nothing_acknowledged_is_lost(engine: &Engine) {
    let rounds = rounds(12, 150);
    let sink = Sink::start();
    let mut relay = engine.relay().fixed_ports().route(&[], &sink.url()).start();
    let pump = Pump::start(relay.smtp(), 8, 6_000, &["one.example", "two.example", "three.example"]);
    for round in 0..rounds {
        let before = pump.ledger.count();
        eventually("some letters are taken", Duration::from_secs(20), || {
            (pump.ledger.count() > before + 20).then_some(())
        });
        std::thread::sleep(odd_wait(round, 250));
        relay.crash();
    }
    let ledger = pump.stop();
    relay.cli(&["queue", "release", "--all"]);
    let copies = ledger.settle(&sink, Duration::from_secs(60));
    // At each kill at most one message a connection to the next hop can be between its 250 and our record.
    assert!(copies <= rounds * 20, "{copies} copies of {} letters after {rounds} kills", ledger.count());
    assert!(ledger.count() > rounds * 20, "only {} letters were acknowledged", ledger.count());
    relay.wait_empty(Duration::from_secs(20));
    assert!(relay.stop().success());
}

fn what_waits_for_a_dead_next_hop_survives_and_arrives_when_it_is_back(engine: &Engine) {
    let rounds = rounds(6, 60);
    let port = free_port();
    let mut relay = engine.relay().fixed_ports().route(&[], &format!("smtp://127.0.0.1:{port}")).start();
    let pump = Pump::start(relay.smtp(), 8, 3_000, &["one.example", "two.example"]);
    for round in 0..rounds {
        let before = pump.ledger.count();
        eventually("some letters are taken", Duration::from_secs(20), || {
            (pump.ledger.count() > before + 20).then_some(())
        });
        std::thread::sleep(odd_wait(round, 200));
        relay.crash();
    }
    let ledger = pump.stop();
    let sink = Sink::on(posthouse_tests::wait::loopback(port), Options::default());
    // What was under way in three crashes is held, for it may be the cause; here it is not.
    relay.cli(&["queue", "release", "--all"]);
    assert_eq!(ledger.settle(&sink, Duration::from_secs(60)), 0, "no next hop, no copies");
}

fn refusals_become_reports_however_often_it_is_killed(engine: &Engine) {
    let rounds = rounds(5, 40);
    let sink = Sink::with(Options::default().script(|stage| match stage {
        Stage::Rcpt(r) if r.contains("refused.example") => sink::reply("550 5.1.1 no such user"),
        _ => Act::Usual,
    }));
    let mut relay = engine.relay().fixed_ports().route(&[], &sink.url()).start();
    let pump = Pump::start(relay.smtp(), 6, 2_000, &["refused.example"]);
    for round in 0..rounds {
        let before = pump.ledger.count();
        eventually("some letters are taken", Duration::from_secs(20), || {
            (pump.ledger.count() > before + 20).then_some(())
        });
        std::thread::sleep(odd_wait(round, 200));
        relay.crash();
    }
    let ledger = pump.stop();
    relay.cli(&["queue", "release", "--all"]);
    let promised = ledger.promised();
    let told = |messages: &[Received]| {
        let mut ids = std::collections::BTreeSet::new();
        for message in messages.iter().filter(|m| m.sender().is_empty()) {
            let text = message.text();
            let id = text.lines().find_map(|l| l.strip_prefix("X-Proof-Id: "));
            ids.insert(
                id.unwrap_or_else(|| panic!("a report without the header it is about:\n{text}")).to_owned(),
            );
        }
        ids
    };
    let all =
        sink.wait_until("a report for each", Duration::from_secs(60), |m| told(m).is_superset(&promised));
    for report in &all {
        assert_eq!(report.recipients(), ["sender@client.example"]);
    }
    relay.wait_empty(Duration::from_secs(20));
}
