//! How a connection to the far end has to be protected: DANE against zones that Knot signs and Unbound validates, MTA-STS
//! against a policy server, and what a man in the middle can't do. Mail that may not go in the clear waits.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use posthouse_tests::client::send_one;
use posthouse_tests::letter::sha256;
use posthouse_tests::needs;
use posthouse_tests::neighbours::namespace::own_network;
use posthouse_tests::neighbours::program;
use posthouse_tests::neighbours::signed::{SignedDns, Signing};
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;
use posthouse_tests::tls::Certificate;
use posthouse_tests::wait::until_listening;

const MX: &str = "185.199.108.1";
const WEB: &str = "185.199.108.2";

fn network() {
    let addresses: Vec<IpAddr> = [MX, WEB].iter().map(|a| a.parse().unwrap()).collect();
    own_network(&addresses);
}

/// A host at port 25 with a certificate, or without any TLS.
fn host(certificate: Option<&Certificate>) -> Sink {
    let at = SocketAddr::new(MX.parse().unwrap(), 25);
    // One that was here before may not have left yet.
    eventually("the port is free", Duration::from_secs(10), || TcpListener::bind(at).ok());
    Sink::on(at, Options { certificate: certificate.cloned(), ..Options::default() })
}

fn relay(dns: &SignedDns, extra: &str) -> Relay {
    Relay::builder().set("dns", "servers", &format!("[\"{}\"]", dns.addr())).toml(extra).start()
}

fn send(relay: &Relay, to: &str) -> Letter {
    let letter = Letter::new(format!("tls-{to}"), 800);
    send_one(relay.smtp(), "me@client.example", &[to], &letter.bytes).expect(250);
    letter
}

/// Waits until the trace of mail to `to` has one of `words`.
fn traced(relay: &Relay, to: &str, words: &[&str]) -> String {
    let what = format!("the trace of {to} says one of {words:?}");
    eventually(&what, Duration::from_secs(30), || {
        let (_, trace) = relay.try_cli(&["trace", to]);
        words.iter().any(|w| trace.contains(w)).then_some(trace)
    })
}

/// A zone of one domain whose host has these TLSA records.
fn zone(tlsa: &str) -> String {
    let mut zone = format!("@ MX 10 mx\nmx A {MX}\n");
    if !tlsa.is_empty() {
        zone.push_str(&format!("_25._tcp.mx TLSA {tlsa}\n"));
    }
    zone
}

#[test]
fn dane_with_the_right_record_needs_no_authority() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip");
    network();
    let dir = tempfile::tempdir().unwrap();
    // Self-signed and for another name: usage 3 asks for neither (RFC 7672 section 3.1.1).
    let certificate = Certificate::make(dir.path(), &["somewhere.else.example"]);
    let right = format!("3 0 1 {}", sha256(&certificate.der()));
    let dns = SignedDns::serve(&[("right.example", Signing::Secure, &zone(&right))]);
    let sink = host(Some(&certificate));
    let relay = relay(&dns, "");
    let letter = send(&relay, "ann@right.example");
    let got = sink.wait_one();
    letter.assert_arrived(&got.data);
    assert!(got.tls);
    let trace = traced(&relay, "ann@right.example", &["DANE", "dane"]);
    assert!(trace.contains("elivered"), "{trace}");
}

#[test]
fn dane_with_a_wrong_record_or_without_starttls_never_delivers() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip");
    network();
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path(), &["mx.wrong.example"]);
    let wrong = format!("3 0 1 {}", sha256(b"another certificate"));
    let dns = SignedDns::serve(&[("wrong.example", Signing::Secure, &zone(&wrong))]);
    for certificate in [Some(&certificate), None] {
        let sink = host(certificate);
        let relay = relay(&dns, "");
        send(&relay, "ann@wrong.example");
        traced(&relay, "ann@wrong.example", &["eferred"]);
        let trace = traced(&relay, "ann@wrong.example", &["TLSA", "DANE", "dane", "STARTTLS"]);
        assert!(!trace.contains("elivered"), "{trace}");
        assert_eq!(relay.queue().len(), 1, "it waits, it does not bounce");
        assert!(!sink.commands().iter().any(|c| c.contains("MAIL")), "{:?}", sink.commands());
    }
}

