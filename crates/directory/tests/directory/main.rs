//! The directory as its users see it: a file on disk, changes by many at once, logins.
#![allow(clippy::unwrap_used, reason = "tests")]

mod nodes;
mod place;
mod rules;
mod stops;
mod transfer;

use std::sync::Arc;

use directory::{
    AuditQuery, Authentication, CredentialChange, Directory, DirectoryError, NewCredential, NewKey, NewRoute,
    OrgChange, OrgState, Password, RouteTarget, Scope, Secret, SmartHost, SmartHostMore, SmartHostTls,
    Source,
};
use mail::{Address, Clock, Destination, OrgId};

use place::{Place, on_both};

type By = String;

fn by() -> By {
    "root (uid 0)".into()
}

fn open(dir: &tempfile::TempDir) -> Directory {
    Directory::open(dir.path(), Clock::system()).unwrap()
}

fn credential(login: &str, org: &str, password: Password) -> NewCredential {
    NewCredential {
        login: login.into(),
        org: org.into(),
        password,
        from_domains: vec![],
        networks: vec![],
        stream: mail::Stream::Transactional,
    }
}

fn chosen(password: &str, scram: bool) -> Password {
    Password::Chosen { password: Secret::new(password), scram }
}

fn route(domains: &[&str], senders: &[&str], to: &str) -> NewRoute {
    NewRoute {
        domains: domains.iter().map(|d| d.parse().unwrap()).collect(),
        senders: senders.iter().map(|d| d.parse().unwrap()).collect(),
        to: to.parse().unwrap(),
    }
}

fn smarthost(name: &str) -> SmartHost {
    SmartHost {
        name: name.into(),
        source: Source::Directory,
        hosts: vec!["smtp.upstream.example:587".parse().unwrap()],
        tls: SmartHostTls::Required,
        username: Some("user".into()),
        password: Some(Secret::new("upstream-secret")),
        more: SmartHostMore::default(),
    }
}

async fn works(directory: &Directory, login: &str, password: &str) -> bool {
    matches!(directory.authenticate(login, password).await, Authentication::Ok(_))
}

/// What a snapshot holds, but for rules and suppressions.
fn shown(state: &directory::Snapshot) -> serde_json::Value {
    serde_json::to_value((
        state.orgs().map(|o| serde_json::to_value(&**o).unwrap()).collect::<Vec<_>>(),
        state.credentials().map(|c| serde_json::to_value(&**c).unwrap()).collect::<Vec<_>>(),
        state.domains().map(|d| serde_json::to_value(&**d).unwrap()).collect::<Vec<_>>(),
        state.keys().map(|k| serde_json::to_value(&**k).unwrap()).collect::<Vec<_>>(),
        state.routes().map(|r| serde_json::to_value(&**r).unwrap()).collect::<Vec<_>>(),
        state.smarthosts().map(|s| serde_json::to_value(&**s).unwrap()).collect::<Vec<_>>(),
    ))
    .unwrap()
}

