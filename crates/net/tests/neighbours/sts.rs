//! MTA-STS: discovery through Knot, policies from a web server with certificates good and bad.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mail::{Clock, ManualClock};
use net::sts::{StsAnswer, StsCache, StsConfig, StsFaultKind, StsMode};
use net::{ClientTls, ClientTlsConfig};
use tempfile::TempDir;

use crate::signed::SignedDns;
use crate::support::{Authority, PATIENCE};
use crate::web::{Page, Web};

const HOST: &str = "mta-sts.dom.test";

struct World {
    dns: SignedDns,
    authority: Authority,
    dir: TempDir,
    clock: ManualClock,
}

impl World {
    async fn new() -> Self {
        let dns = SignedDns::serve(&records("1"), "", "").await;
        let dir = TempDir::new().unwrap();
        let authority = Authority::new();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        Self { dns, authority, dir, clock: ManualClock::new(Clock::system().now()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn web(&self, page: Page) -> Web {
        let (certificate, key) = (self.path("web.pem"), self.path("web.key"));
        self.authority.issue(&[HOST], &certificate, &key);
        Web::serve(&certificate, &key, page).await
    }

    fn cache(&self, web: &Web) -> StsCache {
        self.cache_at(StsConfig {
            allow_private: true,
            port: web.at.port(),
            ..StsConfig::new(self.path("mta-sts"))
        })
    }

    fn cache_at(&self, config: StsConfig) -> StsCache {
        let ca_file = Some(self.path("ca.pem"));
        let tls = ClientTls::new(&ClientTlsConfig { ca_file }, self.clock.clock()).unwrap();
        StsCache::open(config, self.dns.knot_resolver(), tls, self.clock.clock()).unwrap()
    }
}

fn records(id: &str) -> String {
    format!("_mta-sts.dom TXT \"v=STSv1; id={id}\"\nmta-sts.dom A 127.0.0.1\n")
}

/// The mode, or none without a policy.
fn mode(answer: &StsAnswer) -> Option<StsMode> {
    answer.policy.as_ref().map(|policy| policy.mode)
}

/// Longer than an answer of the DNS is believed.
const LATER: Duration = Duration::from_secs(700);

#[tokio::test]
async fn a_policy_is_fetched_once_and_kept() {
    let world = World::new().await;
    let web = world.web(Page::policy("enforce", "mx.dom.test", 604_800)).await;
    let cache = world.cache(&web);
    // Many ask at once; one goes.
    let all = (0..20).map(|_| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.answer("dom.test").await })
    });
    for asked in all.collect::<Vec<_>>() {
        let answer = asked.await.unwrap();
        assert_eq!((mode(&answer), answer.fault), (Some(StsMode::Enforce), None));
        assert!(answer.policy.unwrap().names("mx.dom.test"));
    }
    let host = format!("{HOST}:{}", web.at.port());
    assert_eq!(web.asked(), [format!("{host} /.well-known/mta-sts.txt")]);
    world.clock.advance(LATER);
    assert_eq!(mode(&cache.answer("dom.test").await), Some(StsMode::Enforce));
    assert_eq!(web.asked().len(), 1, "the id has not changed");
    // Who has no record is not asked for a policy, nor who has no name.
    assert_eq!(cache.answer("mta-sts.dom.test").await, StsAnswer::default());
    assert_eq!(cache.answer("no-such.test").await, StsAnswer::default());
    assert_eq!(web.asked().len(), 1);
}

