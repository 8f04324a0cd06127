//! What an operator suspends waits, whatever the scope; all else goes on; it survives restarts and stands on record.

use posthouse_tests::prelude::*;

struct World {
    relay: Relay,
    one: Sink,
    two: Sink,
    acme: String,
    bulk: String,
}

/// Two next hops, an organisation of its own and a login for bulk mail.
fn world() -> World {
    let (one, two) = (Sink::start(), Sink::start());
    let relay =
        Relay::builder().route(&["one.example"], &one.url()).route(&["two.example"], &two.url()).start();
    relay.cli(&["org", "add", "acme", "--trusted"]);
    let acme = relay.credential("acme-login", &["--org", "acme"]);
    let bulk = relay.credential("bulk-login", &["--stream", "bulk"]);
    World { relay, one, two, acme, bulk }
}

impl World {
    /// Sends one letter with a login, or with none.
    fn send(&self, login: Option<(&str, &str)>, to: &str) {
        let mut smtp = Smtp::connect(self.relay.submission());
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
fn holds(scope: &[&str], held: impl Fn(&World), free: impl Fn(&World), to: &str) {
    let mut world = world();
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
    assert!(audit.contains("suspend") && audit.contains("resume"), "{audit}");
}

#[test]
fn an_organisation() {
    holds(
        &["--org", "acme"],
        |w| w.send(Some(("acme-login", &w.acme)), "held@one.example"),
        |w| w.send(None, "free@one.example"),
        "held@one.example",
    );
}

#[test]
fn a_domain() {
    holds(
        &["--domain", "one.example"],
        |w| w.send(None, "held@one.example"),
        |w| w.send(None, "free@two.example"),
        "held@one.example",
    );
}

#[test]
fn a_stream() {
    holds(
        &["--stream", "bulk"],
        |w| w.send(Some(("bulk-login", &w.bulk)), "held@one.example"),
        |w| w.send(None, "free@one.example"),
        "held@one.example",
    );
}

#[test]
fn a_site() {
    let mut world = world();
    let site = world.one.url();
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

#[test]
fn until_a_time_and_dry_runs() {
    let world = world();
    world.relay.cli(&["queue", "suspend", "--domain", "one.example", "--why", "dry", "--dry-run"]);
    world.send(None, "a@one.example");
    world.one.wait_one();
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
    assert_eq!(world.one.count(), 1);
    world.one.wait(2, Duration::from_secs(20));
}
