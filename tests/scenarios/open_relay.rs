//! Strangers relay nothing, however they write the address; judged by replies and by what reaches the far end.

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;

const ATTEMPTS: [(&str, &str); 20] = [
    ("spammer@far.example", "victim@far.example"),
    ("", "victim@far.example"),
    ("ann@local.example", "victim@far.example"),
    ("spammer@far.example", "victim%far.example@local.example"),
    ("spammer@far.example", "\"victim@far.example\"@local.example"),
    ("spammer@far.example", "\"victim@far.example\""),
    ("spammer@far.example", "victim@far.example@local.example"),
    ("spammer@far.example", "@local.example:victim@far.example"),
    ("spammer@far.example", "far.example!victim"),
    ("spammer@far.example", "far.example!victim@local.example"),
    ("spammer@far.example", "victim@[127.0.0.1]"),
    ("spammer@far.example", "victim@[IPv6:::1]"),
    ("spammer@far.example", "victim@[IPv6:::ffff:127.0.0.1]"),
    ("spammer@far.example", "victim@127.0.0.1"),
    ("spammer@far.example", "victim@far.example."),
    ("spammer@far.example", "victim\u{ff20}far.example"),
    ("spammer@far.example", "victim@FAR.example"),
    ("spammer@far.example", "victim@loc\u{0430}l.example"),
    ("spammer@far.example", "victim@local.example.far.example"),
    ("spammer@far.example", "victim"),
];

#[test]
fn strangers_relay_nothing() {
    let sink = Sink::start();
    let relay =
        Relay::builder().networks(&[]).local(&["local.example"], "any").route(&[], &sink.url()).start();
    for (from, to) in ATTEMPTS {
        let mut smtp = Smtp::connect(relay.smtp());
        smtp.ehlo();
        smtp.cmd(&format!("MAIL FROM:<{from}>"));
        let reply = smtp.cmd(&format!("RCPT TO:<{to}>"));
        if reply.code == 250 {
            // Taken as a local part of the local domain: then it must go there, as it is.
            assert!(to.ends_with("@local.example") && to.starts_with('"'), "{to:?} was taken: {reply}");
        } else {
            assert!([501, 550, 551, 553, 554, 530].contains(&reply.code), "{to:?}: {reply}");
        }
        smtp.cmd("DATA");
        let said = smtp.cmd("QUIT");
        assert!(said.code >= 200, "{said}");
    }
    let letter = Letter::new("allowed", 500);
    send_one(relay.smtp(), "x@far.example", &["ann@local.example"], &letter.bytes).expect(250);
    letter.assert_arrived(&sink.wait_one().data);
    for message in sink.messages() {
        assert!(
            message.recipients().iter().all(|r| r.ends_with("@local.example")),
            "relayed: {:?}",
            message.rcpts
        );
    }
    assert_eq!(sink.count(), 1);
}

#[test]
fn a_fresh_install_relays_for_nobody_and_says_what_to_do() {
    let relay = Relay::builder().networks(&[]).start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<me@client.example>").expect(250);
    let reply = smtp.cmd("RCPT TO:<ann@dest.example>");
    assert!([530, 550, 554].contains(&reply.code), "{reply}");
    assert!(
        reply.mentions("log in") || reply.mentions("authenticat") || reply.mentions("AUTH"),
        "what to do: {reply}"
    );
}

#[test]
fn submission_always_wants_a_login() {
    let relay = Relay::builder().local(&["local.example"], "any").start();
    for tls in [false, true] {
        let mut smtp =
            if tls { Smtp::connect_tls(relay.submissions()) } else { Smtp::connect(relay.submission()) };
        smtp.ehlo();
        let mail = smtp.cmd("MAIL FROM:<me@client.example>");
        let reply = if mail.code == 250 { smtp.cmd("RCPT TO:<ann@local.example>") } else { mail };
        assert_eq!(reply.code, 530, "{reply}");
    }
}

#[test]
fn credentials_may_be_held_to_sender_domains() {
    let sink = Sink::start();
    let relay = Relay::builder().networks(&[]).route(&[], &sink.url()).start();
    let password = relay.credential("shop", &["--from-domain", "shop.example"]);
    let mut smtp = Smtp::connect_tls(relay.submissions());
    smtp.ehlo();
    smtp.auth_plain("shop", &password).expect(235);
    let reply = smtp.cmd("MAIL FROM:<ceo@bank.example>");
    assert!([550, 553].contains(&reply.code), "{reply}");
    assert!(reply.mentions("shop.example"), "it says what may be used: {reply}");
    let letter = Letter::of("ok", &["From: orders@shop.example", "To: ann@dest.example", "", "thank you"]);
    smtp.transact("orders@shop.example", &["ann@dest.example"], &letter.bytes).expect(250);
    sink.wait_one();
}

#[test]
fn vrfy_and_expn_say_nothing() {
    let relay = Relay::builder().local(&["local.example"], "any").start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    for command in ["VRFY ann", "VRFY ann@local.example", "EXPN staff"] {
        let reply = smtp.cmd(command);
        assert!([252, 502, 550].contains(&reply.code), "{command}: {reply}");
        assert!(!reply.mentions("ann@local.example"), "{reply}");
    }
}