async fn what_was_changed_is_there_after_a_restart(place: Place) {
    let directory = place.open().await;
    let acme = directory.add_org("Acme", false, &by()).await.unwrap();
    directory.add_domain("Acme.Example", "acme", &by()).await.unwrap();
    let new = NewCredential {
        from_domains: vec!["acme.example".parse().unwrap(), "*.acme.example".parse().unwrap()],
        networks: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        ..credential("Shop", "acme", Password::Make)
    };
    let (_, password) = directory.add_credential(new, &by()).await.unwrap();
    let password = password.unwrap();
    directory
        .add_credential(credential("boss", "default", chosen("correct horse", false)), &by())
        .await
        .unwrap();
    let key = NewKey { name: "app".into(), org: "acme".into(), scope: Scope::Read, from_domains: vec![] };
    let (_, key) = directory.add_key(key, &by()).await.unwrap();
    directory.put_smarthost(smarthost("upstream"), false, &by()).await.unwrap();
    directory
        .add_route(route(&["a.example"], &["*@b.example"], "smarthost:upstream"), None, &by())
        .await
        .unwrap();
    let before = directory.snapshot();
    directory.close().await;
    assert!(matches!(directory.add_org("late", true, &by()).await, Err(DirectoryError::Closed)));

    let directory = place.open().await;
    let after = directory.snapshot();
    assert_eq!(shown(&before), shown(&after));
    assert_eq!(after.credential("sHOP").unwrap().org, acme.id);
    assert_eq!(after.smarthost("upstream").unwrap().password.as_ref().unwrap().expose(), "upstream-secret");
    assert!(works(&directory, "shop", password.expose()).await);
    assert!(works(&directory, "boss", "correct horse").await);
    assert_eq!(&*directory.authenticate_key(key.expose()).unwrap().name, "app");
    assert!(directory.authenticate_key("ph_00000000000000000000000000000000").is_none());
    // Numbers are not given twice, not even after a removal.
    let other = directory.add_org("other", true, &by()).await.unwrap();
    directory.remove_org("other", &by()).await.unwrap();
    assert!(directory.add_org("third", true, &by()).await.unwrap().id > other.id);
}

#[tokio::test]
async fn a_fresh_directory_has_the_default_organisation_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let directory = open(&dir);
    let state = directory.snapshot();
    let org = state.org_named("default").unwrap();
    assert_eq!((org.id, org.trusted, org.state), (OrgId::DEFAULT, true, OrgState::Active));
    assert_eq!(state.credentials().count(), 0);
    directory.add_org("x", true, &by()).await.unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

async fn refusals_name_the_asker(place: Place) {
    use DirectoryError::{Exists, InUse, Invalid, NotFound};
    let directory = place.open().await;
    let (d, me) = (&directory, &by());
    d.add_org("acme", true, me).await.unwrap();
    d.add_credential(credential("Shop", "acme", Password::Make), me).await.unwrap();
    d.add_domain("acme.example", "acme", me).await.unwrap();

    assert!(matches!(d.add_org("ACME", true, me).await, Err(Exists { .. })));
    assert!(matches!(d.add_org("no spaces", true, me).await, Err(Invalid(_))));
    assert!(matches!(d.add_org("", true, me).await, Err(Invalid(_))));
    assert!(matches!(d.set_org("nobody", OrgChange::default(), me).await, Err(NotFound { .. })));
    let rename = OrgChange { name: Some("other".into()), ..OrgChange::default() };
    assert!(matches!(d.set_org("default", rename, me).await, Err(Invalid(_))));
    assert!(matches!(d.remove_org("default", me).await, Err(Invalid(_))));
    let in_use = d.remove_org("acme", me).await.unwrap_err();
    assert!(
        matches!(&in_use, InUse(why) if why.contains("1 credentials") && why.contains("1 domains")),
        "{in_use}"
    );

    // One login for the whole relay, whatever the organisation and the case.
    assert!(matches!(
        d.add_credential(credential("shop", "default", Password::Make), me).await,
        Err(Exists { .. })
    ));
    assert!(matches!(
        d.add_credential(credential("a b", "default", Password::Make), me).await,
        Err(Invalid(_))
    ));
    assert!(matches!(
        d.add_credential(credential("a", "nobody", Password::Make), me).await,
        Err(NotFound { .. })
    ));
    assert!(matches!(
        d.add_credential(credential("a", "acme", chosen("short", false)), me).await,
        Err(Invalid(_))
    ));
    let odd =
        NewCredential { from_domains: vec!["*".parse().unwrap()], ..credential("a", "acme", Password::Make) };
    assert!(matches!(d.add_credential(odd, me).await, Err(Invalid(_))));
    assert!(d.snapshot().credential("a").is_none());
    assert!(matches!(d.add_domain("ACME.example", "default", me).await, Err(Exists { .. })));
    assert!(matches!(d.add_domain("-bad-", "default", me).await, Err(Invalid(_))));
    assert!(matches!(d.remove_domain("none.example", me).await, Err(NotFound { .. })));

    assert!(matches!(d.add_route(route(&[], &[], "smarthost:none"), None, me).await, Err(NotFound { .. })));
    assert!(matches!(d.add_route(route(&[], &[], "mx:a.example"), None, me).await, Err(Invalid(_))));
    assert!(matches!(d.remove_route(77, me).await, Err(NotFound { .. })));
    // A refused change leaves nothing on record.
    assert!(d.audit(AuditQuery::default()).await.unwrap().iter().all(|e| e.action == "add"));
    assert_eq!(d.audit(AuditQuery::default()).await.unwrap().len(), 3);
}

