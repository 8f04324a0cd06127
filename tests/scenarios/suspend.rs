//! What an operator suspends waits, whatever the scope; all else goes on; it survives restarts and stands on record.

use std::net::SocketAddr;

use posthouse_tests::needs;
use posthouse_tests::neighbours::dns::Dns;
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;

posthouse_tests::on_both_engines!(an_organisation, a_domain, a_stream, a_site, until_a_time,);

struct World {
    relay: Relay,
    one: Sink,
    two: Sink,
    acme: String,
    bulk: String,
    _dns: Dns,
}

/// Two domains with a mail exchanger each, an organisation of its own and a login for bulk mail.
fn world(engine: &Engine) -> World {
    let dns = Dns::serve(&[
        ("one.example", "@ MX 10 mx\nmx A 127.0.0.5\n"),
        ("two.example", "@ MX 10 mx\nmx A 127.0.0.6\n"),
    ]);
    let port = free_port();
    let [one, two] = ["127.0.0.5", "127.0.0.6"]
        .map(|ip| Sink::on(SocketAddr::new(ip.parse().unwrap(), port), Options::default()));
    let relay = engine
        .relay()
        .set("dns", "servers", &format!("[\"{}\"]", dns.addr()))
        .set("dns", "allow_private_targets", "true")
        .set("delivery", "mx_port", &port.to_string())
        .start();
    relay.cli(&["org", "add", "acme", "--trusted"]);
    let acme = relay.credential("acme-login", &["--org", "acme"]);
    let bulk = relay.credential("bulk-login", &["--stream", "bulk"]);
    World { relay, one, two, acme, bulk, _dns: dns }
}

impl World {
    /// Sends one letter with a login, or with none.
    fn send(&self, login: Option<(&str, &str)>, to: &str) {
        let port = if login.is_some() { self.relay.submission() } else { self.relay.smtp() };
        let mut smtp = Smtp::connect(port);
        smtp.ehlo();
        if let Some((name, password)) = login {
            smtp.auth_plain(name, password).expect(235);
        }
        smtp.transact("me@client.example", &[to], &Letter::new(format!("to-{to}"), 500).bytes).expect(250);
        smtp.quit();
    }

    /// Waits until the one message for `to` says that it waits because it is suspended.
    fn waits(&self, to: &str) {
        eventually(&format!("{to} waits, suspended"), Duration::from_secs(20), || {
            let waiting = self.relay.json(&["queue", "list", "--to", to]).to_string();
            let id = waiting.split("\"id\":\"").nth(1)?.split(['"', '-']).next()?.to_owned();
            self.relay.try_cli(&["queue", "show", &id]).1.contains("suspended").then_some(())
        });
    }
}

/// Suspends with `scope`; what `held` sends waits over a restart while `free` goes on; resuming lets it go.
fn holds(engine: &Engine, scope: &[&str], held: impl Fn(&World), free: impl Fn(&World), to: &str) {
    let mut world = world(engine);
    let suspend = [&["queue", "suspend", "--why", "a test"], scope].concat();
    world.relay.cli(&suspend);
    held(&world);
    free(&world);
    eventually("all else goes on", Duration::from_secs(20), || {
        (world.one.count() + world.two.count() == 1).then_some(())
    });
    world.waits(to);
    world.relay.restart();
    let listed = world.relay.cli(&["queue", "suspensions"]);
    assert!(listed.contains(scope[1]) && listed.contains("a test"), "{listed}");
    world.waits(to);
    assert_eq!(world.one.count() + world.two.count(), 1);
    world.relay.cli(&[&["queue", "resume"], scope].concat());
    eventually("it goes on", Duration::from_secs(20), || {
        (world.one.count() + world.two.count() == 2).then_some(())
    });
    assert!(!world.relay.cli(&["queue", "suspensions"]).contains("a test"));
    let audit = world.relay.cli(&["audit", "list"]);
    for change in ["add", "remove"] {
        assert!(audit.lines().any(|l| l.contains(change) && l.contains("suspension")), "{audit}");
    }
}

fn an_organisation(engine: &Engine) {
    needs!("knotd");
    holds(
        engine,
        &["--org", "acme"],
        |w| w.send(Some(("acme-login", &w.acme)), "held@one.example"),
        |w| w.send(None, "free@one.example"),
        "held@one.example",
    );
}

fn a_domain(engine: &Engine) {
    needs!("knotd");
    holds(
        engine,
        &["--domain", "one.example"],
        |w| w.send(None, "held@one.example"),
        |w| w.send(None, "free@two.example"),
        "held@one.example",
    );
}

fn a_stream(engine: &Engine) {
    needs!("knotd");
    holds(
        engine,
        &["--stream", "bulk"],
        |w| w.send(Some(("bulk-login", &w.bulk)), "held@one.example"),
        |w| w.send(None, "free@one.example"),
        "held@one.example",
    );
}

fn a_site(engine: &Engine) {
    needs!("knotd");
    let mut world = world(engine);
    let site = "hosts:mx.one.example".to_owned();
    world.relay.cli(&["queue", "suspend", "--site", &site, "--why", "their night"]);
    world.send(None, "held@one.example");
    world.send(None, "free@two.example");
    world.two.wait_one();
    world.waits("held@one.example");
    world.relay.crash();
    world.waits("held@one.example");
    assert_eq!(world.one.connections(), 0);
    world.relay.cli(&["queue", "resume", "--site", &site]);
    world.one.wait_one();
}

fn until_a_time(engine: &Engine) {
    needs!("knotd");
    let world = world(engine);
    // Five seconds from now, as a time.
    let until =
        std::process::Command::new("date").args(["-u", "-d", "5 seconds", "+%Y-%m-%dT%H:%M:%SZ"]).output();
    let until = String::from_utf8(until.unwrap().stdout).unwrap();
    world.relay.cli(&[
        "queue",
        "suspend",
        "--domain",
        "one.example",
        "--why",
        "soon over",
        "--until",
        until.trim(),
    ]);
    world.send(None, "b@one.example");
    world.waits("b@one.example");
    assert_eq!(world.one.count(), 0);
    world.one.wait(1, Duration::from_secs(20));
}
