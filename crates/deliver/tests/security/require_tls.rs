//! REQUIRETLS and `TLS-Required: No` (RFC 8689).

use mail::Message;

use crate::peer::Behaviour;
use crate::rig::{outcomes, text};
use crate::rules::rule;
use crate::signed::SignedDns;
use crate::web::{Page, Web};
use crate::world::{Certificate, Certificates, Exchanger, MX, World, level};

fn require(message: &mut Message) {
    message.require_tls = true;
}

fn optional(message: &mut Message) {
    message.tls_optional = true;
}

/// `dane` and `wrong` with TLSA records, `signed` without, `plain.test` unsigned, `sts.plain.test` unsigned with a policy.
async fn serve(certificates: &Certificates, exchanger: &Exchanger) -> (SignedDns, Web) {
    let port = exchanger.port();
    let zone = format!(
        "mx1 A 127.0.0.1\nsigned MX 10 mx1\n\
         dane MX 10 mx.dane\nmx.dane A 127.0.0.1\n_{port}._tcp.mx.dane TLSA {}\n\
         wrong MX 10 mx.wrong\nmx.wrong A 127.0.0.1\n_{port}._tcp.mx.wrong TLSA 3 1 1 {}\n\
         ruled MX 10 mx1\nforbidden MX 10 mx1\n",
        exchanger.tlsa,
        "00".repeat(32),
    );
    let plain = "@ MX 10 mx1.test.\nsts MX 10 mx1.test.\n_mta-sts.sts TXT \"v=STSv1; id=1\"\nmta-sts.sts A 127.0.0.1\n";
    let web = certificates.web(&["mta-sts.sts.plain.test".into()], Page::policy("enforce", MX, 86_400)).await;
    (SignedDns::serve(&zone, plain, "").await, web)
}

fn offering() -> Behaviour {
    Behaviour::offering(&["PIPELINING", "REQUIRETLS"])
}

#[tokio::test]
async fn required_is_kept_to_the_end_or_refused() {
    let certificates = Certificates::new();
    for (kind, like, wanted) in [
        (
            Certificate::Good,
            offering(),
            [
                ("dane.test", "+250"),
                ("signed.test", "+250"),
                ("plain.test", "-5.7.30"),
                ("sts.plain.test", "+250"),
            ],
        ),
        // Verified by TLSA records only.
        (
            Certificate::SelfSigned,
            offering(),
            [
                ("dane.test", "+250"),
                ("signed.test", "-5.7.30"),
                ("plain.test", "-5.7.30"),
                ("sts.plain.test", "-5.7.30"),
            ],
        ),
        // The next hop would not keep to it.
        (
            Certificate::Good,
            Behaviour::good(),
            [
                ("dane.test", "-5.7.30"),
                ("signed.test", "-5.7.30"),
                ("plain.test", "-5.7.30"),
                ("sts.plain.test", "-5.7.30"),
            ],
        ),
    ] {
        let exchanger = Exchanger::behaving(&certificates, kind, like).await;
        let (dns, web) = serve(&certificates, &exchanger).await;
        let world = World::new(&dns, &certificates, Some(&web), exchanger.port(), |_| {});
        for (domain, outcome) in wanted {
            let attempt = world.deliver_as(domain, require).await;
            assert_eq!(outcomes(&attempt), outcome, "{domain} {kind:?}: {}", text(&attempt));
            if outcome != "+250" {
                assert!(text(&attempt).contains("REQUIRETLS"), "{}", text(&attempt));
            }
        }
        let delivered = wanted.iter().filter(|(_, outcome)| *outcome == "+250").count();
        let said = |s: &crate::peer::Seen| {
            s.lines.iter().filter(|l| l.starts_with("MAIL") && l.contains(" REQUIRETLS")).count()
        };
        assert_eq!(exchanger.peer.seen(said), delivered, "{kind:?}");
        assert_eq!(exchanger.peer.seen(|s| s.count("MAIL")), delivered, "{kind:?}");
    }
}

#[tokio::test]
async fn required_without_starttls_is_refused() {
    let certificates = Certificates::new();
    let exchanger = Exchanger::new(&certificates, Certificate::Good).await;
    let stripped = crate::peer::Peer::new(offering()).await;
    // The records are for the port of the one that has no TLS.
    let exchanger = Exchanger { peer: stripped, tlsa: exchanger.tlsa.clone() };
    let (dns, web) = serve(&certificates, &exchanger).await;
    let world = World::new(&dns, &certificates, Some(&web), exchanger.port(), |_| {});
    for domain in ["dane.test", "signed.test", "sts.plain.test"] {
        let attempt = world.deliver_as(domain, require).await;
        assert_eq!(outcomes(&attempt), "-5.7.30", "{domain}: {}", text(&attempt));
    }
    assert_eq!(exchanger.peer.seen(|s| s.count("MAIL")), 0);
    // A forged answer of the DNS is not the host's fault: that may pass.
    let attempt = world.deliver_as("bogus.test", require).await;
    assert!(outcomes(&attempt).starts_with('~'), "{}", text(&attempt));
}

#[tokio::test]
async fn an_operators_rule_may_ask_for_less_but_not_the_message() {
    let certificates = Certificates::new();
    let exchanger = Exchanger::behaving(&certificates, Certificate::SelfSigned, offering()).await;
    let (dns, web) = serve(&certificates, &exchanger).await;
    let world = World::new(&dns, &certificates, Some(&web), exchanger.port(), |rules| {
        rules.overrides = vec![rule("ruled.test", "encrypt"), rule("forbidden.test", "none")];
    });
    assert_eq!(outcomes(&world.deliver("ruled.test").await), "+250");
    for domain in ["ruled.test", "forbidden.test"] {
        let attempt = world.deliver_as(domain, require).await;
        assert_eq!(outcomes(&attempt), "-5.7.30", "{domain}: {}", text(&attempt));
    }
}

#[tokio::test]
async fn optional_sets_the_recipients_policies_aside_but_not_the_operators() {
    let certificates = Certificates::new();
    let exchanger = Exchanger::new(&certificates, Certificate::SelfSigned).await;
    let (dns, web) = serve(&certificates, &exchanger).await;
    let world = World::new(&dns, &certificates, Some(&web), exchanger.port(), |rules| {
        rules.overrides = vec![rule("ruled.test", "verify")];
    });
    for domain in ["wrong.test", "sts.plain.test"] {
        let waits = world.deliver(domain).await;
        assert_eq!(outcomes(&waits), "~4.7.5", "{domain}");
        let goes = world.deliver_as(domain, optional).await;
        assert_eq!((outcomes(&goes).as_str(), level(&goes).as_str()), ("+250", "opportunistic"), "{domain}");
        // TLS is used even so where there is some.
        assert!(goes.tls.is_some() && goes.security.unwrap().why.contains("TLS-Required: No"));
    }
    assert_eq!(outcomes(&world.deliver_as("ruled.test", optional).await), "~4.7.5");
    // Who says both means the stricter (RFC 8689 section 4.1).
    let both = |message: &mut Message| {
        require(message);
        optional(message);
    };
    assert_eq!(outcomes(&world.deliver_as("signed.test", both).await), "-5.7.30");
}
