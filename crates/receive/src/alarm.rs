//! One timer for a session.

use std::pin::Pin;

use mail::Mono;
use tokio::time::{Sleep, sleep};

/// Wakes a session that waits too long for its client. There is one for the session, and it is moved only when it must
/// ring earlier: a timer for each read would be made and taken back a dozen times a message.
pub(crate) struct Alarm<'a> {
    pub(crate) sleep: Pin<&'a mut Sleep>,
    /// When it rings, at the latest.
    pub(crate) rings: Mono,
}

impl Alarm<'_> {
    /// It rings at `deadline` or before.
    pub(crate) fn by(&mut self, deadline: Mono, now: Mono) {
        if deadline < self.rings {
            self.again(deadline, now);
        }
    }

    /// It rings at `deadline`.
    pub(crate) fn again(&mut self, deadline: Mono, now: Mono) {
        self.sleep.set(sleep(deadline.since(now)));
        self.rings = deadline;
    }
}
