//! What only the nodes of a cluster do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use history::{Config, End, History, HistoryError, TraceQuery};
use mail::{Clock, Disposition, Event, EventKind, ManualClock, MessageId, Timestamp};
use postgres::Pool;
use postgres::test::Server;

use crate::common::*;
use crate::engine::Engine;

fn by_sender(sender: &str) -> TraceQuery {
    TraceQuery { sender: Some(sender.into()), limit: Some(1000), ..TraceQuery::default() }
}

fn new(n: u64, clock: &ManualClock) -> (MessageId, Event) {
    let now = clock.clock().now();
    let it = id(now, n);
    (it, accepted(message(it, now, "ann@example.com", None), &["bob@example.org"]))
}

async fn three(engine: &Engine, clock: &ManualClock) -> [History; 3] {
    let open = |node| engine.node(node, clock, Config::default());
    [open(1).await, open(2).await, open(900).await]
}

#[tokio::test]
async fn nodes_tell_one_story_together() {
    let (engine, clock) = (Engine::postgres(), ManualClock::new(START));
    let [a, b, c] = three(&engine, &clock).await;
    let (it, event) = new(1, &clock);
    let later = |s: u64| START.plus(Duration::from_secs(s));
    // Accepted and tried at one node, taken over by a second, held at a third, delivered by the first.
    a.append(vec![(70, event), (71, attempt(it, later(1), &[(0, Disposition::Deferred)]))]).await.unwrap();
    b.append(vec![(5, attempt(it, later(2), &[(0, Disposition::Deferred)]))]).await.unwrap();
    let held = EventKind::Held { by: "me".into(), reason: "odd".into() };
    let released = EventKind::Released { by: "me".into() };
    c.append(vec![(5, Event { at: later(3), message: it, kind: held })]).await.unwrap();
    c.append(vec![(6, Event { at: later(4), message: it, kind: released })]).await.unwrap();
    a.append(vec![(72, attempt(it, later(5), &[(0, Disposition::Delivered)]))]).await.unwrap();
    for history in [&a, &b, &c] {
        let found = history.trace(by_sender("ann@example.com")).await.unwrap();
        assert_eq!(found.len(), 1);
        let at: Vec<_> = found[0].steps.iter().map(|s| s.at).collect();
        assert_eq!(at, [1, 2, 3, 4, 5].map(later));
        let recipient = &found[0].recipients[0];
        assert_eq!((recipient.end, recipient.attempts), (End::Delivered, 3));
    }
    assert_eq!([a.stats().last, b.stats().last, c.stats().last], [72, 5, 6]);
    assert_eq!((engine.rows("message"), engine.rows("event")), (1, 5));
    let again = engine.node(900, &clock, Config::default()).await;
    assert_eq!(again.stats().last, 6);
}

#[tokio::test]
async fn the_outbox_of_a_dead_node_is_told_once() {
    let (engine, clock) = (Engine::postgres(), ManualClock::new(START));
    let [a, b, c] = three(&engine, &clock).await;
    let events: Vec<(u64, Event)> = (1..=60).map(|n| (n, new(n, &clock).1)).collect();
    a.append(events[..20].to_vec()).await.unwrap();
    // Two nodes think that they are the one to do it, and the dead one is not dead.
    let (x, y, z) = tokio::join!(
        b.append_of(1, events[10..40].to_vec()),
        c.append_of(1, events[10..50].to_vec()),
        a.append(events[20..60].to_vec()),
    );
    for (seen, history) in [(x, &b), (y, &c)] {
        // Who came second is told so and does it again.
        if let Err(error) = seen {
            assert!(matches!(error, HistoryError::Postgres(postgres::PgError::Conflict(_))), "{error}");
            history.append_of(1, events[10..50].to_vec()).await.unwrap();
        }
    }
    if z.is_err() {
        a.append(events[20..60].to_vec()).await.unwrap();
    }
    assert_eq!((engine.rows("message"), a.stats().last), (60, 60));
    assert_eq!(a.trace(by_sender("ann@example.com")).await.unwrap().len(), 60);
    assert_eq!(engine.sql("SELECT last FROM history.node WHERE id = 1"), "60");
    // A node that nothing was heard of.
    b.append_of(77, vec![(3, new(99, &clock).1)]).await.unwrap();
    b.append_of(77, vec![(3, new(99, &clock).1)]).await.unwrap();
    assert_eq!((engine.rows("message"), b.stats().last), (61, 0));
    let files = Engine::files();
    let files = files.open(&clock).await;
    assert!(matches!(files.append_of(1, vec![]).await, Err(HistoryError::Engine(_))));
}

