//! This node's standing in its cluster, as far as the driver has to do with it: nothing is begun without a lease, a node that
//! drains gives back what it has, and what others put into the store is looked for.

use std::time::Duration;

use cluster::{Borrow, Member};
use schedule::{Removed, Reservation};
use store::{ChangedDelivery, Next, Settlement, Waiting};
use tokio::sync::mpsc;

use super::{Driver, Reserved, sharing};

/// How often it is looked for what others put into the store, and whether the node drains.
const LOOK: Duration = Duration::from_secs(1);
/// Of so many looks one is for what others put into the store.
const AGAIN: u32 = 5;

impl Driver {
    /// From now on this is a node among others.
    pub(crate) fn join(&self, member: &Member, share_limits: bool) {
        if share_limits {
            self.spawn(sharing::share(self.clone(), Borrow::new(member.clone())));
        }
        self.spawn(watch(self.clone(), member.clone()));
        if let Some(told) = self.0.store.told() {
            self.spawn(listen(self.clone(), told));
        }
    }

    /// Asks the store anew what is due: somebody else has put something there.
    pub(crate) fn look_again(&self) {
        self.with_core(|core, now, out| core.scheduler.look_again(now, out));
    }

    /// Waits until an attempt may begin. False when this node begins none any more.
    pub(super) async fn may_begin(&self) -> bool {
        let Some(member) = &self.0.member else { return true };
        let lease = member.lease();
        loop {
            if lease.may_start() {
                return true;
            }
            if lease.is_draining() || lease.is_deposed() {
                return false;
            }
            tokio::select! {
                () = member.beaten() => {}
                () = self.0.stopping.cancelled() => return false,
                () = self.0.cut_off.cancelled() => return false,
            }
        }
    }

    /// Whether this node gives back what it has.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.member.as_ref().is_some_and(|member| member.lease().is_draining())
    }

    /// Ends everything that is under way at once: it is another node's by now.
    pub(crate) fn abandon(&self) {
        self.0.cut_off.cancel();
    }

    /// Puts a delivery back untouched, due at once, for whichever node takes it.
    pub(super) fn hand_back(&self, waiting: &Waiting) {
        let due = self.0.clock.now();
        let settlement = Settlement {
            delivery: waiting.id,
            recipients: Vec::new(),
            next: Next::Parked { due },
            warned: waiting.warned,
            reports: Vec::new(),
            events: Vec::new(),
        };
        self.commit(settlement, Some(due), Vec::new());
    }

    /// Gives back all that waits in memory; attempts that are under way end as they end.
    fn give_back_all(&self) {
        let mut back = Vec::new();
        self.with_core(|core, now, out| {
            let waiting: Vec<_> = core.waiting.iter().map(|(id, w)| (*id, w.queue.clone())).collect();
            for (id, queue) in waiting {
                if core.scheduler.remove(&queue, id, now, out) == Removed::Gone {
                    back.extend(core.waiting.remove(&id));
                }
            }
        });
        if !back.is_empty() {
            tracing::info!(deliveries = back.len(), "draining: given back");
        }
        for waiting in &back {
            self.hand_back(waiting);
        }
    }

    /// What comes in while the node drains is the others'.
    pub(super) fn place_elsewhere(&self, reserved: &mut Reserved) {
        if !self.is_draining() {
            return;
        }
        let due = self.0.clock.now();
        let mut places = std::mem::take(&mut reserved.places);
        self.with_core(|core, now, out| core.give_back(&places, now, out));
        for (place, _) in &mut places {
            *place = Reservation::Parked { due };
        }
        reserved.places = places;
    }
}

/// Looks at the node's standing from time to time.
async fn watch(driver: Driver, member: Member) {
    let mut was_draining = false;
    for look in 1_u32.. {
        tokio::select! {
            () = driver.0.stopping.cancelled() => return,
            () = driver.0.cut_off.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let draining = member.lease().is_draining();
        if draining {
            driver.give_back_all();
        } else if was_draining || look.is_multiple_of(AGAIN) {
            driver.look_again();
        }
        was_draining = draining;
    }
}

/// Applies what operators did at other nodes.
async fn listen(driver: Driver, mut told: mpsc::UnboundedReceiver<Vec<ChangedDelivery>>) {
    loop {
        let changed = tokio::select! {
            () = driver.0.stopping.cancelled() => return,
            changed = told.recv() => changed,
        };
        let Some(changed) = changed else { return };
        let in_flight = driver.apply(&changed);
        tracing::info!(deliveries = changed.len(), in_flight, "changed at another node");
    }
}
