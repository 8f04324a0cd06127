//! Disk use stays within a factor of what is live, whatever order messages go in.

use std::time::Duration;

use store::{NewState, Next, Store};

use crate::common::*;

const SEGMENT: u64 = 64 << 10;

async fn until(store: &Store, what: &str, done: impl Fn(store::Stats) -> bool) {
    for _ in 0..1000 {
        if done(store.stats()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: {:?}", store.stats());
}

fn on_disk(rig: &Rig) -> u64 {
    segment_files(&rig.path()).iter().map(|file| std::fs::metadata(file).unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_segments_go_and_stragglers_are_moved() {
    let rig = Rig::tuned(|config| config.segment_size = SEGMENT);
    let store = rig.open();
    let mut kept = Vec::new();
    for seed in 0..800 {
        let waiting = admit_one(&store, &octets(seed, 4000)).await;
        if seed % 16 == 0 {
            kept.push((seed, waiting));
        } else {
            store.settle(settlement(waiting.id, Next::Done), |result| drop(result.unwrap()));
        }
    }
    let bound = |s: store::Stats| s.segment_bytes <= 2 * s.live_bytes + 6 * SEGMENT;
    until(&store, "compaction", |s| s.deliveries == 50 && bound(s)).await;
    assert!(store.stats().live_bytes > 50 * 4000);
    assert!(on_disk(&rig) < 800_000, "{} of {} written", on_disk(&rig), store.stats().content_bytes);
    // References handed out before the move still lead to the content, which is in memory no more.
    for (seed, waiting) in &mut kept {
        waiting.body = None;
        assert_eq!(stored(&store, waiting).await, octets(*seed, 4000));
    }
    let (store, recovery) = rig.crash(store);
    assert!(recovery.quarantined.is_empty());
    assert!(store.verify().await.unwrap().is_sound());
    for (_, waiting) in kept {
        store.settled(settlement(waiting.id, Next::Done)).await.unwrap();
    }
    until(&store, "nothing left", |s| s.segments == 1 && s.live_bytes == 0).await;
    assert!(segment_files(&rig.path()).len() <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_does_not_stop_compaction() {
    let rig = Rig::tuned(|config| config.segment_size = SEGMENT);
    let store = rig.open();
    let mut ids = Vec::new();
    for seed in 0..400 {
        ids.push(admit_one(&store, &octets(seed, 4000)).await.id);
    }
    drop(store);
    // The first segment loses its end: what is there stays readable, one message is damaged.
    let first = segment_files(&rig.path()).remove(0);
    let length = std::fs::metadata(&first).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(length - 100).unwrap();
    let (store, recovery) = rig.recover();
    assert_eq!(recovery.quarantined.len(), 1);
    let damaged = recovery.quarantined[0];
    for id in ids.iter().filter(|id| id.message != damaged && id.message.0 % 10 != 0) {
        store.settle(settlement(*id, Next::Done), |result| drop(result.unwrap()));
    }
    until(&store, "compaction", |s| s.segment_bytes <= 2 * s.live_bytes + 6 * SEGMENT).await;
    let report = store.verify().await.unwrap();
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].message, damaged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_leave_no_file_behind() {
    let rig = Rig::new();
    let store = rig.open();
    for seed in 0..10 {
        let waiting =
            admit(&store, &octets(seed, 300_000), vec![delivery("dest.example", 0..1, NewState::Active)])
                .await;
        store.settled(settlement(waiting[0].id, Next::Done)).await.unwrap();
    }
    until(&store, "files", |s| s.segments == 1).await;
    assert_eq!(segment_files(&rig.path()).len(), 1);
}
