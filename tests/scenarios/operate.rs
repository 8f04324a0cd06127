//! The commands of an operator on a running and on a stopped relay.

use posthouse_tests::client::send_one;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

posthouse_tests::on_both_engines!(
    queue_list_show_hold_release_retry_and_remove,
    retry_does_not_wait_for_the_schedule,
    reroute_sends_what_waits_another_way,
    the_queue_can_be_worked_on_while_the_relay_is_stopped,
    trace_finds_a_message_by_everything_one_may_know,
    metrics_and_health_are_served,
);

/// A relay whose next hop is not there, with three letters in its queue.
fn stuck(engine: &Engine, port: u16) -> Relay {
    let relay = engine
        .relay()
        .route(&[], &format!("smtp://127.0.0.1:{port}"))
        .set("queue", "retry", "[\"1h\"]")
        .start();
    for (n, to) in ["ann@one.example", "bob@two.example", "cy@two.example"].iter().enumerate() {
        let letter = Letter::new(format!("stuck-{n}"), 1_000);
        send_one(relay.smtp(), "me@client.example", &[to], &letter.bytes).expect(250);
    }
    eventually("each was tried once", Duration::from_secs(20), || {
        let (_, trace) = relay.try_cli(&["trace", "me@client.example"]);
        (trace.matches("refused").count() >= 3 || trace.matches("deferred").count() >= 3).then_some(())
    });
    relay
}

fn queue_list_show_hold_release_retry_and_remove(engine: &Engine) {
    let port = free_port();
    let mut relay = stuck(engine, port);
    assert_eq!(relay.queue().len(), 3);
    let shown = relay.cli(&["queue", "list", "--domain", "two.example"]);
    assert!(shown.contains("bob@two.example") && !shown.contains("ann@one.example"), "{shown}");

    // A dry run changes nothing; a change without a filter wants --all.
    relay.cli(&["queue", "remove", "--domain", "one.example", "--dry-run"]);
    assert_eq!(relay.queue().len(), 3);
    let (status, _) = relay.try_cli(&["queue", "remove"]);
    assert_eq!(status.code(), Some(2), "usage");

    relay.cli(&["queue", "hold", "--domain", "two.example"]);
    relay.cli(&["queue", "remove", "--domain", "one.example"]);
    eventually("the removal is on record", Duration::from_secs(10), || {
        relay.cli(&["trace", "ann@one.example"]).contains("removed").then_some(())
    });

    let sink = Sink::on(posthouse_tests::wait::loopback(port), Options::default());
    relay.restart();
    relay.cli(&["queue", "retry", "--all"]);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(sink.count(), 0, "held mail was sent");
    relay.cli(&["queue", "release", "--to", "bob@two.example"]);
    let first = sink.wait_one();
    assert_eq!(first.recipients(), ["bob@two.example"]);
    Letter::new("stuck-1", 1_000).assert_arrived(&first.data);
    relay.cli(&["queue", "release", "--all"]);
    sink.wait(2, Duration::from_secs(20));
    relay.wait_empty(Duration::from_secs(10));
}

fn retry_does_not_wait_for_the_schedule(engine: &Engine) {
    let port = free_port();
    let relay = stuck(engine, port);
    let sink = Sink::on(posthouse_tests::wait::loopback(port), Options::default());
    relay.cli(&["queue", "retry", "--all"]);
    sink.wait(3, Duration::from_secs(20));
}

fn reroute_sends_what_waits_another_way(engine: &Engine) {
    let relay = stuck(engine, free_port());
    let sink = Sink::start();
    let told = relay.cli(&["queue", "reroute", "--domain", "two.example", "--via", &sink.url(), "--dry-run"]);
    assert!(told.contains('2'), "{told}");
    assert_eq!((relay.queue().len(), sink.connections()), (3, 0));
    relay.cli(&["queue", "reroute", "--domain", "two.example", "--via", &sink.url()]);
    let moved = sink.wait(2, Duration::from_secs(20));
    let mut to: Vec<&str> = moved.iter().flat_map(Received::recipients).collect();
    to.sort_unstable();
    assert_eq!(to, ["bob@two.example", "cy@two.example"]);
    eventually("who did it is on record", Duration::from_secs(10), || {
        relay.cli(&["trace", "bob@two.example"]).contains("instead by").then_some(())
    });
    assert_eq!(relay.queue().len(), 1, "the others wait where they were");
}

fn the_queue_can_be_worked_on_while_the_relay_is_stopped(engine: &Engine) {
    let port = free_port();
    let mut relay = stuck(engine, port);
    assert!(relay.stop().success());
    assert_eq!(relay.queue().len(), 3);
    relay.cli(&["queue", "remove", "--to", "cy@two.example"]);
    assert_eq!(relay.queue().len(), 2);
    let sink = Sink::on(posthouse_tests::wait::loopback(port), Options::default());
    relay.cli(&["queue", "retry", "--all"]);
    relay.start();
    sink.wait(2, Duration::from_secs(20));
    relay.wait_empty(Duration::from_secs(10));
    assert_eq!(sink.count(), 2);
}

