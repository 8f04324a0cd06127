//! DANE: TLSA records right, wrong, useless, forged and out of reach.

use deliver::{PolicyType, ResultType};
use mail::Destination;

use crate::peer::{Act, Behaviour, Peer, say};
use crate::rig::{attempt, outcomes, text};
use crate::signed::SignedDns;
use crate::web::Page;
use crate::world::{Certificate, Certificates, Exchanger, World, level};

/// Domains, each with a mail exchanger of its own at loopback. `right` is the record of the server's certificate.
async fn zones(port: u16, right: &str) -> SignedDns {
    let wrong = "3 1 1 0000000000000000000000000000000000000000000000000000000000000000";
    let mut zone = String::new();
    for (name, records) in [
        ("right", vec![right]),
        ("wrong", vec![wrong]),
        ("two", vec![wrong, right]),
        (
            "useless",
            vec!["1 1 1 0000000000000000000000000000000000000000000000000000000000000000", "3 1 1 00"],
        ),
        ("none", vec![]),
    ] {
        zone += &format!("{name} MX 10 mx.{name}\nmx.{name} A 127.0.0.1\n");
        for record in records {
            zone += &format!("_{port}._tcp.mx.{name} TLSA {record}\n");
        }
    }
    zone += &format!(
        "alias MX 10 mx.alias\nmx.alias CNAME mx.right\n\
         outalias MX 10 mx.outalias\nmx.outalias CNAME mx.plain\n_{port}._tcp.mx.outalias TLSA {wrong}\n\
         forged MX 10 mx.forged\nmx.forged A 127.0.0.1\n_{port}._tcp.mx.forged CNAME tlsa.bogus\n\
         fallback MX 10 mx.forged\nfallback MX 20 mx.right\n\
         strange MX 10 mx.plain\n"
    );
    // The unsigned zone has a record that would forbid delivery if anyone believed it, and a domain at a signed host.
    let plain = format!(
        "@ MX 10 mx\nmx A 127.0.0.1\n_{port}._tcp.mx TLSA {wrong}\n\
         signedhost MX 10 mx.right.test.\nwronghost MX 10 mx.wrong.test.\n"
    );
    SignedDns::serve(&zone, &plain, &format!("@ MX 10 mx.right.test.\ntlsa TLSA {wrong}\n")).await
}

#[tokio::test]
async fn records_decide() {
    let certificates = Certificates::new();
    // Expired, with another name than the host's, issued by nobody: that is all the same to usage 3.
    for kind in [Certificate::SelfSigned, Certificate::Expired] {
        let exchanger = Exchanger::new(&certificates, kind).await;
        let dns = zones(exchanger.port(), &exchanger.tlsa).await;
        let world = World::new(&dns, &certificates, None, exchanger.port(), |_| {});
        for (domain, outcome, asked, verified) in [
            ("right.test", "+250", "dane", "dane"),
            ("two.test", "+250", "dane", "dane"),
            ("alias.test", "+250", "dane", "dane"),
            ("wrong.test", "~4.7.5", "", ""),
            ("useless.test", "+250", "encrypt", "unverified"),
            ("none.test", "+250", "opportunistic", "unverified"),
            ("forged.test", "~4.7.5", "", ""),
            // The next host is good; nobody falls back to the first one without DANE.
            ("fallback.test", "+250", "dane", "dane"),
            // Unsigned records count for nothing, good or bad.
            ("plain.test", "+250", "opportunistic", "unverified"),
            ("strange.test", "+250", "opportunistic", "unverified"),
            // The alias is signed and has records, though it leads out of the signed zone.
            ("outalias.test", "~4.7.5", "", ""),
            // The domain is not signed, its host is: the host's records are kept to.
            ("signedhost.plain.test", "+250", "dane", "dane"),
            ("wronghost.plain.test", "~4.7.5", "", ""),
            ("bogus.test", "~4.4.3", "", ""),
        ] {
            let attempt = world.deliver(domain).await;
            let tls = attempt.tls.as_ref().map(|tls| tls.verified.as_str()).unwrap_or_default();
            let found = (outcomes(&attempt), level(&attempt), tls.to_owned());
            let wanted = (outcome.to_owned(), asked.to_owned(), verified.to_owned());
            assert_eq!(found, wanted, "{domain} {kind:?}: {:?}", attempt.outcomes);
        }
        // In the clear went nothing at all.
        assert_eq!(exchanger.peer.seen(|s| s.messages.len()), 9);
        let deliveries = exchanger.peer.seen(|s| s.count("MAIL"));
        assert_eq!(deliveries, 9);
    }
}

