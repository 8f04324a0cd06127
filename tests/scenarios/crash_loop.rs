//! A message that brings the relay down is found out: it is held after three crashes in a row, and mail that only waited in
//! memory beside it is not.

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

posthouse_tests::on_both_engines!(only_what_was_under_attempt_in_every_crash_is_held,);

/// The content of a message never gets an answer: it is under attempt for as long as the relay runs.
fn never(stage: &Stage<'_>) -> Act {
    match stage {
        Stage::Data(_) => Act::Wait(Duration::from_secs(600)),
        _ => Act::Usual,
    }
}

fn under_attempt(sink: &Sink) -> usize {
    sink.commands().iter().filter(|command| command.ends_with(": DATA")).count()
}

fn only_what_was_under_attempt_in_every_crash_is_held(engine: &Engine) {
    let sink = Sink::with(Options::default().script(never));
    // One connection: the others wait in memory for their turn.
    let one = format!("[[shape]]\nsites = [\"{}\"]\nconnections = 1\n", sink.url());
    let mut relay = engine.relay().route(&[], &sink.url()).toml(&one).start();
    send_one(
        relay.smtp(),
        "me@client.example",
        &["culprit@dest.example"],
        &Letter::new("culprit", 500).bytes,
    )
    .expect(250);
    eventually("it is under attempt", Duration::from_secs(20), || (under_attempt(&sink) == 1).then_some(()));
    for n in 0..5 {
        let letter = Letter::new(format!("bystander-{n}"), 500);
        send_one(relay.smtp(), "me@client.example", &[&format!("b{n}@dest.example")], &letter.bytes)
            .expect(250);
    }
    for crash in 1..=2 {
        relay.crash();
        eventually("it is tried again", Duration::from_secs(20), || {
            (under_attempt(&sink) == crash + 1).then_some(())
        });
        assert!(relay.queue().iter().all(|waiting| waiting["state"] != "held"), "{:?}", relay.queue());
    }
    relay.kill9();
    sink.rescript(|_| Act::Usual);
    relay.start();
    let arrived = sink.wait(5, Duration::from_secs(30));
    let mut to: Vec<&str> = arrived.iter().flat_map(Received::recipients).collect();
    to.sort_unstable();
    assert_eq!(
        to,
        ["b0@dest.example", "b1@dest.example", "b2@dest.example", "b3@dest.example", "b4@dest.example"]
    );
    eventually("only the culprit is left", Duration::from_secs(10), || {
        (relay.queue().len() == 1).then_some(())
    });
    assert_eq!(relay.queue()[0]["state"], "held");
    let (_, trace) = relay.try_cli(&["trace", "culprit@dest.example"]);
    assert!(trace.contains("the relay stopped 3 times in a row while this was being delivered"), "{trace}");
    // A clean stop: nobody is suspected any more, and nothing is noted.
    relay.restart();
    assert!(!engine.is_embedded() || !relay.data().join("attempts").exists());
    relay.cli(&["queue", "release", "--all"]);
    sink.wait(6, Duration::from_secs(30));
    relay.wait_empty(Duration::from_secs(20));
}