#[test]
fn bogus_answers_defer_and_unsigned_records_mean_nothing() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip");
    network();
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path(), &["mx.unsigned.example"]);
    let wrong = format!("3 0 1 {}", sha256(b"another certificate"));
    let right = format!("@ TLSA 3 0 1 {}", sha256(&certificate.der()));
    let dns = SignedDns::serve(&[
        ("unsigned.example", Signing::Insecure, &zone(&wrong)),
        // The host's address is secure, its TLSA record is not what it was signed as.
        ("bogus.example", Signing::Secure, &format!("{}_25._tcp.mx NS ns\n", zone(""))),
        ("_25._tcp.mx.bogus.example", Signing::Bogus, &right),
    ]);
    let sink = host(Some(&certificate));
    let relay = relay(&dns, "");
    send(&relay, "ann@bogus.example");
    send(&relay, "ann@unsigned.example");
    let got = sink.wait_one();
    let bogus = relay.cli(&["trace", "ann@bogus.example"]);
    assert_eq!(got.recipients(), ["ann@unsigned.example"], "{bogus}");
    assert!(got.tls);
    let trace = traced(&relay, "ann@bogus.example", &["eferred"]);
    assert!(!trace.contains("elivered"), "{trace}");
    assert_eq!(sink.count(), 1);
    assert_eq!(relay.queue().len(), 1, "deferred, not bounced");
}

#[test]
fn dane_can_be_turned_off() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip");
    network();
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path(), &["mx.off.example"]);
    let wrong = format!("3 0 1 {}", sha256(b"another certificate"));
    let dns = SignedDns::serve(&[("off.example", Signing::Secure, &zone(&wrong))]);
    let sink = host(Some(&certificate));
    let relay = relay(&dns, "[delivery]\ndane = false\n");
    send(&relay, "ann@off.example");
    assert!(sink.wait_one().tls);
}

/// A domain with an MTA-STS policy, served by OpenSSL from files as any web server would.
struct Sts {
    dns: SignedDns,
    certificate: Certificate,
    dir: tempfile::TempDir,
    web: Daemon,
}

impl Sts {
    /// `host`: whose name the mail host's certificate has.
    fn start(policy: &str, host: &str) -> Self {
        network();
        let dir = tempfile::tempdir().unwrap();
        let certificate = Certificate::make(dir.path(), &["mta-sts.sts.example", host]);
        fs::create_dir(dir.path().join(".well-known")).unwrap();
        let text = policy.replace('\n', "\r\n");
        fs::write(dir.path().join(".well-known/mta-sts.txt"), text).unwrap();
        let web = openssl(dir.path(), &certificate);
        let zone =
            format!("@ MX 10 mx\nmx A {MX}\nmta-sts A {WEB}\n_mta-sts TXT \"v=STSv1; id=20261124;\"\n");
        let dns = SignedDns::serve(&[("sts.example", Signing::Insecure, &zone)]);
        Self { dns, certificate, dir, web }
    }

    /// A relay that believes this certificate, so that only names and policies make a difference.
    fn relay(&self) -> Relay {
        let ca = self.dir.path().join("certificate.pem");
        relay(&self.dns, &format!("[tls]\nca_file = \"{}\"\n", ca.display()))
    }
}

fn openssl(dir: &Path, certificate: &Certificate) -> Daemon {
    let mut command = Command::new(program("openssl").unwrap());
    command.current_dir(dir).args(["s_server", "-WWW", "-quiet", "-accept", &format!("{WEB}:443")]);
    command.arg("-cert").arg(&certificate.certificate).arg("-key").arg(&certificate.key);
    let daemon = Daemon::start("openssl", command);
    until_listening("the policy server", SocketAddr::new(WEB.parse().unwrap(), 443));
    daemon
}

const ENFORCE: &str = "version: STSv1\nmode: enforce\nmx: mx.sts.example\nmax_age: 86400\n";

