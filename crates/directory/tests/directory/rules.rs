//! Rules about outgoing mail: kept, replaced, refused, asked.

use directory::rule::{
    Alias, Ceiling, ConfigRules, Egress, Pool, Rewrite, RewriteOf, Rule, Shape, Source as Outgoing, TlsPolicy,
};
use directory::{AuditQuery, Directory, DirectoryError, OrgChange, Source};
use mail::{Destination, OrgId, Stream};

use crate::by;
use crate::place::{Place, on_both};

fn source(ipv4: &str) -> Outgoing {
    Outgoing { ipv4: Some(ipv4.parse().unwrap()), ..Outgoing::default() }
}

fn pool(sources: &[(&str, u32)]) -> Pool {
    Pool { sources: sources.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect() }
}

fn egress(orgs: &[&str], streams: &[Stream], domains: &[&str], pool: &str) -> Egress {
    Egress {
        orgs: orgs.iter().map(|o| (*o).to_owned()).collect(),
        streams: streams.to_vec(),
        domains: domains.iter().map(|d| d.parse().unwrap()).collect(),
        destinations: Vec::new(),
        pool: pool.to_owned(),
    }
}

async fn named<R: Rule>(d: &Directory, name: &str, rule: R) -> Result<(), DirectoryError> {
    d.add_rule(Some(name.to_owned()), rule, None, &by()).await.map(|_| ())
}

async fn listed<R: Rule>(d: &Directory, rule: R, before: Option<&str>) -> Result<String, DirectoryError> {
    let entry = d.add_rule(None, rule, before.map(str::to_owned), &by()).await?;
    Ok(entry.id.to_string())
}

async fn rules_of_every_kind_are_there_after_a_restart(place: Place) {
    let d = place.open().await;
    let proxy: directory::rule::Proxy = "socks5://me:hunter2@127.0.0.1:1080".parse().unwrap();
    let fast = Outgoing { proxy: Some(proxy), ..source("192.0.2.1") };
    named(&d, "fast", fast).await.unwrap();
    named(&d, "news", pool(&[("fast", 3), ("default", 1)])).await.unwrap();
    listed(&d, egress(&["default"], &[Stream::Bulk], &["*.example"], "news"), None).await.unwrap();
    let shape = Shape { sites: vec!["gmail".into()], rate: "5/1m".parse().ok(), ..Shape::default() };
    listed(&d, shape, None).await.unwrap();
    let ceiling =
        Ceiling { to: "lmtp://127.0.0.1:24".parse().ok(), connections: Some(2), ..Ceiling::default() };
    listed(&d, ceiling, None).await.unwrap();
    let tls = TlsPolicy {
        domains: vec!["*".parse().unwrap()],
        level: mail::TlsLevel::Encrypt,
        ..TlsPolicy::default()
    };
    listed(&d, tls, None).await.unwrap();
    let alias = Alias { from: "@a.example".into(), to: vec!["@b.example".into()], org: None };
    listed(&d, alias, None).await.unwrap();
    let rewrite = Rewrite {
        pattern: "^(.+)@x$".into(),
        replace: "$1@y".into(),
        of: vec![RewriteOf::Sender],
        org: None,
    };
    listed(&d, rewrite, None).await.unwrap();
    let before = d.snapshot();
    d.close().await;

    let d = place.open().await;
    let after = d.snapshot();
    fn same<R: Rule>(a: &directory::Snapshot, b: &directory::Snapshot) {
        let (a, b): (Vec<_>, Vec<_>) = (a.rules::<R>().collect(), b.rules::<R>().collect());
        assert_eq!(a.len(), 1, "{}", R::KIND);
        assert_eq!(a, b);
    }
    same::<Outgoing>(&before, &after);
    same::<Pool>(&before, &after);
    same::<Egress>(&before, &after);
    same::<Shape>(&before, &after);
    same::<Ceiling>(&before, &after);
    same::<TlsPolicy>(&before, &after);
    same::<Alias>(&before, &after);
    same::<Rewrite>(&before, &after);
    let kept = after.rule::<Outgoing>("fast").unwrap();
    assert_eq!(kept.rule.proxy_password.as_ref().unwrap().expose(), "hunter2");
    // What is shown and on record never holds the password.
    assert!(!serde_json::to_string(&**kept).unwrap().contains("hunter2"));
    let record = d.audit(AuditQuery::default()).await.unwrap();
    assert!(!serde_json::to_string(&record).unwrap().contains("hunter2"));
    assert_eq!(record.len(), 8);
    // Said anew without a password, it keeps the one it has.
    let again = Outgoing { proxy: "socks5://me@127.0.0.1:1081".parse().ok(), ..source("192.0.2.2") };
    let set = d.set_rule("fast", again, &by()).await.unwrap();
    assert_eq!(set.rule.proxy_password.as_ref().unwrap().expose(), "hunter2");
}

