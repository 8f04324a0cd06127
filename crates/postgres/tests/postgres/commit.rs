//! The rule of a commit.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use postgres::test::Server;
use postgres::{CommitError, Durability, PgError, Pool, migrate};
use tokio::time::timeout;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, ref int REFERENCES t DEFERRABLE INITIALLY DEFERRED)";

async fn table(pool: &Pool) {
    migrate(pool, "t", &[TABLE]).await.unwrap();
}

async fn insert(pool: &Pool, id: i32) -> Result<u64, CommitError> {
    pool.commit(|tx| async move { tx.execute("INSERT INTO t (id) VALUES ($1)", &[&id]).await }).await
}

async fn there(pool: &Pool, id: i32) -> bool {
    pool.read(|s| async move { s.query_opt("SELECT 1 FROM t WHERE id = $1", &[&id]).await })
        .await
        .unwrap()
        .is_some()
}

/// A server whose commits wait for a standby that is not there, and a database with the table `t` in it.
async fn waiting(hold: Duration) -> (Server, Pool, String) {
    let server = Server::start(&[]);
    let mut config = server.database();
    let name = config.url.rsplit('/').next().unwrap().to_owned();
    let pool = Pool::connect(config.clone()).await.unwrap();
    table(&pool).await;
    server.set("synchronous_standby_names", "missing");
    config.durability = Durability::Checked;
    config.hold = hold;
    let pool = Pool::connect(config).await.unwrap();
    (server, pool, name)
}

