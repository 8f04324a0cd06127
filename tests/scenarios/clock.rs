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

/// Sets the wall clock of a running relay while a letter is being put off, and wants it delivered: not given up, not
/// forgotten, not warned of.
fn set_while_running(shift: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clock");
    std::fs::write(&file, "+0d\n").unwrap();
    let sink = Sink::with(posthouse_tests::sink::Options::default().script(|stage| match stage {
        Stage::Rcpt(_) => posthouse_tests::sink::reply("451 4.2.0 Come back later"),
        _ => Act::Usual,
    }));
    let mut at: std::ffi::OsString = "FAKETIME_TIMESTAMP_FILE=".into();
    at.push(&file);
    let wrapper = [
        "faketime",
        "-m",
        "--exclude-monotonic",
        "-f",
        "+0d",
        "env",
        "-u",
        "FAKETIME",
        "FAKETIME_NO_CACHE=1",
    ];
    let wrapper = wrapper.map(std::ffi::OsString::from).into_iter().chain([at]);
    let relay = Relay::builder().route(&[], &sink.url()).under(wrapper).start();
    let letter = Letter::new(format!("set{shift}"), 1_000);
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    let attempts = || sink.commands().iter().filter(|c| c.contains("RCPT")).count();
    let attempted = |n: usize, within| {
        posthouse_tests::wait::eventually("another attempt", within, || (attempts() >= n).then_some(()));
    };
    attempted(2, Duration::from_secs(30));
    std::fs::write(&file, format!("{shift}\n")).unwrap();
    // The clocks are compared twice a minute at least.
    attempted(attempts() + 2, Duration::from_secs(75));
    assert_eq!(sink.count(), 0, "a report instead of a retry");
    sink.rescript(|_| Act::Usual);
    let mail = sink.wait(1, Duration::from_secs(30));
    assert_eq!(mail[0].sender(), "me@client.example");
    relay.wait_empty(Duration::from_secs(10));
}

#[test]
fn set_ahead_by_a_month_while_running_expires_nothing() {
    needs!("faketime");
    set_while_running("+30d");
}

#[test]
fn set_back_by_a_month_while_running_strands_nothing() {
    needs!("faketime");
    set_while_running("-30d");
}