#[tokio::test]
async fn it_outlives_restarts_and_outages_until_it_is_over() {
    let world = World::new().await;
    let web = world.web(Page::policy("enforce", "mx.dom.test", 86_400)).await;
    assert_eq!(mode(&world.cache(&web).answer("dom.test").await), Some(StsMode::Enforce));
    // Whoever takes the record away, and the server, does not get rid of it.
    world.dns.change("other TXT x", 2).await;
    let port = web.at.port();
    drop(web);
    let config = StsConfig { allow_private: true, port, ..StsConfig::new(world.path("mta-sts")) };
    let cache = world.cache_at(config.clone());
    for _ in 0..3 {
        let answer = cache.answer("dom.test").await;
        assert_eq!((mode(&answer), answer.fault), (Some(StsMode::Enforce), None));
        world.clock.advance(LATER);
    }
    world.clock.advance(Duration::from_secs(86_400));
    assert_eq!(cache.answer("dom.test").await, StsAnswer::default());
    // The file goes at the next start.
    let file = world.path("mta-sts/dom.test.json");
    assert!(file.is_file());
    world.cache_at(config);
    assert!(!file.exists());
}

#[tokio::test]
async fn a_new_id_brings_the_new_policy_and_a_bad_one_leaves_the_old() {
    let world = World::new().await;
    let web = world.web(Page::policy("enforce", "old.dom.test", 604_800)).await;
    let cache = world.cache(&web);
    assert!(cache.answer("dom.test").await.policy.unwrap().names("old.dom.test"));

    web.set(Page { body: "version: STSv1".into(), ..Page::policy("enforce", "", 1) });
    world.dns.change(&records("2"), 2).await;
    world.clock.advance(LATER);
    for _ in 0..3 {
        let answer = cache.answer("dom.test").await;
        assert!(answer.policy.as_ref().unwrap().names("old.dom.test"));
        assert_eq!(answer.fault.unwrap().kind, StsFaultKind::Invalid);
    }
    assert_eq!(web.asked().len(), 2, "a failed fetch is repeated at once");

    // The same id is tried again, after a pause.
    web.set(Page::policy("testing", "new.dom.test", 604_800));
    world.clock.advance(LATER);
    let answer = cache.answer("dom.test").await;
    assert_eq!((mode(&answer), answer.fault), (Some(StsMode::Testing), None));
    assert!(answer.policy.unwrap().names("new.dom.test"));

    // And that is how a domain gives it up.
    web.set(Page::policy("none", "new.dom.test", 86_400));
    world.dns.change(&records("3"), 3).await;
    world.clock.advance(LATER);
    assert_eq!(mode(&cache.answer("dom.test").await), Some(StsMode::None));

    // Two records are none, and the policy at hand stays.
    world.dns.change(&format!("{}_mta-sts.dom TXT \"v=STSv1; id=5\"\n", records("4")), 4).await;
    world.clock.advance(LATER);
    assert_eq!(mode(&cache.answer("dom.test").await), Some(StsMode::None));
    assert_eq!(web.asked().len(), 4);
}

