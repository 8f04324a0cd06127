//! Suspensions and suppressions; what a login's mail is; what was done to the queue.

use std::collections::BTreeSet;

use directory::rule::Suspension;
use directory::{
    AuditQuery, CredentialChange, DirectoryError, NewSuppression, Password, SuppressedBy, SuppressionQuery,
};
use mail::{Address, BounceClass, OrgId, Stream, Timestamp};

use crate::place::{Place, on_both};
use crate::{by, credential};

fn suppression(org: &str, address: &str) -> NewSuppression {
    NewSuppression {
        org: org.into(),
        address: Address::parse(address).unwrap(),
        class: BounceClass::Recipient,
        reason: "550 5.1.1 no such user\r\nreally".into(),
        source: SuppressedBy::Bounce,
    }
}

async fn an_address_is_suppressed_for_one_organisation_whatever_the_case(place: Place) {
    let d = place.open().await;
    let acme = d.add_org("acme", false, &by()).await.unwrap().id;
    let (it, is_new) = d.suppress(suppression("acme", "Bob@Example.COM"), &by()).await.unwrap();
    assert!(is_new);
    assert_eq!((&*it.address, &*it.reason), ("bob@example.com", "550 5.1.1 no such user  really"));
    let bob = Address::parse("bOB@example.com").unwrap();
    let (_, is_new) = d.suppress(suppression("acme", "bob@example.com"), &by()).await.unwrap();
    assert!(!is_new);
    assert!(d.snapshot().suppressed(acme, &bob).is_some());
    assert!(d.snapshot().suppressed(OrgId::DEFAULT, &bob).is_none());
    assert!(matches!(d.remove_org("acme", &by()).await, Err(DirectoryError::InUse(_))));
    d.close().await;
    let d = place.open().await;
    assert_eq!(d.snapshot().suppressed(acme, &bob), Some(&it), "also after a restart");
    d.unsuppress("acme", &bob, &by()).await.unwrap();
    assert!(d.snapshot().suppressed(acme, &bob).is_none());
    assert!(matches!(d.unsuppress("acme", &bob, &by()).await, Err(DirectoryError::NotFound { .. })));
    let record =
        d.audit(AuditQuery { what: Some("suppression".into()), ..AuditQuery::default() }).await.unwrap();
    assert_eq!(record.iter().map(|e| e.action.as_str()).collect::<Vec<_>>(), ["remove", "add"]);
}

async fn many_suppressions_are_listed_by_page(place: Place) {
    let d = place.open().await;
    d.add_org("acme", false, &by()).await.unwrap();
    for n in 0..60 {
        let org = if n % 3 == 0 { "acme" } else { "default" };
        d.suppress(suppression(org, &format!("u{n}@d{}.example", n % 2)), &by()).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    let mut after = None;
    loop {
        let query = SuppressionQuery { after: after.take(), limit: Some(7), ..SuppressionQuery::default() };
        let page = d.suppressions(query).await.unwrap();
        let last = page.last().map(|s| (s.org, s.address.to_string()));
        let full = page.len() == 7;
        assert!(page.into_iter().all(|s| seen.insert((s.org, s.address.to_string()))), "each once");
        if !full {
            break;
        }
        after = last;
    }
    assert_eq!(seen.len(), 60);
    let acme = d.snapshot().org_named("acme").unwrap().id;
    let query =
        SuppressionQuery { org: Some(acme), text: Some("@D1.".into()), ..SuppressionQuery::default() };
    assert_eq!(d.suppressions(query).await.unwrap().len(), 10);
}

async fn suspensions_are_kept_until_they_are_over(place: Place) {
    let d = place.open().await;
    let suspension = Suspension {
        site: Some("gmail".into()),
        stream: Some(Stream::Bulk),
        until: Some(Timestamp(1_000)),
        reason: "they asked us to".into(),
        by: by(),
        since: Some(Timestamp(500)),
        ..Suspension::default()
    };
    let entry = d.add_rule(None, suspension.clone(), None, &by()).await.unwrap();
    d.close().await;
    let d = place.open().await;
    let kept = d.snapshot().rule::<Suspension>(&entry.id).cloned().unwrap();
    assert_eq!(kept.rule, suspension);
    assert_eq!(kept.rule.scope(), "stream bulk, site gmail");
    assert_eq!(kept.rule.at_site().unwrap().to_string(), "provider:gmail");
    assert!(!kept.rule.is_over(Timestamp(999)) && kept.rule.is_over(Timestamp(1_000)));
    let bad = Suspension { site: Some("no site".into()), ..Suspension::default() };
    assert!(d.add_rule(None, bad, None, &by()).await.is_err());
    let unknown = Suspension { source: Some("fast".into()), ..Suspension::default() };
    assert!(matches!(d.add_rule(None, unknown, None, &by()).await, Err(DirectoryError::NotFound { .. })));
    d.remove_rule::<Suspension>(&entry.id, &by()).await.unwrap();
    assert_eq!(d.snapshot().rules::<Suspension>().count(), 0);
}

async fn a_logins_stream_is_kept_and_changed(place: Place) {
    let d = place.open().await;
    let new =
        directory::NewCredential { stream: Stream::Bulk, ..credential("news", "default", Password::Make) };
    let (made, _) = d.add_credential(new, &by()).await.unwrap();
    assert_eq!(made.stream, Stream::Bulk);
    d.close().await;
    let d = place.open().await;
    assert_eq!(d.snapshot().credential("news").unwrap().stream, Stream::Bulk);
    let change = CredentialChange { stream: Some(Stream::Transactional), ..CredentialChange::default() };
    let (set, _) = d.set_credential("news", change, &by()).await.unwrap();
    assert_eq!(set.stream, Stream::Transactional);
}

async fn what_was_done_to_the_queue_is_on_record_and_found(place: Place) {
    let d = place.open().await;
    let detail = serde_json::json!({ "changed": 3 });
    d.record(&"ann (uid 7)".to_owned(), "hold", ("queue", "org acme".into()), detail).await.unwrap();
    d.add_org("acme", false, &by()).await.unwrap();
    let count = async |query: AuditQuery| d.audit(query).await.unwrap().len();
    assert_eq!(count(AuditQuery::default()).await, 2);
    assert_eq!(count(AuditQuery { what: Some("queue".into()), ..AuditQuery::default() }).await, 1);
    assert_eq!(count(AuditQuery { by: Some("ann".into()), ..AuditQuery::default() }).await, 1);
    let entry = &d.audit(AuditQuery { by: Some("ann".into()), ..AuditQuery::default() }).await.unwrap()[0];
    assert_eq!((entry.action.as_str(), entry.after.as_ref().unwrap()["changed"].as_i64()), ("hold", Some(3)));
    let soon = Timestamp(entry.at.millis() + 3_600_000);
    assert_eq!(count(AuditQuery { since: Some(soon), ..AuditQuery::default() }).await, 0);
    assert_eq!(count(AuditQuery { since: Some(entry.at), ..AuditQuery::default() }).await, 2);
}

on_both! {
    an_address_is_suppressed_for_one_organisation_whatever_the_case,
    many_suppressions_are_listed_by_page,
    suspensions_are_kept_until_they_are_over,
    a_logins_stream_is_kept_and_changed,
    what_was_done_to_the_queue_is_on_record_and_found,
}