async fn logins(place: Place) {
    let directory = place.open().await;
    let (d, me) = (&directory, &by());
    let (_, made) = d.add_credential(credential("made", "default", Password::Make), me).await.unwrap();
    let made = made.unwrap();
    d.add_credential(credential("plain", "default", chosen("pässword 1", false)), me).await.unwrap();
    d.add_credential(credential("both", "default", chosen("password 2", true)), me).await.unwrap();
    for _ in 0..2 {
        // The second time from the cache.
        assert!(works(d, "made", made.expose()).await);
        assert!(works(d, "MADE", made.expose()).await);
        assert!(works(d, "plain", "pässword 1").await);
        assert!(works(d, "both", "password 2").await);
        for (login, password) in
            [("made", "x"), ("made", ""), ("plain", "password 2"), ("nobody", "x"), ("", "")]
        {
            assert!(matches!(d.authenticate(login, password).await, Authentication::Failed), "{login}");
        }
    }
    // SCRAM for made passwords, and for chosen ones only when asked for.
    for (login, wanted) in [("made", true), ("plain", false), ("both", true), ("nobody", false)] {
        assert_eq!(d.scram(login).credential.is_some(), wanted, "{login}");
    }
    // Who asks cannot tell that a login does not exist.
    let (fake, again, other) = (d.scram("nobody"), d.scram("NOBODY"), d.scram("nobody2"));
    assert_eq!(fake.verifier.salt, again.verifier.salt);
    assert_ne!(fake.verifier.salt, other.verifier.salt);
    let real = d.scram("made").verifier;
    assert_eq!((fake.verifier.salt.len(), fake.verifier.iterations), (real.salt.len(), real.iterations));

    // A change counts at once, whatever is in the cache.
    let change = CredentialChange { password: Some(Password::Make), ..Default::default() };
    let (changed, new) = d.set_credential("made", change, me).await.unwrap();
    assert_eq!(changed.generation, 2);
    assert!(!works(d, "made", made.expose()).await);
    assert!(works(d, "made", new.as_ref().unwrap().expose()).await);
    let off = CredentialChange { enabled: Some(false), ..Default::default() };
    let (_, none) = d.set_credential("made", off, me).await.unwrap();
    assert!(none.is_none());
    assert!(matches!(d.authenticate("made", new.unwrap().expose()).await, Authentication::Disabled(_)));
    assert!(d.scram("made").credential.is_none());
    let suspended = OrgChange { state: Some(OrgState::Suspended), ..Default::default() };
    d.set_org("default", suspended, me).await.unwrap();
    assert!(matches!(d.authenticate("both", "password 2").await, Authentication::Disabled(_)));
    assert!(matches!(d.authenticate("both", "wrong pass").await, Authentication::Failed));
    d.remove_credential("both", me).await.unwrap();
    assert!(matches!(d.authenticate("both", "password 2").await, Authentication::Failed));
}

