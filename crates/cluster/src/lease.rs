//! How long a node may act on its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mail::{Clock, Mono};

use crate::{LEASE, Token};

/// A node's right to act, renewed by each beat. A clone is the same lease; asking is cheap.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    token: Token,
    clock: Clock,
    /// When the last good beat was begun: milliseconds of the monotonic clock, and one.
    good: AtomicU64,
    draining: AtomicBool,
    deposed: AtomicBool,
}

impl Lease {
    /// Without a beat, so that it permits nothing yet.
    pub fn new(token: Token, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            token,
            clock,
            good: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            deposed: AtomicBool::new(false),
        }))
    }

    /// Whose it is. Everything that the node writes carries it.
    pub fn token(&self) -> Token {
        self.0.token
    }

    /// Whether something new may be started: a claim, a connection, an attempt.
    pub fn may_start(&self) -> bool {
        !self.0.draining.load(Ordering::Acquire) && self.may_finish()
    }

    /// Whether what was started may have its effect: to be asked right before a final dot is sent.
    pub fn may_finish(&self) -> bool {
        let good = self.0.good.load(Ordering::Acquire);
        // Below a millisecond it is rounded against us.
        let now = millis(self.0.clock.mono()) + 1;
        good != 0
            && u128::from(now.saturating_sub(good - 1)) < LEASE.as_millis()
            && !self.0.deposed.load(Ordering::Acquire)
    }

    /// How long ago the last good beat was begun; none before the first.
    pub fn age(&self) -> Option<Duration> {
        let good = self.0.good.load(Ordering::Acquire).checked_sub(1)?;
        Some(Duration::from_millis(millis(self.0.clock.mono()).saturating_sub(good)))
    }

    /// Whether it is over for good: the node was declared dead, or left.
    pub fn is_deposed(&self) -> bool {
        self.0.deposed.load(Ordering::Acquire)
    }

    /// Whether the node finishes what it has and starts nothing.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// A beat that was begun at `started` has succeeded.
    pub fn renew(&self, started: Mono, draining: bool) {
        self.0.good.fetch_max(millis(started) + 1, Ordering::AcqRel);
        self.0.draining.store(draining, Ordering::Release);
    }

    /// Ends it for good.
    pub fn depose(&self) {
        self.0.deposed.store(true, Ordering::Release);
    }
}

fn millis(at: Mono) -> u64 {
    u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use mail::{ManualClock, Timestamp};

    use super::*;

    #[test]
    fn it_lasts_six_seconds_from_the_start_of_the_last_good_beat() {
        let manual = ManualClock::new(Timestamp(0));
        let lease = Lease::new(Token { node: 1, epoch: 1 }, manual.clock());
        assert!(!lease.may_start() && !lease.may_finish());
        assert_eq!(lease.age(), None);
        let started = manual.clock().mono();
        // The beat took its time.
        manual.advance(Duration::from_secs(3));
        lease.renew(started, false);
        assert!(lease.may_start() && lease.may_finish());
        assert_eq!(lease.age(), Some(Duration::from_secs(3)));
        manual.advance(Duration::from_millis(2_998));
        assert!(lease.may_finish());
        manual.advance(Duration::from_millis(2));
        assert!(!lease.may_finish());
        // One that comes late and was begun long ago brings nothing back.
        lease.renew(started, false);
        assert!(!lease.may_finish());
        lease.renew(manual.clock().mono(), true);
        assert!(lease.may_finish() && !lease.may_start());
        lease.depose();
        assert!(!lease.may_finish());
        // A wall clock that jumps changes nothing.
        let other = Lease::new(Token { node: 1, epoch: 2 }, manual.clock());
        other.renew(manual.clock().mono(), false);
        manual.jump_to(Timestamp(i64::MAX / 2));
        assert!(other.may_start());
    }
}
