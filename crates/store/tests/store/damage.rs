//! Content that is not what was written: one message is quarantined and told of, the others go on.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use mail::{EventKind, State};
use store::{Action, NewState, QueueFilter, Store, StoreError, Waiting};

use crate::common::*;

/// Flips a bit somewhere in the content of a message, wherever that is on disk.
fn flip(rig: &Rig, content: &[u8], at: usize) {
    for file in segment_files(&rig.path()) {
        let bytes = std::fs::read(&file).unwrap();
        if let Some(place) = bytes.windows(content.len()).position(|w| w == content) {
            let file = OpenOptions::new().write(true).open(&file).unwrap();
            file.write_all_at(&[bytes[place + at] ^ 0x10], (place + at) as u64).unwrap();
            return;
        }
    }
    panic!("not found on disk");
}

async fn expect_damage(store: &Store, waiting: &Waiting) -> String {
    match store.content(&waiting.content).await {
        Err(StoreError::Damaged { message, reason }) => {
            assert_eq!(message, waiting.id.message);
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_flipped_bit_quarantines_one_message() {
    let rig = Rig::new();
    let store = rig.open();
    let mut all = Vec::new();
    for seed in 0..5 {
        let two = vec![
            delivery("a.example", 0..1, NewState::Active),
            delivery("b.example", 1..2, NewState::Active),
        ];
        all.push(admit(&store, &octets(seed, 4000), two).await);
    }
    flip(&rig, &octets(2, 4000), 1234);
    let report = store.verify().await.unwrap();
    assert_eq!(report.damaged.iter().map(|d| d.message).collect::<Vec<_>>(), [all[2][0].id.message]);
    for (seed, waiting) in (0..).zip(&all) {
        if seed == 2 {
            assert!(expect_damage(&store, &waiting[0]).await.contains("checksum"));
        } else {
            assert_eq!(stored(&store, &waiting[0]).await, octets(seed, 4000));
        }
    }
    for delivery in &all[2] {
        assert_eq!(store.load(delivery.id).await.unwrap().unwrap().state, State::Quarantined);
    }
    assert_eq!(store.counts().await.unwrap().quarantined, 2);
    // Found again it is not told again, nor when the driver settles it so, and a release by mistake ends where it was.
    expect_damage(&store, &all[2][1]).await;
    let reason = "damaged".to_owned();
    let kind = EventKind::Damaged { reason: reason.clone() };
    let event = mail::Event { at: rig.now(), message: all[2][1].id.message, kind };
    let next = store::Next::Quarantined { reason };
    store.settled(store::Settlement { events: vec![event], ..settlement(all[2][1].id, next) }).await.unwrap();
    store.change(QueueFilter::default(), Action::Release, "op".into(), false).await.unwrap();
    expect_damage(&store, &all[2][1]).await;
    assert_eq!(store.counts().await.unwrap().quarantined, 2);
    let told = events(&store).await;
    let damaged: Vec<_> = told.iter().filter(|e| matches!(e.kind, EventKind::Damaged { .. })).collect();
    assert_eq!(damaged.len(), 2, "once for each time it was not quarantined");
    assert!(damaged.iter().all(|e| e.message == all[2][0].id.message));
}

#[tokio::test]
async fn a_flipped_bit_in_a_large_message_and_in_a_header() {
    let rig = Rig::new();
    let store = rig.open();
    let large = admit_one(&store, &octets(1, 500_000)).await;
    let small = admit_one(&store, b"small content").await;
    flip(&rig, &octets(1, 500_000), 400_000);
    let file = segment_files(&rig.path())
        .into_iter()
        .find(|f| std::fs::read(f).unwrap().ends_with(b"small content"))
        .unwrap();
    let place = std::fs::read(&file).unwrap().len() - b"small content".len() - 3;
    OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&[0xff], place as u64).unwrap();
    expect_damage(&store, &large).await;
    assert!(expect_damage(&store, &small).await.contains("header"));
}

#[tokio::test]
async fn a_torn_tail_and_a_missing_file_are_found_at_the_start() {
    let rig = Rig::new();
    let store = rig.open();
    let first = admit_one(&store, &octets(1, 4000)).await;
    let second = admit_one(&store, &octets(2, 4000)).await;
    let large = admit_one(&store, &octets(3, 400_000)).await;
    drop(store);
    for file in segment_files(&rig.path()) {
        let length = std::fs::metadata(&file).unwrap().len();
        if length > 400_000 {
            std::fs::remove_file(&file).unwrap();
        } else if length > 4000 {
            OpenOptions::new().write(true).open(&file).unwrap().set_len(length - 1).unwrap();
        }
    }
    let (store, recovery) = rig.recover();
    let mut quarantined = recovery.quarantined;
    quarantined.sort();
    assert_eq!(quarantined, [second.id.message, large.id.message]);
    assert_eq!(stored(&store, &first).await, octets(1, 4000));
    expect_damage(&store, &second).await;
    expect_damage(&store, &large).await;
    let told =
        events(&store).await.into_iter().filter(|e| matches!(e.kind, EventKind::Damaged { .. })).count();
    assert_eq!(told, 2);
    let (store, recovery) = rig.crash(store);
    assert!(recovery.quarantined.is_empty(), "told once");
    // They can be removed like any other.
    store.change(QueueFilter::default(), Action::Remove, "op".into(), false).await.unwrap();
    assert_eq!(store.stats().deliveries, 0);
}
