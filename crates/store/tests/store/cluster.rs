//! Several nodes on one database: claims, fencing, taking over, and what one node sees of another's work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mail::{Disposition, Event, EventKind, ManualClock, RecipientStatus, State, Timestamp};
use postgres::test::Server;
use postgres::{Config, Pool};
use store::{
    Action, Admission, Admitted, Dedupe, Fence, NewState, Next, Objects, PostgresConfig, QueueFilter,
    Recovery, Settlement, Store, StoreError,
};
use tempfile::TempDir;

use crate::common::*;

mod content;
mod horizon;
mod lost;
mod objects;
mod told;

/// A database and a clock that all nodes share.
struct Cluster {
    config: Config,
    dir: TempDir,
    clock: ManualClock,
}

const A: u16 = 1;
const B: u16 = 2;

impl Cluster {
    fn new() -> Self {
        let config = Server::shared().database();
        Self { config, dir: tempfile::tempdir().unwrap(), clock: ManualClock::new(START) }
    }

    async fn pool(&self) -> Pool {
        Pool::connect(self.config.clone()).await.unwrap()
    }

    async fn try_open(&self, node: u16, epoch: i64, pool: Pool) -> Result<(Store, Recovery), StoreError> {
        let spool = self.dir.path().join(format!("spool-{node}-{epoch}"));
        let mut config = PostgresConfig::new(pool, Fence { node, epoch }, spool);
        config.disk_reserve = 0;
        Store::open_postgres(config, self.clock.clock()).await
    }

    /// With object storage for large content.
    async fn open_with(&self, node: u16, epoch: i64, objects: Option<Objects>) -> Store {
        let spool = self.dir.path().join(format!("spool-{node}-{epoch}"));
        let mut config = PostgresConfig::new(self.pool().await, Fence { node, epoch }, spool);
        (config.disk_reserve, config.objects) = (0, objects);
        Store::open_postgres(config, self.clock.clock()).await.unwrap().0
    }

    async fn open(&self, node: u16, epoch: i64) -> Store {
        self.try_open(node, epoch, self.pool().await).await.unwrap().0
    }

    fn now(&self) -> Timestamp {
        self.clock.clock().now()
    }

    /// What a statement says, as text.
    fn sql(&self, statement: &str) -> String {
        let database = self.config.url.rsplit('/').next().unwrap();
        Server::shared().sql_in(database, statement).trim().to_owned()
    }
}

