//! Groups on their way: what the thread that writes content does while the one before commits. The commit is held where a
//! checkpoint would hold it.

use std::time::Duration;

use mail::{
    Body, ManualClock, Message, OrgId, Origin, Protocol, QueueKey, Recipient, State, Stream, Timestamp,
};

use super::*;
use crate::filter::QueueFilter;
use crate::model::{Dedupe, NewDelivery, NewState, Next};

type Task = tokio::task::JoinHandle<Result<Admitted>>;

fn open(dir: &Path, segment_size: u64) -> Arc<Engine> {
    let mut config = Config::new(dir);
    config.disk_reserve = 0;
    config.segment_size = segment_size;
    Arc::new(Engine::open(config, ManualClock::new(Timestamp(1_795_500_000_000)).clock()).unwrap().0)
}

async fn admission(engine: &Engine, content: &[u8]) -> Admission {
    let id = engine.ids().next();
    let mut sink = engine.sink(id);
    sink.write(content).await.unwrap();
    let content = sink.finish().await.unwrap();
    let origin = Origin {
        protocol: Protocol::Smtp,
        client: None,
        helo: None,
        credential: None,
        tls: None,
        listener: None,
    };
    let message = Message {
        id,
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: Timestamp(0),
        reverse_path: None,
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size: content.len(),
        header_message_id: None,
        require_tls: false,
        tls_optional: false,
        origin,
    };
    let queue = QueueKey {
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        destination: mail::Destination::Mx("dest.example".into()),
    };
    let recipients = vec![(0, Recipient::new("ann@dest.example".parse().unwrap()))];
    let deliveries = vec![NewDelivery { queue, recipients, state: NewState::Active }];
    Admission { message, content, deliveries, dedupe: None, events: Vec::new() }
}

/// Admits on a task of its own, and waits until its content is on the disk.
async fn begin(engine: &Arc<Engine>, content: &[u8]) -> Task {
    let before = engine.stats().content_bytes;
    let admission = admission(engine, content).await;
    let task = hand_in(engine, admission);
    until("content on the disk", || engine.stats().content_bytes > before).await;
    task
}

fn hand_in(engine: &Arc<Engine>, admission: Admission) -> Task {
    let engine = engine.clone();
    tokio::spawn(async move { engine.admit(admission).await })
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..5000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what}");
}

fn new(admitted: Result<Admitted>) -> Waiting {
    match admitted.unwrap() {
        Admitted::New(mut waiting) => waiting.remove(0),
        Admitted::Duplicate(of) => panic!("a duplicate of {of}"),
    }
}

async fn read(engine: &Engine, waiting: &Waiting) -> Vec<u8> {
    engine.content(waiting.content).await.unwrap().read_all_up_to(usize::MAX).await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_of_the_next_group_is_written_while_one_commits() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1 << 20);
    let turn = engine.shared.checkpoint.writing();
    let first = begin(&engine, b"first").await;
    let second = begin(&engine, b"second").await;
    // No further: what comes now waits for company.
    let late = admission(&engine, b"third").await;
    let third = hand_in(&engine, late);
    let late = admission(&engine, b"fourth").await;
    let fourth = hand_in(&engine, late);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(engine.stats().content_bytes, 2 * 24 + 11);
    assert!(!first.is_finished() && !second.is_finished(), "nothing is answered before its commit");
    assert_eq!(engine.counts().unwrap().all(), 0);
    drop(turn);
    let (first, second) = (new(first.await.unwrap()), new(second.await.unwrap()));
    let (third, fourth) = (new(third.await.unwrap()), new(fourth.await.unwrap()));
    assert_eq!(engine.stats().groups, 3, "the last two went together");
    assert_eq!(read(&engine, &first).await, b"first");
    assert_eq!(read(&engine, &second).await, b"second");
    assert_eq!(read(&engine, &third).await, b"third");
    assert_eq!(read(&engine, &fourth).await, b"fourth");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_segment_stays_until_what_is_in_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1);
    let turn = engine.shared.checkpoint.writing();
    // Each has a segment of its own, and the first one's has ended before its row is there.
    let first = begin(&engine, b"first").await;
    let second = begin(&engine, b"second").await;
    engine.shared.segments.remove_dead();
    assert_eq!(engine.stats().segments, 2);
    drop(turn);
    let (first, second) = (new(first.await.unwrap()), new(second.await.unwrap()));
    assert_eq!(read(&engine, &first).await, b"first");
    assert_eq!(read(&engine, &second).await, b"second");
    for waiting in [first, second] {
        let done = Settlement {
            delivery: waiting.id,
            recipients: Vec::new(),
            next: Next::Done,
            warned: false,
            reports: Vec::new(),
            events: Vec::new(),
        };
        engine.settled(done).await.unwrap();
    }
    // Once nothing refers to them they go, but for the one that is open.
    until("dead segments", || engine.stats().segments == 1).await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_withdrawn_before_its_commit_is_not_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1 << 20);
    let turn = engine.shared.checkpoint.writing();
    let first = begin(&engine, b"first").await;
    let withdrawn = begin(&engine, b"withdrawn").await;
    withdrawn.abort();
    assert!(withdrawn.await.unwrap_err().is_cancelled());
    drop(turn);
    let first = new(first.await.unwrap());
    let third = admission(&engine, b"third").await;
    let third = new(engine.admit(third).await);
    assert_eq!(engine.counts().unwrap().active, 2);
    assert_eq!(read(&engine, &third).await, b"third");
    // What it has left is a record that no row refers to.
    let found = engine.search(QueueFilter::default(), None, 10).await.unwrap();
    assert_eq!(found.iter().map(|e| e.id).collect::<Vec<_>>(), [first.id, third.id]);
    assert!(engine.verify().await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dedupe_key_taken_by_a_group_that_has_not_committed_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1 << 20);
    let dedupe = || Some(Dedupe { org: OrgId::DEFAULT, key: b"once".to_vec(), expires: Timestamp(i64::MAX) });
    let turn = engine.shared.checkpoint.writing();
    let with_key = Admission { dedupe: dedupe(), ..admission(&engine, b"first").await };
    let id = with_key.message.id;
    let first = hand_in(&engine, with_key);
    until("the first one's content", || engine.stats().content_bytes > 0).await;
    let written = engine.stats().content_bytes;
    let again = Admission { dedupe: dedupe(), ..admission(&engine, b"again").await };
    let second = hand_in(&engine, again);
    until("the second one's content", || engine.stats().content_bytes > written).await;
    drop(turn);
    assert_eq!(new(first.await.unwrap()).id.message, id);
    match second.await.unwrap().unwrap() {
        Admitted::Duplicate(of) => assert_eq!(of, id),
        Admitted::New(_) => panic!("admitted twice"),
    }
    assert_eq!(engine.counts().unwrap().all(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_left_commits_what_it_has_prepared() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1 << 20);
    let turn = engine.shared.checkpoint.writing();
    let first = begin(&engine, b"first").await;
    let second = begin(&engine, b"second").await;
    let late = admission(&engine, b"third").await;
    let third = hand_in(&engine, late);
    until("the third one", || engine.shared.inbox.waiting() == 1).await;
    let closing = tokio::spawn({
        let engine = engine.clone();
        async move { engine.close().await }
    });
    until("the end", || engine.shared.inbox.is_closed()).await;
    drop(turn);
    for task in [first, second, third] {
        assert_eq!(new(task.await.unwrap()).state, State::Active);
    }
    closing.await.unwrap().unwrap();
    drop(engine);
    let again = open(dir.path(), 1 << 20);
    assert_eq!(again.counts().unwrap().all(), 3);
}
