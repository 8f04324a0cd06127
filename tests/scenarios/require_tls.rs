//! REQUIRETLS and `TLS-Required: No` (RFC 8689) from the sender to the next hop: asked for, the first is kept to the end or
//! the mail goes back; the second lets a report about TLS through where TLS doesn't work.

use std::net::SocketAddr;

use posthouse_tests::letter::sha256;
use posthouse_tests::needs;
use posthouse_tests::neighbours::namespace::own_network;
use posthouse_tests::neighbours::signed::{SignedDns, Signing};
use posthouse_tests::prelude::*;
use posthouse_tests::sink::Options;
use posthouse_tests::tls::Certificate;

const MX: &str = "185.199.108.1";
const HOME: &str = "185.199.108.2";

struct World {
    relay: Relay,
    far: Sink,
    /// Where mail for the sender goes. A report on a message that required TLS requires it as well (section 5).
    home: Sink,
    _dns: SignedDns,
}

/// `safe.example` has a TLSA record of its host's certificate, `wrong.example` one of another's, `open.example` none.
fn world(offers: &[&str]) -> World {
    own_network(&[MX.parse().unwrap(), HOME.parse().unwrap()]);
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path(), &["mx.safe.example"]);
    let at = |ip: &str, of: &[u8]| format!("@ MX 10 mx\nmx A {ip}\n_25._tcp.mx TLSA 3 0 1 {}\n", sha256(of));
    let dns = SignedDns::serve(&[
        ("client.example", Signing::Secure, &at(HOME, &certificate.der())),
        ("safe.example", Signing::Secure, &at(MX, &certificate.der())),
        ("wrong.example", Signing::Secure, &at(MX, b"another certificate")),
        ("open.example", Signing::Insecure, &format!("@ MX 10 mx\nmx A {MX}\n")),
    ]);
    let options = Options { certificate: Some(certificate), ..Options::default() };
    let port_25 = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 25);
    let home = Sink::on(port_25(HOME), options.clone().extensions(&["PIPELINING", "REQUIRETLS"]));
    let far = Sink::on(port_25(MX), options.extensions(offers));
    let relay = Relay::builder().set("dns", "servers", &format!("[\"{}\"]", dns.addr())).start();
    World { relay, far, home, _dns: dns }
}

fn submit(relay: &Relay, parameters: &str, to: &str, content: &[u8]) {
    let mut smtp = Smtp::connect(relay.smtp());
    assert!(!smtp.ehlo().mentions("REQUIRETLS"), "it means nothing without TLS");
    smtp.starttls();
    assert!(smtp.ehlo().mentions("REQUIRETLS"));
    smtp.cmd(&format!("MAIL FROM:<me@client.example>{parameters}")).expect(250);
    smtp.cmd(&format!("RCPT TO:<{to}>")).expect(250);
    smtp.data(content).expect(250);
    smtp.quit();
}

#[test]
fn what_requires_tls_goes_to_who_keeps_it_and_else_comes_back() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip");
    let world = world(&["PIPELINING", "REQUIRETLS"]);
    let letter = Letter::new("required", 700);
    submit(&world.relay, " REQUIRETLS", "ann@safe.example", &letter.bytes);
    let got = world.far.wait_one();
    letter.assert_arrived(&got.data);
    assert!(got.tls && got.mail.contains("REQUIRETLS"), "{}", got.mail);
    // Nobody vouches for the host of this one.
    submit(&world.relay, " REQUIRETLS", "ann@open.example", &letter.bytes);
    let report = world.home.wait_one();
    assert!(
        report.sender().is_empty() && report.tls && report.mail.contains("REQUIRETLS"),
        "{}",
        report.mail
    );
    assert!(report.text().contains("Status: 5.7.30"), "{}", report.text());
    assert_eq!(world.far.count(), 1);
    // The same recipient gets what doesn't ask for it.
    submit(&world.relay, "", "ann@open.example", &letter.bytes);
    assert!(!world.far.wait(2, Duration::from_secs(20))[1].mail.contains("REQUIRETLS"));
}

#[test]
fn a_next_hop_that_does_not_offer_it_gets_nothing() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip");
    let world = world(&["PIPELINING"]);
    submit(&world.relay, " REQUIRETLS", "ann@safe.example", &Letter::new("kept-back", 700).bytes);
    let report = world.home.wait_one().text();
    assert!(report.contains("Status: 5.7.30") && report.contains("REQUIRETLS"), "{report}");
    assert_eq!(world.far.count(), 0);
    assert!(!world.far.commands().iter().any(|c| c.contains("MAIL")), "{:?}", world.far.commands());
}

#[test]
fn tls_required_no_goes_where_the_record_is_wrong() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip");
    let world = world(&["PIPELINING"]);
    let letter = Letter::new("whatever", 700);
    submit(&world.relay, "", "held@wrong.example", &letter.bytes);
    let content = [b"TLS-Required: No\r\n".as_slice(), &letter.bytes].concat();
    submit(&world.relay, "", "goes@wrong.example", &content);
    assert_eq!(world.far.wait_one().recipients(), ["goes@wrong.example"]);
    eventually("the other waits", Duration::from_secs(20), || {
        world.relay.try_cli(&["trace", "held@wrong.example"]).1.contains("eferred").then_some(())
    });
    assert_eq!(world.far.count(), 1);
}
