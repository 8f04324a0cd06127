use super::*;
use crate::client::{Smtp, send_one};
use crate::letter::Letter;

#[test]
fn what_was_sent_is_what_is_kept() {
    let sink = Sink::start();
    let letter = Letter::odd("s1");
    send_one(sink.addr(), "a@x.example", &["b@y.example", "c@z.example"], &letter.bytes).expect(250);
    let got = sink.wait_one();
    assert_eq!(got.sender(), "a@x.example");
    assert_eq!(got.recipients(), ["b@y.example", "c@z.example"]);
    letter.assert_arrived(&got.data);
}

#[test]
fn scripts_decide_and_refused_messages_are_not_kept() {
    let sink = Sink::with(Options::default().script(|stage| match stage {
        Stage::Rcpt(r) if r.contains("nobody") => reply("550 5.1.1 no such user"),
        Stage::Message(m) if m.sender() == "slow@x.example" => reply("451 4.3.0 later"),
        Stage::Message(m) if m.sender() == "lost@x.example" => Act::LoseReply,
        _ => Act::Usual,
    }));
    let mut smtp = Smtp::connect(sink.addr());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<slow@x.example>").expect(250);
    smtp.cmd("RCPT TO:<nobody@y.example>").expect(550);
    smtp.cmd("RCPT TO:<b@y.example>").expect(250);
    smtp.data(b"X: y\r\n\r\nz\r\n").expect(451);
    assert_eq!(sink.count(), 0);
    smtp.cmd("MAIL FROM:<lost@x.example>").expect(250);
    smtp.cmd("RCPT TO:<b@y.example>").expect(250);
    smtp.cmd("DATA").expect(354);
    smtp.send(b"X: y\r\n\r\nz\r\n.\r\n").unwrap();
    assert!(smtp.try_reply().is_err());
    assert_eq!(sink.wait_one().sender(), "lost@x.example");
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let sink = Sink::with(Options { lmtp: true, ..Options::default() }.script(|stage| match stage {
        Stage::Message(m) if m.rcpts[0].contains("full") => reply("452 4.2.2 mailbox full"),
        _ => Act::Usual,
    }));
    let mut smtp = Smtp::connect(sink.addr());
    smtp.cmd("LHLO x").expect(250);
    smtp.transact("a@x.example", &["b@y.example", "full@y.example"], b"X: y\r\n\r\nz\r\n").expect(250);
    smtp.reply().expect(452);
    assert_eq!(sink.wait_one().recipients(), ["b@y.example"]);
    assert_eq!(sink.count(), 1);
}

#[test]
fn starttls_and_bdat() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Some(Certificate::make(dir.path(), &["sink.test"]));
    let sink = Sink::with(Options { certificate, ..Options::default() });
    let mut smtp = Smtp::connect(sink.addr());
    assert!(smtp.ehlo().mentions("STARTTLS"));
    smtp.starttls();
    assert!(!smtp.ehlo().mentions("STARTTLS"));
    smtp.cmd("MAIL FROM:<>").expect(250);
    smtp.cmd("RCPT TO:<b@y.example>").expect(250);
    smtp.send(b"BDAT 3\r\nX: BDAT 7 LAST\r\ny\r\n\r\n.\n").unwrap();
    smtp.reply().expect(250);
    smtp.reply().expect(250);
    let got = sink.wait_one();
    assert!(got.tls && got.sender().is_empty());
    assert_eq!(got.data, b"X: y\r\n\r\n.\n");
}
