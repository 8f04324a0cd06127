//! Sites: domains that share their hosts share connections, as far as their TLS policies allow it.

use std::sync::Arc;
use std::time::Duration;

use deliver::{TlsOverride, TlsResults};
use mail::TlsLevel;
use mail::{Destination, Site};

use crate::exchangers::{Dns, pair};
use crate::peer::{Behaviour, Peer};
use crate::support::{Line, Rig, attempt, outcomes};
use crate::tls::Certificates;

fn mx(domain: &str) -> Destination {
    Destination::Mx(domain.into())
}

async fn to(rig: &Rig, link: &mut Line, domain: &str) -> mail::Attempt {
    link.destination = mx(domain);
    attempt(link, &rig.letter(&[&format!("a@{domain}")]).await).await
}

fn rule(domains: &[&str], level: TlsLevel) -> TlsOverride {
    let domains = domains.iter().map(|d| d.parse().unwrap()).collect();
    TlsOverride { domains, level, names: vec![], roots: None, identity: None }
}

#[tokio::test]
async fn destinations_are_located() {
    let dns = Dns::new().await;
    let rig = dns.rig(25, |s| {
        s.provider_of = Arc::new(|hosts| hosts.contains(&"mx2.mail.test").then(|| "big".into()));
    });
    for (domain, site) in [
        ("one.mail.test", "hosts:mx1.mail.test"),
        ("implicit.mail.test", "hosts:implicit.mail.test"),
        ("both.mail.test", "provider:big"),
        ("second.mail.test", "provider:big"),
    ] {
        let located = rig.engine.locate(&mx(domain)).await;
        assert_eq!((located.site.to_string().as_str(), located.failure), (site, None));
        assert!((60..=3600).contains(&located.valid.as_secs()), "{:?}", located.valid);
    }
    for (domain, status) in
        [("null.mail.test", "5.1.10"), ("x.broken.test", "4.4.3"), ("no-such.mail.test", "5.1.2")]
    {
        let located = rig.engine.locate(&mx(domain)).await;
        assert_eq!(located.site, Site::Alone(mx(domain)));
        assert_eq!(located.failure.unwrap().status.to_string(), status);
        assert_eq!(located.valid, Duration::from_secs(60));
    }
    let named = "smtp://127.0.0.1:25".parse().unwrap();
    assert_eq!(rig.engine.locate(&named).await.site, Site::Alone(named));
}

#[tokio::test]
async fn one_connection_for_several_domains_of_the_same_hosts() {
    let dns = Dns::new().await;
    let (first, second) = pair(vec![Behaviour::good()], vec![Behaviour::good()]).await;
    let rig = dns.rig(first.at.port(), |s| s.provider_of = Arc::new(|_| Some("big".into())));
    let mut link = rig.link_from("default", &mx("both.mail.test")).await;
    for domain in ["both.mail.test", "also.mail.test", "one.mail.test", "both.mail.test"] {
        assert_eq!(outcomes(&to(&rig, &mut link, domain).await), "+250", "{domain}");
        assert!(link.suits(&mx(domain)));
    }
    assert_eq!((first.seen(|s| s.connections), first.messages().len()), (1, 4));
    // This one is served by the provider's other host alone.
    assert!(!link.suits(&mx("second.mail.test")));
    let other = to(&rig, &mut link, "second.mail.test").await;
    assert_eq!((outcomes(&other).as_str(), other.remote.unwrap().name.as_str()), ("+250", "mx2.mail.test"));
    assert_eq!((first.seen(|s| s.connections), second.messages().len()), (1, 1));
    // That of a domain whose second exchanger it is will do for it while it is open.
    assert_eq!(outcomes(&to(&rig, &mut link, "both.mail.test").await), "+250");
    assert_eq!(second.seen(|s| (s.connections, s.messages.len())), (1, 2));
}

