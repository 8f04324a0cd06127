//! A mail server behind the relay, as MDaemon is: it logs in and hands everything it has to the relay, whoever it is from.

use posthouse_tests::prelude::*;

/// AUTH LOGIN or PLAIN, one transaction with recipients in several domains, a foreign From, the null sender, Bcc.
fn server_behind_the_relay(login: fn(&mut Smtp, &str, &str) -> Reply, implicit: bool) {
    let sink = Sink::start();
    let relay = Relay::builder().networks(&[]).route(&[], &sink.url()).start();
    let password = relay.credential("mdaemon", &[]);
    let mut smtp =
        if implicit { Smtp::connect_tls(relay.submissions()) } else { Smtp::connect(relay.smtp()) };
    smtp.ehlo();
    if !implicit {
        smtp.starttls();
        smtp.ehlo();
    }
    login(&mut smtp, "mdaemon", &password).expect(235);

    let to =
        ["ann@one.example", "bob@two.example", "cy@three.example", "bcc@four.example", "eve@one.example"];
    let letter = Letter::odd("several-domains");
    smtp.transact("user@customer.example", &to, &letter.bytes).expect(250);
    let all =
        sink.wait_until("every recipient", Duration::from_secs(20), |m| recipients(m).len() >= to.len());
    let mut wanted: Vec<&str> = to.to_vec();
    wanted.sort_unstable();
    assert_eq!(recipients(&all), wanted, "each exactly once");
    for message in &all {
        letter.assert_arrived(&message.data);
        assert!(
            !message.text().contains("bcc@four.example"),
            "a Bcc recipient is shown:\n{}",
            message.text()
        );
        assert_eq!(message.sender(), "user@customer.example");
    }

    let before = sink.count();
    let bounce = Letter::of(
        "its-own-bounce",
        &["From: MAILER-DAEMON@customer.example", "Subject: failure", "", "sorry"],
    );
    smtp.transact("", &["stranger@five.example"], &bounce.bytes).expect(250);
    let all = sink.wait(before + 1, Duration::from_secs(20));
    assert_eq!(all[before].sender(), "");

    let forwarded = Letter::of(
        "forwarded",
        &["From: Somebody Else <x@far-away.example>", "To: user@customer.example", "", "hello"],
    );
    smtp.transact("x@far-away.example", &["user@private.example"], &forwarded.bytes).expect(250);
    let all = sink.wait(before + 2, Duration::from_secs(20));
    assert_eq!(all[before + 1].sender(), "x@far-away.example");
    smtp.quit();
}

fn recipients(messages: &[Received]) -> Vec<&str> {
    let mut all: Vec<&str> = messages.iter().flat_map(|m| m.recipients()).collect();
    all.sort_unstable();
    all
}

#[test]
fn with_auth_login_on_the_smtp_port() {
    server_behind_the_relay(Smtp::auth_login, false);
}

#[test]
fn with_auth_plain_on_the_submissions_port() {
    server_behind_the_relay(Smtp::auth_plain, true);
}

#[test]
fn a_bcc_header_is_removed_at_submission_and_its_recipient_still_gets_the_message() {
    let sink = Sink::start();
    let relay = Relay::builder().route(&[], &sink.url()).start();
    let password = relay.credential("outlook", &[]);
    let mut smtp = Smtp::connect_tls(relay.submissions());
    smtp.ehlo();
    smtp.auth_plain("outlook", &password).expect(235);
    let body = [
        "From: me@client.example",
        "To: ann@one.example",
        "Bcc: secret@two.example,",
        "\tother@three.example",
        "Subject: x",
        "",
        "Bcc: in the body stays",
    ];
    let to = ["ann@one.example", "secret@two.example"];
    smtp.transact("me@client.example", &to, &Letter::of("bcc", &body).bytes).expect(250);
    let all = sink.wait_until("both", Duration::from_secs(20), |m| recipients(m).len() >= 2);
    for message in all {
        let text = message.text();
        assert!(!text.contains("secret@two.example") && !text.contains("other@three.example"), "{text}");
        assert!(text.contains("Bcc: in the body stays"), "{text}");
        // Submission completes what RFC 5322 demands (RFC 6409 section 8).
        assert!(text.contains("\r\nDate: ") && text.contains("\r\nMessage-ID: <"), "{text}");
    }
}

#[test]
fn the_smtp_listener_touches_nothing() {
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    let letter = Letter::of("untouched", &["From: me@client.example", "Bcc: shown@two.example", "", "x"]);
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.transact("me@client.example", &["ann@one.example"], &letter.bytes).expect(250);
    letter.assert_arrived(&sink.wait_one().data);
}
