//! Whether the clock is to be believed when it says that something is old.

use std::time::Duration;

use mail::{Clock, Mono, Timestamp};

/// A wall clock that goes so much faster or slower than time was set.
const JUMP_MAX: Duration = Duration::from_secs(3600);
/// So long after that nothing is dropped on its word: time for whoever set it wrong to notice.
const DISTRUST: Duration = Duration::from_secs(86_400);

/// Watches the wall clock against the monotonic one.
pub(crate) struct Trust {
    /// Wall and monotonic time when it began, or when the clock was last set.
    began: (Timestamp, Mono),
    /// Nothing is dropped before.
    distrusted_until: Mono,
}

impl Trust {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self { began: (clock.now(), clock.mono()), distrusted_until: Mono::default() }
    }

    /// The time, if it can be believed.
    pub(crate) fn now(&mut self, clock: &Clock) -> Option<Timestamp> {
        let (now, mono) = (clock.now(), clock.mono());
        let real = i64::try_from(mono.since(self.began.1).as_millis()).unwrap_or(i64::MAX);
        let wall = now.millis() - self.began.0.millis();
        if u128::from(wall.abs_diff(real)) > JUMP_MAX.as_millis() {
            tracing::warn!(now = %now, "the clock was set: no history is dropped for a day");
            self.began = (now, mono);
            self.distrusted_until = mono.plus(DISTRUST);
        }
        (mono >= self.distrusted_until).then_some(now)
    }
}
