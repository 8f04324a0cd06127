//! The clock port: the one place that reads the time, so that tests and the simulator can move it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Wall-clock time in milliseconds since 1970-01-01T00:00:00Z. For what people see and what is stored; it may
/// jump. Intervals are measured with [`Mono`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// This time and `d` later.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As RFC 5322 section 3.3 wants it in a header, in UTC: `Tue, 24 Nov 2026 07:00:00 +0000`.
    pub fn rfc5322(self) -> String {
        self.instant().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
    }

    fn instant(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

/// RFC 3339 with milliseconds, in UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.instant().strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

/// Monotonic time since the clock was made. Never jumps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub Duration);

impl Mono {
    /// This moment and `d` later.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(d))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time. Cheap to clone; clones of a manual clock move together.
#[derive(Clone, Debug)]
pub struct Clock(Inner);

#[derive(Clone, Debug)]
enum Inner {
    System { start: std::time::Instant },
    Manual(ManualClock),
}

impl Clock {
    /// The machine's clocks.
    #[allow(clippy::disallowed_methods, reason = "this is the clock port")]
    pub fn system() -> Self {
        Self(Inner::System { start: std::time::Instant::now() })
    }

    /// Whether it is the machine's clock, and so can be compared with those of others.
    pub fn is_system(&self) -> bool {
        matches!(self.0, Inner::System { .. })
    }

    /// The wall-clock time.
    #[allow(clippy::disallowed_methods, reason = "this is the clock port")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Inner::System { .. } => {
                let since =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Inner::Manual(manual) => manual.0.lock().0,
        }
    }

    /// The monotonic time since this clock was made.
    pub fn mono(&self) -> Mono {
        match &self.0 {
            Inner::System { start } => Mono(start.elapsed()),
            Inner::Manual(manual) => manual.0.lock().1,
        }
    }
}

/// A clock that stands still until it is moved.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<(Timestamp, Mono)>>);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(Mutex::new((start, Mono::default()))))
    }

    /// The clock to hand to the code under test.
    pub fn clock(&self) -> Clock {
        Clock(Inner::Manual(self.clone()))
    }

    /// Lets `d` pass on both clocks.
    pub fn advance(&self, d: Duration) {
        let mut now = self.0.lock();
        *now = (now.0.plus(d), now.1.plus(d));
    }

    /// Sets the wall clock alone, as an administrator or a bad NTP server would.
    pub fn jump_to(&self, wall: Timestamp) {
        self.0.lock().0 = wall;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let t = Timestamp(1_795_503_600_123);
        assert_eq!(t.rfc5322(), "Tue, 24 Nov 2026 07:00:00 +0000");
        assert_eq!(t.to_string(), "2026-11-24T07:00:00.123Z");
    }

    #[test]
    fn a_wall_clock_jump_leaves_intervals_alone() {
        let manual = ManualClock::new(Timestamp(1_000_000));
        let clock = manual.clock();
        let before = clock.mono();
        manual.jump_to(Timestamp(5));
        manual.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), Timestamp(2_005));
        assert_eq!(clock.mono().since(before), Duration::from_secs(2));
    }
}
