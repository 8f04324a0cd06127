//! A copy while it is written, and reading page by page.

use std::os::unix::fs::PermissionsExt;

use history::{Config, History, TraceQuery};
use mail::{Event, ManualClock};

use crate::common::*;

/// Three messages of one moment on each of four days, so that a page ends inside a moment.
async fn filled(dir: &tempfile::TempDir) -> (History, ManualClock) {
    let clock = ManualClock::new(START);
    let history = open_with(dir, &clock, Config::default());
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

#[tokio::test]
async fn pages_give_every_message_once() {
    let dir = tempfile::tempdir().unwrap();
    let (history, _clock) = filled(&dir).await;
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

#[tokio::test]
async fn a_backup_is_a_history() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (history, clock) = filled(&dir).await;
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
