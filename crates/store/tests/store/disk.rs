//! Full disks: told ahead of time by a reserve, and survived without it. Needs root for a small file system of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mail::ManualClock;
use store::{Config, Next, NoRoom, Store, StoreError};

use crate::common::*;

/// A small tmpfs, unmounted when it goes.
struct Small {
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Small {
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("disk");
        std::fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { at, _dir: dir });
        }
        eprintln!("skipped: mounting a tmpfs needs root");
        None
    }

    fn open(&self, reserve: u64) -> Store {
        let mut config = Config::new(self.at.join("data"));
        config.disk_reserve = reserve;
        config.segment_size = 256 << 10;
        Store::open(config, ManualClock::new(START).clock()).unwrap().0
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reserve_says_no_ahead_of_time() {
    let Some(small) = Small::mount("size=16m") else { return };
    let store = small.open(8 << 20);
    let mut n = 0;
    let refused = loop {
        if let Err(refused) = store.room() {
            break refused;
        }
        admit_one(&store, &octets(n, 100_000)).await;
        n += 1;
        assert!(n < 200, "the reserve was not kept");
    };
    assert!(matches!(refused, NoRoom::Disk { reserve: 8388608, .. }), "{refused:?}");
    assert!(n > 20);
    // What is queued can be delivered, and then there is room again.
    let page = store.search(store::QueueFilter::default(), None, 1000).await.unwrap();
    for entry in page {
        store.settled(settlement(entry.id, Next::Done)).await.unwrap();
    }
    until("room again", || store.room().is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inodes_have_a_reserve_as_well() {
    let Some(small) = Small::mount("size=64m,nr_inodes=400") else { return };
    let store = small.open(0);
    assert_eq!(store.room(), Ok(()));
    let fill = |n: usize| {
        for i in 0..n {
            if std::fs::write(small.at.join(format!("filler{i}")), b"").is_err() {
                break;
            }
        }
    };
    fill(1000);
    until("no inodes", || matches!(store.room(), Err(NoRoom::Inodes { .. }))).await;
    assert!(matches!(
        {
            let mut sink = store.sink(store.ids().next());
            sink.write(&octets(1, 300_000)).await
        },
        Err(StoreError::NoSpace)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_what_is_new_and_keeps_what_was_accepted() {
    let Some(small) = Small::mount("size=14m") else { return };
    let store = small.open(0);
    let filler = small.at.join("filler");
    std::fs::write(&filler, vec![0; 2 << 20]).unwrap();
    let mut accepted = Vec::new();
    let full = loop {
        let seed = accepted.len() as u64;
        let new = vec![delivery("dest.example", 0..1, store::NewState::Active)];
        match store.admit(admission(&store, &octets(seed, 60_000), new).await).await {
            Ok(admitted) => accepted.push((seed, crate::common::new(admitted).remove(0))),
            Err(error) => break error,
        }
        assert!(seed < 1000);
    };
    assert!(matches!(full, StoreError::NoSpace), "{full:?}");
    assert!(store.failed().borrow().is_none(), "a full disk is no failure");
    assert!(accepted.len() > 50);
    // The last page is taken, too. Settlements then wait for room and are done as soon as there is some.
    fill_up(&filler);
    let settled = Arc::new(AtomicUsize::new(0));
    let (keep, deliver) = accepted.split_at(10);
    for (_, waiting) in deliver {
        let settled = settled.clone();
        store.settle(settlement(waiting.id, Next::Done), move |result| {
            settled.fetch_add(usize::from(result.is_ok()), Ordering::Relaxed);
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::remove_file(&filler).unwrap();
    until("settlements", || settled.load(Ordering::Relaxed) == deliver.len()).await;
    until("dead segments", || store.stats().segments < 8).await;
    let again = admit_one(&store, &octets(77, 60_000)).await;
    drop(store);

    let store = small.open(0);
    for (seed, waiting) in keep.iter().chain([&(77, again)]) {
        assert_eq!(stored(&store, waiting).await, octets(*seed, 60_000));
    }
    assert_eq!(store.stats().deliveries, 11);
    assert!(store.verify().await.unwrap().is_sound());
}

fn fill_up(file: &Path) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    for size in [65536, 4096, 512, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}