#[tokio::test]
async fn only_the_elected_node_drops_and_a_day_goes_whole() {
    let (engine, clock) = (Engine::postgres(), ManualClock::new(START));
    let elected = Arc::new(AtomicBool::new(false));
    let may = Arc::clone(&elected);
    let history = History::open_postgres(
        engine.pool().await,
        1,
        Config { keep: DAY, ..Config::default() },
        Arc::new(move || may.load(Ordering::Relaxed)),
        clock.clock(),
    )
    .await
    .unwrap();
    let partitions = || {
        let sql =
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^(message|event|part)_[0-9]+$'";
        engine.sql(sql).parse::<u64>().unwrap()
    };
    // Yesterday, today, and two days ahead.
    assert_eq!((partitions(), history.stats().files), (12, 4));
    let (it, event) = new(1, &clock);
    history.append(vec![(1, event), (2, attempt(it, START, &[(0, Disposition::Delivered)]))]).await.unwrap();
    clock.advance(DAY * 5);
    history.append(vec![(3, new(2, &clock).1)]).await.unwrap();
    assert_eq!(partitions(), 24);
    history.sweep().await.unwrap();
    assert_eq!((partitions(), engine.rows("message")), (24, 2));
    elected.store(true, Ordering::Relaxed);
    history.sweep().await.unwrap();
    // Yesterday's is not over for a day.
    assert_eq!((partitions(), engine.rows("message"), engine.rows("run")), (12, 1, 1));
    assert_eq!(history.stats().files, 4);
    assert!(history.stats().bytes > 0);
}

/// With the machine's clock, which is compared with the server's.
#[tokio::test]
async fn the_machines_own_clock_is_believed() {
    let engine = Engine::postgres();
    let clock = Clock::system();
    let config = Config { keep: DAY * 5, ..Config::default() };
    let history = History::open_postgres(engine.pool().await, 1, config, Arc::new(|| true), clock.clone())
        .await
        .unwrap();
    let ago = |days: u32| Timestamp(clock.now().0 - i64::try_from((DAY * days).as_millis()).unwrap());
    let rows = [20, 10, 3].map(|days| {
        let (at, it) = (ago(days), id(ago(days), 1));
        let event = accepted(message(it, at, "ann@example.com", None), &["bob@example.org"]);
        [
            (u64::from(100 - days) * 2, event),
            (u64::from(100 - days) * 2 + 1, attempt(it, at, &[(0, Disposition::Delivered)])),
        ]
    });
    history.append(rows.concat()).await.unwrap();
    assert_eq!((engine.rows("message"), history.trace(TraceQuery::default()).await.unwrap().len()), (3, 3));
    // Told late, they are kept from today on; as if they had been told in time, they go.
    history.sweep().await.unwrap();
    assert_eq!(engine.rows("message"), 3);
    engine.sql("UPDATE history.message SET day = (extract(epoch FROM now()) / 86400)::int - 20 WHERE id = (SELECT min(id) FROM history.message)");
    history.sweep().await.unwrap();
    assert_eq!(engine.rows("message"), 2);
}

