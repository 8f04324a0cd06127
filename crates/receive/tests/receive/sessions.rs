//! What a message looks like when it has come in.

use mail::{Body, OrgId, Protocol};
use receive::{BareNewline, Mode};

use crate::relay::{Running, limits, listener};
use crate::wire::Wire;

#[tokio::test]
async fn a_message_comes_in_as_it_was_sent() {
    let mut running = Running::start(listener(Mode::Smtp), limits());
    let mut wire = Wire::connect(running.address).await;
    let content = "Subject: hi\r\nBcc: stays@d.example\r\n\r\nline\r\n.dot\r\nüber\r\n";
    let stuffed = content.replace("\r\n.dot", "\r\n..dot");
    let reply = wire.deliver("a@b.example", &["c@d.example"], &stuffed, "250 2.0.0").await;
    let got = running.next().await;
    assert!(reply.contains(&got.message.id.to_string()), "{reply}");
    let (received, rest) = got.content.split_at(got.content.find("Subject").unwrap());
    assert_eq!(rest, content);
    assert!(
        received.starts_with("Received: from client.example ([127.0.0.1])\r\n\tby relay.example (Posthouse)")
    );
    assert!(
        received.contains(&format!("with ESMTP id {}\r\n\tfor <c@d.example>;", got.message.id)),
        "{received}"
    );
    assert_eq!((got.message.body, got.message.smtputf8), (Body::EightBitMime, false));
    assert_eq!(got.message.org, OrgId::DEFAULT);
    let origin = &got.message.origin;
    assert_eq!((origin.protocol, origin.helo.as_deref()), (Protocol::Smtp, Some("client.example")));
    assert_eq!(origin.listener.as_deref(), Some("test"));
    assert_eq!(got.message.header_message_id, None, "nothing is added to relayed mail");

    // The same connection, everything in one piece, a refused recipient, chunks.
    let batch = "MAIL FROM:<> RET=HDRS ENVID=e1\r\nRCPT TO:<nobody@d.example>\r\n\
        RCPT TO:<e@d.example> NOTIFY=FAILURE\r\nBDAT 11\r\nSubject: x\r\
        BDAT 7 LAST\r\n\n\r\n.\r\nyQUIT\r\n";
    wire.send(batch).await;
    for code in ["250 2.1.0", "550 5.1.1", "250 2.1.5", "250 2.0.0 11 ", "250 2.0.0 OK", "221"] {
        wire.expect(code).await;
    }
    wire.closed().await;
    let got = running.next().await;
    assert!(got.content.ends_with("\r\nSubject: x\r\n\r\n.\r\ny\r\n"), "{}", got.content);
    assert_eq!(got.message.body, Body::SevenBit);
    assert_eq!((got.message.sender(), got.message.envid.as_deref()), ("", Some("e1")));
    assert_eq!(got.recipients.len(), 1);
    running.nothing().await;
}

#[tokio::test]
async fn a_submission_is_completed() {
    let mut config = listener(Mode::Submission);
    config.auth_without_tls = vec!["127.0.0.0/8".parse().unwrap()];
    config.bare_newline = BareNewline::Normalise;
    let mut running = Running::start(config, limits());
    let mut wire = Wire::connect(running.address).await;
    let refused = wire.say("MAIL FROM:<a@b.example>\r\n", "530 5.7.0").await;
    assert!(refused.contains("Authenticate"), "{refused}");
    wire.say("AUTH PLAIN AHVzZXIAd3Jvbmc=\r\n", "535").await;
    wire.say("AUTH PLAIN AHVzZXIAc2VjcmV0\r\n", "235").await;
    let content = "Subject: hi\nBCC: secret@d.example,\n other@d.example\n\nbody\n";
    wire.deliver("a@b.example", &["c@d.example", "secret@d.example"], content, "250").await;
    let got = running.next().await;
    let id = got.message.header_message_id.expect("one is added");
    assert_eq!(id, format!("{}@relay.example", got.message.id));
    assert!(got.content.starts_with("Received: from client.example"));
    assert!(got.content.contains(" with ESMTPA id ") && !got.content.contains("for <"), "{}", got.content);
    let expected = format!("\r\nMessage-ID: <{id}>\r\n\r\nbody\r\n");
    assert!(
        got.content.contains("\r\nSubject: hi\r\nDate: ") && got.content.ends_with(&expected),
        "{}",
        got.content
    );
    assert!(!got.content.contains("secret"));
    assert_eq!((got.message.org, got.message.origin.credential.as_deref()), (OrgId(7), Some("user")));
    assert_eq!(got.recipients.len(), 2, "Bcc recipients are in the envelope");
}

