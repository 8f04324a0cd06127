//! The drainer with a real history and an outbox in memory that can fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use history::{History, OutboxSource, TraceQuery, drain};
use mail::{Disposition, Event, ManualClock};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::common::*;
use crate::engine::{Engine, on_both};

on_both!(
    everything_is_copied_in_few_batches_and_then_deleted,
    failures_are_tried_again_and_the_lag_is_told,
    after_a_crash_nothing_is_told_twice_and_after_a_restore_nothing_is_lost,
);

#[derive(Clone)]
struct Outbox(Arc<Inner>);

struct Inner {
    events: Mutex<Vec<(u64, Event)>>,
    committed: watch::Sender<u64>,
    fail: AtomicBool,
    done_calls: AtomicUsize,
    history: Mutex<Option<History>>,
}

impl Outbox {
    fn new(last: u64) -> Self {
        Self(Arc::new(Inner {
            events: Mutex::default(),
            committed: watch::Sender::new(last),
            fail: AtomicBool::new(false),
            done_calls: AtomicUsize::new(0),
            history: Mutex::new(None),
        }))
    }

    fn put(&self, event: Event) {
        let seq = *self.0.committed.borrow() + 1;
        self.0.events.lock().push((seq, event));
        self.0.committed.send_replace(seq);
    }

    fn waiting(&self) -> usize {
        self.0.events.lock().len()
    }
}

impl OutboxSource for Outbox {
    type Error = String;

    async fn events(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>, String> {
        if self.0.fail.load(Ordering::Relaxed) {
            return Err("the disk is not well".into());
        }
        Ok(self.0.events.lock().iter().filter(|(seq, _)| *seq > after).take(n).cloned().collect())
    }

    async fn done(&self, up_to: u64) -> Result<(), String> {
        self.0.done_calls.fetch_add(1, Ordering::Relaxed);
        // Never before the history has them on disk.
        let last = self.0.history.lock().as_ref().map(|h| h.stats().last);
        assert!(last.is_none_or(|last| last >= up_to));
        self.0.events.lock().retain(|(seq, _)| *seq > up_to);
        Ok(())
    }

    fn committed(&self) -> watch::Receiver<u64> {
        self.0.committed.subscribe()
    }
}

fn event(n: u64) -> Event {
    accepted(message(id(START, n), START, "ann@example.com", None), &["bob@example.org"])
}

async fn until(what: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("in time");
}

async fn everything_is_copied_in_few_batches_and_then_deleted(engine: Engine) {
    let clock = ManualClock::new(START);
    let (history, outbox, shutdown) = (engine.open(&clock).await, Outbox::new(0), CancellationToken::new());
    *outbox.0.history.lock() = Some(history.clone());
    let task = tokio::spawn(drain(outbox.clone(), history.clone(), shutdown.clone()));
    // A lone client: one message after the other.
    for n in 1..=100 {
        outbox.put(event(n));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until(|| outbox.waiting() == 0).await;
    assert_eq!((history.stats().last, history.stats().lag), (100, 0));
    let calls = outbox.0.done_calls.load(Ordering::Relaxed);
    assert!(calls <= 10, "{calls} commits for a hundred messages");

    // A flood goes at once, in full batches.
    for n in 101..=5000 {
        outbox.put(event(n));
    }
    until(|| outbox.waiting() == 0).await;
    // What is there when the relay stops is still copied.
    for n in 5001..=5010 {
        outbox.put(event(n));
    }
    shutdown.cancel();
    task.await.unwrap();
    assert_eq!((history.stats().last, outbox.waiting()), (5010, 0));
}

async fn failures_are_tried_again_and_the_lag_is_told(engine: Engine) {
    let clock = ManualClock::new(START);
    let (history, outbox, shutdown) = (engine.open(&clock).await, Outbox::new(0), CancellationToken::new());
    outbox.0.fail.store(true, Ordering::Relaxed);
    let task = tokio::spawn(drain(outbox.clone(), history.clone(), shutdown.clone()));
    for n in 1..=20 {
        outbox.put(event(n));
    }
    until(|| history.stats().lag == 20).await;
    outbox.0.fail.store(false, Ordering::Relaxed);
    until(|| history.stats().lag == 0).await;
    // Deleted from the outbox once the history has it, and so a little later.
    until(|| outbox.waiting() == 0).await;
    shutdown.cancel();
    task.await.unwrap();
}

async fn after_a_crash_nothing_is_told_twice_and_after_a_restore_nothing_is_lost(engine: Engine) {
    let clock = ManualClock::new(START);
    let history = engine.open(&clock).await;
    let outbox = Outbox::new(0);
    for n in 1..=10 {
        outbox.put(event(n));
        outbox.put(attempt(id(START, n), START, &[(0, Disposition::Delivered)]));
    }
    // A crash between the history's commit and the deletion.
    let all = outbox.0.events.lock().clone();
    history.append(all.clone()).await.unwrap();
    let run = async |outbox: &Outbox| {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(drain(outbox.clone(), history.clone(), shutdown.clone()));
        until(|| outbox.waiting() == 0).await;
        shutdown.cancel();
        task.await.unwrap();
    };
    run(&outbox).await;
    assert_eq!((engine.rows("message"), engine.rows("event")), (10, 0));

    // A backup of the store is put back: its outbox is older, tells some again, and gives numbers again.
    let restored = Outbox::new(0);
    for (_, event) in all.into_iter().skip(10) {
        restored.put(event);
    }
    restored.put(event(11));
    restored.put(attempt(id(START, 11), START, &[(0, Disposition::Delivered)]));
    run(&restored).await;
    let found = history.trace(TraceQuery::default()).await.unwrap();
    assert_eq!(found.len(), 11);
    assert!(found.iter().all(|t| t.steps.len() == 1 && t.recipients[0].attempts == 1));
}