async fn what_is_wrong_is_refused_and_changes_nothing(place: Place) {
    let d = place.open().await;
    let invalid =
        |r: Result<(), DirectoryError>| assert!(matches!(r, Err(DirectoryError::Invalid(_))), "{r:?}");
    let missing =
        |r: Result<(), DirectoryError>| assert!(matches!(r, Err(DirectoryError::NotFound { .. })), "{r:?}");
    invalid(named(&d, "a b", source("192.0.2.1")).await);
    invalid(d.add_rule(None, source("192.0.2.1"), None, &by()).await.map(|_| ()));
    invalid(named(&d, "x", egress(&[], &[], &[], "default")).await);
    invalid(named(&d, "empty", pool(&[])).await);
    missing(named(&d, "news", pool(&[("fast", 1)])).await);
    missing(listed(&d, egress(&["nobody"], &[], &[], "default"), None).await.map(|_| ()));
    missing(listed(&d, egress(&[], &[], &[], "news"), None).await.map(|_| ()));
    invalid(listed(&d, egress(&[], &[], &["a@b.example"], "default"), None).await.map(|_| ()));
    invalid(listed(&d, Shape::default(), None).await.map(|_| ()));
    invalid(listed(&d, Ceiling { connections: Some(1), ..Ceiling::default() }, None).await.map(|_| ()));
    let smarthost = Ceiling { to: "smarthost:up".parse().ok(), connections: Some(1), ..Ceiling::default() };
    missing(listed(&d, smarthost, None).await.map(|_| ()));
    let bad = Rewrite { pattern: "(".into(), replace: String::new(), of: vec![RewriteOf::Sender], org: None };
    invalid(listed(&d, bad, None).await.map(|_| ()));
    assert!(matches!(d.remove_rule::<Pool>("none", &by()).await, Err(DirectoryError::NotFound { .. })));
    assert!(d.audit(AuditQuery::default()).await.unwrap().is_empty());

    named(&d, "fast", source("192.0.2.1")).await.unwrap();
    named(&d, "news", pool(&[("fast", 1)])).await.unwrap();
    let id = listed(&d, egress(&[], &[], &[], "news"), None).await.unwrap();
    let taken = named(&d, "fast", source("192.0.2.2")).await;
    assert!(matches!(taken, Err(DirectoryError::Exists { .. })), "{taken:?}");
    let org = Ceiling { org: Some("default".into()), connections: Some(1), ..Ceiling::default() };
    listed(&d, org.clone(), None).await.unwrap();
    let again = listed(&d, Ceiling { org: Some("DEFAULT".into()), ..org }, None).await;
    assert!(matches!(again, Err(DirectoryError::InUse(_))), "{again:?}");
    // What is named stays.
    let used = |r: Result<(), DirectoryError>| assert!(matches!(r, Err(DirectoryError::InUse(_))), "{r:?}");
    used(d.remove_rule::<Outgoing>("fast", &by()).await.map(|_| ()));
    used(d.remove_rule::<Pool>("news", &by()).await.map(|_| ()));
    d.remove_rule::<Egress>(&id, &by()).await.unwrap();
    d.set_org("default", OrgChange { pool: Some("news".into()), ..OrgChange::default() }, &by())
        .await
        .unwrap();
    used(d.remove_rule::<Pool>("news", &by()).await.map(|_| ()));
    d.set_org("default", OrgChange { pool: Some(String::new()), ..OrgChange::default() }, &by())
        .await
        .unwrap();
    d.remove_rule::<Pool>("news", &by()).await.unwrap();
    d.remove_rule::<Outgoing>("fast", &by()).await.unwrap();
}

