//! What operators did: stored first, then applied here.

use std::collections::HashSet;

use mail::State;
use schedule::Removed;
use store::ChangedDelivery;

use super::Driver;

impl Driver {
    /// Applies changes that the store has already. Returns how many of these deliveries are being attempted just now,
    /// and end as they end.
    pub(crate) fn apply(&self, changed: &[ChangedDelivery]) -> u64 {
        let mut in_flight = 0;
        let now = self.0.clock.now();
        let mut wanted = HashSet::new();
        for delivery in changed {
            let gone = self.forget(delivery);
            in_flight += u64::from(!gone);
            if let (true, Some(queue), Some(State::Waiting)) = (gone, &delivery.now_in, delivery.state) {
                self.with_core(|core, at, out| core.scheduler.parked(queue, now, at, out));
                wanted.insert(&queue.destination);
            }
        }
        // Whoever says "now" means it, also for a site that could not be reached a moment ago.
        for destination in wanted {
            self.with_core(|core, at, out| core.scheduler.lift(destination, at, out));
        }
        in_flight
    }

    fn forget(&self, delivery: &ChangedDelivery) -> bool {
        self.with_core(|core, now, out| {
            let removed = core.scheduler.remove(&delivery.queue, delivery.id, now, out);
            if removed == Removed::Gone {
                core.waiting.remove(&delivery.id);
            }
            removed == Removed::Gone
        })
    }
}
