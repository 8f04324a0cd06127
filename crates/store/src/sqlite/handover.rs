//! Between the thread that writes content and the one that commits: a place for one group whose content is on stable
//! storage. While it is taken nothing more is prepared, so what comes meanwhile makes the next group larger instead of
//! the line longer.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::item::Item;
use crate::content::SegmentId;
use crate::error::StoreError;

/// A group on its way to its commit.
pub(crate) struct Group {
    pub(crate) items: Vec<Item>,
    /// Whether its content is on stable storage; if not, nothing of it may be committed as it is.
    pub(crate) placed: Result<(), StoreError>,
    /// Segments that hold nothing of this group and the ones after it.
    pub(crate) ended: Vec<SegmentId>,
}

/// What the committing thread finds.
pub(crate) enum Taken {
    Group(Group),
    /// Nothing came in time.
    Nothing,
    /// There will be no more.
    Closed,
}

#[derive(Default)]
struct Slot {
    group: Option<Group>,
    closed: bool,
}

/// In order: what is handed over first is committed first.
#[derive(Default)]
pub(crate) struct Handover {
    slot: Mutex<Slot>,
    /// Only one of the two threads can be waiting: for the place to be free, or for it to be taken.
    changed: Condvar,
}

impl Handover {
    /// Waits until a group may be handed over. False: nobody takes it any more.
    pub(crate) fn wait_until_free(&self) -> bool {
        let mut slot = self.slot.lock();
        while slot.group.is_some() && !slot.closed {
            self.changed.wait(&mut slot);
        }
        !slot.closed
    }

    /// Hands a group over; the place is free. Dropped when nobody takes it any more: who waits for it is told by that.
    pub(crate) fn put(&self, group: Group) {
        let mut slot = self.slot.lock();
        if slot.closed {
            drop(slot);
            drop(group);
            return;
        }
        debug_assert!(slot.group.is_none(), "one at a time");
        slot.group = Some(group);
        self.changed.notify_one();
    }

    /// The next group; with `patience`, only if it comes in that time.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Taken {
        let mut slot = self.slot.lock();
        loop {
            if let Some(group) = slot.group.take() {
                self.changed.notify_one();
                return Taken::Group(group);
            }
            if slot.closed {
                return Taken::Closed;
            }
            match patience {
                None => self.changed.wait(&mut slot),
                // A wait that ends early only has it looked at sooner what is left to do.
                Some(time) if self.changed.wait_for(&mut slot, time).timed_out() && slot.group.is_none() => {
                    return Taken::Nothing;
                }
                Some(_) => {}
            }
        }
    }

    /// The last group has been handed over, or nobody takes one any more.
    pub(crate) fn close(&self) {
        self.slot.lock().closed = true;
        self.changed.notify_all();
    }

    /// Drops what nobody will commit.
    pub(crate) fn abandon(&self) {
        let group = self.slot.lock().group.take();
        drop(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(ended: SegmentId) -> Group {
        Group { items: Vec::new(), placed: Ok(()), ended: vec![ended] }
    }

    fn number(taken: Taken) -> Option<SegmentId> {
        match taken {
            Taken::Group(group) => Some(group.ended[0]),
            Taken::Nothing | Taken::Closed => None,
        }
    }

    #[test]
    fn groups_pass_in_order_and_one_at_a_time() {
        let handover = Handover::default();
        assert!(matches!(handover.take(Some(Duration::ZERO)), Taken::Nothing));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..100 {
                    assert!(handover.wait_until_free());
                    handover.put(group(n));
                }
                handover.close();
            });
            for n in 0..100 {
                assert_eq!(number(handover.take(None)), Some(n));
            }
            assert!(matches!(handover.take(None), Taken::Closed));
        });
    }

    #[test]
    fn what_was_handed_over_before_the_end_is_still_taken() {
        let handover = Handover::default();
        assert!(handover.wait_until_free());
        handover.put(group(7));
        handover.close();
        assert!(!handover.wait_until_free());
        assert_eq!(number(handover.take(None)), Some(7));
        handover.put(group(8));
        assert!(matches!(handover.take(None), Taken::Closed), "too late");
    }

    #[test]
    fn whoever_waits_for_the_place_is_let_go_when_nobody_takes() {
        let handover = Handover::default();
        handover.put(group(1));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| handover.wait_until_free());
            handover.close();
            assert!(!waits.join().unwrap());
        });
        handover.abandon();
        assert!(matches!(handover.take(None), Taken::Closed));
    }
}