fn waiting(now: Timestamp) -> NewState {
    NewState::Waiting { due: now }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_claim_a_queue_and_nothing_is_handed_out_twice() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    let admitting: Vec<_> = (0..300)
        .map(|n| {
            let (store, now) = (if n % 2 == 0 { a.clone() } else { b.clone() }, cluster.now());
            tokio::spawn(async move {
                admit(&store, b"x", vec![delivery("dest.example", 0..1, waiting(now))]).await.remove(0).id
            })
        })
        .collect();
    let mut ids = Vec::new();
    for admitting in admitting {
        ids.push(admitting.await.unwrap());
    }
    let now = cluster.now();
    let work = async |store: Store| {
        let mut mine = Vec::new();
        loop {
            let page = store.page(&mx("dest.example"), now, 7).await.unwrap();
            if page.is_empty() {
                return mine;
            }
            for waiting in page {
                mine.push(waiting.id);
                assert!(store.settled(settlement(waiting.id, Next::Done)).await.unwrap().found);
            }
        }
    };
    let (by_a, by_b) = tokio::join!(work(a.clone()), work(b.clone()));
    assert!(
        !by_a.is_empty() && !by_b.is_empty(),
        "both had something to do: {} and {}",
        by_a.len(),
        by_b.len()
    );
    let mut all = [by_a, by_b].concat();
    all.sort();
    ids.sort();
    assert_eq!(all, ids);
    assert_eq!(a.counts().await.unwrap().all(), 0);
    assert!(b.verify().await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_has_in_hand_no_other_is_given() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    for _ in 0..10 {
        admit(&a, b"x", vec![delivery("dest.example", 0..1, waiting(cluster.now()))]).await;
    }
    let queue = mx("dest.example");
    let first = a.page(&queue, cluster.now(), 4).await.unwrap();
    let rest = b.page(&queue, cluster.now(), 100).await.unwrap();
    assert_eq!((first.len(), rest.len()), (4, 6));
    let ids = |page: &[store::Waiting]| page.iter().map(|w| w.id).collect::<Vec<_>>();
    assert!(ids(&rest).iter().all(|id| !ids(&first).contains(id)));
    // They come again for who has them.
    assert_eq!(ids(&a.page(&queue, cluster.now(), 100).await.unwrap()), ids(&first));
    assert_eq!(ids(&b.page(&queue, cluster.now(), 100).await.unwrap()), ids(&rest));
    // What is put back is anybody's.
    let due = cluster.now();
    a.settled(settlement(first[0].id, Next::Parked { due })).await.unwrap();
    cluster.clock.advance(Duration::from_secs(30));
    assert_eq!(b.page(&queue, cluster.now(), 100).await.unwrap().len(), 7);
    // Nobody settles what is in the hands of another.
    let foreign = a.settled(settlement(rest[0].id, Next::Done)).await;
    assert!(matches!(&foreign, Err(StoreError::Fenced(reason)) if reason.contains("node 2")), "{foreign:?}");
    assert!(b.load(rest[0].id).await.unwrap().is_some());
    assert!(a.failed().borrow().is_none(), "that is no reason to stop");
}

/// A settlement that would leave traces everywhere.
fn loud(store: &Store, cluster: &Cluster, id: mail::DeliveryId) -> Settlement {
    let report = store.ids().next();
    let content = store.sealed(report, b"report".to_vec());
    let deliveries = vec![delivery("origin.example", 0..1, NewState::Active)];
    let report =
        Admission { message: message(report, 6), content, deliveries, dedupe: None, events: Vec::new() };
    let told = EventKind::Expired { recipients: vec![0] };
    Settlement {
        recipients: vec![(0, RecipientStatus::Pending(Some(outcome(Disposition::Deferred, "stale"))))],
        reports: vec![report],
        events: vec![Event { at: cluster.now(), message: id.message, kind: told }],
        ..settlement(id, Next::Deferred { due: Timestamp(1), attempts: 9 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_settlement_is_refused_and_changes_nothing() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    let active = admit_one(&a, b"active").await.id;
    admit(&a, b"x", vec![delivery("dest.example", 0..1, waiting(cluster.now()))]).await;
    let paged = a.page(&mx("dest.example"), cluster.now(), 10).await.unwrap().remove(0).id;
    assert!(b.page(&mx("dest.example"), cluster.now(), 10).await.unwrap().is_empty());

    assert_eq!(b.requeue(Fence { node: A, epoch: 1 }).await.unwrap(), 2);
    assert_eq!(b.requeue(Fence { node: A, epoch: 1 }).await.unwrap(), 0, "safe to do again");
    let rows = "SELECT string_agg(t::text, ';' ORDER BY t) FROM (SELECT d.*::text FROM store.delivery d
        UNION ALL SELECT m.*::text FROM store.message m UNION ALL SELECT o.*::text FROM store.outbox o WHERE node = 1
        UNION ALL SELECT q.*::text FROM store.queue q) t(t)";
    let before = cluster.sql(rows);
    let mut failed = a.failed();
    for next in [active, paged] {
        let refused = a.settled(loud(&a, &cluster, next)).await;
        assert!(matches!(refused, Err(StoreError::Fenced(_) | StoreError::Failed(_))), "{refused:?}");
    }
    let late = admission(&a, b"late", vec![delivery("dest.example", 0..1, NewState::Active)]).await;
    assert!(matches!(a.admit(late).await, Err(StoreError::Fenced(_) | StoreError::Failed(_))));
    let claimed = a.page(&mx("dest.example"), cluster.now(), 10).await;
    assert!(matches!(claimed, Err(StoreError::Fenced(_) | StoreError::Failed(_))), "{claimed:?}");
    assert_eq!(cluster.sql(rows), before);
    failed.wait_for(Option::is_some).await.unwrap();
    assert!(matches!(a.room(), Err(store::NoRoom::Unavailable)));

    let page = b.page(&mx("dest.example"), cluster.now(), 10).await.unwrap();
    let found: Vec<_> = page.iter().map(|w| (w.id, w.state, w.crashes, w.attempts)).collect();
    assert_eq!(found, [(active, State::Waiting, 1, 0), (paged, State::Waiting, 1, 0)]);
    for waiting in page {
        assert!(b.settled(settlement(waiting.id, Next::Done)).await.unwrap().found);
    }
    // The node comes back with a new life; the old one is over for ever.
    assert!(matches!(cluster.try_open(A, 1, cluster.pool().await).await, Err(StoreError::Fenced(_))));
    let (again, recovery) = cluster.try_open(A, 2, cluster.pool().await).await.unwrap();
    assert_eq!((recovery.clean, recovery.requeued, recovery.deliveries), (false, 0, 0));
    admit_one(&again, b"back").await;
    assert!(again.verify().await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_well_leaves_its_work_to_the_others() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    for _ in 0..3 {
        admit_one(&a, b"x").await;
    }
    assert!(b.page(&mx("dest.example"), cluster.now(), 10).await.unwrap().is_empty());
    a.close().await.unwrap();
    let page = b.page(&mx("dest.example"), cluster.now(), 10).await.unwrap();
    assert_eq!(page.iter().map(|w| (w.state, w.crashes)).collect::<Vec<_>>(), [(State::Waiting, 0); 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_migrate_at_once() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.pool().await, cluster.pool().await);
    let (a, b) = tokio::join!(cluster.try_open(A, 1, one), cluster.try_open(B, 1, two));
    let (a, b) = (a.unwrap().0, b.unwrap().0);
    let by_a = admit_one(&a, b"a").await;
    let by_b = admit_one(&b, b"b").await;
    assert_eq!(stored(&b, &by_a).await, b"a");
    assert_eq!(stored(&a, &by_b).await, b"b");
    assert_eq!(a.counts().await.unwrap().active, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedupe_key_is_admitted_once_by_all_nodes_together() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    for round in 0..20_u8 {
        let keyed = async |store: &Store, n: u8| {
            let deliveries = vec![delivery("dest.example", 0..1, NewState::Active)];
            let mut admission = admission(store, &[n], deliveries).await;
            let expires = cluster.now().plus(Duration::from_secs(60));
            admission.dedupe = Some(Dedupe { org: mail::OrgId::DEFAULT, key: vec![round], expires });
            (admission.message.id, store.admit(admission).await.unwrap())
        };
        let (one, two) = tokio::join!(keyed(&a, 1), keyed(&b, 2));
        match (&one.1, &two.1) {
            (Admitted::New(_), Admitted::Duplicate(of)) => assert_eq!(*of, one.0),
            (Admitted::Duplicate(of), Admitted::New(_)) => assert_eq!(*of, two.0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(a.counts().await.unwrap().active, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_delivery_takes_the_message_along_whichever_node_settles_it() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    for n in 0..30 {
        let deliveries = vec![
            delivery("one.example", 0..1, waiting(cluster.now())),
            delivery("two.example", 1..4, waiting(cluster.now())),
        ];
        admit(&a, &octets(n, 5000), deliveries).await;
    }
    let all = async |store: &Store, domain: &str| {
        let page = store.page(&mx(domain), cluster.now(), 100).await.unwrap();
        assert_eq!(page.len(), 30);
        let done: Vec<_> = page.into_iter().map(|w| store.settled(settlement(w.id, Next::Done))).collect();
        for done in done {
            assert!(done.await.unwrap().found);
        }
    };
    tokio::join!(all(&a, "one.example"), all(&b, "two.example"));
    let left = "SELECT (SELECT count(*) FROM store.delivery), (SELECT count(*) FROM store.recipient),
        (SELECT count(*) FROM store.message), (SELECT count(*) FROM store.content)";
    assert_eq!(cluster.sql(left), "0|0|0|0");
    assert!(a.verify().await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_act_from_any_node_and_an_attempt_that_goes_on_is_settled_all_the_same() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    let held = admit_one(&a, b"1").await.id;
    let moved = admit_one(&a, b"2").await.id;
    let removed = admit_one(&a, b"3").await.id;
    let one = |id| QueueFilter { deliveries: vec![id], ..QueueFilter::default() };
    let hold = Action::Hold { reason: "odd\0".into() };
    assert_eq!(b.change(one(held), hold, "op".into(), false).await.unwrap().count, 1);
    let to = mx("other.example").destination;
    assert_eq!(b.change(one(moved), Action::Reroute { to }, "op".into(), false).await.unwrap().count, 1);
    assert_eq!(b.change(one(removed), Action::Remove, "op".into(), false).await.unwrap().count, 1);
    // It is in the hands of the first node: the second does not try it at the same time.
    assert!(b.page(&mx("other.example"), cluster.now(), 10).await.unwrap().is_empty());
    let due = cluster.now();
    let after = a.settled(settlement(held, Next::Deferred { due, attempts: 1 })).await.unwrap();
    assert_eq!((after.found, after.state), (true, Some(State::Held)));
    assert!(a.settled(settlement(moved, Next::Done)).await.unwrap().found);
    assert!(!a.settled(settlement(removed, Next::Done)).await.unwrap().found);
    assert_eq!(b.counts().await.unwrap().held, 1);
    assert_eq!(b.load(held).await.unwrap().unwrap().reason.as_deref(), Some("odd\u{fffd}"));
    // Each node tells what it has done.
    let kinds = |events: Vec<Event>| events.into_iter().map(|e| e.kind).collect::<Vec<_>>();
    assert!(matches!(
        kinds(events(&b).await)[..],
        [EventKind::Held { .. }, EventKind::Rerouted { .. }, EventKind::Removed { .. }]
    ));
    assert_eq!(events(&a).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_notes_are_a_nodes_own_and_sums_are_of_all() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    admit_one(&a, b"12345").await;
    admit_one(&b, b"123").await;
    a.set_note("clock", b"a".to_vec()).unwrap();
    b.set_note("clock", b"b".to_vec()).unwrap();
    assert_eq!((a.outbox(0, 9).await.unwrap()[0].0, b.outbox(0, 9).await.unwrap()[0].0), (1, 1));
    a.close().await.unwrap();
    assert_eq!(b.note("clock").await.unwrap().as_deref(), Some(&b"b"[..]));
    let (a, recovery) = cluster.try_open(A, 2, cluster.pool().await).await.unwrap();
    assert!(recovery.clean && recovery.deliveries == 2);
    assert_eq!(a.note("clock").await.unwrap().as_deref(), Some(&b"a"[..]));
    assert_eq!(a.outbox(0, 9).await.unwrap().len(), 1, "not handed on yet");
    assert_eq!((a.stats().live_bytes, a.stats().deliveries), (8, 2));
    assert_ne!(a.ids().next(), b.ids().next());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_on_the_same_rows_never_wait_for_each_other_for_ever() {
    let cluster = Cluster::new();
    let nodes = [cluster.open(1, 1).await, cluster.open(2, 1).await, cluster.open(3, 1).await];
    let cluster = Arc::new(cluster);
    let working: Vec<_> = nodes
        .iter()
        .cloned()
        .enumerate()
        .map(|(n, store)| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                let queues = [mx("a.example"), mx("b.example"), mx("c.example")];
                for round in 0..25_usize {
                    let domains = ["a.example", "b.example", "c.example"];
                    // In another order on each node, to all queues.
                    let deliveries = (0..3_u16).map(|i| {
                        let domain = domains[(usize::from(i) + n + round) % 3];
                        delivery(domain, i..i + 1, waiting(cluster.now()))
                    });
                    admit(&store, b"x", deliveries.collect()).await;
                    let page = store.page(&queues[(n + round) % 3], cluster.now(), 5).await.unwrap();
                    let settling = page.into_iter().enumerate().map(|(i, waiting)| {
                        let next = match i % 3 {
                            0 => Next::Done,
                            1 => Next::Deferred { due: cluster.now(), attempts: 1 },
                            _ => Next::Parked { due: cluster.now() },
                        };
                        store.settled(settlement(waiting.id, next))
                    });
                    let settling: Vec<_> = settling.collect();
                    for settled in settling {
                        assert!(settled.await.unwrap().found);
                    }
                    let retry = store.change(QueueFilter::default(), Action::Retry, "op".into(), false);
                    retry.await.unwrap();
                }
            })
        })
        .collect();
    for working in working {
        working.await.unwrap();
    }
    let report = nodes[0].verify().await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    let by_queue: BTreeMap<_, _> = nodes[1]
        .queues()
        .await
        .unwrap()
        .into_iter()
        .map(|q| (q.queue.destination.to_string(), q.waiting))
        .collect();
    assert_eq!(by_queue.values().sum::<u64>(), nodes[2].counts().await.unwrap().waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_with_the_tools_of_postgresql() {
    let cluster = Cluster::new();
    let a = cluster.open(A, 1).await;
    let refused = a.backup(cluster.dir.path().join("backup")).await.unwrap_err();
    assert!(refused.to_string().contains("pg_basebackup"), "{refused}");
}
