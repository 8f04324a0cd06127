//! A smart host that takes mail only from who shows a certificate it knows: Postfix with `smtpd_tls_req_ccert`. With the
//! certificate mail goes through; without, it waits and the trace says why.

use std::fs;
use std::net::SocketAddr;

use posthouse_tests::client::send_one;
use posthouse_tests::needs;
use posthouse_tests::neighbours::exim::Exim;
use posthouse_tests::neighbours::postfix::Postfix;
use posthouse_tests::prelude::*;
use posthouse_tests::tls::Certificate;

/// Certificates of the smart host, of the relay, and one that the smart host doesn't know.
struct World {
    _dir: tempfile::TempDir,
    host: Certificate,
    ours: Certificate,
    foreign: Certificate,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, names: &[&str]| {
            let dir = dir.path().join(name);
            fs::create_dir(&dir).unwrap();
            Certificate::make(&dir, names)
        };
        let host = make("host", &["localhost"]);
        let ours = make("ours", &["relay.test"]);
        let foreign = make("foreign", &["foreign.test"]);
        Self { _dir: dir, host, ours, foreign }
    }

    /// A Postfix that insists on `ours`; `protocols` as in its `smtpd_tls_protocols`.
    fn smarthost(&self, next: &Sink, protocols: &str) -> Postfix {
        let (cert, key) = (self.host.certificate.display(), self.host.key.display());
        let main = format!(
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\n\
             smtpd_tls_mandatory_protocols = {protocols}\nsmtpd_tls_protocols = {protocols}\n\
             smtpd_tls_req_ccert = yes\nsmtpd_tls_CAfile = {}\nsmtpd_tls_loglevel = 1\n\
             tls_append_default_CA = no\nsmtpd_tls_received_header = yes\n",
            self.ours.certificate.display()
        );
        Postfix::relaying_to(next.addr(), &main)
    }

    /// The configuration of a relay that shows `shown`.
    fn config(&self, host: SocketAddr, shown: Option<&Certificate>) -> String {
        let shown = shown.map(|c| {
            let (certificate, key) = (c.certificate.display(), c.key.display());
            format!("client_certificate = \"{certificate}\"\nclient_key = \"{key}\"\n")
        });
        format!(
            "[tls]\nca_file = \"{}\"\n[[route]]\nto = \"smarthost:up\"\n[smarthost.up]\n\
             hosts = [\"localhost:{}\"]\ntls = \"required\"\n{}",
            self.host.certificate.display(),
            host.port(),
            shown.unwrap_or_default()
        )
    }
}

fn send(relay: &Relay, name: &str) -> Letter {
    let letter = Letter::odd(name);
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &letter.bytes).expect(250);
    letter
}

/// Waits until the attempt is told, and returns the trace.
fn put_off(relay: &Relay) -> String {
    eventually("it was put off", Duration::from_secs(30), || {
        let (_, trace) = relay.try_cli(&["trace", "ann@dest.example"]);
        trace.contains("eferred").then_some(trace)
    })
}

const ANY: &str = ">=TLSv1.2";
/// Without a certificate a handshake of TLS 1.2 fails; one of TLS 1.3 has succeeded on our side before it is refused.
const OLD: &str = "TLSv1.2";

#[test]
fn the_certificate_that_is_asked_for_is_shown() {
    needs!("root", "postfix");
    let world = World::new();
    for protocols in [ANY, OLD] {
        let sink = Sink::start();
        let host = world.smarthost(&sink, protocols);
        let relay = Relay::builder().toml(&world.config(host.addr(), Some(&world.ours))).start();
        let letter = send(&relay, "with-certificate");
        let got = sink.wait_one();
        letter.assert_arrived(&got.data);
        assert!(host.log().contains("Trusted TLS connection established from"), "{}", host.log());
        let (status, found) = relay.try_cli(&["check"]);
        assert!(status.success() && found.contains("up at localhost"), "{found}");
    }
}

#[test]
fn without_it_or_with_another_mail_waits_and_is_told_why() {
    needs!("root", "postfix");
    let world = World::new();
    for protocols in [ANY, OLD] {
        for shown in [None, Some(&world.foreign)] {
            let sink = Sink::start();
            let host = world.smarthost(&sink, protocols);
            let relay = Relay::builder().toml(&world.config(host.addr(), shown)).start();
            let letter = send(&relay, "without-certificate");
            let trace = put_off(&relay);
            let words = match shown {
                None => "No client certificate presented",
                Some(_) => "Client certificate not trusted",
            };
            assert!(trace.contains(words), "{trace}");
            assert_eq!(relay.queue().len(), 1, "it waits, it does not bounce: {trace}");
            let (status, found) = relay.try_cli(&["check"]);
            assert_eq!(status.code(), Some(1), "{found}");
            let told = found.lines().find(|line| line.starts_with("FAIL  smarthost  up at localhost"));
            assert!(told.is_some_and(|line| line.contains(words)), "{found}");
            assert_eq!(sink.count(), 0);
            // Given the right one, the mail that waits goes out.
            let config = world.config(host.addr(), Some(&world.ours));
            relay.reconfigure(|old| old.split("[tls]").next().unwrap().to_owned() + &config);
            relay.cli(&["reload"]);
            letter.assert_arrived(&sink.wait_one().data);
        }
    }
}

#[test]
fn a_host_that_ends_the_handshake_without_it_is_told_too() {
    needs!("root", "exim4");
    let world = World::new();
    let sink = Sink::start();
    let host = Exim::for_holders_of(&world.ours.certificate, &world.host, sink.addr());
    for shown in [None, Some(&world.foreign)] {
        let relay = Relay::builder().toml(&world.config(host.addr(), shown)).start();
        send(&relay, "without-certificate");
        let words = match shown {
            None => "it wants a client certificate",
            Some(_) => "it does not accept our client certificate",
        };
        let trace = put_off(&relay);
        assert!(trace.contains(words), "{trace}");
        assert_eq!(relay.queue().len(), 1, "it waits, it does not bounce: {trace}");
        let (status, found) = relay.try_cli(&["check"]);
        assert_eq!(status.code(), Some(1), "{found}");
        let told = found.lines().find(|line| line.starts_with("FAIL  smarthost  up at localhost"));
        assert!(told.is_some_and(|line| line.contains(words)), "{found}");
    }
    assert_eq!(sink.count(), 0);
    let relay = Relay::builder().toml(&world.config(host.addr(), Some(&world.ours))).start();
    let letter = send(&relay, "with-certificate");
    letter.assert_arrived(&sink.wait_one().data);
}

/// The configuration may name files that are not there: `check` tells without the network, and the relay doesn't start.
#[test]
fn a_certificate_that_cannot_be_read_is_told_before_anything_is_sent() {
    let config_file = "/nowhere/client.pem";
    let config = format!(
        "[[route]]\nto = \"smarthost:up\"\n[smarthost.up]\nhosts = [\"localhost:587\"]\ntls = \"required\"\n\
         client_certificate = \"{config_file}\"\nclient_key = \"{config_file}\"\n"
    );
    let mut relay = Relay::builder().toml(&config).prepare();
    let (status, found) = relay.try_cli(&["check", "--offline"]);
    assert_eq!(status.code(), Some(1), "{found}");
    assert!(found.contains("FAIL  tls        smart host up: ") && found.contains(config_file), "{found}");
    relay.launch();
    assert!(!relay.try_await_listening(Duration::from_secs(20)), "it listens all the same");
    let output = relay.daemon().output();
    assert!(output.contains(config_file), "{output}");
}
