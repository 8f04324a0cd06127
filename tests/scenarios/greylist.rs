//! Greylisting: recognised, and tried again when the host said, not when the schedule would.

use posthouse_tests::client::send_one;
use posthouse_tests::needs;
use posthouse_tests::neighbours::postfix::Postfix;
use posthouse_tests::neighbours::postgrey::Postgrey;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::{self, Options};

/// An hour between attempts: whoever arrives sooner was retried because of what the host said.
fn patient(to: &str) -> Relay {
    Relay::builder().route(&[], to).set("queue", "retry", "[\"1h\"]").start()
}

#[test]
fn postgrey_lets_it_in_when_its_time_is_over() {
    needs!("root", "postfix", "postgrey");
    let sink = Sink::start();
    let postgrey = Postgrey::delaying(8, "Greylisted, try again in %s seconds");
    let postfix = Postfix::relaying_to(sink.addr(), &postgrey.main_cf());
    let relay = patient(&format!("smtp://{}", postfix.addr()));
    let letter = Letter::odd("greylisted");
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    let got = sink.wait(1, Duration::from_secs(60)).swap_remove(0);
    // Postfix says in front of it how long postgrey kept it waiting.
    let text = got.text();
    assert!(text.contains("X-Greylist: delayed "), "{text}");
    letter.assert_arrived(&got.data[text.find("X-Proof-Id").unwrap()..]);
    let trace = relay.cli(&["trace", "me@client.example"]);
    assert!(trace.contains("Greylisted"), "{trace}");
    let attempts = trace.matches("Greylisted").count();
    assert!(attempts <= 2, "it was not tried over and over: {trace}");
}

#[test]
fn the_time_that_the_host_names_is_kept() {
    let sink = Sink::with(Options::default().script({
        let refused = std::sync::Mutex::new(std::collections::HashMap::<String, mail::Mono>::new());
        let clock = mail::Clock::system();
        move |stage| match stage {
            Stage::Rcpt(rcpt) => {
                let mut refused = refused.lock().unwrap();
                let first = *refused.entry((*rcpt).to_owned()).or_insert_with(|| clock.mono());
                if clock.mono().since(first) < Duration::from_secs(9) {
                    sink::reply("451 4.7.1 Greylisting in action, please try again in 10 seconds")
                } else {
                    Act::Usual
                }
            }
            _ => Act::Usual,
        }
    }));
    let relay = patient(&sink.url());
    let letter = Letter::new("ten", 500);
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    letter.assert_arrived(&sink.wait(1, Duration::from_secs(45)).swap_remove(0).data);
    let tries = sink.commands().iter().filter(|c| c.contains("RCPT")).count();
    assert_eq!(tries, 2, "once before and once after: {:?}", sink.commands());
}

#[test]
fn a_deferral_that_is_no_greylisting_waits_for_its_schedule() {
    let sink = Sink::with(Options::default().script(|stage| match stage {
        Stage::Rcpt(_) => sink::reply("452 4.2.2 The mailbox is full"),
        _ => Act::Usual,
    }));
    let relay = patient(&sink.url());
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("full", 500).bytes)
        .expect(250);
    eventually("it was put off", Duration::from_secs(20), || {
        relay.try_cli(&["trace", "me@client.example"]).1.contains("mailbox is full").then_some(())
    });
    let waiting = relay.json(&["queue", "list"]).to_string();
    assert!(waiting.contains("due"), "{waiting}");
    // A greylisting retry would be there within this time.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(sink.commands().iter().filter(|c| c.contains("RCPT")).count(), 1, "{:?}", sink.commands());
}
