//! One bad destination never delays the others' mail.

use std::collections::BTreeSet;

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::{self, Options};

posthouse_tests::on_both_engines!(
    a_storm_of_4xx,
    a_tarpit,
    a_peer_that_is_silent_after_the_dot,
    recipients_of_one_message_at_a_good_and_a_dead_destination,
);

/// Floods one destination that behaves as `bad` does, then wants mail for another within two seconds.
fn goes_on_beside(engine: &Engine, bad: impl Fn(&Stage<'_>) -> Act + Send + Sync + 'static) {
    let (storm, good) = (Sink::with(Options::default().script(bad)), Sink::start());
    let relay =
        engine.relay().route(&["storm.example"], &storm.url()).route(&["good.example"], &good.url()).start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    for n in 0..1500 {
        smtp.transact(
            "me@client.example",
            &["ann@storm.example"],
            &Letter::new(format!("storm-{n}"), 600).bytes,
        )
        .expect(250);
    }
    for n in 0..20 {
        let letter = Letter::new(format!("good-{n}"), 1_000);
        send_one(relay.smtp(), "me@client.example", &["ann@good.example"], &letter.bytes).expect(250);
        good.wait(n + 1, Duration::from_secs(2));
    }
    assert!(storm.connections_max() <= 20, "{} connections to one destination", storm.connections_max());
}

fn a_storm_of_4xx(engine: &Engine) {
    goes_on_beside(engine, |stage| match stage {
        Stage::Rcpt(_) => sink::reply("450 4.2.1 busy"),
        _ => Act::Usual,
    });
}

fn a_tarpit(engine: &Engine) {
    goes_on_beside(engine, |stage| match stage {
        Stage::Connect => Act::Wait(Duration::from_secs(60)),
        _ => Act::Usual,
    });
}

fn a_peer_that_is_silent_after_the_dot(engine: &Engine) {
    goes_on_beside(engine, |stage| match stage {
        Stage::Message(_) => Act::Wait(Duration::from_secs(60)),
        _ => Act::Usual,
    });
}

fn recipients_of_one_message_at_a_good_and_a_dead_destination(engine: &Engine) {
    let good = Sink::start();
    let dead = format!("smtp://127.0.0.1:{}", free_port());
    let relay = engine.relay().route(&["dead.example"], &dead).route(&["good.example"], &good.url()).start();
    let letter = Letter::odd("both");
    send_one(relay.smtp(), "me@client.example", &["ann@dead.example", "bob@good.example"], &letter.bytes)
        .expect(250);
    letter.assert_arrived(&good.wait_one().data);
    let queue = eventually("only the dead one is left", Duration::from_secs(10), || {
        let queue = relay.queue();
        (queue.len() == 1).then_some(queue)
    });
    assert!(
        queue[0].to_string().contains("dead.example") && !queue[0].to_string().contains("bob@good.example")
    );
    let texts: BTreeSet<String> = good.messages().iter().map(Received::text).collect();
    assert_eq!(texts.len(), 1);
}