#[test]
fn mta_sts_enforced_delivers_to_the_right_host_and_says_so() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "openssl", "ip");
    let sts = Sts::start(ENFORCE, "mx.sts.example");
    let sink = host(Some(&sts.certificate));
    let relay = sts.relay();
    let letter = send(&relay, "ann@sts.example");
    let got = sink.wait_one();
    letter.assert_arrived(&got.data);
    assert!(got.tls);
    traced(&relay, "ann@sts.example", &["MTA-STS", "mta-sts", "mta_sts"]);
}

#[test]
fn mta_sts_enforced_is_not_downgraded() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "openssl", "ip");
    // Somebody on the way takes STARTTLS out of the reply; then shows a certificate for another name.
    let sts = Sts::start(ENFORCE, "elsewhere.sts.example");
    for certificate in [None, Some(&sts.certificate)] {
        let sink = host(certificate);
        let relay = sts.relay();
        send(&relay, "ann@sts.example");
        let trace = traced(&relay, "ann@sts.example", &["eferred"]);
        assert!(!trace.contains("elivered"), "{trace}");
        traced(&relay, "ann@sts.example", &["STS", "sts", "STARTTLS", "certificate"]);
        assert_eq!(relay.queue().len(), 1, "it waits, it does not bounce");
        assert!(!sink.commands().iter().any(|c| c.contains("MAIL")), "{:?}", sink.commands());
    }
}

#[test]
fn a_host_outside_the_policy_is_not_used_and_testing_only_reports() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "openssl", "ip");
    let other = ENFORCE.replace("mx: mx.sts.example", "mx: other.sts.example");
    let sts = Sts::start(&other, "mx.sts.example");
    let sink = host(Some(&sts.certificate));
    {
        let relay = sts.relay();
        send(&relay, "ann@sts.example");
        let trace = traced(&relay, "ann@sts.example", &["eferred"]);
        assert!(!trace.contains("elivered"), "{trace}");
        assert_eq!(sink.count(), 0);
    }
    let testing = other.replace("enforce", "testing").replace('\n', "\r\n");
    fs::write(sts.dir.path().join(".well-known/mta-sts.txt"), testing).unwrap();
    let relay = sts.relay();
    send(&relay, "ann@sts.example");
    assert!(sink.wait_one().tls);
}

#[test]
fn a_policy_that_was_seen_holds_while_its_server_is_gone() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "openssl", "ip");
    let mut sts = Sts::start(ENFORCE, "mx.sts.example");
    let mut relay = sts.relay();
    {
        let sink = host(Some(&sts.certificate));
        send(&relay, "ann@sts.example");
        sink.wait_one();
    }
    sts.web.kill9();
    relay.restart();
    // A man in the middle of the mail who keeps the policy server away as well.
    let stripped = host(None);
    send(&relay, "bob@sts.example");
    traced(&relay, "bob@sts.example", &["eferred"]);
    assert!(!stripped.commands().iter().any(|c| c.contains("MAIL")), "{:?}", stripped.commands());
}

#[test]
fn the_operators_word_for_a_domain_counts() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip");
    network();
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path(), &["mx.plain.example"]);
    let dns = SignedDns::serve(&[("plain.example", Signing::Insecure, &zone(""))]);
    let policy = "[[tls_policy]]\ndomains = [\"plain.example\"]\nlevel = \"verify\"\n";
    let ca = format!("[tls]\nca_file = \"{}\"\n", certificate.certificate.display());
    let sink = host(Some(&certificate));
    {
        let relay = relay(&dns, policy);
        send(&relay, "ann@plain.example");
        traced(&relay, "ann@plain.example", &["certificate"]);
        assert_eq!((sink.count(), relay.queue().len()), (0, 1), "nobody vouches for the certificate");
    }
    let relay = relay(&dns, &format!("{policy}{ca}"));
    send(&relay, "ann@plain.example");
    assert!(sink.wait_one().tls);
    // Not over the connection that it still has.
    drop((relay, sink));
    let stripped = host(None);
    let relay = self::relay(&dns, &format!("{policy}{ca}"));
    send(&relay, "bob@plain.example");
    traced(&relay, "bob@plain.example", &["eferred"]);
    assert_eq!(stripped.count(), 0);
}
