//! Copies the outbox into the history, and has it deleted only when it is there.

use std::fmt::Display;
use std::time::Duration;

use mail::Event;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::HistoryError;
use crate::history::History;

/// The most events in one batch.
const BATCH_MAX: usize = 1000;
/// How long a batch that is not full waits after its first event, so that a lone client does not cost an fsync per
/// message.
const LINGER: Duration = Duration::from_millis(200);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Where events wait until the history has them.
pub trait OutboxSource: Send + Sync {
    /// What can go wrong with it.
    type Error: Display + Send;

    /// Events with numbers above `after`, in their order, at most `n`.
    fn events(
        &self,
        after: u64,
        n: usize,
    ) -> impl Future<Output = Result<Vec<(u64, Event)>, Self::Error>> + Send;

    /// The events up to this number are safe and can be deleted.
    fn done(&self, up_to: u64) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Follows the number of the last event that was committed.
    fn committed(&self) -> watch::Receiver<u64>;
}

/// Runs until `shutdown`, and then until the outbox is empty. Failures are logged and tried again; they never stop the
/// relay, but the outbox grows meanwhile ([`crate::Stats::lag`]).
pub async fn drain<S: OutboxSource>(source: S, history: History, shutdown: CancellationToken) {
    let mut committed = source.committed();
    let mut after = history.stats().last;
    let there = *committed.borrow_and_update();
    history.follow(committed.clone());
    if there < after {
        tracing::warn!(
            outbox = there,
            history = after,
            "the outbox is older than the history: it starts again"
        );
        while let Err(e) = history.rewind().await {
            tracing::error!(error = %e, "the history cannot start again yet");
            if shutdown.is_cancelled() || matches!(e, HistoryError::Closed) {
                return;
            }
            sleep(RETRY).await;
        }
        after = 0;
    } else if let Err(e) = source.done(after).await {
        tracing::error!(error = %e, "events that the history has cannot be deleted from the outbox yet");
    }
    while wait_for_batch(&mut committed, after, &shutdown).await {
        match copy(&source, &history, after).await {
            Ok(Some(last)) => after = last,
            // The outbox has nothing though it told of more: it was emptied by other hands.
            Ok(None) => after = after.max(*committed.borrow()),
            Err(e) => {
                tracing::error!(error = %e, "history falls behind: a batch could not be copied");
                if shutdown.is_cancelled() {
                    return;
                }
                sleep(RETRY).await;
            }
        }
    }
}

/// Waits until a batch is worth an fsync: it is full, or its first event has waited long enough. False when all is
/// copied and the relay stops.
async fn wait_for_batch(
    committed: &mut watch::Receiver<u64>,
    after: u64,
    shutdown: &CancellationToken,
) -> bool {
    let at_least = async |committed: &mut watch::Receiver<u64>, number: u64| {
        // An error means that the source is gone, and with it all hope for more.
        committed.wait_for(|last| *last >= number).await.is_ok()
    };
    tokio::select! {
        more = at_least(committed, after + 1) => if !more { return *committed.borrow() > after },
        () = shutdown.cancelled() => return *committed.borrow() > after,
    }
    let full = after + BATCH_MAX as u64;
    tokio::select! {
        // Full, or not full in time: either way it is copied now.
        _ = timeout(LINGER, at_least(committed, full)) => {}
        () = shutdown.cancelled() => {}
    }
    true
}

async fn copy<S: OutboxSource>(source: &S, history: &History, after: u64) -> Result<Option<u64>, String> {
    let events = source.events(after, BATCH_MAX).await.map_err(|e| e.to_string())?;
    let Some(last) = events.last().map(|(seq, _)| *seq) else { return Ok(None) };
    history.append(events).await.map_err(|e| e.to_string())?;
    source.done(last).await.map_err(|e| e.to_string())?;
    Ok(Some(last))
}