async fn an_organisation_that_rules_name_keeps_its_name(place: Place) {
    let d = place.open().await;
    d.add_org("acme", false, &by()).await.unwrap();
    let id = listed(&d, egress(&["Acme"], &[], &[], "default"), None).await.unwrap();
    let rename = OrgChange { name: Some("apex".into()), ..OrgChange::default() };
    assert!(matches!(d.set_org("acme", rename.clone(), &by()).await, Err(DirectoryError::InUse(_))));
    assert!(matches!(d.remove_org("acme", &by()).await, Err(DirectoryError::InUse(_))));
    d.remove_rule::<Egress>(&id, &by()).await.unwrap();
    d.set_org("acme", rename, &by()).await.unwrap();
}

async fn the_first_egress_rule_counts_then_the_organisations_pool(place: Place) {
    let d = place.open().await;
    let acme = d.add_org("acme", false, &by()).await.unwrap().id;
    for name in ["a", "b", "c"] {
        named(&d, name, source(&format!("192.0.2.{}", name.as_bytes()[0]))).await.unwrap();
        named(&d, &format!("p{name}"), pool(&[(name, 2)])).await.unwrap();
    }
    let rules = ConfigRules {
        sources: vec![("of-file".into(), source("192.0.2.9"))],
        pools: vec![("of-file".into(), pool(&[("of-file", 1)]))],
        egress: vec![egress(&[], &[], &["file.example"], "of-file")],
        ..ConfigRules::default()
    };
    d.set_config_rules(rules).await.unwrap();
    let last = listed(&d, egress(&["acme"], &[Stream::Bulk], &[], "pa"), None).await.unwrap();
    listed(&d, egress(&[], &[], &["*.b.example"], "pb"), Some(&last)).await.unwrap();
    d.set_org("acme", OrgChange { pool: Some("pc".into()), ..OrgChange::default() }, &by()).await.unwrap();
    let state = d.snapshot();
    let of = |org, stream, to: &str| {
        let choice = state.pool(org, stream, &to.parse::<Destination>().unwrap());
        (choice.pool.to_string(), choice.sources[0].0.to_string())
    };
    let is = |pool: &str, source: &str| (pool.to_owned(), source.to_owned());
    assert_eq!(of(acme, Stream::Bulk, "mx:x.b.example"), is("pb", "b"), "the one before comes first");
    assert_eq!(of(acme, Stream::Bulk, "mx:b.example"), is("pa", "a"));
    assert_eq!(of(acme, Stream::Bulk, "mx:file.example"), is("of-file", "of-file"), "the file comes first");
    assert_eq!(of(acme, Stream::Bulk, "smtp://h:25"), is("pa", "a"));
    assert_eq!(of(acme, Stream::Transactional, "mx:b.example"), is("pc", "c"));
    assert_eq!(of(OrgId::DEFAULT, Stream::Bulk, "mx:b.example"), is("default", "default"));
    // Those of the file are shown as such, and changed there.
    let first = state.rules::<Egress>().next().unwrap();
    assert_eq!((&*first.id, first.kept), ("config-1", Source::Config));
    let refused = d.remove_rule::<Egress>("config-1", &by()).await;
    assert!(matches!(refused, Err(DirectoryError::ReadOnly { .. })), "{refused:?}");
    let refused = d.set_rule("of-file", source("192.0.2.8"), &by()).await;
    assert!(matches!(refused, Err(DirectoryError::ReadOnly { .. })), "{refused:?}");
}

on_both! {
    rules_of_every_kind_are_there_after_a_restart,
    what_is_wrong_is_refused_and_changes_nothing,
    an_organisation_that_rules_name_keeps_its_name,
    the_first_egress_rule_counts_then_the_organisations_pool,
}
