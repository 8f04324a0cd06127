//! Servers that go and come.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use postgres::test::Server;
use postgres::{CommitError, PgError, Pool, migrate};
use tokio::time::timeout;

async fn with_table(server: &Server, hold: Duration) -> Pool {
    let mut config = server.database();
    config.hold = hold;
    let pool = Pool::connect(config).await.unwrap();
    migrate(&pool, "t", &["CREATE TABLE t (id int PRIMARY KEY, times int NOT NULL DEFAULT 1)"])
        .await
        .unwrap();
    pool
}

const UPSERT: &str = "INSERT INTO t (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET times = t.times + 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_held_while_the_server_is_away() {
    let server = Server::start(&[]);
    let pool = with_table(&server, Duration::from_secs(30)).await;
    server.down();
    let commit = tokio::spawn({
        let pool = pool.clone();
        async move { pool.commit(|tx| async move { tx.execute(UPSERT, &[&1]).await }).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!commit.is_finished());
    server.up();
    assert_eq!(timeout(Duration::from_secs(60), commit).await.unwrap().unwrap(), Ok(1));
    let rows = pool.read(|s| async move { s.query("SELECT times FROM t", &[]).await }).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.get::<_, i32>(0)).collect::<Vec<_>>(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hold_ends_with_what_kept_it() {
    let server = Server::start(&[]);
    let pool = with_table(&server, Duration::from_millis(800)).await;
    server.down();
    let error = pool.commit(|tx| async move { tx.execute(UPSERT, &[&1]).await }).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::NotCommitted(PgError::Unreachable(why)) if why.contains(&server.port().to_string())),
        "{error:?}"
    );
}

/// The server dies with COMMIT on the way: the plain form does not run again, the idempotent one does.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_commit_runs_again_only_where_that_is_harmless() {
    let server = Server::start(&[]);
    let pool = with_table(&server, Duration::from_secs(30)).await;
    for idempotent in [false, true] {
        server.set("synchronous_standby_names", "missing");
        let runs = std::sync::Arc::new(AtomicU32::new(0));
        let commit = tokio::spawn({
            let (pool, runs) = (pool.clone(), runs.clone());
            async move {
                let runs = &runs;
                let work = |tx: postgres::Tx| async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    tx.execute(UPSERT, &[&i32::from(idempotent)]).await
                };
                if idempotent { pool.commit_idempotent(work).await } else { pool.commit(work).await }
            }
        });
        while server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "0" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.down();
        let conf = server.dir().join("data/postgresql.auto.conf");
        std::fs::write(conf, "").unwrap();
        server.up();
        let result = timeout(Duration::from_secs(60), commit).await.unwrap().unwrap();
        if idempotent {
            assert_eq!(result, Ok(1));
            assert!(runs.load(Ordering::SeqCst) >= 2);
        } else {
            assert!(matches!(result, Err(CommitError::Unknown(_))), "{result:?}");
            assert_eq!(runs.load(Ordering::SeqCst), 1);
        }
    }
}

/// A frozen server is told from one whose commit waits: the first is given up, and another is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_given_up() {
    let frozen = Server::start(&[]);
    let mut config = frozen.database();
    config.hold = Duration::from_secs(60);
    let pool = Pool::connect(config).await.unwrap();
    let pids = frozen.freeze();
    let check = timeout(Duration::from_secs(60), pool.check()).await;
    frozen.thaw(&pids);
    let error = check.expect("given up in time").unwrap_err();
    assert!(matches!(&error, PgError::Lost(why) if why.contains("does not answer")), "{error:?}");
    // It moves again, and so do we.
    assert_eq!(pool.check().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_the_one_that_takes_writes_is_used() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let read_only = Server::start(&[]);
    let good = Server::start(&[]);
    let name = good.database().url.rsplit('/').next().unwrap().to_owned();
    read_only.sql(&format!("CREATE DATABASE {name}"));
    read_only.set("default_transaction_read_only", "on");
    let mut config = good.database();
    config.url = format!(
        "postgres://postgres@127.0.0.1:{closed},127.0.0.1:{},127.0.0.1:{}/{name}",
        read_only.port(),
        good.port()
    );
    config.hold = Duration::from_secs(1);
    let pool = Pool::connect(config).await.unwrap();
    let port =
        |s: postgres::Session| async move { Ok(s.query_one("SHOW port", &[]).await?.get::<_, String>(0)) };
    assert_eq!(pool.read(port).await.unwrap(), good.port().to_string());
    // What each of them says is told.
    good.down();
    let error =
        pool.commit(|tx| async move { tx.execute("SELECT 1", &[]).await }).await.unwrap_err().to_string();
    assert!(
        error.contains("takes writes") && error.contains("read-only") && error.contains("refused"),
        "{error}"
    );
}

/// The primary stands still, its standby is promoted; then the old one is back and believes that it is still primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_replaced_is_written_to_no_more() {
    let old = Server::start(&[]);
    let name = old.database().url.rsplit('/').next().unwrap().to_owned();
    let new = old.standby(&[]);
    let mut config = old.database();
    config.url = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{name}", old.port(), new.port());
    config.durability = postgres::Durability::Checked;
    old.set("synchronous_standby_names", "*");
    let pool = Pool::connect(config.clone()).await.unwrap();
    migrate(&pool, "t", &["CREATE TABLE t (id int PRIMARY KEY, times int NOT NULL DEFAULT 1)"])
        .await
        .unwrap();
    let upsert = |pool: &Pool, id: i32| {
        let pool = pool.clone();
        async move { pool.commit_idempotent(|tx| async move { tx.execute(UPSERT, &[&id]).await }).await }
    };
    assert_eq!(upsert(&pool, 1).await, Ok(1));
    let frozen = old.freeze();
    let held = tokio::spawn(upsert(&pool, 2));
    assert_eq!(new.sql("SELECT pg_promote()"), "t");
    new.set("synchronous_standby_names", "");
    let provided =
        Pool::connect(postgres::Config { durability: postgres::Durability::Provider, ..config.clone() });
    let provided = timeout(Duration::from_secs(60), provided).await.unwrap().unwrap();
    // Without a standby of its own the new one is no place for mail, and the guard says so until there is one.
    let third = new.standby(&[]);
    new.set("synchronous_standby_names", "*");
    assert_eq!(timeout(Duration::from_secs(60), held).await.unwrap().unwrap(), Ok(1));
    old.thaw(&frozen);
    // Both take writes now. Who knows of the promotion writes to the new one, and so does who asks both.
    let fresh = Pool::connect(config).await.unwrap();
    for (pool, id) in [(&pool, 3), (&provided, 4), (&fresh, 5)] {
        assert_eq!(timeout(Duration::from_secs(60), upsert(pool, id)).await.unwrap(), Ok(1));
    }
    for server in [&new, &third] {
        assert_eq!(server.sql_in(&name, "SELECT string_agg(id::text, ',' ORDER BY id) FROM t"), "1,2,3,4,5");
    }
    assert_eq!(old.sql_in(&name, "SELECT count(*) FROM t WHERE id > 2"), "0");
}