fn trace_finds_a_message_by_everything_one_may_know(engine: &Engine) {
    let sink = Sink::with(Options::default().script({
        let first = std::sync::atomic::AtomicBool::new(true);
        move |stage| match stage {
            Stage::Rcpt(_) if first.swap(false, std::sync::atomic::Ordering::SeqCst) => {
                posthouse_tests::sink::reply("451 4.7.1 greylisted, come again")
            }
            _ => Act::Usual,
        }
    }));
    let relay = engine.routed_to(&sink.url());
    let letter = Letter::new("traced", 1_000);
    let reply = send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    let id = reply.lines[0].rsplit(' ').next().unwrap().to_owned();
    sink.wait_one();
    relay.wait_empty(Duration::from_secs(10));
    for query in ["me@client.example", "ann@dest.example", "traced@client.example", &id] {
        let trace = eventually("history has it", Duration::from_secs(10), || {
            let (_, trace) = relay.try_cli(&["trace", query]);
            trace.contains("elivered").then_some(trace)
        });
        assert!(trace.contains(&id), "{query}: {trace}");
        assert!(trace.contains("greylisted"), "the transcript of the failure: {trace}");
        assert!(trace.contains("127.0.0.1"), "who sent it: {trace}");
    }
    let (status, _) = relay.try_cli(&["trace", "nobody@nowhere.example"]);
    assert!(status.success() || status.code() == Some(1));
    assert!(relay.json(&["trace", &id]).to_string().contains("greylisted"));
}

fn metrics_and_health_are_served(engine: &Engine) {
    let sink = Sink::start();
    let relay = engine.routed_to(&sink.url());
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("m", 500).bytes)
        .expect(250);
    sink.wait_one();
    assert!(http(&relay, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(http(&relay, "/readyz").starts_with("HTTP/1.1 200"));
    let metrics = http(&relay, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("# TYPE posthouse_"), "{metrics}");
}

fn http(relay: &Relay, path: &str) -> String {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "-i", &format!("http://{}{path}", relay.api())]);
    posthouse_tests::process::run("curl", curl, Duration::from_secs(10))
}

#[test]
fn explain_says_what_serve_does() {
    let sink = Sink::start();
    let relay =
        Relay::builder().local(&["local.example"], "any").route(&[], &sink.url()).networks(&[]).start();
    let yes = relay.cli(&[
        "explain",
        "--from",
        "x@far.example",
        "--to",
        "ann@local.example",
        "--client",
        "203.0.113.9",
    ]);
    assert!(yes.contains(&sink.addr().to_string()), "{yes}");
    let (_, no) = relay.try_cli(&[
        "explain",
        "--from",
        "x@far.example",
        "--to",
        "ann@dest.example",
        "--client",
        "203.0.113.9",
    ]);
    assert!(no.contains("550") || no.contains("530") || no.contains("554"), "{no}");
}

#[test]
fn a_backup_made_while_mail_goes_on_restores_to_a_relay_that_delivers() {
    let port = free_port();
    let relay = stuck(&Engine::Embedded, port);
    let copy = relay.scratch().join("backup");
    relay.cli(&["backup", copy.to_str().unwrap()]);
    let other = Relay::builder().route(&[], &format!("smtp://127.0.0.1:{port}")).prepare();
    other.cli(&["restore", copy.to_str().unwrap()]);
    drop(relay);
    let mut other = other;
    other.start();
    let sink = Sink::on(posthouse_tests::wait::loopback(port), Options::default());
    other.cli(&["queue", "retry", "--all"]);
    let all = sink.wait(3, Duration::from_secs(20));
    for message in all {
        let id = Letter::from_arrived(&message.data).id;
        Letter::new(id, 1_000).assert_arrived(&message.data);
    }
}

#[test]
fn sendmail_takes_a_message_as_the_classic_program_does() {
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    let file = relay.scratch().join("mail");
    std::fs::write(&file, "From: me@client.example\nTo: ann@dest.example\nBcc: bob@dest.example\nSubject: x\n\nhello\n.\nnot the end\n").unwrap();
    let mut sendmail = std::process::Command::new("sh");
    let line = format!(
        "'{}' --config '{}' sendmail -i -t -f me@client.example < '{}'",
        posthouse_tests::relay::binary().display(),
        relay.config().display(),
        file.display()
    );
    sendmail.args(["-c", &line]);
    posthouse_tests::process::run("sendmail", sendmail, Duration::from_secs(20));
    let all = sink
        .wait_until("both", Duration::from_secs(20), |m| m.iter().map(|x| x.rcpts.len()).sum::<usize>() == 2);
    assert!(all[0].text().contains("\r\n.\r\nnot the end\r\n"), "{}", all[0].text());
    assert!(!all[0].text().contains("bob@dest.example"));
}