#[tokio::test]
async fn the_trace_says_why_and_reports_say_what() {
    let certificates = Certificates::new();
    let exchanger = Exchanger::new(&certificates, Certificate::SelfSigned).await;
    let dns = zones(exchanger.port(), &exchanger.tlsa).await;
    let world = World::new(&dns, &certificates, None, exchanger.port(), |_| {});
    let delivered = world.deliver("right.test").await;
    let why = delivered.security.unwrap().why;
    assert!(why.contains("TLSA record 3 1 1 at _") && why.contains("mx.right.test"), "{why}");
    let good = world.result();
    assert_eq!((good.policy.domain.as_str(), good.policy.kind), ("right.test", PolicyType::Tlsa));
    assert_eq!((good.policy.text, good.successes, good.failures), (vec![exchanger.tlsa.clone()], 1, 0));

    for (domain, result) in
        [("wrong.test", ResultType::TlsaInvalid), ("forged.test", ResultType::DnssecInvalid)]
    {
        let attempt = world.deliver(domain).await;
        assert!(text(&attempt).contains(&format!("mx.{domain}")), "{}", text(&attempt));
        let bad = world.result();
        assert_eq!((bad.successes, bad.failures, bad.policy.kind), (0, 1, PolicyType::Tlsa), "{domain}");
        let failure = &bad.details[0].failure;
        assert_eq!(failure.result, result, "{domain}");
        assert_eq!(failure.receiving_mx.as_deref(), Some(format!("mx.{domain}").as_str()));
        let loopback = (result == ResultType::TlsaInvalid).then(|| "127.0.0.1".parse().unwrap());
        assert_eq!((failure.sending_ip, failure.receiving_ip), (loopback, loopback), "{domain}");
    }
    world.deliver("none.test").await;
    let none = world.result();
    assert_eq!((none.policy.kind, none.successes), (PolicyType::NoPolicyFound, 1));
}

#[tokio::test]
async fn starttls_taken_away_means_waiting() {
    let certificates = Certificates::new();
    let (acceptor, tlsa) = certificates.acceptor(Certificate::SelfSigned);
    let broken =
        Behaviour::good().starttls(&acceptor).on("STARTTLS", [Act::BreakTls("220 go ahead\r\n".into())]);
    let refused = Behaviour::good().starttls(&acceptor).on("STARTTLS", [say("454 4.7.0 not now")]);
    for (behaviour, status) in [(Behaviour::good(), "~4.7.4"), (broken, "~4.7.5"), (refused, "~4.7.4")] {
        let peer = Peer::new(behaviour).await;
        let dns = zones(peer.at.port(), &tlsa).await;
        let world = World::new(&dns, &certificates, None, peer.at.port(), |_| {});
        // Records that cannot be used still say that there is TLS.
        for domain in ["right.test", "useless.test"] {
            let attempt = world.deliver(domain).await;
            assert_eq!(outcomes(&attempt), status, "{domain}: {}", text(&attempt));
        }
        assert_eq!(peer.seen(|s| (s.connections, s.count("MAIL"))), (2, 0));
    }
}

#[tokio::test]
async fn dane_counts_before_mta_sts() {
    let certificates = Certificates::new();
    // Right for TLSA, wrong for the roots.
    let exchanger = Exchanger::new(&certificates, Certificate::SelfSigned).await;
    let port = exchanger.port();
    let zone = format!(
        "dom MX 10 mx1\nmx1 A 127.0.0.1\n_{port}._tcp.mx1 TLSA {}\n_mta-sts.dom TXT \"v=STSv1; id=1\"\n\
         mta-sts.dom A 127.0.0.1\n\
         both MX 10 mx2\nmx2 A 127.0.0.1\n_{port}._tcp.mx2 TLSA 3 1 1 {}\n_mta-sts.both TXT \"v=STSv1; id=1\"\n\
         mta-sts.both A 127.0.0.1\n",
        exchanger.tlsa,
        "00".repeat(32),
    );
    let dns = SignedDns::serve(&zone, "", "").await;
    let hosts = ["mta-sts.dom.test".to_owned(), "mta-sts.both.test".to_owned()];
    let web = certificates.web(&hosts, Page::policy("enforce", "*.test", 86_400)).await;
    let world = World::new(&dns, &certificates, Some(&web), port, |_| {});
    let attempt = world.deliver("dom.test").await;
    assert_eq!((outcomes(&attempt).as_str(), level(&attempt).as_str()), ("+250", "dane"));
    let attempt = world.deliver("both.test").await;
    assert_eq!(outcomes(&attempt), "~4.7.5", "{}", text(&attempt));
    assert!(text(&attempt).contains("TLSA"), "{}", text(&attempt));
    assert!(web.asked().is_empty(), "nobody needs its policy");
}

#[tokio::test]
async fn a_connection_is_shared_only_as_far_as_policies_allow() {
    let certificates = Certificates::new();
    let exchanger = Exchanger::new(&certificates, Certificate::SelfSigned).await;
    let port = exchanger.port();
    // Three domains of one site; the third asks for a certificate that its host has not.
    let zone = format!(
        "one MX 10 mx1\ntwo MX 10 mx1\nthree MX 10 mx1\nmx1 A 127.0.0.1\n_{port}._tcp.mx1 TLSA {}\n",
        exchanger.tlsa
    );
    let dns = SignedDns::serve(&zone, "", "").await;
    let world = World::new(&dns, &certificates, None, port, |rules| {
        rules.overrides = vec![crate::rules::rule("three.test", "verify")];
    });
    let mut line = world.rig.link_from("default", &Destination::Mx("one.test".into())).await;
    for (domain, outcome, connections) in
        [("one.test", "+250", 1), ("two.test", "+250", 1), ("three.test", "~4.7.5", 2)]
    {
        line.destination = Destination::Mx(domain.into());
        let job = world.rig.letter(&[&format!("a@{domain}")]).await;
        let attempt = attempt(&mut line, &job).await;
        assert_eq!(outcomes(&attempt), outcome, "{domain}: {}", text(&attempt));
        assert_eq!(exchanger.peer.seen(|s| s.connections), connections, "{domain}");
    }
    assert_eq!(exchanger.peer.seen(|s| s.messages.len()), 2);
}
