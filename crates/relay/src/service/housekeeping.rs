//! What goes on beside the mail in a cluster: the directory is followed, and one node hands on what nodes that are gone had
//! still to tell.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Relay;
use super::cluster::Cluster;

/// How often outboxes of nodes that are gone are looked for.
const EVERY: Duration = Duration::from_secs(5);
/// Events handed on at a time.
const BATCH: usize = 500;

/// Puts in force what was changed at another node, until `stop`.
pub(super) async fn follow_directory(relay: Arc<Relay>, stop: CancellationToken) {
    let mut changes = relay.directory.changes();
    let mut last = relay.directory.snapshot();
    while let Some(Ok(())) = stop.run_until_cancelled(changes.changed()).await {
        let now = relay.directory.snapshot();
        let before = std::mem::replace(&mut last, Arc::clone(&now));
        if now.works_like(&before) {
            continue;
        }
        let _one_at_a_time = relay.reloading.lock().await;
        if let Err(error) = relay.derive() {
            tracing::error!(%error, "a change of the directory is not in force");
        }
    }
}

/// Hands on the events of nodes that are gone, if it is this node that does so, until `stop`.
pub(super) async fn hand_on(relay: Arc<Relay>, cluster: Cluster, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if cluster.housekeeping.term().is_none() {
            continue;
        }
        if let Err(error) = hand_on_all(&relay, &cluster).await {
            tracing::warn!(%error, "what nodes that are gone had to tell is not handed on yet");
        }
    }
}

async fn hand_on_all(relay: &Relay, cluster: &Cluster) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    for node in relay.store.left_outboxes().await.map_err(|e| text(&e))? {
        let mut after = 0;
        while cluster.housekeeping.term().is_some() {
            let events = relay.store.outbox_of(node, after, BATCH).await.map_err(|e| text(&e))?;
            let Some((last, _)) = events.last() else { break };
            after = *last;
            // Twice is the same as once: events have numbers.
            relay.history.append_of(node, events).await.map_err(|e| text(&e))?;
            relay.store.outbox_done_of(node, after).await.map_err(|e| text(&e))?;
        }
    }
    Ok(())
}