#[tokio::test]
async fn a_failed_login_costs_the_same_whoever_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let directory = open(&dir);
    let (d, me) = (&directory, &by());
    d.add_credential(credential("made", "default", Password::Make), me).await.unwrap();
    d.add_credential(credential("chosen", "default", chosen("password 1", false)), me).await.unwrap();
    d.authenticate("warm up", "x").await;
    let mut least = [u64::MAX; 3];
    for round in 0..5 {
        for (slot, login) in least.iter_mut().zip(["made", "chosen", "nobody"]) {
            let before = cpu_ns();
            assert!(matches!(d.authenticate(login, &format!("wrong {round}")).await, Authentication::Failed));
            *slot = (*slot).min(cpu_ns() - before);
        }
    }
    let (low, high) = (least.iter().min().unwrap(), least.iter().max().unwrap());
    assert!(*high < low * 2, "{least:?}");
    // One that is remembered is at least ten times as cheap.
    let (_, password) = d.add_credential(credential("quick", "default", Password::Make), me).await.unwrap();
    let password = password.unwrap();
    assert!(works(d, "quick", password.expose()).await);
    let before = cpu_ns();
    assert!(works(d, "quick", password.expose()).await);
    let spent = cpu_ns() - before;
    assert!(spent * 10 < *low, "{spent} of {low}");
}

/// Processor time of all threads of this process, in nanoseconds; the clock on the wall would measure what else the
/// machine does.
fn cpu_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let spent = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.map(|task| spent(task.unwrap())).sum()
}

async fn many_at_once(place: Place) {
    let directory = place.open().await;
    // The same login from many at once: one wins. Different ones: all do.
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let directory = directory.clone();
            tokio::spawn(async move {
                let login = if n % 2 == 0 { "same".to_owned() } else { format!("login{n}") };
                directory.add_credential(credential(&login, "default", Password::Make), &by()).await.is_ok()
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap());
    }
    assert_eq!(won, 51);
    assert_eq!(directory.snapshot().credentials().count(), 51);
    directory.close().await;
    assert_eq!(place.open().await.snapshot().credentials().count(), 51);
}

async fn routes_are_asked_in_their_order_and_those_of_the_config_first(place: Place) {
    let directory = place.open().await;
    let (d, me) = (&directory, &by());
    let to = |sender: &str, recipient: &str| {
        let sender = (!sender.is_empty()).then(|| Address::parse(sender).unwrap());
        d.snapshot().route(sender.as_ref(), &Address::parse(recipient).unwrap()).0.to_string()
    };
    assert_eq!(to("a@x.example", "b@Y.example"), "mx:y.example");
    let last = d.add_route(route(&[], &["*@brand.example"], "discard"), None, me).await.unwrap();
    d.add_route(route(&["*.y.example"], &["*@brand.example"], "smtp://relay.example:25"), Some(last.id), me)
        .await
        .unwrap();
    assert_eq!(to("a@brand.example", "b@sub.y.example"), "smtp://relay.example:25");
    assert_eq!(to("a@brand.example", "b@y.example"), "discard");
    assert_eq!(to("a@x.example", "b@sub.y.example"), "mx:sub.y.example");
    assert_eq!(to("", "b@sub.y.example"), "mx:sub.y.example");

    let mut upstream = smarthost("upstream");
    d.put_smarthost(upstream.clone(), false, me).await.unwrap();
    upstream.hosts = vec!["other.example:25".parse().unwrap()];
    d.set_config(
        vec![route(&["sub.y.example"], &[], "smarthost:upstream"), route(&["mx.example"], &[], "mx")],
        vec![upstream],
    )
    .await
    .unwrap();
    assert_eq!(to("a@brand.example", "b@sub.y.example"), "smarthost:upstream");
    assert_eq!(to("a@brand.example", "b@mx.example"), "mx:mx.example");
    let state = d.snapshot();
    assert_eq!(
        state.routes().map(|r| r.source).collect::<Vec<_>>()[..3],
        [Source::Config, Source::Config, Source::Directory]
    );
    // The one in the config file hides the other, and cannot be changed here.
    assert_eq!(state.smarthost("upstream").unwrap().hosts[0].to_string(), "other.example:25");
    assert_eq!(state.smarthosts().count(), 1);
    assert!(matches!(
        d.put_smarthost(smarthost("upstream"), true, me).await,
        Err(DirectoryError::ReadOnly { .. })
    ));
    assert!(matches!(d.remove_smarthost("upstream", me).await, Err(DirectoryError::ReadOnly { .. })));
    d.set_config(vec![], vec![]).await.unwrap();
    assert_eq!(d.snapshot().smarthost("upstream").unwrap().hosts[0].to_string(), "smtp.upstream.example:587");

    // A smart host that a route leads to stays; without a new password it keeps the one it has.
    d.set_route(last.id, route(&[], &[], "smarthost:upstream"), me).await.unwrap();
    assert!(matches!(d.remove_smarthost("upstream", me).await, Err(DirectoryError::InUse(_))));
    d.put_smarthost(SmartHost { password: None, ..smarthost("upstream") }, true, me).await.unwrap();
    assert_eq!(d.snapshot().smarthost("upstream").unwrap().password, smarthost("upstream").password);
    let stranger = SmartHost { password: None, username: Some("else".into()), ..smarthost("upstream") };
    assert!(matches!(d.put_smarthost(stranger, true, me).await, Err(DirectoryError::Invalid(_))));
    d.remove_route(last.id, me).await.unwrap();
    d.remove_smarthost("upstream", me).await.unwrap();
    assert_eq!(
        d.snapshot().routes().next().map(|r| r.to.clone()),
        Some(RouteTarget::To(Destination::Smtp("relay.example:25".parse().unwrap())))
    );
}

