//! What `posthouse migrate` carries of the directory: all of it, in both directions; and what nodes are told and share.

use directory::transfer::{PAGE, Side, tables};
use directory::{AuditQuery, Directory, NewSuppression, Password, SuppressedBy};
use mail::{Address, BounceClass};
use postgres::Pool;

use crate::place::{Place, on_both};
use crate::{by, chosen, credential, route, shown, smarthost, works};

/// A side on which nobody works.
async fn side(place: &Place) -> Side {
    match place {
        Place::File(dir) => Side::file(dir.path()).unwrap(),
        Place::Postgres(config) => Side::tables(Pool::connect(config.clone()).await.unwrap()).await.unwrap(),
    }
}

async fn fill(directory: &Directory) {
    let me = &by();
    directory.add_org("acme", false, me).await.unwrap();
    directory.add_domain("acme.example", "acme", me).await.unwrap();
    directory.add_credential(credential("Office", "acme", chosen("correct horse", false)), me).await.unwrap();
    directory.add_credential(credential("shop", "default", Password::Make), me).await.unwrap();
    directory.put_smarthost(smarthost("up"), false, me).await.unwrap();
    directory.add_route(route(&["a.example"], &[], "smarthost:up"), None, me).await.unwrap();
    for n in 0..30 {
        let suppression = NewSuppression {
            org: "acme".into(),
            address: Address::parse(&format!("user{n}@gone.example")).unwrap(),
            class: BounceClass::Recipient,
            reason: "550 5.1.1 no such user".into(),
            source: SuppressedBy::Bounce,
        };
        directory.suppress(suppression, me).await.unwrap();
    }
}

async fn carry(from: &Side, to: &Side) {
    to.clear().await.unwrap();
    // Twice, as whoever was interrupted does.
    for _ in 0..2 {
        for table in tables() {
            let mut after = None;
            loop {
                let page = from.rows(table, after.as_ref()).await.unwrap();
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                to.put(table, &page).await.unwrap();
            }
        }
    }
    to.finish(from).await.unwrap();
    for table in tables() {
        let rows = from.rows(table, None).await.unwrap();
        assert!(rows.len() < PAGE);
        assert_eq!(rows, to.rows(table, None).await.unwrap(), "{table}");
        let octets =
            |rows: &[directory::transfer::Carried]| rows.iter().map(|r| r.octets()).collect::<Vec<_>>();
        assert_eq!(octets(&rows), octets(&to.rows(table, None).await.unwrap()));
    }
}

async fn goes_there_and_comes_back(from: Place, to: Place) {
    let directory = from.open().await;
    fill(&directory).await;
    let secret = directory.shared_secret("keys", || b"one".to_vec()).await.unwrap();
    let (before, audit) = (directory.snapshot(), directory.audit(AuditQuery::default()).await.unwrap());
    directory.close().await;

    let (source, target) = (side(&from).await, side(&to).await);
    assert!(target.is_empty().await.unwrap() && !source.is_empty().await.unwrap());
    carry(&source, &target).await;
    assert!(!target.is_empty().await.unwrap());
    assert_eq!(target.shared_secret("keys").await.unwrap(), None, "carried apart");
    assert_eq!(source.shared_secret("keys").await.unwrap(), Some(secret));
    target.set_shared_secret("keys", b"two").await.unwrap();
    drop((source, target));

    let directory = to.open().await;
    assert_eq!(shown(&before), shown(&directory.snapshot()));
    assert_eq!(audit, directory.audit(AuditQuery::default()).await.unwrap());
    assert!(works(&directory, "office", "correct horse").await);
    assert_eq!(directory.shared_secret("keys", || b"three".to_vec()).await.unwrap(), b"two");
    // Numbers go on where they were.
    let highest = directory.snapshot().orgs().map(|o| o.id.0).max().unwrap();
    let new = directory.add_org("later", true, &by()).await.unwrap();
    assert!(
        new.id.0 > highest && directory.audit(AuditQuery::default()).await.unwrap().len() == audit.len() + 1
    );
    let state = directory.snapshot();
    directory.close().await;
    carry(&side(&to).await, &side(&from).await).await;
    assert_eq!(shown(&state), shown(&from.open().await.snapshot()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_file_to_postgresql_and_back() {
    goes_there_and_comes_back(Place::file(), Place::postgres()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_postgresql_to_a_file_and_back() {
    goes_there_and_comes_back(Place::postgres(), Place::file()).await;
}

async fn changes_are_told_and_what_the_config_says_is_not(place: Place) {
    let directory = place.open().await;
    let mut changes = directory.changes();
    let before = *changes.borrow_and_update();
    directory.set_config(vec![route(&["a.example"], &[], "mx")], Vec::new()).await.unwrap();
    assert!(!changes.has_changed().unwrap());
    directory.add_org("acme", true, &by()).await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), before + 1);
    directory.add_org("acme", true, &by()).await.unwrap_err();
    assert!(!changes.has_changed().unwrap());
}

async fn a_secret_is_made_once(place: Place) {
    let directory = place.open().await;
    let (a, b) = tokio::join!(
        directory.shared_secret("keys", || vec![1, 0, 255]),
        directory.shared_secret("keys", || vec![2])
    );
    assert_eq!(a.unwrap(), b.unwrap());
    let kept = directory.shared_secret("keys", || vec![3]).await.unwrap();
    assert!(kept == [1, 0, 255] || kept == [2], "{kept:?}");
    assert_eq!(directory.shared_secret("others", || vec![4]).await.unwrap(), [4]);
    directory.close().await;
    assert_eq!(place.open().await.shared_secret("keys", || vec![5]).await.unwrap(), kept);
}

on_both!(changes_are_told_and_what_the_config_says_is_not, a_secret_is_made_once);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_nodes_change_is_told_and_its_secret_is_ours() {
    let place = Place::postgres();
    let (a, b) = (place.open().await, place.open().await);
    let mut changes = b.changes();
    changes.borrow_and_update();
    a.add_org("acme", true, &by()).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    assert!(b.snapshot().org_named("acme").is_some());
    let (one, two) = tokio::join!(a.shared_secret("k", || vec![1]), b.shared_secret("k", || vec![2]));
    assert_eq!(one.unwrap(), two.unwrap());
}
