//! Several nodes on one PostgreSQL: what one changes the others see; nobody changes what is no longer so; a database that
//! goes and comes back.

use std::future::Future;
use std::time::Duration;

use directory::rule::{Alias, Egress, Pool, Source as Outgoing, Suspension};
use directory::{
    AuditQuery, CredentialChange, Directory, DirectoryError, NewKey, NewSuppression, OrgChange, Password,
    Scope, SuppressedBy, SuppressionQuery,
};
use mail::{Address, BounceClass, Clock};
use postgres::test::Server;
use postgres::{PgError, Pool as Connections};

use crate::place::{Place, sql};
use crate::{by, chosen, credential, route, shown, smarthost, works};

async fn node(config: &postgres::Config) -> Directory {
    let pool = Connections::connect(config.clone()).await.unwrap();
    Directory::open_postgres(pool, Clock::system()).await.unwrap()
}

async fn two_nodes() -> (postgres::Config, Directory, Directory) {
    let config = Server::shared().database();
    let (a, b) = (node(&config).await, node(&config).await);
    (config, a, b)
}

/// How long it took until it was so.
async fn until(mut is: impl FnMut() -> bool) -> Duration {
    let clock = Clock::system();
    let since = clock.mono();
    while !is() {
        assert!(clock.mono().since(since) < Duration::from_secs(20), "it has not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    clock.mono().since(since)
}

/// Everything that a node has, and what it reads from the database.
async fn all_of(d: &Directory) -> serde_json::Value {
    let suppressed = d.suppressions(SuppressionQuery::default()).await.unwrap();
    let in_memory = suppressed.iter().map(|s| {
        let address = Address::parse(&s.address).unwrap();
        d.snapshot().suppressed(s.org, &address).map(|s| serde_json::to_value(&**s).unwrap())
    });
    let in_memory: Vec<_> = in_memory.collect();
    let state = d.snapshot();
    serde_json::to_value((
        shown(&state),
        in_memory,
        state.rules::<Outgoing>().map(|e| serde_json::to_value(&**e).unwrap()).collect::<Vec<_>>(),
        state.rules::<Pool>().map(|e| serde_json::to_value(&**e).unwrap()).collect::<Vec<_>>(),
        state.rules::<Egress>().map(|e| serde_json::to_value(&**e).unwrap()).collect::<Vec<_>>(),
        state.rules::<Alias>().map(|e| serde_json::to_value(&**e).unwrap()).collect::<Vec<_>>(),
    ))
    .unwrap()
}

fn suppression(address: &str) -> NewSuppression {
    NewSuppression {
        org: "default".into(),
        address: Address::parse(address).unwrap(),
        class: BounceClass::Recipient,
        reason: "550 5.1.1 no such user".into(),
        source: SuppressedBy::Bounce,
    }
}

fn key(name: &str) -> NewKey {
    NewKey { name: name.into(), org: "default".into(), scope: Scope::Send, from_domains: vec![] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_the_other_node_within_a_second() {
    let (_, a, b) = two_nodes().await;
    let (ra, rb) = (&a, &b);
    let me = &by();
    let mut took = Vec::new();
    for n in 0..5 {
        let name = format!("org{n}");
        ra.add_org(&name, true, me).await.unwrap();
        took.push(until(|| rb.snapshot().org_named(&name).is_some()).await);
    }
    took.sort();
    // One may have been unlucky: the machine tests other things beside.
    assert!(took[3] < Duration::from_secs(1), "{took:?}");

    // Of every kind, in both directions, coming, changing and going.
    let (_, password) = a.add_credential(credential("shop", "org1", Password::Make), me).await.unwrap();
    until(|| b.snapshot().credential("SHOP").is_some()).await;
    assert!(works(&b, "shop", password.unwrap().expose()).await);
    let change = CredentialChange { password: Some(chosen("another password", false)), ..Default::default() };
    b.set_credential("shop", change, me).await.unwrap();
    until(|| a.snapshot().credential("shop").unwrap().generation == 2).await;
    assert!(works(&a, "shop", "another password").await);
    let (_, first) = a.add_key(key("app"), me).await.unwrap();
    until(|| b.authenticate_key(first.expose()).is_some()).await;
    b.remove_key("app", me).await.unwrap();
    let (_, second) = b.add_key(key("app"), me).await.unwrap();
    until(|| a.authenticate_key(second.expose()).is_some()).await;
    assert!(a.authenticate_key(first.expose()).is_none(), "a key that was replaced opens nothing");
    let bob = Address::parse("bob@example.com").unwrap();
    let org = a.snapshot().org_named("default").unwrap().id;
    a.suppress(suppression("bob@example.com"), me).await.unwrap();
    until(|| b.snapshot().suppressed(org, &bob).is_some()).await;
    b.unsuppress("default", &bob, me).await.unwrap();
    until(|| a.snapshot().suppressed(org, &bob).is_none()).await;
    b.put_smarthost(smarthost("up"), false, me).await.unwrap();
    a.add_route(route(&["a.example"], &[], "smarthost:up"), None, me).await.unwrap();
    until(|| b.snapshot().routes().count() == 1).await;
    let stop = b.add_rule(None, Suspension::default(), None, me).await.unwrap();
    until(|| a.snapshot().rule::<Suspension>(&stop.id).is_some()).await;
    a.remove_rule::<Suspension>(&stop.id, me).await.unwrap();
    until(|| b.snapshot().rules::<Suspension>().count() == 0).await;
    assert_eq!(all_of(&a).await, all_of(&b).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_is_made_of_an_old_state() {
    let (_, a, b) = two_nodes().await;
    let me = &by();
    // Each time at the other node, which has had no time to look.
    for n in 0..10 {
        let org = format!("org{n}");
        a.add_org(&org, true, me).await.unwrap();
        b.add_credential(credential("shop", &org, Password::Make), me).await.unwrap();
        assert!(matches!(a.remove_org(&org, me).await, Err(DirectoryError::InUse(_))));
        let again = a.add_credential(credential("SHOP", &org, Password::Make), me).await;
        assert!(matches!(again, Err(DirectoryError::Exists { .. })));
        b.remove_credential("shop", me).await.unwrap();
        a.remove_org(&org, me).await.unwrap();
        let orphan = b.add_credential(credential("shop", &org, Password::Make), me).await;
        assert!(matches!(orphan, Err(DirectoryError::NotFound { .. })));
    }
    // Names that change hands.
    a.add_org("one", true, me).await.unwrap();
    b.add_org("two", true, me).await.unwrap();
    let rename = |to: &str| OrgChange { name: Some(to.into()), ..OrgChange::default() };
    a.set_org("one", rename("three"), me).await.unwrap();
    b.set_org("two", rename("one"), me).await.unwrap();
    a.set_org("three", rename("two"), me).await.unwrap();
    until(|| b.snapshot().org_named("three").is_none()).await;
    for name in ["one", "two"] {
        let id = |d: &Directory| d.snapshot().org_named(name).unwrap().id;
        assert_eq!(id(&a), id(&b), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_nodes_at_once() {
    let (config, a, b) = two_nodes().await;
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let d = if n % 3 == 0 { a.clone() } else { b.clone() };
            tokio::spawn(async move {
                let login = if n % 2 == 0 { "same".to_owned() } else { format!("login{n}") };
                d.add_credential(credential(&login, "default", Password::Make), &by()).await
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok((credential, _)) => ids.push(credential.id),
            Err(e) => assert!(matches!(e, DirectoryError::Exists { .. }), "{e}"),
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 51, "every number is given once");
    let record: Vec<i64> =
        a.audit(AuditQuery::default()).await.unwrap().iter().map(|entry| entry.id).collect();
    assert_eq!(record, (1..=51).rev().collect::<Vec<_>>());
    let fresh = all_of(&node(&config).await).await;
    for d in [&a, &b] {
        until(|| d.snapshot().credentials().count() == 51).await;
        assert_eq!(all_of(d).await, fresh);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_open_an_empty_database_at_once_agree() {
    let config = Server::shared().database();
    let nodes: Vec<_> = (0..5)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { node(&config).await })
        })
        .collect();
    let mut salts = Vec::new();
    for node in nodes {
        let d = node.await.unwrap();
        assert_eq!(d.snapshot().orgs().count(), 1);
        salts.push(d.scram("nobody").verifier.salt);
    }
    salts.dedup();
    assert_eq!(salts.len(), 1, "who asks several nodes cannot tell either that a login does not exist");
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Something that an operator may do, right or wrong.
async fn some_change(d: &Directory, dice: &mut Dice) -> Result<(), DirectoryError> {
    let me = &by();
    let name = format!("n{}", dice.below(6));
    let other = format!("n{}", dice.below(6));
    let address = format!("{name}@{other}.example");
    match dice.below(16) {
        0 => d.add_org(&name, dice.below(2) == 0, me).await.map(drop),
        1 => d.remove_org(&name, me).await,
        2 => d.set_org(&name, OrgChange { name: Some(other), ..OrgChange::default() }, me).await.map(drop),
        3 => d.add_domain(&format!("{name}.example"), &other, me).await.map(drop),
        4 => d.remove_domain(&format!("{name}.example"), me).await,
        5 => d.add_credential(credential(&name, &other, Password::Make), me).await.map(drop),
        6 => d.remove_credential(&name, me).await,
        7 => d.add_key(NewKey { org: other, ..key(&name) }, me).await.map(drop),
        8 => d.remove_key(&name, me).await,
        9 => d.suppress(suppression(&address), me).await.map(drop),
        10 => d.unsuppress("default", &Address::parse(&address).unwrap(), me).await,
        11 => {
            let before = d.snapshot().routes().nth(dice.below(3) as usize).map(|r| r.id);
            d.add_route(route(&[&format!("{name}.example")], &[], "discard"), before, me).await.map(drop)
        }
        12 => match d.snapshot().routes().next() {
            Some(first) => d.remove_route(first.id, me).await,
            None => Ok(()),
        },
        13 => d.put_smarthost(smarthost(&name), dice.below(2) == 0, me).await.map(drop),
        14 => {
            let alias = Alias { from: address, to: vec!["x@y.example".into()], org: None };
            let before = d.snapshot().rules::<Alias>().nth(1).map(|e| e.id.to_string());
            d.add_rule(None, alias, before, me).await.map(drop)
        }
        _ => match d.snapshot().rules::<Alias>().last() {
            Some(last) => d.remove_rule::<Alias>(&last.id, me).await.map(drop),
            None => Ok(()),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_two_nodes_do_they_have_the_same_afterwards() {
    let (config, a, b) = two_nodes().await;
    let act = async |d: &Directory, seed: u64| {
        let mut dice = Dice(seed);
        let mut done = 0;
        for _ in 0..250 {
            match some_change(d, &mut dice).await {
                Ok(()) => done += 1,
                Err(
                    DirectoryError::Exists { .. }
                    | DirectoryError::NotFound { .. }
                    | DirectoryError::InUse(_)
                    | DirectoryError::Invalid(_),
                ) => {}
                Err(e) => panic!("seed {seed}: {e}"),
            }
        }
        assert!(done > 50, "seed {seed}: only {done} changes were possible");
    };
    tokio::join!(act(&a, 0x9e37_79b9_7f4a_7c15), act(&b, 0xd1b5_4a32_d192_ed03));
    let fresh = all_of(&node(&config).await).await;
    for d in [&a, &b] {
        let now = async || {
            while all_of(d).await != fresh {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let same = tokio::time::timeout(Duration::from_secs(5), now()).await;
        assert!(same.is_ok(), "{} is not {fresh}", all_of(d).await);
    }
}

/// Makes an organisation behind the nodes' backs, without telling anybody, as version `number` + `more`.
fn add_silently(config: &postgres::Config, name: &str, more: u32, touched: &str) {
    let statements = format!(
        "BEGIN; UPDATE directory.head SET version = version + {more}, batch = '{name}', ids = ids + 1; \
         INSERT INTO directory.org (id, name, trusted, state, created) \
             SELECT ids, '{name}', 1, 'active', 0 FROM directory.head; \
         INSERT INTO directory.change SELECT version, batch, replace('{touched}', 'ID', ids::text) \
             FROM directory.head; COMMIT"
    );
    sql(config, &statements);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_tells_is_found_by_looking() {
    let (config, a, _) = two_nodes().await;
    a.set_config(vec![route(&["config.example"], &[], "discard")], vec![]).await.unwrap();
    add_silently(&config, "quiet", 1, r#"[{"org":ID}]"#);
    until(|| a.snapshot().org_named("quiet").is_some()).await;
    // A kind of thing that only a newer version has: everything is read.
    add_silently(&config, "newer", 1, r#"[{"satellite":ID}]"#);
    until(|| a.snapshot().org_named("newer").is_some()).await;
    // The list does not go back as far as this node: everything is read.
    sql(&config, "DELETE FROM directory.change");
    add_silently(&config, "far", 20_000, "[]");
    until(|| a.snapshot().org_named("far").is_some()).await;
    assert_eq!(a.snapshot().routes().count(), 1, "what the config file says stays");
    // And it goes on from there.
    assert!(matches!(a.add_org("far", true, &by()).await, Err(DirectoryError::Exists { .. })));
    let id = a.add_org("next", true, &by()).await.unwrap().id;
    assert!(a.snapshot().orgs().all(|org| org.id <= id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_a_fail_over_has_lost_is_forgotten() {
    let (config, a, b) = two_nodes().await;
    let me = &by();
    a.add_org("kept", true, me).await.unwrap();
    a.add_org("lost", true, me).await.unwrap();
    until(|| b.snapshot().org_named("lost").is_some()).await;
    // As a standby has it that had not received the last commit; and the number is given again at once.
    sql(
        &config,
        "BEGIN; DELETE FROM directory.org WHERE name = 'lost'; \
         INSERT INTO directory.org (id, name, trusted, state, created) SELECT ids, 'other', 1, 'active', 0 FROM directory.head; \
         UPDATE directory.head SET batch = 'elsewhere'; \
         UPDATE directory.change SET batch = 'elsewhere' WHERE version = (SELECT version FROM directory.head); \
         COMMIT",
    );
    for d in [&a, &b] {
        until(|| d.snapshot().org_named("other").is_some()).await;
        assert!(d.snapshot().org_named("lost").is_none() && d.snapshot().org_named("kept").is_some());
    }
    // The same before anybody has looked.
    a.add_org("lost", true, me).await.unwrap();
    sql(
        &config,
        "BEGIN; DELETE FROM directory.org WHERE name = 'lost'; DELETE FROM directory.audit WHERE name = 'lost'; \
         DELETE FROM directory.change WHERE version = (SELECT version FROM directory.head); \
         UPDATE directory.head SET version = version - 1, ids = ids - 1, audits = audits - 1, batch = 'elsewhere'; \
         COMMIT",
    );
    b.add_org("lost", true, me).await.unwrap();
    until(|| {
        a.snapshot().org_named("lost").map(|o| o.created) == b.snapshot().org_named("lost").map(|o| o.created)
    })
    .await;
    assert_eq!(all_of(&a).await, all_of(&b).await);
}

/// A server of the test's own, which it may stop.
async fn own_server() -> (Server, Directory) {
    let server = Server::start(&[]);
    let directory = node(&server.database()).await;
    (server, directory)
}

async fn finished<T>(task: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), task).await.expect("it has not ended")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_waits_for_a_database_that_comes_back() {
    let (server, d) = own_server().await;
    let (_, password) = d.add_credential(credential("shop", "default", Password::Make), &by()).await.unwrap();
    until(|| d.behind() < Duration::from_millis(100)).await;
    server.down();
    // What passes mail needs is in memory.
    assert!(works(&d, "shop", password.unwrap().expose()).await);
    let waits = tokio::spawn({
        let d = d.clone();
        async move { d.add_org("acme", true, &by()).await }
    });
    tokio::task::yield_now().await;
    assert!(d.snapshot().org_named("acme").is_none());
    until(|| d.behind() > Duration::from_secs(1)).await;
    // A reload of the config file does not wait for it.
    let config = d.set_config(vec![route(&["config.example"], &[], "discard")], vec![]);
    tokio::time::timeout(Duration::from_secs(1), config).await.unwrap().unwrap();
    server.up();
    finished(waits).await.unwrap().unwrap();
    let state = d.snapshot();
    assert!(state.org_named("acme").is_some() && state.routes().count() == 1);
    assert_eq!(d.audit(AuditQuery::default()).await.unwrap().len(), 2);
    until(|| d.behind() < Duration::from_secs(1)).await;
    finished(d.close()).await;
    assert!(matches!(d.add_org("late", true, &by()).await, Err(DirectoryError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_which_nobody_can_tell_is_made_once() {
    let (server, d) = own_server().await;
    let waiting = || {
        server
            .sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            .lines()
            .next()
            .map(str::to_owned)
    };
    // A standby that never answers: the commit is on this server's disk, and hangs.
    server.set("synchronous_standby_names", "nobody");
    let change = tokio::spawn({
        let d = d.clone();
        async move { d.add_org("acme", true, &by()).await }
    });
    until(|| waiting().is_some()).await;
    let first = waiting().unwrap();
    server.sql(&format!("SELECT pg_terminate_backend({first})"));
    // It is tried again, finds what it has made, and waits for the standby as it must.
    until(|| waiting().is_some_and(|pid| pid != first)).await;
    assert!(!change.is_finished() && d.snapshot().org_named("acme").is_none(), "not before a standby has it");
    server.set("synchronous_standby_names", "");
    finished(change).await.unwrap().unwrap();
    assert!(d.snapshot().org_named("acme").is_some());
    assert_eq!(d.audit(AuditQuery::default()).await.unwrap().len(), 1, "made once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_or_a_damaged_row_is_refused() {
    let place = Place::postgres();
    let Place::Postgres(config) = &place else { unreachable!("it is on PostgreSQL") };
    let d = place.open().await;
    d.add_credential(credential("shop", "default", Password::Make), &by()).await.unwrap();
    let refused = d.backup("/nonexistent/file".into()).await.unwrap_err();
    assert!(refused.to_string().contains("pg_basebackup"), "{refused}");

    // One that only has more is worked with; one that has less is not.
    sql(config, "UPDATE posthouse_schema SET version = 99 WHERE name = 'directory'");
    place.open().await;
    sql(config, "UPDATE posthouse_schema SET readable_by = 99 WHERE name = 'directory'");
    let error = place.try_open().await.unwrap_err();
    assert!(matches!(error, DirectoryError::Postgres(PgError::Newer { found: 99, .. })), "{error}");
    sql(config, "UPDATE posthouse_schema SET version = 3, readable_by = 3 WHERE name = 'directory'");
    place.open().await;
    sql(config, "UPDATE directory.credential SET scram = 'nonsense'");
    let error = place.try_open().await.unwrap_err();
    assert!(matches!(&error, DirectoryError::Damaged { what, .. } if what.contains("shop")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_change_breaks_does_not_stop_the_others() {
    let (config, a, b) = two_nodes().await;
    let me = &by();
    // A row that no node knows of: who takes this name breaks a constraint.
    sql(&config, "INSERT INTO directory.domain (name, org, created) VALUES ('hidden.example', 1, 0)");
    let names = ["one.example", "hidden.example", "two.example"];
    let [one, hidden, two] = names.map(|name| a.add_domain(name, "default", me));
    let (one, hidden, two) = tokio::join!(one, hidden, two);
    assert!(one.is_ok() && two.is_ok());
    assert!(matches!(hidden, Err(DirectoryError::Commit(_))), "{hidden:?}");
    until(|| b.snapshot().domains().count() == 2).await;
    assert_eq!(a.audit(AuditQuery::default()).await.unwrap().len(), 2);
}
