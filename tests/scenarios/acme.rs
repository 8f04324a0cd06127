//! A certificate by ACME, end to end: the relay starts with one of its own making, proves its name, and shows the new one.

use posthouse_tests::needs;
use posthouse_tests::neighbours::pebble::Pebble;
use posthouse_tests::prelude::*;

fn obtains(challenge: &str) {
    let (http, tls) = (free_port(), free_port());
    let pebble = Pebble::start(http, tls);
    let port = if challenge == "http-01" { http } else { tls };
    let relay = Relay::builder()
        .toml(&format!(
            "[acme]\ncontact = \"admin@relay.test\"\ndirectory = \"{}\"\nca_file = \"{}\"\nchallenge = \"{challenge}\"\n\
             listen = [\"127.0.0.1:{port}\"]\n",
            pebble.directory(),
            pebble.ca_file().display()
        ))
        .start();
    let mut first = Smtp::connect_tls(relay.submissions());
    first.ehlo();
    let own = first.certificate();
    let new = eventually("the new certificate is shown", Duration::from_secs(60), || {
        let shown = Smtp::connect_tls(relay.submissions()).certificate();
        (shown != own).then_some(shown)
    });
    assert!(String::from_utf8_lossy(&new).contains("Pebble"), "issued by Pebble");
    first.cmd("NOOP").expect(250);
}

#[test]
fn by_tls_alpn_01() {
    needs!("pebble", "pebble-challtestsrv");
    obtains("tls-alpn-01");
}

#[test]
fn by_http_01() {
    needs!("pebble", "pebble-challtestsrv");
    obtains("http-01");
}