#[tokio::test]
async fn rows_of_days_without_partitions_are_found_and_move() {
    let (engine, clock) = (Engine::postgres(), ManualClock::new(START));
    let [a, b, _] = three(&engine, &clock).await;
    // Made by a clock that is ten days ahead.
    let ahead = ManualClock::new(START.plus(DAY * 10));
    let (it, event) = new(1, &ahead);
    a.append(vec![(1, event), (2, attempt(it, START, &[(0, Disposition::Deferred)]))]).await.unwrap();
    assert_eq!(
        (engine.rows("message_other"), engine.rows("event_other"), engine.rows("part_other")),
        (1, 1, 1)
    );
    assert_eq!(b.trace(by_sender("ann@example.com")).await.unwrap()[0].steps.len(), 1);
    clock.advance(DAY * 9);
    b.append(vec![(1, new(2, &clock).1)]).await.unwrap();
    assert_eq!(
        (engine.rows("message_other"), engine.rows("event_other"), engine.rows("part_other")),
        (0, 0, 0)
    );
    let found = b.trace(by_sender("ann@example.com")).await.unwrap();
    assert_eq!(found.iter().map(|t| t.id).collect::<Vec<_>>(), [it, id(START.plus(DAY * 9), 2)]);
    // And those of days that were never made are dropped in time.
    let far = ManualClock::new(START.plus(DAY * 30));
    let (_, event) = new(3, &far);
    b.append(vec![(2, event)]).await.unwrap();
    assert_eq!(engine.rows("message_other"), 1);
    let dropped = engine.node(5, &ManualClock::new(START.plus(DAY * 90)), Config::default()).await;
    dropped.sweep().await.unwrap();
    assert_eq!(engine.rows("message_other"), 0);
    // Nothing tells that they have left the queue.
    assert_eq!(dropped.trace(by_sender("ann@example.com")).await.unwrap().len(), 3);
}

/// A sender of thousands of messages, whose keys fill many parts of many runs; and runs that are merged.
#[tokio::test]
async fn a_busy_sender_is_paged_through_and_runs_are_merged() {
    let (engine, clock) = (Engine::postgres(), ManualClock::new(START));
    let history = engine.open(&clock).await;
    let mut ids = Vec::new();
    let mut seq = 0;
    for batch in 0..40u64 {
        let now = clock.clock().now();
        let events = (0..100).map(|n| {
            let it = id(now, n);
            ids.push(it);
            seq += 1;
            let to = if n == 50 { format!("rare{batch}@example.net") } else { "bob@example.org".to_owned() };
            (seq, accepted(message(it, now, "ann@example.com", None), &[&to]))
        });
        history.append(events.collect()).await.unwrap();
        clock.advance(Duration::from_secs(1));
    }
    ids.reverse();
    let check = async || {
        for recipient in [None, Some("bob@example.org".to_owned())] {
            let (mut seen, mut before) = (Vec::new(), None);
            loop {
                let query =
                    TraceQuery { before, recipient: recipient.clone(), ..by_sender("ann@example.com") };
                let page = history.trace(query).await.unwrap();
                before = page.last().map(|t| t.id.to_string());
                seen.extend(page.iter().map(|t| t.id));
                if page.len() < 1000 {
                    break;
                }
            }
            let wanted = ids.iter().filter(|id| recipient.is_none() || id.0 & 0xfff != 50);
            assert_eq!(seen, wanted.copied().collect::<Vec<_>>());
        }
        let rare = TraceQuery { recipient: Some("rare7@example.net".into()), ..by_sender("ann@example.com") };
        assert_eq!(history.trace(rare).await.unwrap().len(), 1);
        let until = START.plus(Duration::from_secs(10)).0;
        let early = TraceQuery { until: Some(until), limit: Some(3), ..by_sender("ann@example.com") };
        let found: Vec<_> = history.trace(early).await.unwrap().iter().map(|t| t.id).collect();
        assert_eq!(found, ids[3000..3003]);
    };
    check().await;
    let entries = || {
        engine.sql("SELECT sum(entries) || ' ' || (SELECT sum(length(entries)) / 12 FROM history.part) FROM history.run")
    };
    let (runs, before) = (engine.rows("run"), entries());
    history.sweep().await.unwrap();
    assert!(engine.rows("run") < 16 && runs == 40, "{} runs of {runs}", engine.rows("run"));
    assert_eq!(entries(), before);
    check().await;
    // A node that is gone, and an import, leave small runs behind: who is elected merges them when their day is over.
    let gone = engine.node(7, &clock, Config::default()).await;
    for n in 0..20u64 {
        let (_, event) = new(4000 + n, &clock);
        gone.append(vec![(n + 1, event)]).await.unwrap();
    }
    gone.close().await;
    let of_gone = || engine.sql("SELECT count(*) FROM history.run WHERE node = 7");
    history.sweep().await.unwrap();
    assert_eq!(of_gone(), "20");
    clock.advance(DAY * 2);
    history.sweep().await.unwrap();
    assert!(engine.rows("run") < 16, "{}", engine.rows("run"));
    assert_eq!(history.trace(TraceQuery::default()).await.unwrap().len(), 50);
}

