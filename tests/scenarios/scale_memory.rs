//! Memory does not grow with the queue: neither with what waits for ten dead hosts, nor with the number of domains.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use mail::{Clock, Timestamp};
use posthouse_tests::client::send_one;
use posthouse_tests::fill::{Fill, To};
use posthouse_tests::needs;
use posthouse_tests::neighbours::dns::Dns;
use posthouse_tests::neighbours::namespace::own_network;
use posthouse_tests::prelude::*;

/// Where the mail exchanger of every domain is, and nobody listens.
const NOBODY: &str = "185.199.108.1";

fn soak() -> bool {
    std::env::var_os("POSTHOUSE_SOAK").is_some()
}

/// The highest that the memory of a process has been, in kB.
fn peak_kb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// A figure of `/metrics`; 0 while it is not there.
fn metric(relay: &Relay, name: &str) -> u64 {
    use std::io::{Read, Write};
    let mut http = std::net::TcpStream::connect(relay.api()).unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    http.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|v| v.trim().parse::<f64>().ok()).map_or(0, |v| v as u64)
}

fn now() -> Timestamp {
    Clock::system().now()
}

/// Waits until what is overdue has been tried: so many recipients put off, or none more for a while.
fn tried(relay: &Relay, wanted: u64) -> u64 {
    let deferred = "posthouse_recipients_total{result=\"deferred\"}";
    let clock = Clock::system();
    let (mut last, mut since) = (0, Duration::ZERO);
    loop {
        let n = metric(relay, deferred);
        let at = clock.mono().0;
        if n != last {
            (last, since) = (n, at);
        }
        if n >= wanted || n > 0 && at - since > Duration::from_secs(3) || at > Duration::from_secs(120) {
            return n;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Ports on which nobody listens.
fn dead_hosts() -> Vec<SocketAddr> {
    (0..10).map(|_| posthouse_tests::wait::loopback(free_port())).collect()
}

/// The peak of a relay that starts with so many messages overdue for ten dead hosts, and the mail that passes them.
fn beside_dead_hosts(messages: u64) -> u64 {
    let good = Sink::start();
    let mut relay = Relay::builder().route(&[], &good.url()).set("queue", "retry", "[\"30s\"]").prepare();
    let fill =
        Fill { messages, size: 1024, to: To::Hosts(dead_hosts()), due: Timestamp(now().0 - 3_600_000) };
    fill.run(relay.data());
    let clock = Clock::system();
    relay.start();
    let started = clock.mono().0;
    let letter = Letter::new("first", 1_000);
    send_one(relay.smtp(), "me@client.example", &["ann@good.example"], &letter.bytes).expect(250);
    good.wait_one();
    let delivered = clock.mono().0;
    // Ready includes what a debug build takes to read its certificates.
    assert!(
        delivered < Duration::from_secs(4),
        "ready after {started:?}, the first delivery after {delivered:?}"
    );
    assert!(tried(&relay, 5_000) > 0, "nothing was tried");
    for n in 0..200 {
        let letter = Letter::new(format!("more-{n}"), 4_000);
        send_one(relay.smtp(), "me@client.example", &["ann@good.example"], &letter.bytes).expect(250);
    }
    good.wait(201, Duration::from_secs(30));
    peak_kb(relay.pid())
}

#[test]
fn memory_is_the_same_beside_a_few_and_beside_very_many_waiting_messages() {
    let (few, many) = if soak() { (10_000, 1_000_000) } else { (5_000, 50_000) };
    let (few_kb, many_kb) = (beside_dead_hosts(few), beside_dead_hosts(many));
    println!("{few_kb} kB with {few} waiting, {many_kb} kB with {many}");
    let allowed = few_kb + few_kb / 10 + (8 << 10);
    assert!(many_kb <= allowed, "{few_kb} kB with {few} waiting, {many_kb} kB with {many}");
}

#[test]
fn memory_stays_in_its_limit_across_very_many_domains() {
    needs!("root", "knotd", "ip");
    let domains = if soak() { 200_000 } else { 5_000 };
    let address: IpAddr = NOBODY.parse().unwrap();
    own_network(&[address]);
    let dns = Dns::serve(&[("fill.example", &format!("* MX 10 mx\nmx A {NOBODY}\n"))]);
    let good = Sink::start();
    let mut relay = Relay::builder()
        .route(&["good.example"], &good.url())
        .set("dns", "servers", &format!("[\"{}\"]", dns.addr()))
        .set("limits", "memory", "\"256MB\"")
        .prepare();
    let due = Timestamp(now().0 - 3_600_000);
    Fill { messages: domains, size: 512, to: To::Domains(domains), due }.run(relay.data());
    relay.start();
    let letter = Letter::new("first", 1_000);
    send_one(relay.smtp(), "me@client.example", &["ann@good.example"], &letter.bytes).expect(250);
    good.wait_one();
    assert!(tried(&relay, domains) > 0, "nothing was tried");
    let peak = peak_kb(relay.pid());
    assert!(peak < 256 << 10, "{peak} kB with {domains} domains");
    let queues = metric(&relay, "posthouse_queues ");
    assert!(queues <= 20_000, "{queues} queues in memory");
}
