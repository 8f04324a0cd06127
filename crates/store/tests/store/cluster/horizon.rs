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
    let fill = format!(
        "INSERT INTO store.delivery (message, idx, queue, state, due)
           SELECT n, 0, (SELECT id FROM store.queue LIMIT 1), 1, {} + n FROM generate_series(1, 100000) n",
        cluster.now().0
    );
    cluster.sql(&fill);
    cluster.sql("ANALYZE store.delivery");
    // Nobody has deferred anything when the statistics were made; then something is in hand of others.
    cluster.sql("UPDATE store.delivery SET node = 7, epoch = 1 WHERE message <= 500");
    let read = || {
        let sql = "SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot(),
            (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'delivery'),
            (SELECT seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'store' AND relname = 'delivery')";
        let text = cluster.sql(sql);
        let mut columns = text.split('|').skip(2).map(|n| n.trim().parse::<u64>().unwrap());
        (columns.next().unwrap(), columns.next().unwrap())
    };
    cluster.sql("UPDATE store.delivery SET node = 7, epoch = 1 WHERE message > 500 AND due IS NULL");
    let plan = cluster.sql(&format!(
        "EXPLAIN (COSTS OFF) SELECT q.id, f.due FROM store.queue q LEFT JOIN LATERAL
           (SELECT d.due FROM store.delivery d WHERE d.queue = q.id AND d.due >= q.due
              AND (d.node IS NULL OR d.node = 1 AND d.epoch = 1)
            ORDER BY d.queue, d.due, d.message, d.idx LIMIT 1) f ON true WHERE q.due > {}",
        i64::MIN + 1
    ));
    assert!(plan.contains("using delivery_due") || plan.contains("delivery_due"), "{plan}");
    let (index, rows) = read();
    assert_eq!(a.horizon(ALL, 10).await.unwrap().queues.len(), 1);
    // What a session has counted is seen when it says so, within a second of its being idle.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (now_index, now_rows) = read();
        assert_eq!(now_rows, rows, "no row is looked at in order of the table");
        if now_index > index || std::time::Instant::now() > deadline {
            assert!(now_index - index < 2_000, "{} entries", now_index - index);
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
