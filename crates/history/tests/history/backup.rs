//! A copy while it is written, and reading page by page.

use std::os::unix::fs::PermissionsExt;

use history::{Config, History, TraceQuery};
use mail::{Event, ManualClock};

use crate::common::*;
use crate::engine::{Engine, on_both};

on_both!(pages_give_every_message_once, a_message_that_was_carried_over_hides_no_other);

/// Three messages of one moment on each of four days, so that a page ends inside a moment.
async fn filled(engine: &Engine) -> (History, ManualClock) {
    let clock = ManualClock::new(START);
    let history = engine.open(&clock).await;
    let mut seq = 0;
    for _ in 0..4 {
        let now = clock.clock().now();
        let batch: Vec<(u64, Event)> = (0..3)
            .map(|n| {
                seq += 1;
                (seq, accepted(message(id(now, n), now, "ann@example.com", None), &["bob@example.org"]))
            })
            .collect();
        history.append(batch).await.unwrap();
        clock.advance(DAY);
    }
    (history, clock)
}

async fn pages_give_every_message_once(engine: Engine) {
    let (history, _clock) = filled(&engine).await;
    for recipient in [None, Some("bob@example.org".to_owned())] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let query =
                TraceQuery { recipient: recipient.clone(), before, limit: Some(5), ..TraceQuery::default() };
            let page = history.trace(query).await.unwrap();
            before = page.last().map(|t| t.id.to_string());
            seen.extend(page.iter().map(|t| t.id));
            if page.len() < 5 {
                break;
            }
        }
        assert_eq!(seen.len(), 12);
        assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    }
}

/// What is held moves into the newest file or partition: a page must not end with it and skip what is newer.
async fn a_message_that_was_carried_over_hides_no_other(engine: Engine) {
    let clock = ManualClock::new(START);
    let history = engine.open_with(&clock, Config { keep: DAY * 10, ..Config::default() }).await;
    let mut seq = 0;
    let mut ids = Vec::new();
    for day in 0..20u64 {
        let now = clock.clock().now();
        for n in 0..3 {
            let it = id(now, n);
            let mut batch = vec![accepted(message(it, now, "ann@example.com", None), &["bob@example.org"])];
            // One of the first day stays in the queue.
            if (day, n) != (0, 0) {
                batch.push(attempt(it, now, &[(0, mail::Disposition::Delivered)]));
            }
            for event in batch {
                seq += 1;
                history.append(vec![(seq, event)]).await.unwrap();
            }
            if (day, n) == (0, 0) || day >= 10 {
                ids.push(it);
            }
        }
        clock.advance(DAY);
    }
    history.sweep().await.unwrap();
    ids.reverse();
    for sender in [None, Some("ann@example.com".to_owned())] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let query =
                TraceQuery { sender: sender.clone(), before, limit: Some(5), ..TraceQuery::default() };
            let page = history.trace(query).await.unwrap();
            before = page.last().map(|t| t.id.to_string());
            seen.extend(page.iter().map(|t| t.id));
            if page.len() < 5 {
                break;
            }
        }
        assert_eq!(seen, ids);
    }
}

#[tokio::test]
async fn a_backup_is_a_history() {
    let copy = tempfile::tempdir().unwrap();
    let engine = Engine::files();
    let (history, clock) = filled(&engine).await;
    let to = copy.path().join("history");
    let bytes = history.backup(to.clone()).await.unwrap();
    assert!(bytes > 0);
    for entry in std::fs::read_dir(&to).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(history.backup(to).await.is_err(), "it does not write over another one");
    let query = TraceQuery { limit: Some(1000), ..TraceQuery::default() };
    let again = open_with(&copy, &clock, Config::default());
    assert_eq!(again.trace(query.clone()).await.unwrap(), history.trace(query).await.unwrap());
    assert_eq!(again.stats().last, history.stats().last);
}