/// What is over goes, whether its row tells so, or a later one, or only one of the next morning.
#[tokio::test]
async fn what_is_delivered_later_is_not_carried() {
    let (engine, clock) = (Engine::postgres(), ManualClock::new(START));
    let history = engine.open_with(&clock, Config { keep: DAY, ..Config::default() }).await;
    let mut seq = 0;
    let mut tell = async |event: Event| {
        seq += 1;
        history.append(vec![(seq, event)]).await.unwrap();
    };
    let two = |n| {
        let it = id(START, n);
        (it, accepted(message(it, START, "ann@example.com", None), &["bob@example.org", "eve@example.org"]))
    };
    use Disposition::Delivered;
    let [(all, a), (half, b), (twice, c), (morning, d)] = [1, 2, 3, 4].map(two);
    for event in [a, b, c, d] {
        tell(event).await;
    }
    let at = START.plus(Duration::from_secs(1));
    tell(attempt(all, at, &[(0, Delivered), (1, Delivered)])).await;
    tell(attempt(half, at, &[(0, Delivered)])).await;
    // The outbox was restored and tells the same again.
    tell(attempt(twice, at, &[(1, Delivered)])).await;
    tell(attempt(twice, at, &[(1, Delivered)])).await;
    tell(attempt(morning, at, &[(1, Delivered)])).await;
    clock.advance(DAY);
    tell(attempt(morning, clock.clock().now(), &[(0, Delivered)])).await;
    clock.advance(DAY * 5);
    history.sweep().await.unwrap();
    let found = history.trace(by_sender("ann@example.com")).await.unwrap();
    assert_eq!(found.iter().map(|t| t.id).collect::<Vec<_>>(), [twice, half]);
    assert!(found.iter().all(|t| t.steps.len() == 1 && t.recipients.iter().any(|r| r.end == End::Queued)));
}

