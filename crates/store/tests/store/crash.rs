//! kill -9, second processes, versions: what one process leaves to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use mail::{Clock, MessageId};
use store::{Config, NewState, Next, QueueFilter, Store, StoreError};

use crate::common::*;

/// Set in a process that this test starts from itself: the data directory it works in.
pub(crate) const CHILD: &str = "POSTHOUSE_STORE_TEST_DIR";

#[tokio::test]
async fn a_second_process_is_refused() {
    let rig = Rig::new();
    let store = rig.open();
    match Store::open(rig.config(), rig.clock.clock()) {
        Err(StoreError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    store.close().await.unwrap();
    assert!(Store::open(rig.config(), rig.clock.clock()).is_ok(), "closed, it lets others in");
}

#[test]
fn a_newer_schema_is_refused() {
    let rig = Rig::new();
    drop(rig.open());
    let file = rig.path().join("queue.db");
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.execute("UPDATE schema_version SET version = 999", []).unwrap();
    drop(conn);
    let before = std::fs::read(&file).unwrap();
    match Store::open(rig.config(), rig.clock.clock()) {
        Err(StoreError::Newer { found: 999, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&file).unwrap(), before, "it was not touched");
}

/// Not a test: what the child process of the next one does.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = Config::new(dir);
        config.segment_size = 256 << 10;
        config.crashes_max = 1000;
        let (store, _) = Store::open(config, Clock::system()).unwrap();
        let clients = (0..8u64).map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0u64.. {
                    let seed = client << 32 | n;
                    let size = if n % 40 == 39 { 300_000 } else { 3000 };
                    let mut content = seed.to_le_bytes().to_vec();
                    content.extend(octets(seed, size));
                    let waiting = admit_one(&store, &content).await;
                    println!("admitted {} {seed}", waiting.id.message);
                    if n % 3 == 0 {
                        println!("settling {}", waiting.id.message);
                        store.settled(settlement(waiting.id, Next::Done)).await.unwrap();
                        println!("settled {}", waiting.id.message);
                    }
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let rig = Rig::tuned(|config| config.crashes_max = 1000);
    let mut said = Said::default();
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(CHILD, rig.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut left = 150 + round.cast_signed() * 137;
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap() > 0 {
            // The last one may be cut short.
            let Some(whole) = line.strip_suffix('\n') else { break };
            said.heard(whole);
            line.clear();
            left -= 1;
            if left == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
    assert!(said.admitted.len() > 500, "{}", said.admitted.len());
    said.holds(&rig).await;
}

/// What children have said that they did.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// With what their content was made of.
    pub(crate) admitted: BTreeMap<MessageId, u64>,
    settling: BTreeSet<MessageId>,
    settled: BTreeSet<MessageId>,
}

impl Said {
    pub(crate) fn heard(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let id = words.get(1).and_then(|w| w.parse::<MessageId>().ok());
        match (words[0], id) {
            ("admitted", Some(id)) => drop(self.admitted.insert(id, words[2].parse::<u64>().unwrap())),
            ("settling", Some(id)) => drop(self.settling.insert(id)),
            ("settled", Some(id)) => drop(self.settled.insert(id)),
            _ => {}
        }
    }

    /// The next start finds all of it, whole.
    pub(crate) async fn holds(&self, rig: &Rig) {
        let (store, recovery) = Store::open(rig.config(), Clock::system()).unwrap();
        assert!(!recovery.clean && recovery.quarantined.is_empty(), "{recovery:?}");
        let mut there = BTreeSet::new();
        for entry in store.search(QueueFilter::default(), None, usize::MAX).await.unwrap() {
            let waiting = store.load(entry.id).await.unwrap().unwrap();
            let content = stored(&store, &waiting).await;
            let seed = u64::from_le_bytes(content[..8].try_into().unwrap());
            assert_eq!(content[8..], octets(seed, content.len() - 8), "whole, or not there");
            if let Some(expected) = self.admitted.get(&entry.id.message) {
                assert_eq!(seed, *expected);
            }
            there.insert(entry.id.message);
        }
        for id in self.admitted.keys() {
            assert!(there.contains(id) || self.settling.contains(id), "{id} was acknowledged and is lost");
        }
        assert!(self.settled.iter().all(|id| !there.contains(id)), "what was settled does not come back");
        assert!(store.verify().await.unwrap().is_sound());
    }
}

#[tokio::test]
async fn what_is_known_not_to_have_been_attempted_is_acquitted() {
    let rig = Rig::new();
    let store = rig.open();
    let (culprit, bystander) = (admit_one(&store, b"x").await.id, admit_one(&store, b"y").await.id);
    // Who was attempted at the first crash isn't known.
    let (mut store, _) = rig.crash(store);
    for crashes in 2..=3 {
        assert_eq!(store.page(&mx("dest.example"), rig.now(), 5).await.unwrap().len(), 2);
        drop(store);
        let config = Config { attempted: Some([culprit].into()), ..rig.config() };
        let (next, recovery) = Store::open(config, rig.clock.clock()).unwrap();
        store = next;
        let counted = |loaded: Option<store::Waiting>| loaded.unwrap().crashes;
        assert_eq!(counted(store.load(culprit).await.unwrap()), crashes);
        assert_eq!(counted(store.load(bystander).await.unwrap()), 0);
        assert_eq!(recovery.held, if crashes == 3 { vec![culprit] } else { vec![] });
    }
}

#[tokio::test]
async fn orphans_on_disk_are_dropped_at_the_start() {
    let rig = Rig::new();
    let store = rig.open();
    let waiting = admit_one(&store, b"stays").await;
    drop(store);
    // A record without a row behind the last one, as a crash between content and commit leaves it, and a whole file.
    let last = segment_files(&rig.path()).pop().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    bytes.extend_from_slice(b"PHc1 half a record");
    std::fs::write(&last, bytes).unwrap();
    std::fs::write(rig.path().join("content/00000000000000ff.seg"), b"never referred to").unwrap();
    std::fs::write(rig.path().join("content/README"), b"not ours").unwrap();

    let (store, recovery) = rig.recover();
    assert_eq!((recovery.segments_removed, recovery.quarantined.len()), (1, 0));
    assert!(rig.path().join("content/README").exists());
    assert_eq!(stored(&store, &waiting).await, b"stays");
    // The next content goes into a new file, not behind the torn tail.
    let next = admit_one(&store, b"next").await;
    assert!(std::fs::read(&last).unwrap().ends_with(b"half a record"));
    assert_eq!(stored(&store, &next).await, b"next");
}

#[tokio::test]
async fn an_unfinished_sink_leaves_no_file() {
    let rig = Rig::new();
    let store = rig.open();
    let before = segment_files(&rig.path());
    let mut sink = store.sink(store.ids().next());
    sink.write(&octets(1, 300_000)).await.unwrap();
    assert_eq!(segment_files(&rig.path()).len(), before.len() + 1);
    drop(sink);
    let mut sink = store.sink(store.ids().next());
    sink.write(&octets(1, 300_000)).await.unwrap();
    drop(sink.finish().await.unwrap());
    assert_eq!(segment_files(&rig.path()), before);
}

#[tokio::test]
async fn without_memory_everything_goes_through_files() {
    let rig = Rig::tuned(|config| config.memory = store::MemoryBudget::new(10_000));
    let store = rig.open();
    let mut sinks = Vec::new();
    for seed in 0..5 {
        let mut sink = store.sink(store.ids().next());
        for piece in octets(seed, 150_000).chunks(7_000) {
            sink.write(piece).await.unwrap();
        }
        sinks.push(sink);
    }
    assert!(store.stats().memory <= 10_000);
    for (seed, sink) in (0..).zip(sinks) {
        let sealed = sink.finish().await.unwrap();
        assert_eq!(sealed.content().read_all_up_to(usize::MAX).await.unwrap(), octets(seed, 150_000));
    }
    let waiting = admit_one(&store, &octets(9, 50_000)).await;
    let (store, _) = rig.crash(store);
    assert_eq!(stored(&store, &waiting).await, octets(9, 50_000));
}

#[tokio::test]
async fn settlements_of_a_dropped_store_are_done() {
    let rig = Rig::new();
    let store = rig.open();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let waiting = admit_one(&store, b"x").await;
    store.settle(settlement(waiting.id, Next::Done), move |result| sender.send(result.is_ok()).unwrap());
    drop(store);
    assert!(receiver.await.unwrap());
    let store = rig.open();
    assert_eq!(store.stats().deliveries, 0);
}

#[tokio::test]
async fn the_last_clone_may_go_on_the_writers_thread() {
    let rig = Rig::new();
    let store = rig.open();
    let waiting = admit_one(&store, b"x").await;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let clone = store.clone();
    drop(waiting.body);
    store.settle(settlement(waiting.id, Next::Done), move |_| {
        std::thread::sleep(Duration::from_millis(20));
        drop(clone);
        sender.send(()).unwrap();
    });
    drop(store);
    receiver.await.unwrap();
    // It ends by itself, and then another may open.
    for _ in 0..500 {
        if Store::open(rig.config(), rig.clock.clock()).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still locked");
}

#[tokio::test]
async fn one_client_alone_costs_two_fsyncs_and_one_to_settle() {
    let rig = Rig::new();
    let store = rig.open();
    for _ in 0..20 {
        let before = store.stats();
        let waiting =
            admit(&store, b"x", vec![delivery("dest.example", 0..1, NewState::Active)]).await.remove(0);
        assert_eq!(store.stats().fsyncs - before.fsyncs, 2);
        store.settled(settlement(waiting.id, Next::Done)).await.unwrap();
        assert_eq!(store.stats().fsyncs - before.fsyncs, 3);
        assert_eq!(store.stats().groups - before.groups, 2);
    }
}