#[tokio::test]
async fn an_ageing_policy_is_fetched_again_meanwhile() {
    let world = World::new().await;
    let web = world.web(Page::policy("enforce", "old.dom.test", 604_800)).await;
    let cache = world.cache(&web);
    cache.answer("dom.test").await;
    web.set(Page::policy("enforce", "new.dom.test", 604_800));
    world.clock.advance(Duration::from_secs(25 * 3600));
    // Nobody waits for it: the old one is good for days.
    assert!(cache.answer("dom.test").await.policy.unwrap().names("old.dom.test"));
    let renewed = tokio::time::timeout(PATIENCE, async {
        while !cache.answer("dom.test").await.policy.unwrap().names("new.dom.test") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    renewed.await.expect("it is not renewed");
    assert_eq!(web.asked().len(), 2);
}

#[tokio::test]
async fn whatever_is_wrong_with_the_answer_is_told_apart() {
    let world = World::new().await;
    let good = Page::policy("enforce", "mx.dom.test", 604_800);
    let web = world.web(good.clone()).await;
    let long = format!("{}{}", good.body, "future: 1234567890\n".repeat(4000));
    for (page, kind, words) in [
        (Page { status: 301, ..good.clone() }, StsFaultKind::Fetch, "redirects are not allowed"),
        (Page { status: 404, ..good.clone() }, StsFaultKind::Fetch, "it answers 404"),
        (Page { kind: "text/html", ..good.clone() }, StsFaultKind::Invalid, "media type"),
        (Page { body: "<html>".into(), ..good.clone() }, StsFaultKind::Invalid, "not valid"),
        (Page { body: long, ..good.clone() }, StsFaultKind::Invalid, "longer than 64 KiB"),
    ] {
        web.set(page);
        let config = StsConfig { dir: None, allow_private: true, port: web.at.port() };
        let answer = world.cache_at(config).answer("dom.test").await;
        let fault = answer.fault.unwrap();
        assert_eq!((answer.policy, fault.kind), (None, kind), "{fault}");
        assert!(fault.text.contains(words) && fault.text.contains(HOST), "{fault}");
    }
    // What is odd but allowed.
    web.set(Page { kind: "Text/Plain; charset=utf-8", ..good });
    assert_eq!(mode(&world.cache(&web).answer("dom.test").await), Some(StsMode::Enforce));
}

#[tokio::test]
async fn the_web_servers_certificate_must_be_right() {
    let world = World::new().await;
    let page = Page::policy("enforce", "mx.dom.test", 604_800);
    let (certificate, key) = (world.path("bad.pem"), world.path("bad.key"));
    type Issue<'a> = &'a dyn Fn(&Path, &Path);
    let issue: [(&str, Issue<'_>); 3] = [
        ("has expired", &|c, k| world.authority.issue_until(&[HOST], 2024, c, k)),
        ("other names", &|c, k| world.authority.issue(&["dom.test", "www.dom.test"], c, k)),
        ("self-signed", &|c, k| {
            let own = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
            std::fs::write(c, own.cert.pem()).unwrap();
            std::fs::write(k, own.signing_key.serialize_pem()).unwrap();
        }),
    ];
    for (words, issue) in issue {
        issue(&certificate, &key);
        let web = Web::serve(&certificate, &key, page.clone()).await;
        let answer = world.cache(&web).answer("dom.test").await;
        let fault = answer.fault.unwrap();
        assert_eq!((answer.policy, fault.kind), (None, StsFaultKind::Certificate), "{fault}");
        assert!(fault.text.contains(words), "{fault}");
        assert!(web.asked().is_empty());
    }
}

#[tokio::test]
async fn only_public_addresses_are_asked() {
    let world = World::new().await;
    let web = world.web(Page::policy("enforce", "mx.dom.test", 604_800)).await;
    let strict = StsConfig { dir: None, allow_private: false, port: web.at.port() };
    let fault = world.cache_at(strict).answer("dom.test").await.fault.unwrap();
    assert_eq!(fault.kind, StsFaultKind::Fetch);
    assert!(fault.text.contains("not a public address"), "{fault}");
    assert!(web.asked().is_empty());
    // A port where nobody listens.
    let at = crate::support::free_address();
    let gone = StsConfig { dir: None, allow_private: true, port: at.port() };
    let fault = world.cache_at(gone).answer("dom.test").await.fault.unwrap();
    assert_eq!(fault.kind, StsFaultKind::Fetch, "{fault}");
}

#[tokio::test]
async fn the_way_to_tls_reports_is_found() {
    let dns = SignedDns::serve(
        "_smtp._tls.dom TXT \"v=TLSRPTv1; rua=mailto:tls@dom.test,https://dom.test/r\"\nbare A 127.0.0.1\n",
        "",
        "",
    )
    .await;
    let resolver = dns.resolver();
    let found = resolver.tls_report_addresses("dom.test").await.unwrap();
    let wanted = [
        net::ReportAddress::Mail("tls@dom.test".into()),
        net::ReportAddress::Https("https://dom.test/r".into()),
    ];
    assert_eq!(found, wanted);
    assert!(resolver.tls_report_addresses("bare.test").await.unwrap().is_empty());
    assert!(resolver.tls_report_addresses("x.bogus.test").await.is_err());
}
