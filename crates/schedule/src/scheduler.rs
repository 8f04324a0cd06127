//! The scheduler's state, and what the driver tells it about deliveries.

use std::sync::Arc;
use std::time::Duration;

use mail::{DeliveryId, Destination, QueueKey, Site, Timestamp};

use crate::clock::Now;
use crate::effect::{Effect, Item, Next, Path, Removed, Report, Reservation, Rest};
use crate::policy::Policy;
use crate::saved::SavedState;
use crate::snapshot::{Snapshot, Totals};
use crate::traffic::Traffic;
use crate::why::Why;

/// Says what to deliver next. One for the whole relay, behind the driver's lock; every call is quick.
///
/// All methods that can lead to effects append them to `out`.
#[derive(Debug)]
pub struct Scheduler {
    policy: Arc<Policy>,
}

#[allow(missing_docs, unused_variables, clippy::todo, reason = "the signatures first; bodies follow")]
impl Scheduler {
    /// A scheduler that knows of nothing yet: the first [`Scheduler::tick`] asks for what waits on disk
    /// ([`Effect::Horizon`]), so the driver says [`Scheduler::restore`], then `tick`, and no `parked` for what the store has.
    pub fn new(policy: Arc<Policy>, seed: u64) -> Self { Self { policy } }
    pub fn configure(&mut self, policy: Arc<Policy>, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn reserve(&mut self, queue: &QueueKey, credential: Option<&Arc<str>>, now: Now) -> Reservation { todo!() }
    pub fn cancel(&mut self, queue: &QueueKey, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn admitted(&mut self, queue: &QueueKey, item: Item, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn parked(&mut self, queue: &QueueKey, due: Timestamp, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn paged(&mut self, queue: &QueueKey, items: Vec<Item>, rest: Rest, now: Now, out: &mut Vec<Effect>) -> Vec<DeliveryId> { todo!() }
    pub fn page_failed(&mut self, queue: &QueueKey, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn horizon(&mut self, found: Vec<(QueueKey, Timestamp)>, complete_until: Timestamp, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn horizon_failed(&mut self, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn located(&mut self, destination: &Destination, site: Site, valid: Duration, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn attempted(&mut self, id: DeliveryId, report: Report, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn next_for(&mut self, path: &Path, now: Now, out: &mut Vec<Effect>) -> Next { todo!() }
    pub fn release_slot(&mut self, path: &Path, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn finished(&mut self, id: DeliveryId, deferred_until: Option<Timestamp>, now: Now, out: &mut Vec<Effect>) { todo!() }
    pub fn remove(&mut self, queue: &QueueKey, id: DeliveryId, now: Now, out: &mut Vec<Effect>) -> Removed { todo!() }
    pub fn knows(&self, id: DeliveryId) -> bool { todo!() }
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) { todo!() }
    /// An operator wants mail of this destination tried now: closed paths of its site are opened for a probe.
    pub fn lift(&mut self, destination: &Destination, now: Now, out: &mut Vec<Effect>) { todo!() }
    /// The bounds of a path; workers close a connection after `messages_per_connection`.
    pub fn traffic(&self, path: &Path) -> Traffic { self.policy.traffic(&path.source, &path.site) }
    pub fn state(&self, now: Now) -> SavedState { todo!() }
    pub fn restore(&mut self, saved: SavedState, now: Now) { todo!() }
    /// A number that grows whenever [`Scheduler::state`] would say something new.
    pub fn revision(&self) -> u64 { todo!() }
    pub fn snapshot(&self, now: Now) -> Snapshot { todo!() }
    pub fn totals(&self) -> Totals { todo!() }
    pub fn why(&self, queue: &QueueKey, now: Now) -> Why { todo!() }
    /// None when the delivery is not in memory: then its row says when it is due, and [`Scheduler::why`] the rest.
    pub fn why_delivery(&self, id: DeliveryId, now: Now) -> Option<Why> { todo!() }
    /// The site of a destination, if it is known.
    pub fn site_of(&self, destination: &Destination) -> Option<Site> { todo!() }
}
