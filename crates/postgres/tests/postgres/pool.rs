//! Reading, migrating, listening.

use std::time::Duration;

use postgres::test::Server;
use postgres::{CommitError, Heard, PgError, Pool, migrate};
use tokio::time::timeout;

async fn pool() -> Pool {
    Pool::connect(Server::shared().database()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes() {
    let pool = pool().await;
    migrate(&pool, "t", &["CREATE TABLE t (id bigint PRIMARY KEY, body bytea NOT NULL)"]).await.unwrap();
    let ids: Vec<i64> = (0..100).collect();
    let bodies: Vec<Vec<u8>> = ids.iter().map(|i| vec![u8::try_from(*i).unwrap(); 10]).collect();
    let (ids, bodies) = (&ids, &bodies);
    let stored = pool
        .commit(|tx| async move {
            tx.execute("INSERT INTO t SELECT * FROM unnest($1::bigint[], $2::bytea[])", &[ids, bodies]).await
        })
        .await
        .unwrap();
    assert_eq!(stored, 100);
    let got: Vec<u8> = pool
        .read(|s| async move { Ok(s.query_one("SELECT body FROM t WHERE id = $1", &[&7i64]).await?.get(0)) })
        .await
        .unwrap();
    assert_eq!(got, [7; 10]);
    let none =
        pool.read(|s| async move { s.query_opt("SELECT 1 FROM t WHERE id = -1", &[]).await }).await.unwrap();
    assert!(none.is_none());
}

/// The futures must be fit for tasks of their own.
#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_share_a_small_pool() {
    let mut config = Server::shared().database();
    config.pool = 2;
    let pool = Pool::connect(config).await.unwrap();
    migrate(&pool, "t", &["CREATE TABLE t (n bigint NOT NULL)"]).await.unwrap();
    let tasks: Vec<_> = (0..40i64)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                pool.commit(|tx| async move { tx.execute("INSERT INTO t VALUES ($1)", &[&n]).await }).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let count =
        "SELECT count(*), (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) FROM t";
    let row = pool.read(|s| async move { s.query_one(count, &[]).await }).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 40);
    assert!(row.get::<_, i64>(1) <= 2, "no more connections than the pool has");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_runs_once_however_many_nodes_start() {
    let config = Server::shared().database();
    let steps = [
        "CREATE TABLE a (n int); INSERT INTO a VALUES (1)",
        "ALTER TABLE a ADD COLUMN m int; INSERT INTO a VALUES (2)",
    ];
    let nodes: Vec<_> = (0..6)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move {
                let pool = Pool::connect(config).await.unwrap();
                migrate(&pool, "a", &steps).await
            })
        })
        .collect();
    let mut fresh = 0;
    for node in nodes {
        fresh += u32::from(node.await.unwrap().unwrap() == 0);
    }
    assert!(fresh >= 1);
    let pool = Pool::connect(config).await.unwrap();
    let rows = pool.read(|s| async move { s.query("SELECT n FROM a", &[]).await }).await.unwrap();
    assert_eq!(rows.len(), 2);
    // One more step, then an older program.
    let more = ["", "", "INSERT INTO a VALUES (3)"];
    assert_eq!(migrate(&pool, "a", &more).await.unwrap(), 2);
    // It only added: the older program works with it, and changes nothing.
    assert_eq!(migrate(&pool, "a", &steps).await.unwrap(), 3);
    // Then one that takes something away, which the program before the newest understands already.
    let less = ["", "", "", "-- What was there is gone.\n-- readable by: 3\nALTER TABLE a DROP COLUMN m"];
    assert_eq!(migrate(&pool, "a", &less).await.unwrap(), 3);
    assert_eq!(migrate(&pool, "a", &more).await.unwrap(), 4);
    let error = migrate(&pool, "a", &steps).await.unwrap_err();
    assert_eq!(error, PgError::Newer { name: "a".to_owned(), found: 4, readable_by: 3, known: 2 });
    assert!(error.to_string().contains("run the newer version"));
    // Another schema in the same database is its own.
    assert_eq!(migrate(&pool, "b", &["CREATE TABLE b (n int)"]).await.unwrap(), 0);
}

