//! Reports that come hours after a host took the mail: matched by the return path that we signed, and believed only then.

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;

posthouse_tests::on_both_engines!(
    a_late_bounce_is_matched_to_its_message_also_after_a_restart,
    a_forged_return_path_is_refused_and_nothing_is_believed,
    a_path_names_its_recipient_where_there_is_one_and_the_null_sender_stays,
);

const DOMAIN: &str = "bounces.example.net";

/// A relay that sends by a smart host, which is somebody else's server: the return paths there are ours.
fn builder(engine: &Engine, sink: &Sink) -> posthouse_tests::relay::Builder {
    engine.relay().route(&[], "smarthost:up").toml(&format!(
        "[smarthost.up]\nhosts = [\"{}\"]\ntls = \"none\"\n[forward]\nbounce_domain = \"{DOMAIN}\"\n",
        sink.addr()
    ))
}

fn world(engine: &Engine) -> (Relay, Sink) {
    let sink = Sink::start();
    (builder(engine, &sink).start(), sink)
}

/// What another host's report says about `recipient`.
fn report(recipient: &str) -> Vec<u8> {
    let lines = [
        "From: Mail Delivery Subsystem <mailer-daemon@far.example>",
        "To: whoever@client.example",
        "Subject: Undeliverable: letter",
        "Date: Tue, 24 Nov 2026 09:00:00 +0000",
        "Message-ID: <late@far.example>",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b1",
        "",
        "--b1",
        "Content-Type: text/plain",
        "",
        "It could not be delivered after all.",
        "--b1",
        "Content-Type: message/delivery-status",
        "",
        "Reporting-MTA: dns; mx.far.example",
        "",
        &format!("Final-Recipient: rfc822; {recipient}"),
        "Action: failed",
        "Status: 5.1.1",
        "Diagnostic-Code: smtp; 550 5.1.1 The mailbox was closed",
        "",
        "--b1--",
        "",
    ];
    lines.join("\r\n").into_bytes()
}

/// Sends a message to `to` and waits for it at the sink: its id and the return path that it carried.
fn sent(relay: &Relay, sink: &Sink, to: &str) -> (String, String) {
    let before = sink.count();
    let letter = Letter::odd(format!("late-{before}"));
    let reply = send_one(relay.smtp(), "me@client.example", &[to], &letter.bytes).expect(250);
    let id = reply.lines[0].rsplit(' ').next().unwrap().to_owned();
    let got = sink.wait(before + 1, Duration::from_secs(20)).swap_remove(before);
    letter.assert_arrived(&got.data);
    relay.wait_empty(Duration::from_secs(20));
    (id, got.sender().to_owned())
}

fn a_late_bounce_is_matched_to_its_message_also_after_a_restart(engine: &Engine) {
    let (mut relay, sink) = world(engine);
    let (id, path) = sent(&relay, &sink, "ann@dest.example");
    assert!(path.ends_with(&format!("@{DOMAIN}")) && path.contains(&id), "{path}");
    relay.restart();
    // Another spelling, as case-folding systems send it; nothing else than the path says which mail it is about.
    send_one(relay.smtp(), "", &[&path.to_uppercase()], &report("ann@dest.example")).expect(250);
    let trace = eventually("the trace has the late bounce", Duration::from_secs(20), || {
        let trace = relay.cli(&["trace", &id]);
        trace.contains("The mailbox was closed").then_some(trace)
    });
    assert!(trace.contains("5.1.1") && trace.contains("bounce"), "{trace}");
}

