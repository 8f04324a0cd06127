//! Delivery by MX, in a network of the scenario's own where port 25 and public-looking addresses are ours.

use std::net::{IpAddr, SocketAddr};

use posthouse_tests::client::send_one;
use posthouse_tests::needs;
use posthouse_tests::neighbours::dns::Dns;
use posthouse_tests::neighbours::namespace::own_network;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

const A: &str = "185.199.108.1";
const B: &str = "185.199.108.2";
const C: &str = "2a02:4780::3";

const ZONE: &str = "\
    @ MX 10 a\n@ MX 20 b\na A 185.199.108.1\nb A 185.199.108.2\n\
    implicit A 185.199.108.1\n\
    null MX 0 .\n\
    six MX 10 c\nc AAAA 2a02:4780::3\n\
    private MX 10 inside\ninside A 10.0.0.1\n\
    loop MX 10 inner\ninner A 127.0.0.1\n\
    alias CNAME target\ntarget MX 10 a\n\
    circle CNAME round\nround CNAME circle\n\
    tie MX 10 a\ntie MX 10 b\n";

struct World {
    relay: Relay,
    dns: Dns,
}

fn world(extra: &str) -> World {
    let addresses: Vec<IpAddr> = [A, B, C].iter().map(|a| a.parse().unwrap()).collect();
    own_network(&addresses);
    let dns = Dns::serve(&[("dest.example", ZONE)]);
    let relay = Relay::builder().set("dns", "servers", &format!("[\"{}\"]", dns.addr())).toml(extra).start();
    World { relay, dns }
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 25)
}

fn send(relay: &Relay, to: &str) -> Letter {
    let letter = Letter::new(format!("mx-{to}"), 1_000);
    send_one(relay.smtp(), "me@client.example", &[to], &letter.bytes).expect(250);
    letter
}

#[test]
fn the_best_mx_is_used_then_the_next() {
    needs!("root", "knotd", "ip");
    let world = world("");
    let second = Sink::on(at(B), Options::default());
    let letter = send(&world.relay, "ann@dest.example");
    letter.assert_arrived(&second.wait_one().data);
    let first = Sink::on(at(A), Options::default());
    let letter = send(&world.relay, "bob@dest.example");
    // The connection to the second may still be open and used; a new one goes to the best.
    eventually("it arrives somewhere", Duration::from_secs(20), || {
        (first.count() + second.count() == 2).then_some(())
    });
    let all: Vec<Received> = first.messages().into_iter().chain(second.messages()).collect();
    assert!(all.iter().any(|m| Letter::from_arrived(&m.data) == letter));
}

#[test]
fn implicit_mx_ipv6_and_alias() {
    needs!("root", "knotd", "ip");
    let world = world("");
    let (four, six) = (Sink::on(at(A), Options::default()), Sink::on(at(C), Options::default()));
    let letter = send(&world.relay, "ann@implicit.dest.example");
    letter.assert_arrived(&four.wait_one().data);
    let letter = send(&world.relay, "ann@six.dest.example");
    letter.assert_arrived(&six.wait_one().data);
    send(&world.relay, "ann@alias.dest.example");
    four.wait(2, Duration::from_secs(20));
}

#[test]
fn hopeless_answers_are_reported_with_their_codes() {
    needs!("root", "knotd", "ip");
    let back = "[[route]]\ndomains = [\"client.example\"]\nto = \"smtp://185.199.108.2:25\"\n";
    let world = world(back);
    let reports = Sink::on(at(B), Options::default());
    for (to, status) in [("ann@null.dest.example", "5.1.10"), ("ann@nowhere.dest.example", "5.1.2")] {
        let before = reports.count();
        send(&world.relay, to);
        let all = reports.wait(before + 1, Duration::from_secs(20));
        let text = all[before].text();
        assert!(text.contains(&format!("Status: {status}")), "{to}: {text}");
    }
}

#[test]
fn private_and_loopback_targets_are_never_connected_to() {
    needs!("root", "knotd", "ip");
    let world = world("");
    let inside = Sink::on(SocketAddr::from(([127, 0, 0, 1], 25)), Options::default());
    send(&world.relay, "ann@loop.dest.example");
    send(&world.relay, "ann@private.dest.example");
    eventually("both were given up or put off, with a reason", Duration::from_secs(20), || {
        let (_, trace) = world.relay.try_cli(&["trace", "me@client.example"]);
        (trace.matches("private").count() + trace.matches("loopback").count() >= 2).then_some(())
    });
    assert_eq!(inside.connections(), 0);
}

#[test]
fn ties_are_spread() {
    needs!("root", "knotd", "ip");
    // A connection for each, so that each chooses anew.
    let world = world("[delivery]\nmessages_per_connection = 1\n");
    let (a, b) = (Sink::on(at(A), Options::default()), Sink::on(at(B), Options::default()));
    for n in 0..24 {
        send(&world.relay, &format!("u{n}@tie.dest.example"));
        eventually("it arrives", Duration::from_secs(20), || (a.count() + b.count() > n).then_some(()));
    }
    assert_eq!(a.count() + b.count(), 24);
    assert!(
        a.count() > 0 && b.count() > 0,
        "one of two equals was never chosen: {} {}",
        a.count(),
        b.count()
    );
}

#[test]
fn circles_of_aliases_end_and_wait() {
    needs!("root", "knotd", "ip");
    let world = world("");
    send(&world.relay, "ann@circle.dest.example");
    eventually("it was put off, with a reason", Duration::from_secs(20), || {
        let (_, trace) = world.relay.try_cli(&["trace", "ann@circle.dest.example"]);
        (trace.contains("eferred") && trace.contains("circle")).then_some(())
    });
    assert_eq!(world.relay.queue().len(), 1, "somebody may mend the zone: it doesn't bounce");
}

#[test]
fn without_dns_mail_waits_and_nothing_bounces() {
    needs!("root", "knotd", "ip");
    let mut world = world("");
    let sink = Sink::on(at(A), Options::default());
    let port = world.dns.addr();
    world.dns.daemon.kill9();
    let letter = send(&world.relay, "ann@dest.example");
    eventually("it was tried and put off", Duration::from_secs(60), || {
        let (_, trace) = world.relay.try_cli(&["trace", "me@client.example"]);
        (trace.contains("eferred") || trace.contains("4.4.3")).then_some(())
    });
    assert_eq!(sink.count(), 0);
    world.dns = Dns::serve_at(port, &[("dest.example", ZONE)]);
    let got = sink.wait(1, Duration::from_secs(60)).swap_remove(0);
    assert_eq!(got.sender(), "me@client.example", "a report:\n{}", got.text());
    letter.assert_arrived(&got.data);
}

#[test]
fn the_best_mx_that_is_this_relay_is_a_loop() {
    needs!("root", "knotd", "ip");
    own_network(&[A.parse().unwrap(), B.parse().unwrap()]);
    let dns = Dns::serve(&[("dest.example", "@ MX 10 relay.test.\n"), ("test", "relay A 185.199.108.1\n")]);
    let reports = Sink::on(at(B), Options::default());
    let relay = Relay::builder()
        .set("dns", "servers", &format!("[\"{}\"]", dns.addr()))
        .toml("[[route]]\ndomains = [\"client.example\"]\nto = \"smtp://185.199.108.2:25\"\n")
        .start();
    send(&relay, "ann@dest.example");
    let text = reports.wait_one().text();
    assert!(text.contains("Status: 5.4.6"), "{text}");
}