/// A database that a program made which did not yet say who may read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_says_nothing_is_for_programs_of_its_version() {
    let pool = pool().await;
    let old = "CREATE TABLE posthouse_schema (name text PRIMARY KEY, version integer NOT NULL); \
        INSERT INTO posthouse_schema VALUES ('a', 2); CREATE TABLE a (n int)";
    pool.commit(|tx| async move { tx.batch(old).await }).await.unwrap();
    let error = migrate(&pool, "a", &[""]).await.unwrap_err();
    assert_eq!(error, PgError::Newer { name: "a".to_owned(), found: 2, readable_by: 2, known: 1 });
    assert_eq!(migrate(&pool, "a", &["", ""]).await.unwrap(), 2);
    assert_eq!(migrate(&pool, "a", &["", "", "ALTER TABLE a ADD COLUMN m int"]).await.unwrap(), 2);
    assert_eq!(migrate(&pool, "a", &["", ""]).await.unwrap(), 3);
    assert!(migrate(&pool, "a", &[""]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_tells_what_it_has_done() {
    let server = Server::start(&[]);
    let pool = Pool::connect(server.database()).await.unwrap();
    let before = pool.stats();
    assert_eq!((before.open, before.busy, before.opened, before.commits), (1, 0, 1, 0));
    assert!(before.server.is_some_and(|name| name.contains(&server.port().to_string())));
    migrate(&pool, "t", &["CREATE TABLE t (n int)"]).await.unwrap();
    let (one, two) = tokio::join!(
        pool.commit(|tx| async move { tx.execute("INSERT INTO t VALUES (1)", &[]).await }),
        pool.read(|s| async move { s.query("SELECT pg_sleep(0.1)::text", &[]).await }),
    );
    one.unwrap();
    two.unwrap();
    let after = pool.stats();
    assert_eq!((after.commits, after.open, after.busy, after.lost), (2, 2, 0, 0));
    assert!(after.commit_time >= after.commit_time_max && after.commit_time_max > Duration::ZERO);
    // It is restarted: the connections are lost, and new ones opened.
    server.down();
    server.up();
    pool.read(|s| async move { s.query("SELECT 1", &[]).await }).await.unwrap();
    let later = pool.stats();
    assert_eq!(later.lost, 2);
    assert_eq!((later.opened, later.open), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn standbys_are_told_to_those_who_may_see_them() {
    let server = Server::start(&[("synchronous_standby_names", ""), ("max_wal_senders", "4")]);
    let pool = Pool::connect(server.database()).await.unwrap();
    assert_eq!(pool.replication().await.unwrap(), postgres::Replication::default());
    let _standby = server.standby(&[]);
    let streams = || server.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1";
    while !streams() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seen = pool.replication().await.unwrap();
    assert_eq!((seen.standbys.len(), seen.hidden), (1, 0));
    assert_eq!((&*seen.standbys[0].state, seen.standbys[0].is_sync()), ("streaming", false));
    // A role that may see nothing of it is told that there is something.
    server.sql("CREATE ROLE relay LOGIN");
    let mut config = server.database();
    config.url = config.url.replace("postgres@", "relay@");
    let seen = Pool::connect(config.clone()).await.unwrap().replication().await.unwrap();
    assert_eq!((seen.standbys.len(), seen.hidden), (0, 1));
    server.sql("GRANT pg_monitor TO relay");
    let seen = Pool::connect(config).await.unwrap().replication().await.unwrap();
    assert_eq!((seen.standbys.len(), seen.hidden), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_leaves_nothing() {
    let pool = pool().await;
    let error = migrate(&pool, "a", &["CREATE TABLE a (n int); SELECT 1/0"]).await.unwrap_err();
    assert!(matches!(&error, PgError::Bug(m) if m.contains("division by zero")), "{error:?}");
    let there =
        pool.read(|s| async move { s.query_one("SELECT to_regclass('a')::text", &[]).await }).await.unwrap();
    assert_eq!(there.get::<_, Option<String>>(0), None);
    assert_eq!(migrate(&pool, "a", &["CREATE TABLE a (n int)"]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_notified_is_heard_and_a_broken_connection_is_told() {
    let config = Server::shared().database();
    let pool = Pool::connect(config).await.unwrap();
    let mut listener = pool.listen(&["changes", "o\"dd"]);
    let mut next = async || timeout(Duration::from_secs(60), listener.next()).await.unwrap();
    assert_eq!(next().await, Heard::Missed);
    pool.commit(|tx| async move { tx.batch("NOTIFY changes, '7'; NOTIFY \"o\"\"dd\"").await }).await.unwrap();
    assert_eq!(next().await, Heard::Notification { channel: "changes".to_owned(), payload: "7".to_owned() });
    assert_eq!(next().await, Heard::Notification { channel: "o\"dd".to_owned(), payload: String::new() });
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE datname = current_database() AND query LIKE '%pg_is_in_recovery%' AND pid <> pg_backend_pid()";
    // Until it has been asked for a sign of life, its last query is LISTEN.
    let terminate = terminate.replace("query LIKE '%pg_is_in_recovery%'", "query LIKE 'LISTEN%'");
    let terminate = &terminate;
    pool.read(|s| async move { s.query(terminate, &[]).await }).await.unwrap();
    assert_eq!(next().await, Heard::Missed);
    pool.commit(|tx| async move { tx.batch("NOTIFY changes, '8'").await }).await.unwrap();
    assert_eq!(next().await, Heard::Notification { channel: "changes".to_owned(), payload: "8".to_owned() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_hangs_is_cut_short_and_the_pool_goes_on() {
    let pool = pool().await;
    let hang = |s: postgres::Session| async move {
        s.batch("SET statement_timeout = '200ms'").await?;
        s.query("SELECT pg_sleep(60)", &[]).await
    };
    let error = timeout(Duration::from_secs(5), pool.read(hang)).await.unwrap().unwrap_err();
    assert!(matches!(error, PgError::Timeout(_)), "{error:?}");
    // That connection is gone, and with it the setting.
    let row = pool.read(|s| async move { s.query_one("SHOW statement_timeout", &[]).await }).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "10s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_kept_does_nothing() {
    let pool = pool().await;
    let kept = pool.read(|s| async move { Ok(s) }).await.unwrap();
    assert!(matches!(kept.query("SELECT 1", &[]).await, Err(PgError::Bug(_))));
    let kept = pool.commit(|tx| async move { Ok(tx) }).await.unwrap();
    assert!(matches!(kept.batch("SELECT 1").await, Err(PgError::Bug(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_in_the_middle_nothing_is_stored_and_locks_are_given_back() {
    let pool = pool().await;
    migrate(&pool, "t", &["CREATE TABLE t (n int PRIMARY KEY)"]).await.unwrap();
    let (sender, inserted) = tokio::sync::oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let task = tokio::spawn({
        let pool = pool.clone();
        async move {
            let sender = &sender;
            pool.commit(|tx| async move {
                tx.execute("INSERT INTO t VALUES (1)", &[]).await?;
                let _ = sender.lock().unwrap().take().unwrap().send(());
                std::future::pending::<Result<(), PgError>>().await
            })
            .await
        }
    });
    inserted.await.unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    // Waits for the first transaction's lock, if it is still there.
    let insert = pool.commit(|tx| async move { tx.execute("INSERT INTO t VALUES (1)", &[]).await });
    assert_eq!(timeout(Duration::from_secs(60), insert).await.unwrap(), Ok::<u64, CommitError>(1));
}