/// The partition cannot be dropped while somebody reads it: what was carried over before is not carried again.
#[tokio::test]
async fn a_sweep_that_was_interrupted_carries_nothing_twice() {
    let (engine, clock) = (Engine::postgres(), ManualClock::new(START));
    let Engine::Postgres(config) = &engine else { unreachable!() };
    let mut config = config.clone();
    config.hold = Duration::from_millis(500);
    let pool = Pool::connect(config).await.unwrap();
    let keep = Config { keep: DAY, ..Config::default() };
    let history = History::open_postgres(pool, 1, keep, Arc::new(|| true), clock.clock()).await.unwrap();
    let (it, event) = new(1, &clock);
    history.append(vec![(1, event), (2, attempt(it, START, &[(0, Disposition::Deferred)]))]).await.unwrap();
    clock.advance(DAY * 5);
    let day = engine.sql("SELECT max(day) FROM history.message");
    let reader = engine.pool().await;
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let (go, end) = tokio::sync::oneshot::channel::<()>();
    let locked = parking_lot::Mutex::new(Some(locked));
    let end = tokio::sync::Mutex::new(Some(end));
    let (lock, swept) = tokio::join!(
        reader.commit(|tx| {
            let (locked, end, day) = (&locked, &end, &day);
            async move {
                tx.batch(&format!("LOCK TABLE history.message_{day} IN ACCESS SHARE MODE")).await?;
                if let Some(locked) = locked.lock().take() {
                    let _ = locked.send(());
                }
                if let Some(end) = end.lock().await.take() {
                    let _ = end.await;
                }
                Ok(())
            }
        }),
        async {
            is_locked.await.unwrap();
            let swept = history.sweep().await;
            go.send(()).unwrap();
            swept
        }
    );
    lock.unwrap();
    swept.unwrap_err();
    assert_eq!((engine.rows("message"), engine.rows("event")), (2, 2), "carried, and not dropped");
    history.sweep().await.unwrap();
    assert_eq!((engine.rows("message"), engine.rows("event"), engine.rows("run")), (1, 1, 1));
    let found = history.trace(by_sender("ann@example.com")).await.unwrap();
    assert_eq!((found.len(), found[0].steps.len()), (1, 1));
}

#[tokio::test]
async fn a_server_that_crashes_costs_nothing_and_tells_nothing_twice() {
    let server = Server::start(&[]);
    let clock = ManualClock::new(START);
    let pool = Pool::connect(server.database()).await.unwrap();
    let config = Config::default();
    let history = History::open_postgres(pool, 1, config, Arc::new(|| true), clock.clock()).await.unwrap();
    let writing = async {
        for batch in 0..60u64 {
            let events = (1..=20).map(|n| (batch * 20 + n, new(batch * 20 + n, &clock).1)).collect();
            history.append(events).await.unwrap();
        }
    };
    let crashing = tokio::task::spawn_blocking(move || {
        for _ in 0..3 {
            server.down();
            server.up();
        }
        server
    });
    let ((), server) = tokio::join!(writing, crashing);
    let _server = server.unwrap();
    assert_eq!(history.stats().last, 1200);
    let found = history.trace(by_sender("ann@example.com")).await.unwrap();
    assert_eq!(found.len(), 1000);
    let rows = history.export(None, 10_000).await.unwrap();
    assert_eq!(rows.len(), 1200);
}

#[tokio::test]
async fn a_row_that_is_damaged_costs_its_message_alone() {
    let (engine, clock) = (Engine::postgres(), ManualClock::new(START));
    let history = engine.open(&clock).await;
    for n in 1..4u64 {
        let (it, event) = new(n, &clock);
        let tried = attempt(it, START, &[(0, Disposition::Deferred)]);
        history.append(vec![(n * 2, event), (n * 2 + 1, tried)]).await.unwrap();
    }
    engine
        .sql("UPDATE history.event SET body = '\\x00' WHERE message = (SELECT max(id) FROM history.message)");
    engine.sql("UPDATE history.message SET body = '\\x' WHERE id = (SELECT min(id) FROM history.message)");
    let told = history.trace(TraceQuery::default()).await.unwrap();
    assert_eq!(told.iter().map(|t| t.steps.len()).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn what_postgresql_does_by_itself_is_said() {
    let (engine, clock) = (Engine::postgres(), ManualClock::new(START));
    let history = engine.open(&clock).await;
    let error = history.backup("/nowhere".into()).await.unwrap_err();
    assert!(
        matches!(error, HistoryError::Engine(_)) && error.to_string().contains("pg_basebackup"),
        "{error}"
    );
    history.close().await;
    assert!(matches!(history.append(vec![(1, new(1, &clock).1)]).await, Err(HistoryError::Closed)));
    assert!(history.trace(TraceQuery::default()).await.unwrap().is_empty(), "reading goes on");
}
