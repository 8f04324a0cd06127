//! SIGTERM: new sessions are turned away, open transactions end well, deliveries under way are finished, the exit is 0.

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

posthouse_tests::on_both_engines!(sigterm_lets_what_is_under_way_finish,);

fn sigterm_lets_what_is_under_way_finish(engine: &Engine) {
    let sink = Sink::with(Options::default().script(|stage| match stage {
        Stage::Message(m) if m.text().contains("X-Proof-Id: slow") => Act::Wait(Duration::from_millis(1500)),
        _ => Act::Usual,
    }));
    let mut relay = engine.routed_to(&sink.url());
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("slow", 500).bytes)
        .expect(250);
    let mut open = Smtp::connect(relay.smtp());
    open.ehlo();
    open.cmd("MAIL FROM:<me@client.example>").expect(250);
    open.cmd("RCPT TO:<ann@dest.example>").expect(250);
    open.cmd("DATA").expect(354);
    let idle = {
        let mut smtp = Smtp::connect(relay.smtp());
        smtp.ehlo();
        smtp
    };
    eventually("the slow one is under way", Duration::from_secs(10), || {
        sink.commands().iter().any(|c| c.contains("DATA")).then_some(())
    });
    kill(Pid::from_raw(relay.pid()), Signal::SIGTERM).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    // The transaction that was under way is acknowledged, or refused for now; never cut off without a word.
    open.send(&posthouse_tests::client::stuffed(&Letter::new("open", 500).bytes)).unwrap();
    let reply = open.reply();
    assert!(reply.code == 250 || reply.code == 421 || reply.code == 451, "{reply}");
    let mut idle = idle;
    let said = idle.drain(Duration::from_secs(10));
    assert!(said.is_empty() || said.starts_with("421"), "{said}");
    let status = relay.ended(Duration::from_secs(30));
    assert!(status.success(), "{status}");
    let delivered = sink.messages().iter().filter(|m| m.text().contains("X-Proof-Id: slow")).count();
    assert_eq!(delivered, 1, "the delivery under way was finished");
    // A clean stop leaves nothing to do twice.
    relay.start();
    let wanted = if reply.code == 250 { 2 } else { 1 };
    sink.wait(wanted, Duration::from_secs(20));
    relay.wait_empty(Duration::from_secs(10));
    assert_eq!(sink.count(), wanted);
}
