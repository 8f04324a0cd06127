//! What is due for a node while others have it in hand, and what it finds of what they put back.

use super::*;

const ALL: Timestamp = Timestamp(i64::MIN);

async fn due(store: &Store) -> Vec<(String, i64)> {
    let horizon = store.horizon(ALL, 100).await.unwrap();
    assert_eq!(horizon.complete_until, Timestamp(i64::MAX));
    horizon.queues.into_iter().map(|(queue, due)| (queue.destination.to_string(), due.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_others_have_in_hand_is_not_due() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    let (queue, now) = (mx("dest.example"), cluster.now());
    for n in 0..5 {
        let at = NewState::Waiting { due: Timestamp(now.0 - 100 + n) };
        admit(&a, b"x", vec![delivery("dest.example", 0..1, at)]).await;
    }
    let name = || queue.destination.to_string();
    assert_eq!(due(&a).await, [(name(), now.0 - 100)]);
    let by_b = b.page(&queue, now, 100).await.unwrap();
    assert_eq!(by_b.len(), 5);
    assert_eq!(due(&a).await, [], "all are in the hands of another");
    assert_eq!(a.next_due(&queue, now).await.unwrap(), None);
    assert!(a.page(&queue, now, 100).await.unwrap().is_empty());
    assert_eq!(due(&b).await, [(name(), now.0 - 100)], "who has them is told of them");
    // What comes later is due later, however early what the other has was due.
    let later = now.plus(Duration::from_secs(60));
    admit(&b, b"x", vec![delivery("dest.example", 0..1, waiting(later))]).await;
    assert_eq!(due(&a).await, [(name(), later.0)]);
    assert_eq!(a.next_due(&queue, now).await.unwrap(), Some(later));

    // This node has looked, and its pages begin behind what the other puts back now: it finds it all the same, at once.
    cluster.clock.advance(Duration::from_secs(15));
    let now = cluster.now();
    assert!(a.page(&queue, now, 100).await.unwrap().is_empty());
    let back = by_b[3].due.unwrap();
    b.settled(settlement(by_b[3].id, Next::Parked { due: back })).await.unwrap();
    assert_eq!(due(&a).await, [(name(), back.0)]);
    let page = a.page(&queue, now, 100).await.unwrap();
    assert_eq!(page.iter().map(|w| w.id).collect::<Vec<_>>(), [by_b[3].id]);
    // And what is given back of a dead node, by whoever does it.
    let c = cluster.open(3, 1).await;
    assert_eq!(c.requeue(Fence { node: B, epoch: 1 }).await.unwrap(), 4);
    assert_eq!(due(&a).await.len(), 1);
    assert_eq!(a.page(&queue, now, 100).await.unwrap().len(), 5);
    assert_eq!((a.stats().claims, a.stats().claimed), (2, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_horizon_goes_on_behind_queues_that_others_have_in_hand() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.open(A, 1).await, cluster.open(B, 1).await);
    let now = cluster.now();
    for n in 0..30_i64 {
        let at = NewState::Waiting { due: Timestamp(now.0 - 1_000 + n) };
        admit(&a, b"x", vec![delivery(&format!("d{n}.example"), 0..1, at)]).await;
    }
    for n in 0..20 {
        assert_eq!(b.page(&mx(&format!("d{n}.example")), now, 1).await.unwrap().len(), 1);
    }
    let (mut after, mut found, mut asked) = (ALL, Vec::new(), 0);
    while after < Timestamp(i64::MAX) {
        let horizon = a.horizon(after, 4).await.unwrap();
        assert!(horizon.complete_until > after, "it goes on");
        after = horizon.complete_until;
        found.extend(horizon.queues);
        asked += 1;
    }
    assert_eq!(found.len(), 10, "{found:?}");
    assert!(asked < 10, "{asked}");
    let expected: Vec<_> =
        (20..30).map(|n| (mx(&format!("d{n}.example")), Timestamp(now.0 - 1_000 + n))).collect();
    assert_eq!(found, expected);
}

/// Goes by the index alone, and through no more than what stands before the first that is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_horizon_costs_no_more_than_it_has_to_look_at() {
    let cluster = Cluster::new();
    let a = cluster.open(A, 1).await;
    admit(&a, b"x", vec![delivery("dest.example", 0..1, waiting(cluster.now()))]).await;
    cluster.sql("ANALYZE store.delivery");
    // A hundred thousand wait by now, of which the statistics know nothing, and others have the first five hundred.
    let fill = format!(
        "INSERT INTO store.delivery (message, idx, queue, state, due, node, epoch)
           SELECT n, 0, (SELECT id FROM store.queue LIMIT 1), 1, {} + n, nullif(n <= 500, false)::int * 7,
             nullif(n <= 500, false)::int FROM generate_series(1, 100000) n",
        cluster.now().0
    );
    cluster.sql(&fill);
    cluster.sql("UPDATE store.delivery SET node = 7, epoch = 1 WHERE message > 100000");
    // What sessions have counted is seen when they say so, which they do when they are idle or end.
    let read = || {
        let sql = "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'delivery'),
            (SELECT seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'store' AND relname = 'delivery')";
        let text = cluster.sql(sql);
        let (index, rows) = text.split_once('|').unwrap();
        (index.trim().parse::<u64>().unwrap(), rows.trim().parse::<u64>().unwrap())
    };
    let before = read();
    let found = a.horizon(ALL, 10).await.unwrap().queues;
    assert_eq!(found, [(mx("dest.example"), Timestamp(cluster.now().0 + 501))]);
    let counted = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            // Whatever it is asked, a session that is asked tells what it has counted.
            a.load(admit_one(&a, b"y").await.id).await.unwrap();
            let now = read();
            if now.0 >= before.0 + 501 {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let (index, rows) = counted.await.expect("the index was read");
    assert!(index - before.0 < 5_000, "{} entries", index - before.0);
    assert!(rows - before.1 < 5_000, "{} rows in the table's order", rows - before.1);
}
