//! Commands as they are meant, as they come from old devices, and as attackers write them.

use mail::{Address, Body, Notify, Ret};
use proptest::prelude::*;

use super::*;

fn mail(line: &str) -> Result<Mail, SyntaxError> {
    match parse(line.as_bytes())? {
        Command::Mail(mail) => Ok(mail),
        other => panic!("{other:?}"),
    }
}

fn rcpt(line: &str) -> Result<Rcpt, SyntaxError> {
    match parse(line.as_bytes())? {
        Command::Rcpt(rcpt) => Ok(rcpt),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mail_with_everything() {
    let line =
        "mail from:<a@b.example> SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+2By AUTH=<> REQUIRETLS";
    assert_eq!(
        mail(line),
        Ok(Mail {
            reverse_path: Some(Address::parse("a@b.example").unwrap()),
            size: Some(1000),
            body: Some(Body::EightBitMime),
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("x+2By".into()),
            require_tls: true,
        })
    );
    assert_eq!(mail("MAIL FROM:<>").unwrap().reverse_path, None);
    assert!(mail("MAIL FROM: <a@b.example> ").is_ok(), "old devices put a space there");
    assert_eq!(mail("MAIL FROM:<> SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
    assert!(mail("MAIL FROM:<\"a>b\"@c.example>").is_ok());
}

#[test]
fn rcpt_with_everything() {
    let rcpt_to = rcpt("RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bx@b.example").unwrap();
    assert_eq!(rcpt_to.notify, Notify::On { success: true, failure: false, delay: true });
    assert_eq!(rcpt_to.orcpt.as_deref(), Some("rfc822;a+2Bx@b.example"));
    assert_eq!(rcpt("RCPT TO:<PostMaster>").unwrap().path, ForwardPath::Postmaster);
    let ours = recipient(rcpt("RCPT TO:<Postmaster>").unwrap(), "relay.example").unwrap();
    assert_eq!(ours.address.as_str(), "postmaster@relay.example");
    assert!(rcpt("RCPT TO:<ü@b.example> ORCPT=utf-8;ü@b.example").is_ok());
}

#[test]
fn other_commands() {
    let is = |line: &str, command| assert_eq!(parse(line.as_bytes()), Ok(command), "{line}");
    is("ehlo a.example", Command::Ehlo("a.example"));
    is("HELO [192.0.2.1]", Command::Helo("[192.0.2.1]"));
    is("EHLO WIN_PC", Command::Ehlo("WIN_PC"));
    is("BDAT 10", Command::Bdat { size: 10, last: false });
    is("bdat 0 last", Command::Bdat { size: 0, last: true });
    is("AUTH PLAIN =", Command::Auth { mechanism: "PLAIN", initial: Some("=") });
    is("AUTH LOGIN", Command::Auth { mechanism: "LOGIN", initial: None });
    is("NOOP anything at all", Command::Noop);
    is("RSET ", Command::Rset);
    let XClient { address, port, .. } =
        match parse(b"XCLIENT ADDR=IPV6:2001:db8::1 PORT=4711 NAME=[UNAVAILABLE] PROTO=ESMTP").unwrap() {
            Command::XClient(client) => client,
            other => panic!("{other:?}"),
        };
    assert_eq!((address, port), (Some("2001:db8::1".parse().unwrap()), Some(4711)));
}

#[test]
fn what_is_refused_and_how() {
    for (line, code) in [
        ("", 500),
        ("FOO", 500),
        ("MAILFROM:<a@b.example>", 500),
        ("EHLO", 501),
        ("EHLO a b", 501),
        ("EHLO ü.example", 501),
        ("DATA now", 501),
        ("QUIT!", 500),
        ("MAIL", 501),
        ("MAIL FROM", 501),
        ("MAIL FROM:a@b.example", 501),
        ("MAIL FROM:<a@b.example", 501),
        ("MAIL FROM:<a@b.example>SIZE=1", 501),
        ("MAIL FROM:<a@b.example> SIZE=", 501),
        ("MAIL FROM:<a@b.example> SIZE=-1", 501),
        ("MAIL FROM:<a@b.example> SIZE=1 SIZE=2", 501),
        ("MAIL FROM:<a@b.example> BODY=BINARYMIME", 501),
        ("MAIL FROM:<a@b.example> RET=ALL", 501),
        ("MAIL FROM:<a@b.example> ENVID=a+0D+0Ab", 501),
        ("MAIL FROM:<a@b.example> FOO=BAR", 555),
        ("MAIL FROM:<a@b.example> SMTPUTF8=1", 555),
        ("MAIL FROM:<a@b>c.example>", 501),
        ("MAIL FROM:<<a@b.example>>", 501),
        ("RCPT TO:<>", 501),
        ("RCPT TO:<a>", 501),
        ("RCPT TO:<a@[192.0.2.1]>", 553),
        ("RCPT TO:<@x.example:a@b.example>", 553),
        ("RCPT TO:<a@b@c.example>", 501),
        ("RCPT TO:<a＠b.example>", 501),
        ("RCPT TO:<a@b.example.>", 501),
        ("RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY", 501),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;a+0Ab", 501),
        ("RCPT TO:<a@b.example> ORCPT=a@b.example", 501),
        ("BDAT", 501),
        ("BDAT -1", 501),
        ("BDAT +1", 501),
        ("BDAT 18446744073709551616", 501),
        ("BDAT 1 FIRST", 501),
        ("BDAT 1 LAST LAST", 501),
        ("AUTH", 501),
        ("AUTH PLAIN a b", 501),
        ("XCLIENT", 501),
        ("XCLIENT LOGIN=boss", 501),
        ("XCLIENT ADDR=1.2.3", 501),
        ("GET / HTTP/1.1", 421),
        ("POST /", 421),
        ("Host: relay.example", 421),
        ("NOOP \u{7}", 500),
        ("VRFY", 501),
    ] {
        let error = parse(line.as_bytes()).expect_err(line);
        assert_eq!(error.reply().code, code, "{line}: {error}");
    }
    assert_eq!(parse(b"NOOP \xff"), Err(SyntaxError::NotText));
    assert_eq!(parse(b"RCPT TO:<\"a\r\nDATA\"@b.example>"), Err(SyntaxError::NotText));
}

proptest! {
    #[test]
    fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&line).map_err(|e| e.reply());
    }

    #[test]
    fn no_text_panics(verb in "(MAIL FROM:|RCPT TO:|BDAT |AUTH |XCLIENT |EHLO )", rest in "[<>@a-z.\"\\\\ =+;,0-9A-F-]{0,60}") {
        let _ = parse(format!("{verb}{rest}").as_bytes()).map_err(|e| e.reply());
    }

    #[test]
    fn addresses_survive(local in "[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}", domain in "[a-z]{1,10}\\.[a-z]{2,5}") {
        let text = format!("{local}@{domain}");
        let parsed = rcpt(&format!("RCPT TO:<{text}>")).unwrap();
        prop_assert_eq!(parsed.path, ForwardPath::Mailbox(Address::parse(&text).unwrap()));
    }
}