async fn every_change_is_on_record_without_its_secrets(place: Place) {
    let directory = place.open().await;
    let (d, me) = (&directory, &by());
    let (_, made) = d.add_credential(credential("shop", "default", Password::Make), me).await.unwrap();
    let change = CredentialChange { password: Some(chosen("my chosen secret", true)), ..Default::default() };
    d.set_credential("shop", change, &"ann".to_owned()).await.unwrap();
    d.remove_credential("shop", me).await.unwrap();
    let key = NewKey { name: "k".into(), org: "default".into(), scope: Scope::Send, from_domains: vec![] };
    let (_, key) = d.add_key(key, me).await.unwrap();
    d.set_key("k", false, me).await.unwrap();
    assert!(d.authenticate_key(key.expose()).is_none());
    d.remove_key("K", me).await.unwrap();
    d.put_smarthost(smarthost("up"), false, me).await.unwrap();

    let all = d.audit(AuditQuery::default()).await.unwrap();
    let told: Vec<String> =
        all.iter().rev().map(|e| format!("{} {} {} {}", e.by, e.action, e.what, e.name)).collect();
    assert_eq!(
        told,
        [
            "root (uid 0) add credential shop",
            "ann set credential shop",
            "root (uid 0) remove credential shop",
            "root (uid 0) add key k",
            "root (uid 0) set key k",
            "root (uid 0) remove key k",
            "root (uid 0) add smarthost up",
        ]
    );
    let set = all.iter().find(|e| e.by == "ann").unwrap();
    assert_eq!(set.before.as_ref().unwrap()["generated"], true);
    assert_eq!(set.after.as_ref().unwrap()["generated"], false);
    let shop = AuditQuery { what: Some("credential".into()), limit: Some(2), ..Default::default() };
    let page = d.audit(shop.clone()).await.unwrap();
    assert_eq!(page.len(), 2);
    let rest = d.audit(AuditQuery { before: Some(page[1].id), ..shop }).await.unwrap();
    assert_eq!(rest.len(), 1);

    let text = serde_json::to_string(&all).unwrap() + &format!("{:?} {:?}", d.snapshot(), d.scram("shop"));
    for secret in [made.unwrap().expose(), "my chosen secret", key.expose(), "upstream-secret"] {
        assert!(!text.contains(secret));
    }
    // Nor is a password or key itself on disk.
    d.close().await;
    let kept = place.contents();
    let has = |needle: &str| kept.windows(needle.len()).any(|w| w == needle.as_bytes());
    assert!(!has("my chosen secret") && !has(key.expose()));
    assert!(has("upstream-secret"), "it has to be sent to the smart host");
}

