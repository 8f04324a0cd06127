//! Domains that share their mail exchangers are one site: they share its connections, and a connection serves them all.

use std::net::{IpAddr, SocketAddr};

use posthouse_tests::needs;
use posthouse_tests::neighbours::dns::Dns;
use posthouse_tests::neighbours::namespace::own_network;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

const A: &str = "185.199.108.1";
const B: &str = "185.199.108.2";

/// Twenty domains at one pair of hosts, one at a host of its own.
fn zone() -> String {
    let mut zone =
        "mx1 A 185.199.108.1\nmx2 A 185.199.108.1\nalone MX 10 other\nother A 185.199.108.2\n".to_owned();
    for n in 0..20 {
        zone.push_str(&format!("d{n} MX 10 mx1\nd{n} MX 20 mx2\n"));
    }
    zone
}

struct World {
    relay: Relay,
    shared: Sink,
    alone: Sink,
    _dns: Dns,
}

/// `wait`: how long the shared host takes for each message.
fn world(wait: Duration, extra: &str) -> World {
    let addresses: Vec<IpAddr> = [A, B].iter().map(|a| a.parse().unwrap()).collect();
    own_network(&addresses);
    let dns = Dns::serve(&[("shared.example", &zone())]);
    let slowly = Options::default().script(move |stage| match stage {
        Stage::Data(_) => Act::Wait(wait),
        _ => Act::Usual,
    });
    let at = |address: &str| SocketAddr::new(address.parse().unwrap(), 25);
    let (shared, alone) = (Sink::on(at(A), slowly), Sink::on(at(B), Options::default()));
    let relay = Relay::builder().set("dns", "servers", &format!("[\"{}\"]", dns.addr())).toml(extra).start();
    World { relay, shared, alone, _dns: dns }
}

fn send(relay: &Relay, recipients: impl Iterator<Item = String>) {
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    for to in recipients {
        smtp.transact("me@client.example", &[&to], &Letter::new(format!("to-{to}"), 500).bytes).expect(250);
    }
    smtp.quit();
}

#[test]
fn twenty_domains_share_two_connections() {
    needs!("root", "knotd", "ip");
    let shape = "[[shape]]\nsites = [\"hosts:mx1.shared.example,mx2.shared.example\"]\nconnections = 2\n";
    let world = world(Duration::from_millis(100), shape);
    send(&world.relay, (0..60).map(|n| format!("u{n}@d{}.shared.example", n % 20)));
    send(&world.relay, ["ann@alone.shared.example".to_owned()].into_iter());
    world.alone.wait_one();
    assert!(world.shared.count() < 60, "the host that nobody shares does not wait for the one they do");
    let all = world.shared.wait(60, Duration::from_secs(60));
    assert!(world.shared.connections_max() <= 2, "{} at a time", world.shared.connections_max());
    let domains: std::collections::BTreeSet<&str> =
        all.iter().filter(|m| m.connection == all[0].connection).map(|m| m.recipients()[0]).collect();
    assert!(domains.len() > 1, "a connection serves several domains");
    let sites = world.relay.cli(&["queue", "sites"]);
    assert!(sites.contains("hosts:mx1.shared.example,mx2.shared.example"), "{sites}");
}

#[test]
fn a_site_is_suspended_for_all_its_domains() {
    needs!("root", "knotd", "ip");
    let mut world = world(Duration::ZERO, "");
    let site = "hosts:mx1.shared.example,mx2.shared.example";
    world.relay.cli(&["queue", "suspend", "--site", site, "--why", "they asked"]);
    send(&world.relay, (0..5).map(|n| format!("u@d{n}.shared.example")));
    send(&world.relay, ["ann@alone.shared.example".to_owned()].into_iter());
    world.alone.wait_one();
    world.relay.restart();
    assert_eq!(world.shared.connections(), 0);
    world.relay.cli(&["queue", "resume", "--site", site]);
    world.shared.wait(5, Duration::from_secs(20));
}
