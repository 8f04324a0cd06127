//! Shared limits on a real PostgreSQL.

use std::time::Duration;

use cluster::{Borrow, GRANT, Member, NodeConfig, Wish};
use mail::{Clock, ManualClock, Timestamp};
use postgres::Pool;
use postgres::test::Server;

async fn node(pool: &Pool, name: &str, clock: Clock) -> Borrow {
    let config = NodeConfig { name: name.to_owned(), address: String::new(), version: String::new() };
    Borrow::new(Member::join(pool, config, clock).await.unwrap().0)
}

async fn ask(node: &Borrow, key: &str, capacity: u64, wanted: u64, in_use: u64) -> u64 {
    node.renew(&[wish(key, capacity, wanted, in_use)]).await.unwrap()[0].amount
}

fn wish(key: &str, capacity: u64, wanted: u64, in_use: u64) -> Wish {
    Wish { key: key.to_owned(), capacity, wanted, in_use, lasts: Duration::ZERO }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_has_another_has_not() {
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    let manual = ManualClock::new(Timestamp(0));
    let a = node(&pool, "a", manual.clock()).await;
    let b = node(&pool, "b", manual.clock()).await;
    assert_eq!(ask(&a, "x", 10, 10, 0).await, 10);
    assert_eq!(ask(&b, "x", 10, 10, 0).await, 0);
    // Another limit is another matter.
    assert_eq!(ask(&b, "y", 10, 4, 0).await, 4);
    // Now that it knows of the other, it takes half; it keeps what it cannot give back.
    assert_eq!(ask(&a, "x", 10, 10, 7).await, 7);
    assert_eq!(ask(&b, "x", 10, 10, 0).await, 3);
    assert_eq!(ask(&a, "x", 10, 10, 0).await, 5);
    assert_eq!(ask(&b, "x", 10, 10, 0).await, 5);
    assert_eq!(ask(&a, "x", 10, 0, 0).await, 0);
    assert_eq!(ask(&b, "x", 10, 10, 0).await, 10);
    // A lower limit counts at once for what is not in use.
    assert_eq!(ask(&b, "x", 2, 10, 0).await, 2);
    let start = manual.clock().mono();
    let wishes = ["p", "q", "p"].map(|key| wish(key, 3, 2, 0));
    let grants = a.renew(&wishes).await.unwrap();
    assert_eq!(grants.iter().map(|g| (g.key.as_str(), g.amount)).collect::<Vec<_>>(), [("p", 2), ("q", 2)]);
    assert!(grants.iter().all(|g| g.until > start && g.until < start.plus(GRANT)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_ask_at_once_and_nothing_is_lent_twice() {
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    let mut nodes = Vec::new();
    for i in 0..4 {
        nodes.push(node(&pool, &format!("n{i}"), Clock::system()).await);
    }
    for round in 0..5 {
        let asked = nodes.iter().map(|node| {
            let node = node.clone();
            tokio::spawn(async move {
                let wishes: Vec<_> = (0..30).rev().map(|k| wish(&format!("k{k}"), 7, 7, 0)).collect();
                node.renew(&wishes).await.unwrap().len()
            })
        });
        for task in asked.collect::<Vec<_>>() {
            assert_eq!(task.await.unwrap(), 30);
        }
        let sums = pool
            .read(|s| async move {
                s.query("SELECT sum(amount)::bigint FROM cluster.loan GROUP BY key", &[]).await
            })
            .await
            .unwrap();
        assert_eq!(sums.len(), 30);
        for sum in sums {
            let sum: i64 = sum.get(0);
            assert!(sum <= 7 && (round < 2 || sum >= 4), "round {round}: {sum}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_for_a_period_stays_taken_when_its_node_is_silent() {
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    let a = node(&pool, "a", Clock::system()).await;
    let b = node(&pool, "b", Clock::system()).await;
    let sent = Wish { lasts: Duration::from_secs(3600), ..wish("hourly", 10, 10, 4) };
    let part = &a.renew(std::slice::from_ref(&sent)).await.unwrap()[0];
    assert_eq!((part.amount, part.fair), (10, 10));
    assert_eq!(ask(&a, "places", 10, 10, 4).await, 10);
    // As if twenty seconds had passed in which nothing was heard of the first.
    let later = "UPDATE cluster.loan SET expires = expires - interval '20 seconds'";
    pool.commit(|tx| async move { tx.execute(later, &[]).await }).await.unwrap();
    assert_eq!(ask(&b, "hourly", 10, 10, 0).await, 0);
    assert_eq!(ask(&b, "places", 10, 10, 0).await, 10);
    // It is back: its part is half, and what it has sent of the other half is given back when the hour is over.
    let part = &a.renew(&[Wish { in_use: 7, ..sent }]).await.unwrap()[0];
    assert_eq!((part.amount, part.fair), (7, 5));
    assert_eq!(ask(&b, "hourly", 10, 10, 0).await, 3);
}

/// The new server's clock may be another; what was lent before the promotion is worth its full time by it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_promotion_nobody_gets_what_another_may_still_use() {
    let server = Server::start(&[]);
    let pool = Pool::connect(server.database()).await.unwrap();
    let a = node(&pool, "a", Clock::system()).await;
    let b = node(&pool, "b", Clock::system()).await;
    assert_eq!(ask(&a, "x", 10, 10, 0).await, 10);
    server.down();
    std::fs::write(server.dir().join("data/standby.signal"), "").unwrap();
    server.up();
    assert_eq!(server.sql("SELECT pg_promote()"), "t");
    // As if this server's clock were ahead by a minute.
    let ahead = "UPDATE cluster.loan SET expires = expires - interval '1 minute'";
    pool.commit(|tx| async move { tx.execute(ahead, &[]).await }).await.unwrap();
    assert_eq!(ask(&b, "x", 10, 10, 0).await, 0);
    // On the same server what has run out has run out.
    pool.commit(|tx| async move { tx.execute(ahead, &[]).await }).await.unwrap();
    assert_eq!(ask(&b, "x", 10, 10, 0).await, 10);
}
