//! Files that are damaged or from the future never stop the relay.

use history::{History, TraceQuery};
use mail::{Disposition, Event, ManualClock};

use crate::common::*;

fn pair(n: u64, clock: &ManualClock) -> Vec<(u64, Event)> {
    let now = clock.clock().now();
    let it = id(now, n);
    vec![
        (n * 2, accepted(message(it, now, "ann@example.com", None), &["bob@example.org"])),
        (n * 2 + 1, attempt(it, now, &[(0, Disposition::Deferred)])),
    ]
}

async fn found(history: &History) -> usize {
    history
        .trace(TraceQuery { sender: Some("ann@example.com".into()), ..Default::default() })
        .await
        .unwrap()
        .len()
}

fn aside(dir: &tempfile::TempDir) -> usize {
    let names = std::fs::read_dir(dir.path().join("history")).unwrap().map(|e| e.unwrap().file_name());
    names.filter(|n| n.to_str().unwrap().contains("damaged")).count()
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(START);
    let history = open(&dir, &clock);
    history.append(pair(1, &clock)).await.unwrap();
    clock.advance(DAY);
    history.append(pair(2, &clock)).await.unwrap();
    history.close().await;
    let today = files(&dir).pop().unwrap();
    std::fs::write(&today, vec![b'x'; 20_000]).unwrap();

    let history = open(&dir, &clock);
    assert_eq!(aside(&dir), 1);
    assert_eq!(found(&history).await, 1);
    // It goes on in a new file, under a name that tells them apart.
    history.append(pair(3, &clock)).await.unwrap();
    assert_eq!(found(&history).await, 2);
    assert_ne!(files(&dir).pop().unwrap(), today);
    // An empty file, as a crash leaves one behind that was just made, is no better.
    history.close().await;
    std::fs::write(files(&dir).pop().unwrap(), b"").unwrap();
    let history = open(&dir, &clock);
    assert_eq!(aside(&dir), 2);
    history.append(pair(4, &clock)).await.unwrap();
    assert_eq!(found(&history).await, 2);
}

#[tokio::test]
async fn a_file_that_breaks_while_it_is_written_is_set_aside_and_the_batch_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(START);
    let history = open(&dir, &clock);
    for n in 1..50 {
        history.append(pair(n, &clock)).await.unwrap();
    }
    // A restart, so that nothing of the file is cached; then every page but the first is overwritten.
    history.close().await;
    let history = open(&dir, &clock);
    let path = files(&dir).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();

    history.append(pair(50, &clock)).await.unwrap();
    assert_eq!(aside(&dir), 1);
    assert_eq!(found(&history).await, 1);
    history.append(pair(51, &clock)).await.unwrap();
    assert_eq!(found(&history).await, 2);
}

#[tokio::test]
async fn a_damaged_row_costs_its_message_alone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(START);
    let history = open(&dir, &clock);
    for n in 1..4 {
        history.append(pair(n, &clock)).await.unwrap();
    }
    let db = rusqlite::Connection::open(files(&dir).pop().unwrap()).unwrap();
    db.execute("UPDATE event SET body = x'00' WHERE message = (SELECT max(id) FROM message)", []).unwrap();
    let timelines = history.trace(TraceQuery::default()).await.unwrap();
    assert_eq!(timelines.iter().map(|t| t.steps.len()).collect::<Vec<_>>(), [0, 1, 1]);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(START);
    let history = open(&dir, &clock);
    history.append(pair(1, &clock)).await.unwrap();
    history.close().await;
    let path = files(&dir).pop().unwrap();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();

    let history = open(&dir, &clock);
    assert_eq!((found(&history).await, aside(&dir)), (0, 0));
    history.append(pair(2, &clock)).await.unwrap();
    assert_eq!(found(&history).await, 1);
    assert!(path.exists());
}

#[tokio::test]
async fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(START);
    let history = open(&dir, &clock);
    history.append(pair(1, &clock)).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("history")), 0o700);
    for entry in std::fs::read_dir(dir.path().join("history")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
