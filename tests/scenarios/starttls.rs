//! Attacks on STARTTLS and on plain ports.

use posthouse_tests::prelude::*;
use posthouse_tests::sink::{self, Options};
use posthouse_tests::tls::Certificate;

#[test]
fn what_was_sent_ahead_of_tls_is_never_answered_inside() {
    let relay = Relay::builder().networks(&[]).start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.send(b"STARTTLS\r\nNOOP injected\r\nVRFY injected\r\n").unwrap();
    let first = smtp.try_reply();
    if let Ok(reply) = first
        && reply.code == 220
    {
        // Whatever follows on the plain wire must not be a reply.
        let rest = smtp.drain(Duration::from_millis(300));
        assert!(!rest.starts_with("250") && !rest.starts_with("252"), "answered: {rest}");
    }
}

#[test]
fn state_is_forgotten_and_a_second_starttls_is_refused() {
    let relay = Relay::builder().start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<me@client.example>").expect(250);
    smtp.starttls();
    smtp.cmd("RCPT TO:<ann@dest.example>").expect(503);
    assert!(!smtp.ehlo().mentions("STARTTLS"));
    smtp.cmd("STARTTLS").expect(503);
}

#[test]
fn other_protocols_are_shown_the_door() {
    let relay = Relay::builder().start();
    for hello in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
        b"POST /mail HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut smtp = Smtp::connect(relay.smtp());
        smtp.send(hello).unwrap();
        let said = smtp.drain(Duration::from_secs(5));
        assert!(said.lines().count() <= 1 && !said.starts_with("250"), "{said}");
        assert!(smtp.is_closed());
    }
}

#[test]
fn the_relay_uses_tls_that_is_offered_and_goes_on_in_the_clear_when_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Some(Certificate::make(dir.path(), &["sink.test"]));
    let good = Sink::with(Options { certificate, ..Options::default() });
    let broken =
        Sink::with(Options::default().extensions(&["PIPELINING", "STARTTLS"]).script(|stage| match stage {
            Stage::Other(line) if line.starts_with("STARTTLS") => sink::reply("454 4.7.0 not now"),
            _ => Act::Usual,
        }));
    let relay = Relay::builder()
        .route(&["good.example"], &good.url())
        .route(&["broken.example"], &broken.url())
        .start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.transact("me@client.example", &["a@good.example"], &Letter::new("tls", 500).bytes).expect(250);
    smtp.transact("me@client.example", &["a@broken.example"], &Letter::new("clear", 500).bytes).expect(250);
    assert!(good.wait_one().tls, "opportunistic TLS");
    broken.wait_one();
}

#[test]
fn octets_behind_the_reply_to_starttls_are_not_believed_by_the_client() {
    // A man in the middle adds replies behind the 220; a client that keeps them takes them for answers inside TLS.
    let dir = tempfile::tempdir().unwrap();
    let certificate = Some(Certificate::make(dir.path(), &["sink.test"]));
    let sink = Sink::with(Options {
        certificate,
        inject_after_starttls: b"250-sink.test\r\n250 AUTH PLAIN\r\n".to_vec(),
        ..Options::default()
    });
    let relay = Relay::routed_to(&sink.url());
    let letter = Letter::new("injected", 500);
    posthouse_tests::client::send_one(relay.smtp(), "me@client.example", &["a@dest.example"], &letter.bytes)
        .expect(250);
    eventually("it was noticed, or sent all the same", Duration::from_secs(10), || {
        let (_, trace) = relay.try_cli(&["trace", "me@client.example"]);
        (trace.contains("STARTTLS") || sink.count() == 1).then_some(())
    });
    for message in sink.messages() {
        letter.assert_arrived(&message.data);
    }
    assert!(!sink.commands().iter().any(|c| c.contains("AUTH")), "{:?}", sink.commands());
}
