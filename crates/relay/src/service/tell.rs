//! The last stage: events go from the outbox into the history.

use history::{History, OutboxSource};
use mail::Event;
use store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

struct Outbox(Store);

impl OutboxSource for Outbox {
    type Error = StoreError;

    async fn events(&self, after: u64, n: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        self.0.outbox(after, n).await
    }

    async fn done(&self, up_to: u64) -> Result<(), StoreError> {
        self.0.outbox_done(up_to).await
    }

    fn committed(&self) -> watch::Receiver<u64> {
        self.0.outbox_wait()
    }
}

/// Copies what happens until `shutdown`, and then until nothing is left.
pub(crate) async fn tell(store: Store, history: History, shutdown: CancellationToken) {
    history::drain(Outbox(store), history, shutdown).await;
}
