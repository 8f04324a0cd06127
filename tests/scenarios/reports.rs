//! Delivery status notifications, end to end: who is told what, and who never is.

use posthouse_tests::prelude::*;
use posthouse_tests::sink::{self, Options};

posthouse_tests::on_both_engines!(
    a_refusal_is_reported_to_the_sender_with_all_that_rfc_3464_asks_for,
    the_null_sender_and_notify_never_get_no_report,
    ret_hdrs_returns_no_body,
    success_is_reported_on_request_when_the_next_hop_does_not_do_it,
    a_message_that_stays_is_warned_of_once_and_expires_with_a_report,
    a_report_that_cannot_be_delivered_is_not_reported,
);

/// A sink that refuses `refused@`, puts off `later@`, and takes all else.
fn mixed() -> Sink {
    Sink::with(Options::default().script(|stage| match stage {
        Stage::Rcpt(r) if r.contains("refused@") => sink::reply("550 5.1.1 There is no such user here"),
        Stage::Rcpt(r) if r.contains("later@") => sink::reply("451 4.2.0 Come back later"),
        _ => Act::Usual,
    }))
}

fn send(relay: &Relay, mail: &str, rcpts: &[&str], letter: &Letter) {
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd(&format!("MAIL FROM:{mail}")).expect(250);
    for rcpt in rcpts {
        smtp.cmd(&format!("RCPT TO:{rcpt}")).expect(250);
    }
    smtp.data(&letter.bytes).expect(250);
}

fn reports(messages: &[Received]) -> Vec<&Received> {
    messages.iter().filter(|m| m.sender().is_empty()).collect()
}

fn a_refusal_is_reported_to_the_sender_with_all_that_rfc_3464_asks_for(engine: &Engine) {
    let sink = mixed();
    let relay = engine.routed_to(&sink.url());
    let letter = Letter::odd("refused");
    send(
        &relay,
        "<me@client.example> ENVID=env42 RET=FULL",
        &["<refused@dest.example> ORCPT=rfc822;alias@dest.example", "<ann@dest.example>"],
        &letter,
    );
    let all =
        sink.wait_until("the report", Duration::from_secs(20), |m| !reports(m).is_empty() && m.len() >= 2);
    let report = reports(&all)[0];
    assert_eq!(report.recipients(), ["me@client.example"]);
    let text = report.text();
    for word in [
        "multipart/report",
        "report-type=delivery-status",
        "message/delivery-status",
        "Reporting-MTA: dns; relay.test",
        "Original-Envelope-Id: env42",
        "Original-Recipient: rfc822;alias@dest.example",
        "Final-Recipient: rfc822;refused@dest.example",
        "Action: failed",
        "Status: 5.1.1",
        "Diagnostic-Code: smtp; 550 5.1.1 There is no such user here",
        "Auto-Submitted: auto-replied",
        "X-Proof-Id: refused",
    ] {
        let spaced = word.replace("rfc822;", "rfc822; ");
        assert!(text.contains(word) || text.contains(&spaced), "no {word:?} in\n{text}");
    }
    assert!(!text.contains("Final-Recipient: rfc822;ann@dest.example"));
    relay.wait_empty(Duration::from_secs(10));
    assert_eq!(reports(&sink.messages()).len(), 1);
}

fn the_null_sender_and_notify_never_get_no_report(engine: &Engine) {
    let sink = mixed();
    let relay = engine.routed_to(&sink.url());
    send(&relay, "<>", &["<refused@dest.example>"], &Letter::new("null", 500));
    send(&relay, "<me@client.example>", &["<refused@dest.example> NOTIFY=NEVER"], &Letter::new("never", 500));
    relay.wait_empty(Duration::from_secs(20));
    assert_eq!(sink.count(), 0);
}

fn ret_hdrs_returns_no_body(engine: &Engine) {
    let sink = mixed();
    let relay = engine.routed_to(&sink.url());
    let letter = Letter::new("headers-only", 3_000);
    send(&relay, "<me@client.example> RET=HDRS", &["<refused@dest.example>"], &letter);
    let text = sink.wait_one().text();
    assert!(text.contains("X-Proof-Id: headers-only"));
    assert!(!text.contains("quick brown fox"), "{text}");
}

fn success_is_reported_on_request_when_the_next_hop_does_not_do_it(engine: &Engine) {
    let plain = Sink::with(Options::default().extensions(&["PIPELINING"]));
    let back = Sink::start();
    let relay =
        engine.relay().route(&["dest.example"], &plain.url()).route(&["client.example"], &back.url()).start();
    send(&relay, "<me@client.example>", &["<ann@dest.example> NOTIFY=SUCCESS"], &Letter::new("ok", 500));
    let text = back.wait_one().text();
    assert!(text.contains("Action: relayed") || text.contains("Action: delivered"), "{text}");
    assert!(text.contains("Status: 2."), "{text}");
    assert!(!plain.messages()[0].rcpts[0].contains("NOTIFY"), "no DSN parameters for a peer without DSN");
}

fn a_message_that_stays_is_warned_of_once_and_expires_with_a_report(engine: &Engine) {
    let sink = mixed();
    let relay = engine
        .relay()
        .route(&[], &sink.url())
        .set("queue", "warn_after", "\"2s\"")
        .set("queue", "lifetime", "\"6s\"")
        .start();
    send(&relay, "<me@client.example>", &["<later@dest.example>"], &Letter::new("late", 500));
    let all = sink.wait_until("a warning and a failure", Duration::from_secs(40), |m| m.len() >= 2);
    let (warning, failure) = (all[0].text(), all[1].text());
    assert!(warning.contains("Action: delayed") && warning.contains("Status: 4."), "{warning}");
    assert!(failure.contains("Action: failed") && failure.contains("4.2.0"), "{failure}");
    relay.wait_empty(Duration::from_secs(10));
    assert_eq!(sink.count(), 2, "one warning only");
}

fn a_report_that_cannot_be_delivered_is_not_reported(engine: &Engine) {
    let sink = Sink::with(Options::default().script(|stage| match stage {
        Stage::Rcpt(_) => sink::reply("550 5.7.1 never"),
        _ => Act::Usual,
    }));
    let relay = engine.routed_to(&sink.url());
    send(&relay, "<me@client.example>", &["<ann@dest.example>"], &Letter::new("both-refused", 500));
    relay.wait_empty(Duration::from_secs(20));
    let tried: Vec<String> = sink.commands().into_iter().filter(|c| c.contains("RCPT")).collect();
    assert_eq!(tried.len(), 2, "the mail and its report, nothing after them: {tried:?}");
}

#[test]
fn mail_that_goes_in_circles_is_stopped() {
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    let hops: Vec<String> =
        (0..101).map(|n| format!("Received: from a by b{n}; Tue, 24 Nov 2026 07:00:00 +0000")).collect();
    let mut lines: Vec<&str> = hops.iter().map(String::as_str).collect();
    lines.extend(["From: me@client.example", "", "round and round"]);
    let letter = Letter::of("loop", &lines);
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    let reply = smtp.transact("me@client.example", &["ann@dest.example"], &letter.bytes);
    assert!(reply.code >= 500, "{reply}");
    assert!(reply.mentions("5.4.6"), "{reply}");
}
