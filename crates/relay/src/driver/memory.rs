//! What the scheduler learned, kept over a restart: suspensions after failures, windows, warm-up counts.

use std::time::Duration;

use super::Driver;

/// The name of the note in the store.
const NOTE: &str = "schedule";

/// How often it is written down while it changes. A crash forgets no more than that; what is lost is learned again.
const EVERY: Duration = Duration::from_secs(10);

impl Driver {
    /// Takes up what the last process had learned. Without it everything starts afresh.
    pub(super) async fn recall(&self) {
        let noted = match self.0.store.note(NOTE).await {
            Ok(Some(noted)) => noted,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "what was learned about sites could not be read"),
        };
        match serde_json::from_slice(&noted) {
            Ok(state) => self.with_core(|core, now, _| core.scheduler.restore(state, now)),
            Err(error) => {
                tracing::warn!(%error, "what an earlier version learned about sites is not understood")
            }
        }
    }

    /// Somebody wants mail tried now while no relay runs: the next one shall not wait for sites that were out of reach.
    pub(crate) async fn forget_pauses(&self) {
        let Ok(Some(noted)) = self.0.store.note(NOTE).await else { return };
        let Ok(mut state) = serde_json::from_slice::<schedule::SavedState>(&noted) else { return };
        state.lift();
        let Ok(note) = serde_json::to_vec(&state) else { return };
        if let Err(error) = self.0.store.set_note(NOTE, note) {
            tracing::warn!(%error, "what was learned about sites could not be written down");
        }
    }

    /// Writes down what was learned, if it is news.
    fn remember(&self, last: &mut u64) {
        let (revision, state) = self.with_core(|core, now, _| {
            let revision = core.scheduler.revision();
            (revision, (revision != *last).then(|| core.scheduler.state(now)))
        });
        let Some(note) = state.and_then(|state| serde_json::to_vec(&state).ok()) else { return };
        match self.0.store.set_note(NOTE, note) {
            Ok(()) => *last = revision,
            Err(error) => tracing::warn!(%error, "what was learned about sites could not be written down"),
        }
    }
}

/// Writes down what is learned, until the end.
pub(super) async fn keep(driver: Driver) {
    let mut last = 0;
    loop {
        tokio::select! {
            () = driver.0.stopping.cancelled() => break,
            () = tokio::time::sleep(EVERY) => driver.remember(&mut last),
        }
    }
    driver.remember(&mut last);
}
