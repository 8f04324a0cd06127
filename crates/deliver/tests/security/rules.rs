//! The operator's rules.

use deliver::TlsOverride;
use net::{ClientIdentity, Roots};

use crate::peer::{Behaviour, Peer};
use crate::rig::{outcomes, text};
use crate::signed::SignedDns;
use crate::world::{Certificate, Certificates, Exchanger, World, level};

pub(crate) fn rule(domain: &str, level: &str) -> TlsOverride {
    TlsOverride {
        domains: vec![domain.parse().unwrap()],
        level: level.parse().unwrap(),
        names: vec![],
        roots: None,
        identity: None,
    }
}

fn named(domain: &str, names: &[&str]) -> TlsOverride {
    TlsOverride { names: names.iter().map(|n| (*n).to_owned()).collect(), ..rule(domain, "verify") }
}

async fn zones(port: u16, tlsa: &str) -> SignedDns {
    let mut zone = format!(
        "mx1 A 127.0.0.1\nmx.dane A 127.0.0.1\n_{port}._tcp.mx.dane TLSA {tlsa}\ndane MX 10 mx.dane\n"
    );
    for name in ["none", "opportunistic", "encrypt", "verify", "needsdane", "named", "misnamed", "roots"] {
        zone += &format!("{name} MX 10 mx1\n");
    }
    SignedDns::serve(&zone, "", "").await
}

#[tokio::test]
async fn each_level_is_kept_to() {
    let certificates = Certificates::new();
    for (kind, good) in
        [(Some(Certificate::Good), true), (Some(Certificate::WrongName), false), (None, false)]
    {
        let (acceptor, tlsa) = certificates.acceptor(kind.unwrap_or(Certificate::Good));
        let behaviour = Behaviour::good();
        let peer = Peer::new(if kind.is_some() { behaviour.starttls(&acceptor) } else { behaviour }).await;
        let dns = zones(peer.at.port(), &tlsa).await;
        let world = World::new(&dns, &certificates, None, peer.at.port(), |rules| {
            rules.overrides = vec![
                rule("none.test", "none"),
                rule("opportunistic.test", "opportunistic"),
                rule("encrypt.test", "encrypt"),
                rule("verify.test", "verify"),
                rule("needsdane.test", "dane"),
                rule("dane.test", "dane"),
                named("named.test", &["else.example", "other.example"]),
                named("misnamed.test", &["else.example"]),
            ];
        });
        let unless = |met: bool| match (met, kind) {
            (true, _) => "+250",
            (false, None) => "~4.7.4",
            (false, Some(_)) => "~4.7.5",
        };
        for (domain, outcome, tls) in [
            ("none.test", "+250", false),
            ("opportunistic.test", "+250", true),
            ("encrypt.test", unless(kind.is_some()), true),
            ("verify.test", unless(good), true),
            ("needsdane.test", "~4.7.5", true),
            ("dane.test", unless(kind.is_some()), true),
            ("named.test", unless(kind == Some(Certificate::WrongName)), true),
            ("misnamed.test", unless(false), true),
        ] {
            let attempt = world.deliver(domain).await;
            assert_eq!(outcomes(&attempt), outcome, "{domain} {kind:?}: {}", text(&attempt));
            if outcome == "+250" {
                assert_eq!(attempt.tls.is_some(), tls && kind.is_some(), "{domain} {kind:?}");
                let rule = if domain == "named.test" { "verify" } else { domain.trim_end_matches(".test") };
                assert_eq!(level(&attempt), rule);
            }
        }
        // What the operator wants is reported to nobody.
        assert!(world.results.drain().is_empty());
    }
}

#[tokio::test]
async fn a_rule_has_roots_and_a_certificate_of_its_own() {
    let certificates = Certificates::new();
    let exchanger = Exchanger::new(&certificates, Certificate::SelfSigned).await;
    let dns = zones(exchanger.port(), &exchanger.tlsa).await;
    // The certificate is its own root, known to this rule alone.
    let roots = Roots::load(&certificates.path("SelfSigned.pem")).unwrap();
    let (certificate, key) = certificates.make("client", Certificate::Good, "client.example");
    let identity = ClientIdentity::load(&certificate, &key).unwrap();
    let world = World::new(&dns, &certificates, None, exchanger.port(), |rules| {
        rules.overrides = vec![
            TlsOverride { roots: Some(roots), identity: Some(identity), ..rule("roots.test", "verify") },
            rule("verify.test", "verify"),
        ];
    });
    let attempt = world.deliver("roots.test").await;
    assert_eq!(outcomes(&attempt), "+250", "{}", text(&attempt));
    assert_eq!(attempt.tls.unwrap().verified, "verified");
    assert_eq!(outcomes(&world.deliver("verify.test").await), "~4.7.5");
}
