//! The relay in front of every kind of server: what it hands on arrives byte for byte behind them.

use std::fs;
use std::process::Command;

use posthouse_tests::client::send_one;
use posthouse_tests::letter::difference;
use posthouse_tests::needs;
use posthouse_tests::neighbours::dovecot::Dovecot;
use posthouse_tests::neighbours::exim::Exim;
use posthouse_tests::neighbours::opensmtpd::OpenSmtpd;
use posthouse_tests::neighbours::postfix::Postfix;
use posthouse_tests::neighbours::python;
use posthouse_tests::prelude::*;
use posthouse_tests::wait::{loopback, until_listening};

/// Sends letters through the relay at `next`, over connections that are reused, and waits for them behind it.
fn hands_on(next: &str, sink: &Sink, letters: &[Letter]) {
    let relay = Relay::routed_to(next);
    for letter in letters {
        send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    }
    let all = sink.wait(letters.len(), Duration::from_secs(30));
    for letter in letters {
        let found = all.iter().find(|m| Letter::from_arrived(&m.data).id == letter.id);
        letter.assert_arrived(&found.unwrap_or_else(|| panic!("{} did not arrive", letter.id)).data);
    }
    relay.wait_empty(Duration::from_secs(10));
}

#[test]
fn postfix_is_the_next_hop() {
    needs!("root", "postfix");
    let sink = Sink::start();
    let postfix = Postfix::relaying_to(sink.addr(), "");
    let letters =
        [Letter::odd("to-postfix-1"), Letter::new("to-postfix-2", 300_000), Letter::odd("to-postfix-3")];
    hands_on(&format!("smtp://{}", postfix.addr()), &sink, &letters);
}

#[test]
fn exim_is_the_next_hop() {
    needs!("root", "exim4");
    let sink = Sink::start();
    let exim = Exim::relaying_to(sink.addr());
    let letters = [Letter::new("to-exim-1", 2_000), Letter::new("to-exim-2", 300_000)];
    hands_on(&format!("smtp://{}", exim.addr()), &sink, &letters);
}

#[test]
fn opensmtpd_is_the_next_hop_and_is_never_spoken_to_ahead_of_its_replies() {
    needs!("root", "smtpd");
    let sink = Sink::start();
    let neighbour = OpenSmtpd::relaying_to(sink.addr());
    let letters: Vec<Letter> = (0..5).map(|n| Letter::new(format!("to-opensmtpd-{n}"), 20_000)).collect();
    hands_on(&format!("smtp://{}", neighbour.addr()), &sink, &letters);
}

#[test]
fn dovecot_takes_local_mail_by_lmtp() {
    needs!("root", "dovecot");
    let dovecot = Dovecot::with_mailboxes(&["ann@local.example", "bob@local.example"]);
    let relay =
        Relay::builder().local(&["local.example"], "any").route(&["local.example"], &dovecot.url()).start();
    let letter = Letter::odd("to-dovecot");
    let to = ["ann@local.example", "bob@local.example", "nobody@local.example"];
    send_one(relay.smtp(), "me@client.example", &to, &letter.bytes).expect(250);
    for address in &to[..2] {
        let data = dovecot.wait_one(address);
        letter.assert_arrived(&data);
        let text = String::from_utf8_lossy(&data).into_owned();
        assert!(text.contains("Return-Path: <me@client.example>"), "{text}");
    }
    assert_eq!(dovecot.mailbox("ann@local.example").len(), 1);
}

#[test]
fn a_maildir_gets_whole_messages_and_nothing_else() {
    let relay = Relay::builder().local(&["local.example"], "any").prepare();
    let root = relay.scratch().join("maildir");
    let route = format!(
        "[[route]]\ndomains = [\"local.example\"]\nto = \"maildir:{}/{{domain}}/{{user}}\"\n",
        root.display()
    );
    relay.reconfigure(|old| old + &route);
    let mut relay = relay;
    relay.start();
    let letter = Letter::odd("to-maildir");
    send_one(relay.smtp(), "me@client.example", &["ann@local.example"], &letter.bytes).expect(250);
    relay.wait_empty(Duration::from_secs(10));
    let mailbox = root.join("local.example/ann");
    let found: Vec<_> = fs::read_dir(mailbox.join("new")).unwrap().flatten().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(fs::read_dir(mailbox.join("tmp")).unwrap().count(), 0);
    // A Maildir is read by local programs: LF is as good as CRLF.
    let text = fs::read(found[0].path()).unwrap();
    let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
    let at = text.find("X-Proof-Id: ").unwrap();
    let sent = String::from_utf8_lossy(&letter.bytes).replace("\r\n", "\n");
    assert_eq!(difference(sent.as_bytes(), &text.as_bytes()[at..]), None);
    assert!(text[..at].contains("Return-Path: <me@client.example>"), "{}", &text[..at]);
}

