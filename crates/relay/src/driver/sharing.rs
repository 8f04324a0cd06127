//! Limits that all nodes of a cluster share: this node borrows its part, and stops in time when it is not renewed.

use std::collections::HashMap;

use cluster::Borrow;
use mail::DeliveryId;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Driver;

/// What the driver keeps for it.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Told when something waits for a loan.
    wanted: Notify,
    /// Attempts that can be cut off.
    under_way: Mutex<HashMap<DeliveryId, oneshot::Sender<()>>>,
}

impl Sharing {
    /// Something waits for a loan.
    pub(super) fn wanted(&self) {
        self.wanted.notify_one();
    }

    /// The loan that this attempt was made on has run out.
    pub(super) fn cut(&self, id: DeliveryId) {
        if let Some(cut) = self.under_way.lock().remove(&id) {
            let _ = cut.send(());
        }
    }
}

/// Borrows for as long as the relay runs.
#[allow(dead_code, reason = "spawned by the service in a cluster")]
pub(super) async fn share(driver: Driver, borrow: Borrow) {
    let _ = borrow;
    driver.0.stopping.cancelled().await;
}
