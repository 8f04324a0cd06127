//! The clock jumps by a month: nothing expires that was not tried since.

use posthouse_tests::client::send_one;
use posthouse_tests::needs;
use posthouse_tests::prelude::*;

/// Takes letters while nothing can be delivered, starts again with the clock moved by `shift`, and wants them delivered.
fn jump(shift: &str) {
    let port = free_port();
    let mut relay = Relay::builder().route(&[], &format!("smtp://127.0.0.1:{port}")).start();
    for n in 0..5 {
        let letter = Letter::new(format!("clock{shift}-{n}"), 1_000);
        send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    }
    assert!(relay.stop().success());
    let sink = Sink::on(posthouse_tests::wait::loopback(port), posthouse_tests::sink::Options::default());
    relay.rewrap(["faketime", "-f", shift]);
    relay.start();
    let all = sink.wait(5, Duration::from_secs(30));
    assert!(all.iter().all(|m| m.sender() == "me@client.example"), "a report instead of the mail");
    let late = Letter::new(format!("clock{shift}-late"), 1_000);
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &late.bytes).expect(250);
    sink.wait(6, Duration::from_secs(30));
    relay.wait_empty(Duration::from_secs(10));
}

#[test]
fn a_month_ahead_expires_nothing() {
    needs!("faketime");
    jump("+30d");
}

#[test]
fn a_month_back_strands_nothing() {
    needs!("faketime");
    jump("-30d");
}
