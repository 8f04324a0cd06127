//! What must not depend on how much is stored: a start, a horizon, the fast path; and what is given back.

use std::time::Duration;

use mail::{OrgId, QueueKey, Stream, Timestamp};
use store::{NewState, Next, QueueFilter};

use crate::common::*;

/// A start, a horizon and a page look things up: none of their statements goes through a table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_through_all_rows() {
    let rig = Rig::new();
    drop(rig.open());
    let conn = rusqlite::Connection::open(rig.path().join("queue.db")).unwrap();
    for sql in [
        "UPDATE delivery INDEXED BY delivery_active SET state = 1, due = 0 WHERE state = 0",
        "UPDATE delivery INDEXED BY delivery_claimed SET claimed = NULL WHERE claimed IS NOT NULL",
        "SELECT org FROM queue WHERE due > 5 ORDER BY due LIMIT 5",
        "SELECT min(due) FROM delivery WHERE queue = 1 AND due IS NOT NULL",
    ] {
        let plan: Vec<String> = conn
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_map([], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        // A partial index is gone through as a whole, and holds what is asked for, no more.
        let looked_up = |line: &String| !line.starts_with("SCAN") || line.contains("INDEX delivery_");
        assert!(plan.iter().all(looked_up), "{sql}: {plan:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_just_written_is_not_read_back_and_not_made_due() {
    let rig = Rig::new();
    let store = rig.open();
    for n in 0..200 {
        let waiting = admit_one(&store, &octets(n, 4000)).await;
        let body = waiting.body.as_ref().expect("the content is still in memory");
        assert_eq!(body.read_all_up_to(5000).await.unwrap(), octets(n, 4000));
        store.settled(settlement(waiting.id, Next::Done)).await.unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.content_reads, stats.due_writes, stats.memory), (0, 0, 0));
    // That these are counted at all:
    let waiting = admit_one(&store, b"x").await;
    let due = rig.now();
    store.settled(settlement(waiting.id, Next::Deferred { due, attempts: 1 })).await.unwrap();
    assert_eq!(stored(&store, &waiting).await, b"x");
    let stats = store.stats();
    assert_eq!((stats.content_reads, stats.due_writes), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notes_come_back_after_a_restart() {
    let rig = Rig::new();
    let store = rig.open();
    assert_eq!(store.note("schedule").await.unwrap(), None);
    store.set_note("schedule", b"one".to_vec()).unwrap();
    store.set_note("other", b"two".to_vec()).unwrap();
    assert_eq!(store.note("schedule").await.unwrap(), Some(b"one".to_vec()));
    // A group takes them along.
    admit_one(&store, b"x").await;
    let (store, _) = rig.crash(store);
    assert_eq!(store.note("schedule").await.unwrap(), Some(b"one".to_vec()));
    store.set_note("schedule", vec![0; 100_000]).unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = rig.open();
    assert_eq!(store.note("schedule").await.unwrap(), Some(vec![0; 100_000]));
    assert_eq!(store.note("other").await.unwrap(), Some(b"two".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_by_several_destinations_and_by_credential() {
    let rig = Rig::new();
    let store = rig.open();
    for (n, domain) in (0..6).zip(["a.example", "b.example", "c.example"].into_iter().cycle()) {
        let mut admission = admission(&store, b"x", vec![delivery(domain, 0..1, NewState::Active)]).await;
        admission.message.origin.credential = (n >= 3).then(|| "printer".to_owned());
        store.admit(admission).await.unwrap();
    }
    let found = async |filter| store.search(filter, None, 100).await.unwrap().len();
    let destinations = vec![mx("a.example").destination, mx("c.example").destination];
    let filter = QueueFilter { destinations, ..QueueFilter::default() };
    assert_eq!(found(filter.clone()).await, 4);
    let credential = Some("printer".to_owned());
    assert_eq!(found(QueueFilter { credential: credential.clone(), ..QueueFilter::default() }).await, 3);
    assert_eq!(found(QueueFilter { credential, ..filter }).await, 2);
}

/// Many deliveries wait in a few queues, then all go: the file that held them gets smaller again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_database_gives_back_what_it_does_not_use() {
    let rig = Rig::new();
    let store = rig.open();
    let queue = |n: u64| QueueKey {
        org: OrgId::DEFAULT,
        stream: Stream::Bulk,
        destination: mx(&format!("d{}.example", n % 10)).destination,
    };
    let mut tasks = Vec::new();
    for client in 0..50u64 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in 0..1200 {
                let mut delivery =
                    delivery("x.example", 0..1, NewState::Waiting { due: Timestamp(START.0 + n) });
                delivery.queue = queue(client);
                ids.push(admit(&store, b"small", vec![delivery]).await[0].id);
            }
            ids
        }));
    }
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    let size = || std::fs::metadata(rig.path().join("queue.db")).unwrap().len();
    for id in ids {
        store.settle(settlement(id, Next::Done), |settled| assert!(settled.unwrap().found));
    }
    let last = store.outbox_wait();
    let last = *last.borrow();
    store.outbox_done(last).await.unwrap();
    // Everything is free; little by little it goes back to the disk.
    let mut largest = 0;
    for _ in 0..600 {
        largest = largest.max(size());
        let stats = store.stats();
        if stats.deliveries == 0 && largest > 10 << 20 && size() < largest / 2 {
            assert!(store.verify().await.unwrap().is_sound());
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it keeps {} of {largest} bytes; {:?}", size(), store.stats());
}
