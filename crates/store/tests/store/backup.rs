//! Backup while everything goes on, and the way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use store::{NewState, Next, QueueFilter, Store, StoreError};

use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_while_writing_is_consistent_and_comes_back() {
    let rig = Rig::tuned(|config| config.segment_size = 64 << 10);
    let store = rig.open();
    let mut before = Vec::new();
    for seed in 0..50 {
        before.push((admit_one(&store, &octets(seed, 3000)).await.id, octets(seed, 3000)));
    }
    before.push((admit_one(&store, &octets(99, 300_000)).await.id, octets(99, 300_000)));
    store.outbox_done(20).await.unwrap();
    // The deletion rides along with this.
    admit_one(&store, b"x").await;

    let stop = Arc::new(AtomicBool::new(false));
    let (busy, stopped) = (store.clone(), stop.clone());
    let writing = tokio::spawn(async move {
        let mut n = 0;
        while !stopped.load(Ordering::Relaxed) {
            n += 1;
            let waiting = admit_one(&busy, &octets(1000 + n, 3000)).await;
            if n % 2 == 0 {
                busy.settled(settlement(waiting.id, Next::Done)).await.unwrap();
            }
        }
    });
    let to = rig.dir.path().join("backup");
    let report = store.backup(to.clone()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    assert!(report.messages >= 51 && report.segments > 2 && report.bytes > 450_000, "{report:?}");
    assert!(matches!(store.backup(to.clone()).await, Err(StoreError::NotEmpty(_))));
    let last_event = *store.outbox_wait().borrow();
    drop(store);

    assert!(matches!(Store::restore(&to, &rig.path()), Err(StoreError::NotEmpty(_))), "not over a store");
    std::fs::remove_dir_all(rig.path()).unwrap();
    let restored = Store::restore(&to, &rig.path()).unwrap();
    assert_eq!((restored.messages, restored.segments), (report.messages, report.segments));
    let (store, recovery) = rig.recover();
    assert!(recovery.clean && recovery.quarantined.is_empty(), "{recovery:?}");
    for (id, content) in &before {
        let loaded = store.load(*id).await.unwrap().unwrap();
        assert_eq!(loaded.crashes, 0);
        assert_eq!(&stored(&store, &loaded).await, content);
    }
    assert!(store.verify().await.unwrap().is_sound());
    assert_eq!(
        store.search(QueueFilter::default(), None, 100_000).await.unwrap().len() as u64,
        report.messages
    );
    // The history may know numbers that the backup does not: they are not given again.
    let events = store.outbox(0, 100_000).await.unwrap();
    assert!(events.len() >= 31 && events.iter().all(|(seq, _)| *seq > last_event + 1000), "{last_event}");
    assert!(events.windows(2).all(|w| w[0].0 < w[1].0));
    assert_eq!(events[0].1.message, before[20].0.message, "in the order they were in");
    let next = admit_one(&store, b"next").await;
    assert!(before.iter().all(|(id, _)| *id < next.id));
}

#[tokio::test]
async fn damaged_and_incomplete_backups_are_refused() {
    let rig = Rig::new();
    let store = rig.open();
    admit(&store, &octets(1, 3000), vec![delivery("dest.example", 0..1, NewState::Active)]).await;
    let to = rig.dir.path().join("backup");
    store.backup(to.clone()).await.unwrap();
    drop(store);
    let target = rig.dir.path().join("new");
    let refused = |what: &str| {
        let result = Store::restore(&to, &target);
        assert!(matches!(result, Err(StoreError::BadBackup { .. })), "{what}: {result:?}");
        assert!(!target.join("queue.db").exists(), "{what}");
    };
    let content = segment_files(&to).remove(0);
    let bytes = std::fs::read(&content).unwrap();
    let mut flipped = bytes.clone();
    flipped[100] ^= 1;
    std::fs::write(&content, flipped).unwrap();
    refused("a flipped bit");
    std::fs::write(&content, &bytes[..50]).unwrap();
    refused("a short file");
    std::fs::write(&content, &bytes).unwrap();
    let manifest = std::fs::read_to_string(to.join("MANIFEST")).unwrap();
    std::fs::write(to.join("MANIFEST"), manifest.replace("content/", "content/../")).unwrap();
    refused("a path that leads out");
    std::fs::remove_file(to.join("MANIFEST")).unwrap();
    refused("no manifest");
    std::fs::write(to.join("MANIFEST"), manifest).unwrap();
    assert_eq!(Store::restore(&to, &target).unwrap().messages, 1);
}
