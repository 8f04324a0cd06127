//! How fast a node takes what is due out of the queue: when there is nothing else, behind millions of rows that are not due, and
//! while somebody else's transaction keeps the vacuum from removing what is gone.

use std::time::Duration;

use mail::{Clock, DeliveryId, OrgId, QueueKey, Stream, Timestamp};
use posthouse_tests::engine::SETTINGS;
use posthouse_tests::fill::{Fill, To, runtime};
use posthouse_tests::needs;
use posthouse_tests::neighbours::postgres::{Postgres, USER};
use store::{Fence, Next, PostgresConfig, Settlement, Store};

/// Rows that are deferred for a day, unless `POSTHOUSE_ROWS` says otherwise.
const ROWS: u64 = 5_000_000;
/// Rows that are due and claimed in one measurement.
const DUE: u64 = 20_000;
/// The destinations of what is filled in.
const DOMAINS: u64 = 50;

#[test]
fn claims_behind_millions_of_deferred_rows() {
    needs!("postgres", "setpriv");
    let rows = std::env::var("POSTHOUSE_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROWS);
    let mut server = Postgres::start(&format!("{SETTINGS}\nshared_buffers = 256MB\nmax_wal_size = 1GB"));
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    rt.block_on(async {
        let clock = Clock::system();
        let store = open(&server, dir.path(), clock.clone()).await;
        tell("an empty queue", claimed(&store, &clock).await);
        let later = Timestamp(clock.now().0 + 86_400_000);
        fill(&store, rows, later).await;
        server.sql(USER, "VACUUM ANALYZE");
        tell(&format!("{rows} deferred rows"), claimed(&store, &clock).await);
        // Somebody reads while the queue is worked on: what is claimed and gone can not be removed.
        let reader = snapshot(&server).await;
        let opened = clock.mono();
        while clock.mono().since(opened) < Duration::from_secs(60) {
            claimed(&store, &clock).await;
        }
        tell(&format!("{rows} deferred rows and a snapshot 60 s old"), claimed(&store, &clock).await);
        reader.abort();
        store.close().await.unwrap();
    });
    server.kill9();
}

async fn open(server: &Postgres, spool: &std::path::Path, clock: Clock) -> Store {
    let mut config = postgres::Config::new(format!("{}?sslmode=disable", server.url()));
    config.durability = postgres::Durability::Provider;
    let pool = postgres::Pool::connect(config).await.unwrap();
    let fence = Fence { node: 1, epoch: clock.now().0 };
    Store::open_postgres(PostgresConfig::new(pool, fence, spool), clock).await.unwrap().0
}

/// A transaction that has seen the tables as they are now, and stays open until it is aborted.
async fn snapshot(server: &Postgres) -> tokio::task::JoinHandle<()> {
    let mut config = postgres::Config::new(format!("{}?sslmode=disable", server.url()));
    config.durability = postgres::Durability::Provider;
    let pool = postgres::Pool::connect(config).await.unwrap();
    let (opened, is_open) = tokio::sync::oneshot::channel();
    let reader = tokio::spawn(async move {
        let opened = std::sync::Mutex::new(Some(opened));
        let _ = pool
            .read(|session| {
                let opened = opened.lock().unwrap().take();
                async move {
                    session
                        .batch("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM store.queue")
                        .await?;
                    if let Some(opened) = opened {
                        let _ = opened.send(());
                    }
                    std::future::pending::<()>().await;
                    Ok(())
                }
            })
            .await;
    });
    is_open.await.unwrap();
    reader
}

async fn fill(store: &Store, rows: u64, due: Timestamp) {
    let clock = Clock::system();
    let fill = Fill { messages: rows, size: 512, to: To::Domains(DOMAINS), due };
    Fill::into(&fill, store).await;
    println!("filled in {rows} rows in {:.0?}", clock.mono().0);
}

/// Puts rows in that are due, then claims them page by page and settles each page, as a node does that finds mail waiting. The
/// time that the pages took, without that for settling.
async fn claimed(store: &Store, clock: &Clock) -> Duration {
    let now = clock.now();
    let fill = Fill { messages: DUE, size: 512, to: To::Domains(DOMAINS), due: Timestamp(now.0 - 60_000) };
    Fill::into(&fill, store).await;
    let (mut took, mut rows) = (Duration::ZERO, 0);
    for n in 0..DOMAINS {
        let destination = fill.to.of(n).1;
        let queue = QueueKey { org: OrgId::DEFAULT, stream: Stream::Transactional, destination };
        loop {
            let start = clock.mono();
            let page = store.page(&queue, now, 256).await.unwrap();
            took += clock.mono().since(start);
            if page.is_empty() {
                break;
            }
            rows += page.len() as u64;
            let settle = |waiting: store::Waiting| {
                let store = store.clone();
                tokio::spawn(async move { store.settled(done(waiting.id)).await })
            };
            for settled in page.into_iter().map(settle).collect::<Vec<_>>() {
                settled.await.unwrap().unwrap();
            }
        }
    }
    assert_eq!(rows, DUE, "each is claimed once");
    took
}

fn done(delivery: DeliveryId) -> Settlement {
    Settlement {
        delivery,
        recipients: Vec::new(),
        next: Next::Done,
        warned: false,
        reports: Vec::new(),
        events: Vec::new(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn tell(what: &str, took: Duration) {
    println!("MEASURED claims with {what}: {:.0} rows/s", DUE as f64 / took.as_secs_f64());
}