#[tokio::test]
async fn a_large_message_streams() {
    let mut running = Running::start(listener(Mode::Smtp), limits());
    let mut wire = Wire::connect(running.address).await;
    let line = format!("{}\r\n", "x".repeat(998));
    let content = format!("Subject: big\r\n\r\n{}", line.repeat(10_000));
    wire.deliver("a@b.example", &["c@d.example"], &content, "250").await;
    let got = running.next().await;
    assert!(got.content.ends_with(&content));
    // Refused by what it says it is, and by what it is.
    wire.say("MAIL FROM:<a@b.example> SIZE=30000001\r\n", "552 5.3.4").await;
    wire.deliver("a@b.example", &["c@d.example"], &line.repeat(31_000), "552 5.3.4").await;
    wire.say("QUIT\r\n", "221").await;
    running.nothing().await;
}

#[tokio::test]
async fn loops_and_monstrous_headers_are_refused() {
    let mut running = Running::start(listener(Mode::Smtp), limits());
    let mut wire = Wire::connect(running.address).await;
    let received = "Received: from a by b\r\n";
    let round = format!("{}\r\nbody\r\n", received.repeat(101));
    wire.deliver("a@b.example", &["c@d.example"], &round, "554 5.4.6").await;
    let many = format!("{}\r\nbody\r\n", "X: y\r\n".repeat(10_000));
    wire.deliver("a@b.example", &["c@d.example"], &many, "554 5.6.0").await;
    let long = format!("X: {}\r\n\r\nbody\r\n", "y".repeat(1_000_000));
    wire.deliver("a@b.example", &["c@d.example"], &long, "552 5.3.4").await;
    let fine = format!("{}\r\nbody\r\n", received.repeat(100));
    wire.deliver("a@b.example", &["c@d.example"], &fine, "250").await;
    running.next().await;
    running.nothing().await;
}

#[tokio::test]
async fn smtputf8_is_recorded_where_it_is_needed() {
    let mut running = Running::start(listener(Mode::Smtp), limits());
    let mut wire = Wire::connect(running.address).await;
    for (mail, content, needed) in [
        ("MAIL FROM:<ü@b.example> SMTPUTF8\r\n", "Subject: x\r\n\r\n", true),
        ("MAIL FROM:<a@b.example> SMTPUTF8\r\n", "Subject: ü\r\n\r\n", true),
        ("MAIL FROM:<a@b.example> SMTPUTF8\r\n", "Subject: x\r\n\r\nü\r\n", false),
        ("MAIL FROM:<a@b.example>\r\n", "Subject: ü\r\n\r\n", false),
    ] {
        wire.say(mail, "250").await;
        wire.say("RCPT TO:<c@d.example>\r\n", "250").await;
        wire.say("DATA\r\n", "354").await;
        wire.say(&format!("{content}.\r\n"), "250").await;
        let got = running.next().await;
        assert_eq!(got.message.smtputf8, needed, "{mail}{content}");
        assert_eq!(got.content.contains("UTF8SMTP"), mail.contains("SMTPUTF8"));
    }
}

#[tokio::test]
async fn a_smuggled_message_stays_outside() {
    let running = Running::start(listener(Mode::Smtp), limits());
    let mut wire = Wire::connect(running.address).await;
    let content = "x\n.\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nsmuggled\r\n";
    wire.deliver("a@b.example", &["c@d.example"], content, "554 5.6.0").await;
    wire.say("NOOP\r\n", "250 2.0.0 OK\r\n").await;
    wire.say("GET / HTTP/1.1\r\n", "421").await;
    wire.closed().await;
    running.nothing().await;
}

#[tokio::test]
async fn a_proxy_and_xclient_tell_the_client() {
    let mut config = listener(Mode::Smtp);
    config.proxy_protocol = vec!["127.0.0.1".parse().unwrap()];
    config.xclient = vec!["192.0.2.0/24".parse().unwrap()];
    let mut running = Running::start(config, limits());
    let mut wire = Wire::silent(running.address).await;
    wire.send("PROXY TCP4 192.0.2.9 198.51.100.1 4711 25\r\n").await;
    wire.expect("220").await;
    assert!(wire.say("EHLO proxied.example\r\n", "250").await.contains("XCLIENT"));
    wire.deliver("a@b.example", &["c@d.example"], "x\r\n", "250").await;
    assert_eq!(running.next().await.message.origin.client, Some("192.0.2.9".parse().unwrap()));
    wire.say("XCLIENT ADDR=IPV6:2001:db8::7 PORT=1\r\n", "220").await;
    assert!(!wire.say("EHLO other.example\r\n", "250").await.contains("XCLIENT"));
    wire.deliver("a@b.example", &["c@d.example"], "x\r\n", "250").await;
    let got = running.next().await;
    assert_eq!(got.message.origin.client, Some("2001:db8::7".parse().unwrap()));
    assert!(got.content.starts_with("Received: from other.example ([IPv6:2001:db8::7])"));

    // From such a network the header is a must.
    let mut bare = Wire::silent(running.address).await;
    bare.send("EHLO client.example\r\n").await;
    bare.closed().await;
}
