//! Sources whose connections go out through a proxy: microsocks, which speaks SOCKS 5, and HAProxy, which is told by the
//! PROXY protocol. The far end sees the proxy's address and the source's name; without the proxy, mail waits.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use posthouse_tests::client::send_one;
use posthouse_tests::needs;
use posthouse_tests::neighbours::dns::Dns;
use posthouse_tests::neighbours::namespace::own_network;
use posthouse_tests::neighbours::program;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;
use posthouse_tests::wait::{loopback, until_listening};

/// The mail exchanger, and the addresses that the proxies send from.
const MX: &str = "185.199.108.1";
const SOCKS: &str = "185.199.108.2";
const HAPROXY: &str = "185.199.108.3";

struct World {
    far: Sink,
    dns: Dns,
}

impl World {
    fn new() -> Self {
        own_network(&[MX, SOCKS, HAPROXY].map(|address| address.parse().unwrap()));
        let dns = Dns::serve(&[("dest.example", &format!("@ MX 10 mx\nmx A {MX}\n"))]);
        let far = Sink::on(SocketAddr::new(MX.parse().unwrap(), 25), Options::default());
        Self { far, dns }
    }

    /// A relay all of whose mail leaves by one source.
    fn relay(&self, source: &str) -> Relay {
        let toml = format!(
            "[source.far]\nehlo = \"far.example.net\"\n{source}\n[pool.default]\nsources = {{ far = 1 }}\n"
        );
        Relay::builder().set("dns", "servers", &format!("[\"{}\"]", self.dns.addr())).toml(&toml).start()
    }
}

fn send(relay: &Relay, name: &str) -> Letter {
    let letter = Letter::new(name, 2_000);
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    letter
}

#[test]
fn by_socks() {
    needs!("root", "knotd", "ip", "microsocks");
    let world = World::new();
    let at = loopback(free_port());
    let start = || {
        let mut command = Command::new(program("microsocks").unwrap());
        command.args([
            "-i",
            "127.0.0.1",
            "-p",
            &at.port().to_string(),
            "-b",
            SOCKS,
            "-u",
            "me",
            "-P",
            "sesame",
        ]);
        let daemon = Daemon::start("microsocks", command);
        until_listening("microsocks", at);
        daemon
    };
    let mut proxy = start();
    let relay = world.relay(&format!("proxy = \"socks5://me:sesame@{at}\""));
    let letter = send(&relay, "by-socks");
    let got = world.far.wait_one();
    letter.assert_arrived(&got.data);
    assert_eq!(
        (got.client.unwrap().ip().to_string().as_str(), got.hello.as_str()),
        (SOCKS, "far.example.net")
    );
    // Its end is no reason to go out directly.
    proxy.kill9();
    let letter = send(&relay, "socks-is-gone");
    eventually("it was put off", Duration::from_secs(30), || {
        let (_, trace) = relay.try_cli(&["trace", "ann@dest.example"]);
        (trace.contains("eferred") && trace.contains("proxy")).then_some(())
    });
    assert_eq!(world.far.count(), 1);
    let _proxy = start();
    relay.cli(&["queue", "retry", "--all"]);
    let all = world.far.wait(2, Duration::from_secs(60));
    letter.assert_arrived(&all[1].data);
    assert!(all.iter().all(|mail| mail.client.unwrap().ip().to_string() == SOCKS));
    // The password is nobody's business.
    let said = relay.cli(&["trace", "ann@dest.example"]);
    assert!(!said.contains("sesame"), "{said}");
}

#[test]
fn by_the_proxy_protocol() {
    needs!("root", "knotd", "ip", "haproxy");
    let world = World::new();
    let at = loopback(free_port());
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen egress\n  bind {at} accept-proxy\n  server out 0.0.0.0 source {HAPROXY}\n"
    );
    fs::write(dir.path().join("haproxy.cfg"), config).unwrap();
    let mut command = Command::new(program("haproxy").unwrap());
    command.args(["-db", "-f", "haproxy.cfg"]).current_dir(dir.path());
    let _haproxy = Daemon::start("haproxy", command);
    until_listening("haproxy", at);
    let relay = world.relay(&format!("ipv4 = \"{HAPROXY}\"\nproxy = \"proxy://{at}\""));
    let letter = send(&relay, "by-haproxy");
    let got = world.far.wait_one();
    letter.assert_arrived(&got.data);
    assert_eq!(
        (got.client.unwrap().ip().to_string().as_str(), got.hello.as_str()),
        (HAPROXY, "far.example.net")
    );
}