const AIOSMTPD: &str = "import asyncio,sys\n\
    from aiosmtpd.controller import Controller\n\
    class H:\n\
    \x20async def handle_DATA(self, server, session, e):\n\
    \x20 open(sys.argv[2],'wb').write(e.original_content)\n\
    \x20 return '250 kept'\n\
    c=Controller(H(),hostname='127.0.0.1',port=int(sys.argv[1]),enable_SMTPUTF8=True)\n\
    c.start()\n\
    asyncio.new_event_loop().run_forever()\n";

#[test]
fn aiosmtpd_is_the_next_hop() {
    needs!("aiosmtpd");
    let port = free_port();
    let relay = Relay::routed_to(&format!("smtp://127.0.0.1:{port}"));
    let kept = relay.scratch().join("kept");
    let mut command = Command::new(python());
    command.args(["-c", AIOSMTPD, &port.to_string(), kept.to_str().unwrap()]);
    let _server = Daemon::start("aiosmtpd", command);
    until_listening("aiosmtpd", loopback(port));
    let letter = Letter::new("to-aiosmtpd", 5_000);
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    relay.wait_empty(Duration::from_secs(20));
    letter.assert_arrived(&fs::read(kept).unwrap());
}

#[test]
fn a_peer_without_8bitmime_or_smtputf8_means_a_report_and_never_other_octets() {
    let sink = Sink::with(posthouse_tests::sink::Options::default().extensions(&["PIPELINING"]));
    let relay = Relay::routed_to(&sink.url());
    let letter = Letter::odd("eight-bit");
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<me@client.example> BODY=8BITMIME").expect(250);
    smtp.cmd("RCPT TO:<ann@dest.example>").expect(250);
    smtp.data(&letter.bytes).expect(250);
    smtp.cmd("MAIL FROM:<me@client.example> SMTPUTF8").expect(250);
    smtp.cmd("RCPT TO:<ánn@dest.example>").expect(250);
    smtp.data(&Letter::new("utf8", 1000).bytes).expect(250);
    // Both become reports, which are plain ASCII and can be sent to such a peer.
    let reports = sink.wait_until("two reports", Duration::from_secs(20), |m| m.len() >= 2);
    let text: String = reports.iter().map(Received::text).collect();
    assert!(reports.iter().all(|r| r.sender().is_empty()));
    assert!(text.contains("Status: 5.6.3") && text.contains("Status: 5.6.7"), "{text}");
}

#[test]
fn lmtp_outcomes_are_per_recipient() {
    let sink =
        Sink::with(posthouse_tests::sink::Options { lmtp: true, ..Default::default() }.script(|stage| {
            match stage {
                Stage::Message(m) if m.rcpts[0].contains("full") => {
                    posthouse_tests::sink::reply("552 5.2.2 mailbox full")
                }
                _ => Act::Usual,
            }
        }));
    let reports = Sink::start();
    let relay = Relay::builder()
        .route(&["local.example"], &sink.url())
        .route(&["client.example"], &reports.url())
        .start();
    let letter = Letter::new("lmtp", 2000);
    send_one(relay.smtp(), "me@client.example", &["ann@local.example", "full@local.example"], &letter.bytes)
        .expect(250);
    letter.assert_arrived(&sink.wait_one().data);
    let report = reports.wait_one();
    assert!(
        report.text().contains("full@local.example") && report.text().contains("5.2.2"),
        "{}",
        report.text()
    );
    assert!(!report.text().contains("Final-Recipient: rfc822; ann@local.example"));
    relay.wait_empty(Duration::from_secs(10));
    assert_eq!(sink.count(), 1);
}

#[test]
fn parameters_are_passed_on() {
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<me@client.example> BODY=8BITMIME RET=HDRS ENVID=QQ314159").expect(250);
    smtp.cmd("RCPT TO:<ann@dest.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ann+2Bx@dest.example")
        .expect(250);
    smtp.data(&Letter::new("dsn", 1000).bytes).expect(250);
    let got = sink.wait_one();
    for word in ["BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"] {
        assert!(got.mail.contains(word), "{}", got.mail);
    }
    for word in ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;ann+2Bx@dest.example"] {
        assert!(got.rcpts[0].contains(word), "{}", got.rcpts[0]);
    }
}

#[test]
fn no_octet_on_the_wire_is_a_lone_cr_lf_or_nul_and_connections_are_reused() {
    let sink = Sink::start();
    let relay = Relay::builder().route(&[], &sink.url()).start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    for n in 0..50 {
        smtp.transact("me@client.example", &["ann@dest.example"], &Letter::odd(format!("wire-{n}")).bytes)
            .expect(250);
    }
    for message in sink.wait(50, Duration::from_secs(20)) {
        let wire = &message.wire;
        for (i, b) in wire.iter().enumerate() {
            assert!(*b != b'\n' || (i > 0 && wire[i - 1] == b'\r'), "a lone LF");
            assert!(*b != b'\r' || wire.get(i + 1) == Some(&b'\n'), "a lone CR");
            assert!(*b != 0, "a NUL");
        }
    }
    assert!(sink.connections() < 25, "{} connections for 50 messages in a row", sink.connections());
}