fn a_forged_return_path_is_refused_and_nothing_is_believed(engine: &Engine) {
    let (relay, sink) = world(engine);
    let (id, path) = sent(&relay, &sink, "ann@dest.example");
    let (other, _) = sent(&relay, &sink, "bob@dest.example");
    let last = path.split('@').next().unwrap().chars().last().unwrap();
    let changed = if last == 'a' { 'b' } else { 'a' };
    for forged in [
        path.replace(&id, &other),
        path.replace(&format!("{last}@"), &format!("{changed}@")),
        format!("b1-{id}-0-aaaaaaaaaaaaaaaa@{DOMAIN}"),
        format!("b1-{id}-aaaaaaaaaaaaaaaa@{DOMAIN}"),
    ] {
        let mut smtp = Smtp::connect(relay.smtp());
        smtp.ehlo();
        smtp.cmd("MAIL FROM:<>").expect(250);
        smtp.cmd(&format!("RCPT TO:<{forged}>")).expect(550);
    }
    // A report to some other address names the recipient, but proves nothing.
    send_one(relay.smtp(), "", &["me@client.example"], &report("ann@dest.example")).expect(250);
    sink.wait(3, Duration::from_secs(20));
    relay.wait_empty(Duration::from_secs(20));
    for message in [&id, &other] {
        let trace = relay.cli(&["trace", message]);
        assert!(!trace.contains("The mailbox was closed"), "{trace}");
    }
    // The right one still works.
    send_one(relay.smtp(), "", &[&path], &report("ann@dest.example")).expect(250);
    eventually("the trace has it", Duration::from_secs(20), || {
        relay.cli(&["trace", &id]).contains("The mailbox was closed").then_some(())
    });
    assert!(!relay.cli(&["trace", &other]).contains("The mailbox was closed"));
}

fn a_path_names_its_recipient_where_there_is_one_and_the_null_sender_stays(engine: &Engine) {
    let (relay, sink) = world(engine);
    let (id, path) = sent(&relay, &sink, "ann@one.example");
    assert!(path.starts_with(&format!("b1-{id}-0-")), "{path}");
    let letter = Letter::new("two", 500);
    let to = ["ann@one.example", "bob@two.example"];
    let reply = send_one(relay.smtp(), "me@client.example", &to, &letter.bytes).expect(250);
    let id = reply.lines[0].rsplit(' ').next().unwrap().to_owned();
    let both = sink.wait(2, Duration::from_secs(20)).swap_remove(1);
    assert_eq!(both.recipients(), to);
    // The report says whom it is about, where the path does not.
    send_one(relay.smtp(), "", &[both.sender()], &report("bob@two.example")).expect(250);
    eventually("the trace has the late bounce", Duration::from_secs(20), || {
        relay.cli(&["trace", &id]).contains("The mailbox was closed").then_some(())
    });
    // Who sent the mail hears of it.
    let told = sink.wait_until("a report to the sender", Duration::from_secs(20), |m| {
        m.iter().any(|x| x.sender().is_empty() && x.recipients() == ["me@client.example"])
    });
    assert!(told.last().unwrap().text().contains("bob@two.example"), "{}", told.last().unwrap().text());
    send_one(relay.smtp(), "", &["ann@one.example"], &Letter::new("null", 500).bytes).expect(250);
    let all = sink.wait_until("the null sender's", Duration::from_secs(20), |m| {
        m.iter().any(|x| x.text().contains("X-Proof-Id: null"))
    });
    let null = all.iter().find(|m| m.text().contains("X-Proof-Id: null")).unwrap();
    assert_eq!(null.sender(), "");
}

#[test]
fn a_relay_that_was_restored_from_a_backup_still_believes_its_own() {
    let (relay, sink) = world(&Engine::Embedded);
    let (_, path) = sent(&relay, &sink, "ann@dest.example");
    let copy = relay.scratch().join("backup");
    relay.cli(&["backup", copy.to_str().unwrap()]);
    let mut other = builder(&Engine::Embedded, &sink).prepare();
    other.cli(&["restore", copy.to_str().unwrap()]);
    other.start();
    send_one(other.smtp(), "", &[&path], &report("ann@dest.example")).expect(250);
    eventually("the trace has the late bounce", Duration::from_secs(20), || {
        other.cli(&["trace", "ann@dest.example"]).contains("The mailbox was closed").then_some(())
    });
}