async fn what_cannot_be_kept_is_refused(place: Place) {
    let d = place.open().await;
    let host = SmartHost { username: Some("us\0er".into()), ..smarthost("up") };
    let refused = d.put_smarthost(host, false, &by()).await;
    assert!(matches!(refused, Err(DirectoryError::Invalid(_))), "{refused:?}");
    // A name of any length has a place in the log of changes, and what is beside it is kept whole.
    let name = "é".repeat(100_000);
    d.record(&by(), "hold", ("queue", name.clone()), serde_json::json!({ "filter": name })).await.unwrap();
    let record = d.audit(AuditQuery::default()).await.unwrap();
    assert_eq!(record.len(), 1);
    assert_eq!(record[0].after.as_ref().unwrap()["filter"], name);
    assert!(record[0].name.chars().count() == 500 && name.starts_with(&record[0].name));
}

#[tokio::test]
async fn a_file_of_an_older_version_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let db = rusqlite::Connection::open(dir.path().join("directory.db")).unwrap();
    for step in [include_str!("../../src/migrations/0001.sql"), include_str!("../../src/migrations/0002.sql")]
    {
        db.execute_batch(&step.replace("directory.", "")).unwrap();
    }
    db.execute_batch(
        "CREATE TABLE schema_version (version BIGINT NOT NULL);
         INSERT INTO schema_version (version) VALUES (2);
         INSERT INTO org (id, name, trusted, state, created) VALUES (1, 'default', 1, 'active', 0);
         INSERT INTO org (id, name, trusted, state, created) VALUES (7, 'acme', 0, 'active', 0);
         UPDATE counter SET value = 7;
         INSERT INTO audit (id, at, actor, action, what, name) VALUES (41, 0, 'x', 'add', 'organisation', 'acme');",
    )
    .unwrap();
    drop(db);
    let d = open(&dir);
    assert_eq!(d.snapshot().org_named("acme").unwrap().id, OrgId(7));
    assert_eq!(d.add_org("next", true, &by()).await.unwrap().id, OrgId(8));
    assert_eq!(d.audit(AuditQuery::default()).await.unwrap()[0].id, 42);
}

#[tokio::test]
async fn a_newer_or_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory.db");
    let directory = open(&dir);
    directory.add_credential(credential("shop", "default", Password::Make), &by()).await.unwrap();
    directory.close().await;
    let good = std::fs::read(&path).unwrap();

    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE schema_version SET version = 99", []).unwrap();
    drop(db);
    let error = Directory::open(dir.path(), Clock::system()).unwrap_err();
    assert!(matches!(error, DirectoryError::Newer { found: 99, .. }), "{error}");

    std::fs::write(&path, &good).unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE credential SET scram = 'nonsense'", []).unwrap();
    drop(db);
    let error = Directory::open(dir.path(), Clock::system()).unwrap_err();
    assert!(matches!(&error, DirectoryError::Damaged { what, .. } if what.contains("shop")), "{error}");

    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let error = Directory::open(dir.path(), Clock::system()).unwrap_err();
    assert!(matches!(error, DirectoryError::Damaged { .. }), "{error}");

    std::fs::write(&path, &good).unwrap();
    assert!(Arc::new(open(&dir)).snapshot().credential("shop").is_some());
}

on_both! {
    what_was_changed_is_there_after_a_restart,
    refusals_name_the_asker,
    logins,
    many_at_once,
    routes_are_asked_in_their_order_and_those_of_the_config_first,
    every_change_is_on_record_without_its_secrets,
    what_cannot_be_kept_is_refused,
}