/// A policy belongs to the recipient's domain: what is good enough for one need not be for another at the same hosts.
#[tokio::test]
async fn an_open_connection_is_left_when_another_domain_asks_for_more() {
    let dns = Dns::new().await;
    let strangers = Certificates::new(&["mx1.mail.test"]);
    let behaviour = || Behaviour::good().starttls(&strangers.acceptor);
    let (first, _second) = pair(vec![behaviour()], vec![behaviour()]).await;
    let results = Arc::new(TlsResults::new());
    let rig = dns.rig(first.at.port(), |s| {
        s.tls_rules.overrides =
            vec![rule(&["also.mail.test"], TlsLevel::Verify), rule(&["one.mail.test"], TlsLevel::Encrypt)];
        s.tls_rules.results = Some(results.clone());
    });
    let mut link = rig.link_from("default", &mx("both.mail.test")).await;
    let opportunistic = to(&rig, &mut link, "both.mail.test").await;
    assert_eq!(outcomes(&opportunistic), "+250");
    assert_eq!(opportunistic.security.unwrap().level, "opportunistic");
    assert_eq!(opportunistic.tls.unwrap().verified, "unverified");
    // Any certificate is enough for this one.
    let encrypted = to(&rig, &mut link, "one.mail.test").await;
    assert_eq!(
        (outcomes(&encrypted).as_str(), encrypted.security.unwrap().level.as_str()),
        ("+250", "encrypt")
    );
    assert_eq!(first.seen(|s| s.connections), 1);
    // And for this one it must be one that is trusted here. It waits, and nothing goes in the clear.
    let verified = to(&rig, &mut link, "also.mail.test").await;
    assert_eq!(outcomes(&verified), "~4.7.5", "{:?}", verified.transcript);
    assert!(link.unreachable().is_none(), "the site is there for all other domains");
    assert_eq!(first.messages().len(), 2);
    let both = results.drain().into_iter().find(|r| r.policy.domain == "both.mail.test").unwrap();
    assert_eq!((both.successes, both.failures), (1, 0));

    let trusting = dns.rig(first.at.port(), |s| {
        strangers.trust(s);
        s.tls_rules.overrides = vec![rule(&["also.mail.test"], TlsLevel::Verify)];
    });
    let mut link = trusting.link_from("default", &mx("both.mail.test")).await;
    for domain in ["both.mail.test", "also.mail.test"] {
        assert_eq!(outcomes(&to(&trusting, &mut link, domain).await), "+250", "{domain}");
    }
    assert_eq!(
        first.seen(|s| s.connections),
        3,
        "what was negotiated for the first is good enough for the second"
    );
}

#[tokio::test]
async fn requiretls_goes_where_it_is_offered_under_tls_that_is_verified() {
    let dns = Dns::new().await;
    let certificates = Certificates::new(&["mx1.mail.test", "mx2.mail.test"]);
    let plain = Behaviour::good().starttls(&certificates.acceptor);
    let offering = || Behaviour::offering(&["PIPELINING", "REQUIRETLS"]).starttls(&certificates.acceptor);
    let (first, second) = pair(vec![plain], vec![offering()]).await;
    let rig = dns.rig(first.at.port(), |s| {
        certificates.trust(s);
        let verify = rule(&["both.mail.test"], TlsLevel::Verify);
        let names = vec!["mx1.mail.test".into(), "mx2.mail.test".into()];
        s.tls_rules.overrides = vec![TlsOverride { names, ..verify }];
    });
    let mut link = rig.link_from("default", &mx("both.mail.test")).await;
    let job = rig.job(&["a@both.mail.test"], crate::support::LETTER, |m| m.require_tls = true).await;
    let sent = attempt(&mut link, &job).await;
    assert_eq!((outcomes(&sent).as_str(), sent.remote.unwrap().name.as_str()), ("+250", "mx2.mail.test"));
    assert_eq!(second.seen(|s| s.count("MAIL FROM:<sender@example.com> REQUIRETLS")), 1);
    assert_eq!(first.seen(|s| s.count("MAIL")), 0);
    // A message that asks for nothing does not say it.
    assert_eq!(outcomes(&to(&rig, &mut link, "both.mail.test").await), "+250");
    assert_eq!(
        second.seen(|s| (s.connections, s.count("MAIL FROM:<sender@example.com> REQUIRETLS"))),
        (1, 1)
    );

    // Nobody offers it: the sender hears of that at once, and the site is as good as before.
    let nobody = Peer::new(Behaviour::good()).await;
    let mut link = rig.link(&crate::support::smtp(nobody.at));
    let refused = attempt(&mut link, &job).await;
    assert_eq!(outcomes(&refused), "-5.7.30", "{:?}", refused.transcript);
    assert!(link.unreachable().is_none());
    assert_eq!(nobody.seen(|s| s.count("MAIL")), 0);
}
