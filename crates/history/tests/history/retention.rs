//! New files, old files, and what is kept of them.

use history::{Config, End, TraceQuery};
use mail::{Disposition, Event, EventKind, ManualClock};

use crate::common::*;
use crate::engine::{Engine, on_both};

on_both!(old_files_go_whole_but_what_is_in_the_queue_stays_findable, a_clock_that_was_set_drops_nothing,);

fn sent_to(address: &str) -> TraceQuery {
    TraceQuery { recipient: Some(address.into()), ..TraceQuery::default() }
}

#[tokio::test]
async fn a_file_a_day_and_a_new_one_at_the_size_limit() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(START);
    let config = Config { file_size_max: 100_000, ..Config::default() };
    let history = open_with(&dir, &clock, config);
    let mut seq = 0;
    for day in 0..3u64 {
        for n in 0..10u64 {
            let now = clock.clock().now();
            let batch = (0..100)
                .map(|k| {
                    seq += 1;
                    (
                        seq,
                        accepted(
                            message(id(now, n * 100 + k), now, "ann@example.com", None),
                            &[&format!("r{day}@example.org")],
                        ),
                    )
                })
                .collect();
            history.append(batch).await.unwrap();
        }
        clock.advance(DAY);
    }
    let names: Vec<String> =
        files(&dir).iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(
        names.contains(&"2026-11-24-001.db".to_owned()) && names.contains(&"2026-11-26-002.db".to_owned()),
        "{names:?}"
    );
    assert_eq!(history.stats().files, names.len() as u64);
    assert!(history.stats().bytes > 400_000 && history.stats().bytes < 3_000_000, "{:?}", history.stats());
    for day in 0..3 {
        let query = TraceQuery { limit: Some(1000), ..sent_to(&format!("r{day}@example.org")) };
        assert_eq!(history.trace(query).await.unwrap().len(), 1000, "day {day}");
    }
    // The newest ones, over several files.
    let found = history.trace(TraceQuery { limit: Some(1000), ..TraceQuery::default() }).await.unwrap();
    assert!(found.is_sorted_by(|a, b| a.id > b.id));
    assert_eq!(found[0].recipients[0].address, "r2@example.org");
    // A clock that steps back does not make files of earlier days.
    clock.jump_to(START);
    seq += 1;
    history
        .append(vec![(
            seq,
            accepted(message(id(START, 9999), START, "z@example.com", None), &["z@example.org"]),
        )])
        .await
        .unwrap();
    let last = files(&dir).pop().unwrap();
    assert!(last.file_name().unwrap().to_str().unwrap().starts_with("2026-11-26-"), "{last:?}");
    assert_eq!(history.trace(sent_to("z@example.org")).await.unwrap().len(), 1);
}

async fn old_files_go_whole_but_what_is_in_the_queue_stays_findable(engine: Engine) {
    let clock = ManualClock::new(START);
    let keep = DAY * 2;
    let history = engine.open_with(&clock, Config { keep, ..Config::default() }).await;
    let by = || "root (uid 0)".to_owned();
    let now = || clock.clock().now();
    let ids = [1, 2, 3, 4, 5].map(|n| id(START, n));
    let [done, deferred, held, half, later] = ids;
    let it = |id, to: &[&str]| accepted(message(id, START, "ann@example.com", Some(&format!("{id}@x"))), to);
    history
        .append(vec![
            (1, it(done, &["done@example.org"])),
            (2, attempt(done, now(), &[(0, Disposition::Delivered)])),
            (3, it(deferred, &["deferred@example.org"])),
            (4, attempt(deferred, now(), &[(0, Disposition::Deferred)])),
            (5, it(held, &["held@example.org"])),
            (6, Event { at: now(), message: held, kind: EventKind::Held { by: by(), reason: "odd".into() } }),
            (7, it(half, &["h1@example.org", "h2@example.org"])),
            (8, attempt(half, now(), &[(0, Disposition::Delivered)])),
            (9, it(later, &["later@example.org"])),
            (10, attempt(later, now(), &[(0, Disposition::Deferred)])),
        ])
        .await
        .unwrap();
    // The next day's file tells the end of one of them.
    clock.advance(DAY);
    history.append(vec![(11, attempt(later, now(), &[(0, Disposition::Delivered)]))]).await.unwrap();
    clock.advance(DAY);
    history.append(vec![(12, attempt(held, now(), &[(0, Disposition::Deferred)]))]).await.unwrap();
    let days = engine.days();
    history.sweep().await.unwrap();
    assert_eq!(engine.days(), days, "the first day has not been over for two days");

    // Four days on, nothing but the newest file is left, and all that is told of those in the queue.
    for day in 0..4u64 {
        clock.advance(DAY);
        history.append(vec![(13 + day, attempt(held, now(), &[(0, Disposition::Deferred)]))]).await.unwrap();
    }
    history.sweep().await.unwrap();
    assert_eq!(engine.days(), 3);
    assert!(history.trace(sent_to("done@example.org")).await.unwrap().is_empty());
    assert!(history.trace(sent_to("later@example.org")).await.unwrap().is_empty());
    for (id, address, end, steps) in [
        (deferred, "deferred@example.org", End::Queued, 1),
        (held, "held@example.org", End::Queued, 6),
        (half, "h2@example.org", End::Queued, 1),
    ] {
        for query in [
            sent_to(address),
            TraceQuery { id: Some(id.to_string()), ..TraceQuery::default() },
            TraceQuery { message_id: Some(format!("{id}@x")), ..TraceQuery::default() },
        ] {
            let found = history.trace(query).await.unwrap();
            assert_eq!(found.len(), 1, "{address}");
            assert_eq!(
                (found[0].recipients.last().unwrap().end, found[0].steps.len()),
                (end, steps),
                "{address}"
            );
            assert!(found[0].accepted.is_some());
        }
    }
    // When they end, they go like the others.
    history.append(vec![(17, attempt(held, now(), &[(0, Disposition::Refused)]))]).await.unwrap();
    for n in 0..6u64 {
        clock.advance(DAY);
        let other = id(now(), 0);
        let event = accepted(message(other, now(), "x@example.com", None), &["x@example.org"]);
        history.append(vec![(18 + n, event)]).await.unwrap();
        history.sweep().await.unwrap();
    }
    assert!(history.trace(sent_to("held@example.org")).await.unwrap().is_empty());
    assert_eq!(history.trace(sent_to("deferred@example.org")).await.unwrap().len(), 1);
}

async fn a_clock_that_was_set_drops_nothing(engine: Engine) {
    let clock = ManualClock::new(START);
    let history = engine.open_with(&clock, Config { keep: DAY, ..Config::default() }).await;
    let it = id(START, 1);
    history
        .append(vec![
            (1, accepted(message(it, START, "ann@example.com", None), &["bob@example.org"])),
            (2, attempt(it, START, &[(0, Disposition::Delivered)])),
        ])
        .await
        .unwrap();
    clock.jump_to(START.plus(DAY * 30));
    let now = clock.clock().now();
    let other = id(now, 1);
    history
        .append(vec![(3, accepted(message(other, now, "x@example.com", None), &["x@example.org"]))])
        .await
        .unwrap();
    history.sweep().await.unwrap();
    assert_eq!(engine.days(), 2);
    assert_eq!(history.trace(sent_to("bob@example.org")).await.unwrap().len(), 1);
    // Set right again, it is believed after a day.
    clock.jump_to(START);
    history.sweep().await.unwrap();
    clock.advance(DAY * 3);
    history.sweep().await.unwrap();
    assert_eq!(engine.days(), 1);
}