/// Waits until a commit waits for its standby; returns its backend.
async fn blocked(server: &Server) -> String {
    loop {
        let pid = server.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
        if !pid.is_empty() {
            return pid;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_for_a_standby_is_never_success() {
    let (server, pool, database) = waiting(Duration::from_secs(60)).await;
    let commit = tokio::spawn({
        let pool = pool.clone();
        async move { insert(&pool, 1).await }
    });
    let pid = blocked(&server).await;
    assert!(!commit.is_finished());
    server.sql(&format!("SELECT pg_cancel_backend({pid})"));
    let result = timeout(Duration::from_secs(60), commit).await.unwrap().unwrap();
    match result {
        Err(CommitError::Unknown(why)) => assert!(why.contains("synchronous replication"), "{why}"),
        other => panic!("{other:?}"),
    }
    // What makes it dangerous: it is there, on one server.
    assert_eq!(server.sql_in(&database, "SELECT count(*) FROM t"), "1");
    // The same without our driver: psql says that all is well.
    let psql = std::thread::scope(|threads| {
        let insert =
            threads.spawn(|| server.psql(&database, "INSERT INTO t (id) VALUES (2)").output().unwrap());
        let pid = loop {
            let pid = server.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
            if !pid.is_empty() {
                break pid;
            }
        };
        server.sql(&format!("SELECT pg_cancel_backend({pid})"));
        insert.join().unwrap()
    });
    assert!(psql.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_wait_is_never_success() {
    let (server, pool, _) = waiting(Duration::from_secs(60)).await;
    let commit = tokio::spawn(async move { insert(&pool, 1).await });
    let pid = blocked(&server).await;
    server.sql(&format!("SELECT pg_terminate_backend({pid})"));
    let result = timeout(Duration::from_secs(60), commit).await.unwrap().unwrap();
    assert!(matches!(result, Err(CommitError::Unknown(_))), "{result:?}");
}

/// Patroni without `synchronous_mode_strict` does this when the last standby is gone.
#[tokio::test(flavor = "multi_thread")]
async fn emptied_standby_names_are_never_success() {
    let (server, pool, _) = waiting(Duration::from_secs(2)).await;
    let commit = tokio::spawn({
        let pool = pool.clone();
        async move { insert(&pool, 1).await }
    });
    blocked(&server).await;
    server.set("synchronous_standby_names", "");
    let result = timeout(Duration::from_secs(60), commit).await.unwrap().unwrap();
    match result {
        Err(CommitError::Unknown(why)) => assert!(why.contains("one server only"), "{why}"),
        other => panic!("{other:?}"),
    }
    // From now on nothing is sent at all, and the guard says what to do.
    let result = insert(&pool, 2).await;
    assert!(
        matches!(&result, Err(CommitError::NotCommitted(PgError::Unsafe { setting, .. })) if setting == "synchronous_standby_names"),
        "{result:?}"
    );
    assert!(!there(&pool, 2).await);
    assert!(matches!(pool.check().await, Err(PgError::Unsafe { .. })));
    server.set("synchronous_standby_names", "missing");
    assert_eq!(pool.check().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_drops_the_connection_and_cancels_nothing() {
    let (server, pool, database) = waiting(Duration::from_millis(700)).await;
    let result = timeout(Duration::from_secs(5), insert(&pool, 1)).await.unwrap();
    assert!(matches!(&result, Err(CommitError::Unknown(why)) if why.contains("no answer")), "{result:?}");
    // The backend waits still: had it been cancelled, the row would be visible by now.
    blocked(&server).await;
    assert_eq!(server.sql_in(&database, "SELECT count(*) FROM t"), "0");
    assert_eq!(server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"), "1");
}

/// Finding what another has left behind vouches for nothing until a standby has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_only_looks_waits_for_the_standby_all_the_same() {
    let (server, pool, database) = waiting(Duration::from_millis(700)).await;
    server.sql_in(&database, "INSERT INTO t (id) VALUES (1)");
    let again = |tx: postgres::Tx| async move {
        tx.execute("INSERT INTO t (id) VALUES (1) ON CONFLICT DO NOTHING", &[]).await
    };
    let result = pool.commit(again).await;
    assert!(matches!(result, Err(CommitError::Unknown(_))), "{result:?}");
    assert!(!blocked(&server).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_role_do_not_blind_us() {
    let (server, pool, _) = waiting(Duration::from_secs(30)).await;
    server.sql("ALTER ROLE postgres SET client_min_messages = 'error'");
    server.sql("ALTER ROLE postgres SET statement_timeout = '300ms'");
    let pool = Pool::connect(pool.config().clone()).await.unwrap();
    let commit = tokio::spawn(async move { insert(&pool, 1).await });
    let pid = blocked(&server).await;
    // Longer than the time-out of the role: it would have cancelled the wait.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!commit.is_finished());
    server.sql(&format!("SELECT pg_cancel_backend({pid})"));
    let result = timeout(Duration::from_secs(60), commit).await.unwrap().unwrap();
    assert!(matches!(result, Err(CommitError::Unknown(_))), "{result:?}");
    // And a role whose commits do not wait is refused.
    server.sql("ALTER ROLE postgres SET synchronous_commit = 'local'");
    let mut config = server.database();
    config.durability = Durability::Checked;
    let error = Pool::connect(config).await.err().unwrap();
    assert!(
        matches!(&error, PgError::Unsafe { setting, .. } if setting == "synchronous_commit"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_server_is_refused_in_words() {
    let server = Server::start(&[("full_page_writes", "off")]);
    let mut config = server.database();
    config.durability = Durability::Checked;
    let error = Pool::connect(config.clone()).await.err().unwrap();
    assert!(
        error.to_string().contains("full_page_writes") && error.to_string().contains("set it to on"),
        "{error}"
    );
    server.set("full_page_writes", "on");
    let error = Pool::connect(config.clone()).await.err().unwrap();
    assert!(error.to_string().contains("synchronous_standby_names"), "{error}");
    server.set("synchronous_standby_names", "*");
    assert!(Pool::connect(config).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_are_told_apart() {
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    table(&pool).await;
    insert(&pool, 1).await.unwrap();
    let error = insert(&pool, 1).await.unwrap_err();
    assert!(error.is_constraint("t_pkey"), "{error:?}");
    assert!(matches!(&error, CommitError::Refused { code, .. } if code == "23505"));
    // One that shows only at COMMIT.
    let error = pool
        .commit(|tx| async move { tx.execute("INSERT INTO t VALUES (2, 99)", &[]).await })
        .await
        .unwrap_err();
    assert!(error.is_constraint("t_ref_fkey"), "{error:?}");
    assert!(!there(&pool, 2).await);
    // The connection is good for more.
    insert(&pool, 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swallowed_error_is_no_commit() {
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    table(&pool).await;
    let error = pool
        .commit(|tx| async move {
            tx.execute("INSERT INTO t (id) VALUES (1)", &[]).await?;
            let _ = tx.batch("SELECT 1/0").await;
            Ok(())
        })
        .await
        .unwrap_err();
    assert!(
        matches!(&error, CommitError::NotCommitted(PgError::Bug(why)) if why.contains("returned Ok")),
        "{error:?}"
    );
    assert!(!there(&pool, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_is_rolled_back_and_says_so() {
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    table(&pool).await;
    let said: Result<(), &str> = pool
        .commit(|tx| async move {
            tx.execute("INSERT INTO t (id) VALUES (1)", &[]).await?;
            tx.abandon();
            Ok(Err("no"))
        })
        .await
        .unwrap();
    assert_eq!(said, Err("no"));
    assert!(!there(&pool, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_tried_again() {
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    table(&pool).await;
    insert(&pool, 1).await.unwrap();
    insert(&pool, 2).await.unwrap();
    let runs = AtomicU32::new(0);
    let meet = tokio::sync::Barrier::new(2);
    let (runs, meet) = (&runs, &meet);
    let cross = |first: i32, second: i32| {
        pool.commit(move |tx| async move {
            let lock = "UPDATE t SET ref = id WHERE id = $1";
            tx.execute(lock, &[&first]).await?;
            // They meet at the first run of each, not when one runs again.
            if runs.fetch_add(1, Ordering::SeqCst) < 2 {
                meet.wait().await;
            }
            tx.execute(lock, &[&second]).await
        })
    };
    let both = async { tokio::join!(cross(1, 2), cross(2, 1)) };
    let (a, b) = timeout(Duration::from_secs(60), both).await.unwrap();
    assert_eq!((a, b), (Ok(1), Ok(1)));
    assert!(runs.load(Ordering::SeqCst) >= 3, "there was a deadlock");
}

/// A notice that has nothing to do with COMMIT harms nothing before it and everything during it.
#[tokio::test(flavor = "multi_thread")]
async fn notices_matter_while_committing_only() {
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    table(&pool).await;
    let function = "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN RAISE WARNING 'look out'; RETURN NULL; END $$; \
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
        FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION warn()";
    pool.commit(|tx| async move { tx.batch(function).await }).await.unwrap();
    pool.commit(|tx| async move {
        tx.batch("CREATE TABLE IF NOT EXISTS t (id int); DO $$ BEGIN RAISE WARNING 'early'; END $$").await
    })
    .await
    .unwrap();
    let error = insert(&pool, 2).await.unwrap_err();
    assert!(matches!(&error, CommitError::Unknown(why) if why.contains("look out")), "{error:?}");
    insert(&pool, 3).await.unwrap();
}
