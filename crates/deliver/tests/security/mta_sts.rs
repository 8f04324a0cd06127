//! MTA-STS: mode, mail exchanger, certificate and STARTTLS in all combinations.

use deliver::{FailureDetail, PolicyType, ResultType};

use crate::peer::{Behaviour, Peer};
use crate::rig::{outcomes, text};
use crate::signed::SignedDns;
use crate::web::{Page, Web};
use crate::world::{CERTIFICATES, Certificate, Certificates, Exchanger, MX, World, level};

const MODES: [&str; 3] = ["enforce", "testing", "none"];

/// A domain for each mode, whose policy names its mail exchanger or another; all with the same one.
fn domains() -> Vec<(String, &'static str, bool)> {
    let of = |mode: &'static str| [true, false].map(|named| (format!("{mode}-{named}.test"), mode, named));
    MODES.into_iter().flat_map(of).collect()
}

async fn serve(certificates: &Certificates) -> (SignedDns, Web) {
    let mut zone = "mx1 A 127.0.0.1\n".to_owned();
    for (domain, ..) in domains() {
        let name = domain.trim_end_matches(".test");
        zone +=
            &format!("{name} MX 10 mx1\n_mta-sts.{name} TXT \"v=STSv1; id=1\"\nmta-sts.{name} A 127.0.0.1\n");
    }
    zone += "gone MX 10 mx1\n_mta-sts.gone TXT \"v=STSv1; id=1\"\nmta-sts.gone A 127.0.0.1\n";
    let hosts: Vec<String> = domains().iter().map(|(domain, ..)| format!("mta-sts.{domain}")).collect();
    let web = certificates.web(&hosts, Page::policy("none", MX, 1)).await;
    for (domain, mode, named) in domains() {
        let mx = if named { MX } else { "*.mx.test" };
        web.set_for(&format!("mta-sts.{domain}"), Page::policy(mode, mx, 86_400));
    }
    (SignedDns::serve(&zone, "", "").await, web)
}

/// The word of reports for a certificate that is not right.
fn fault(certificate: Certificate) -> Option<ResultType> {
    match certificate {
        Certificate::Good => None,
        Certificate::Expired => Some(ResultType::CertificateExpired),
        Certificate::SelfSigned => Some(ResultType::CertificateNotTrusted),
        Certificate::WrongName => Some(ResultType::CertificateHostMismatch),
    }
}

#[tokio::test]
async fn every_combination() {
    let certificates = Certificates::new();
    let (dns, web) = serve(&certificates).await;
    let stripped = Peer::new(Behaviour::good()).await;
    let mut hosts = vec![(None, stripped)];
    for certificate in CERTIFICATES {
        hosts.push((Some(certificate), Exchanger::new(&certificates, certificate).await.peer));
    }
    for (certificate, peer) in &hosts {
        let world = World::new(&dns, &certificates, Some(&web), peer.at.port(), |_| {});
        for (domain, mode, named) in domains() {
            let case = format!("{domain} {certificate:?}");
            let before = peer.seen(|s| s.messages.len());
            let attempt = world.deliver(&domain).await;
            let wanted = match (mode, named, certificate) {
                ("enforce", false, _) => "~4.7.1",
                ("enforce", _, None) => "~4.7.4",
                ("enforce", _, Some(Certificate::Good)) => "+250",
                ("enforce", ..) => "~4.7.5",
                // A policy that is only tested holds nothing up, nor does one that is gone.
                _ => "+250",
            };
            assert_eq!(outcomes(&attempt), wanted, "{case}: {}", text(&attempt));
            let delivered = wanted == "+250";
            assert_eq!(peer.seen(|s| s.messages.len()) - before, usize::from(delivered), "{case}");
            if delivered {
                let asked = if mode == "enforce" { "mta-sts" } else { "opportunistic" };
                assert_eq!(level(&attempt), asked, "{case}");
                assert_eq!(attempt.tls.is_some(), certificate.is_some(), "{case}");
            }

            let result = world.result();
            let kind = if mode == "none" { PolicyType::NoPolicyFound } else { PolicyType::Sts };
            assert_eq!(result.policy.kind, kind, "{case}");
            assert_eq!(result.policy.mx.is_empty(), mode == "none", "{case}");
            let failure = match (mode, named, certificate) {
                ("none", _, Some(_)) => None,
                ("enforce", false, _) => Some(ResultType::ValidationFailure),
                (_, _, None) => Some(ResultType::StarttlsNotSupported),
                (_, false, Some(_)) => Some(ResultType::ValidationFailure),
                (_, true, Some(certificate)) => fault(*certificate),
            };
            let details: Vec<ResultType> = result.details.iter().map(|d| d.failure.result).collect();
            assert_eq!(details, failure.into_iter().collect::<Vec<_>>(), "{case}");
            // Who did not answer because nobody asked has no name.
            let connected = (mode, named) != ("enforce", false);
            for FailureDetail { failure, .. } in &result.details {
                let helo = connected.then_some("peer.test");
                assert_eq!(failure.receiving_helo.as_deref(), helo, "{case}");
            }
            assert_eq!(
                (result.successes, result.failures),
                (u64::from(failure.is_none()), u64::from(failure.is_some()))
            );
        }
    }
    // One fetch for each domain and relay.
    assert_eq!(web.asked().len(), domains().len() * hosts.len());
}

#[tokio::test]
async fn a_policy_that_cannot_be_had_is_none_and_is_reported() {
    let certificates = Certificates::new();
    let (dns, web) = serve(&certificates).await;
    let exchanger = Exchanger::new(&certificates, Certificate::SelfSigned).await;
    let world = World::new(&dns, &certificates, Some(&web), exchanger.port(), |_| {});
    // The web server's certificate is not made out for this one.
    let attempt = world.deliver("gone.test").await;
    assert_eq!((outcomes(&attempt).as_str(), level(&attempt).as_str()), ("+250", "opportunistic"));
    let results = world.results.drain();
    let of = |kind| results.iter().find(|r| r.policy.kind == kind).unwrap();
    assert_eq!(of(PolicyType::Sts).details[0].failure.result, ResultType::StsWebpkiInvalid);
    assert_eq!(of(PolicyType::NoPolicyFound).successes, 1);
}

#[tokio::test]
async fn the_next_host_that_the_policy_names_gets_it() {
    let certificates = Certificates::new();
    let exchanger = Exchanger::new(&certificates, Certificate::Good).await;
    let zone = "dom MX 10 other\ndom MX 20 mx1\nother A 127.0.0.1\nmx1 A 127.0.0.1\n\
                _mta-sts.dom TXT \"v=STSv1; id=1\"\nmta-sts.dom A 127.0.0.1\n";
    let dns = SignedDns::serve(zone, "", "").await;
    let web = certificates.web(&["mta-sts.dom.test".into()], Page::policy("enforce", MX, 86_400)).await;
    let world = World::new(&dns, &certificates, Some(&web), exchanger.port(), |_| {});
    let attempt = world.deliver("dom.test").await;
    assert_eq!((outcomes(&attempt).as_str(), level(&attempt).as_str()), ("+250", "mta-sts"));
    assert_eq!(attempt.remote.unwrap().name, MX);
    assert_eq!(exchanger.peer.seen(|s| s.connections), 1);
}
