//! A domain that asks for TLS reports (RFC 8460) gets one when the day is over, about what really happened.

use std::process::Command;

use posthouse_tests::client::send_one;
use posthouse_tests::letter::sha256;
use posthouse_tests::needs;
use posthouse_tests::neighbours::namespace::own_network;
use posthouse_tests::neighbours::program;
use posthouse_tests::neighbours::signed::{SignedDns, Signing};
use posthouse_tests::prelude::*;
use posthouse_tests::process::run;
use posthouse_tests::sink::Options;
use posthouse_tests::tls::Certificate;
use serde_json::Value;

const MX: &str = "185.199.108.1";

/// Takes the report out of its mail.
const READ: &str = "import email, gzip, sys\n\
    mail = email.message_from_binary_file(open(sys.argv[1], 'rb'))\n\
    part = next(p for p in mail.walk() if p.get_content_type() == 'application/tlsrpt+gzip')\n\
    sys.stdout.write(gzip.decompress(part.get_payload(decode=True)).decode())\n";

#[test]
fn the_report_of_a_day_comes_when_it_is_over() {
    needs!("root", "knotd", "unbound", "keymgr", "kdig", "ip", "faketime", "python3");
    own_network(&[MX.parse().unwrap()]);
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path(), &["mx.good.example"]);
    let zone = |of: &[u8]| {
        format!(
            "@ MX 10 mx\nmx A {MX}\n_25._tcp.mx TLSA 3 0 1 {}\n\
             _smtp._tls TXT \"v=TLSRPTv1; rua=mailto:tls@reports.example\"\n",
            sha256(of)
        )
    };
    let dns = SignedDns::serve(&[
        ("good.example", Signing::Secure, &zone(&certificate.der())),
        ("wrong.example", Signing::Secure, &zone(b"another certificate")),
        // Wants to hear nothing.
        ("quiet.example", Signing::Insecure, &format!("@ MX 10 mx\nmx A {MX}\n")),
    ]);
    let options = Options { certificate: Some(certificate), ..Options::default() };
    let far = Sink::on(format!("{MX}:25").parse().unwrap(), options);
    let reports = Sink::start();
    let mut relay = Relay::builder()
        .route(&["reports.example"], &reports.url())
        .set("dns", "servers", &format!("[\"{}\"]", dns.addr()))
        .set("queue", "retry", "[\"1h\"]")
        .start();
    for to in ["ann@good.example", "ann@wrong.example", "ann@quiet.example"] {
        send_one(relay.smtp(), "me@client.example", &[to], &Letter::new(to.replace('@', "-"), 500).bytes)
            .expect(250);
    }
    far.wait(2, Duration::from_secs(20));
    eventually("the third was put off", Duration::from_secs(20), || {
        relay.try_cli(&["trace", "ann@wrong.example"]).1.contains("eferred").then_some(())
    });
    assert!(relay.stop().success());
    // What was counted outlives the stop; two days later it is told.
    relay.rewrap(["faketime", "-f", "+2d"]);
    relay.start();
    let mut found: Vec<(String, Value)> = reports
        .wait(2, Duration::from_secs(120))
        .iter()
        .map(|mail| {
            assert_eq!((mail.sender(), mail.recipients()), ("", vec!["tls@reports.example"]));
            let file = dir.path().join("mail");
            std::fs::write(&file, &mail.data).unwrap();
            let mut python = Command::new(program("python3").unwrap());
            python.args(["-c", READ]).arg(&file);
            let report: Value =
                serde_json::from_str(&run("python3", python, Duration::from_secs(20))).unwrap();
            let policy = report["policies"][0].clone();
            (policy["policy"]["policy-domain"].as_str().unwrap().to_owned(), policy)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let (good, wrong) = (&found[0].1, &found[1].1);
    assert_eq!((found[0].0.as_str(), found[1].0.as_str()), ("good.example", "wrong.example"));
    assert_eq!(good["policy"]["policy-type"], "tlsa", "{good}");
    assert_eq!(good["summary"]["total-successful-session-count"], 1, "{good}");
    assert_eq!(good["summary"]["total-failure-session-count"], 0, "{good}");
    assert_eq!(wrong["summary"]["total-successful-session-count"], 0, "{wrong}");
    assert!(wrong["summary"]["total-failure-session-count"].as_u64() >= Some(1), "{wrong}");
    assert_eq!(wrong["failure-details"][0]["receiving-mx-hostname"], "mx.wrong.example", "{wrong}");
}
