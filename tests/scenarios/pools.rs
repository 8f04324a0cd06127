//! Outgoing addresses: mail leaves by the sources of its pool, in their proportion and under their names; one that is
//! suspended is made up for by the others, also after a restart.

use std::collections::BTreeMap;

use posthouse_tests::client::send_one;
use posthouse_tests::needs;
use posthouse_tests::neighbours::dns::Dns;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

const POOLS: &str = "\
    [source.fast]\nipv4 = \"127.0.0.2\"\nehlo = \"fast.example.net\"\n\
    [source.slow]\nipv4 = \"127.0.0.3\"\nehlo = \"slow.example.net\"\n\
    [pool.news]\nsources = { fast = 3, slow = 1 }\n\
    [[egress]]\ndomains = [\"dest.example\"]\npool = \"news\"\n";

/// A relay that reaches the sink as the mail exchanger of two domains.
fn world(sink: &Sink) -> (Relay, Dns) {
    let zone = "@ MX 10 mx\nmx A 127.0.0.1\n";
    let dns = Dns::serve(&[("dest.example", zone), ("other.example", zone)]);
    let relay = Relay::builder()
        .set("dns", "servers", &format!("[\"{}\"]", dns.addr()))
        .set("dns", "allow_private_targets", "true")
        .set("delivery", "mx_port", &sink.addr().port().to_string())
        .toml(POOLS)
        .start();
    (relay, dns)
}

fn send(relay: &Relay, to: &str, from: usize, n: usize) {
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    for at in from..from + n {
        let letter = Letter::new(format!("pool-{to}-{at}"), 1_000);
        smtp.transact("me@client.example", &[&format!("u{at}@{to}")], &letter.bytes).expect(250);
    }
    smtp.quit();
}

/// How many messages came from each address.
fn by_client(messages: &[Received]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        *counts.entry(message.client.unwrap().ip().to_string()).or_default() += 1;
    }
    counts
}

#[test]
fn sources_share_by_weight_and_show_their_own_names() {
    needs!("knotd");
    // A moment for each message, so that one fast connection does not take all of them.
    let sink = Sink::with(Options::default().script(|stage| match stage {
        Stage::Data(_) => Act::Wait(Duration::from_millis(20)),
        _ => Act::Usual,
    }));
    let (relay, _dns) = world(&sink);
    send(&relay, "dest.example", 0, 120);
    send(&relay, "other.example", 0, 5);
    let all = sink.wait(125, Duration::from_secs(60));
    for message in &all {
        let expected = match message.client.unwrap().ip().to_string().as_str() {
            "127.0.0.2" => "fast.example.net",
            "127.0.0.3" => "slow.example.net",
            _ => "relay.test",
        };
        assert_eq!(message.hello, expected, "from {:?}", message.client);
    }
    let of = |domain: &str| {
        let these: Vec<Received> =
            all.iter().filter(|m| m.recipients()[0].ends_with(domain)).cloned().collect();
        by_client(&these)
    };
    assert_eq!(of("other.example"), BTreeMap::from([("127.0.0.1".to_owned(), 5)]), "the default source");
    let news = of("dest.example");
    let (fast, slow) = (news["127.0.0.2"], news["127.0.0.3"]);
    assert_eq!(fast + slow, 120);
    assert!(slow >= 12 && fast >= 72, "three to one: {news:?}");
    let trace = relay.cli(&["trace", "u0@dest.example"]);
    assert!(trace.contains("fast") || trace.contains("slow"), "the trace names the source: {trace}");
}

#[test]
fn a_suspended_source_is_made_up_for_and_stays_suspended() {
    needs!("knotd");
    let sink = Sink::start();
    let (mut relay, _dns) = world(&sink);
    relay.cli(&["queue", "suspend", "--source", "fast", "--why", "it is on a list"]);
    send(&relay, "dest.example", 0, 10);
    assert_eq!(
        by_client(&sink.wait(10, Duration::from_secs(20))),
        BTreeMap::from([("127.0.0.3".into(), 10)])
    );
    relay.restart();
    let listed = relay.cli(&["queue", "suspensions"]);
    assert!(listed.contains("fast") && listed.contains("it is on a list"), "{listed}");
    send(&relay, "dest.example", 10, 10);
    assert_eq!(
        by_client(&sink.wait(20, Duration::from_secs(20))),
        BTreeMap::from([("127.0.0.3".into(), 20)])
    );
    relay.cli(&["queue", "resume", "--source", "fast"]);
    send(&relay, "dest.example", 20, 40);
    let all = sink.wait(60, Duration::from_secs(20));
    assert!(by_client(&all[20..]).contains_key("127.0.0.2"), "{:?}", by_client(&all));
    let audit = relay.cli(&["audit", "list"]);
    let changes = ["add", "remove"]
        .map(|what| audit.lines().filter(|l| l.contains(what) && l.contains("suspension")).count());
    assert_eq!(changes, [1, 1], "{audit}");
}

#[test]
fn a_pool_without_a_source_that_may_send_waits_and_says_why() {
    needs!("knotd");
    let sink = Sink::start();
    let (relay, _dns) = world(&sink);
    relay.cli(&["queue", "suspend", "--source", "fast", "--why", "both"]);
    relay.cli(&["queue", "suspend", "--source", "slow", "--why", "both"]);
    let reply =
        send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("waits", 500).bytes)
            .expect(250);
    let id = reply.lines[0].rsplit(' ').next().unwrap().to_owned();
    eventually("queue show says why it waits", Duration::from_secs(20), || {
        relay.try_cli(&["queue", "show", &id]).1.contains("suspended").then_some(())
    });
    assert_eq!(sink.connections(), 0);
    relay.cli(&["queue", "resume", "--source", "slow"]);
    assert_eq!(sink.wait_one().hello, "slow.example.net");
}
