//! Both clocks as one value, and what to do when the wall clock jumps.

use std::time::Duration;

use mail::{Clock, Mono, Timestamp};

/// A difference between the clocks that counts as a jump; below it drift and NTP are at work.
const JUMP: Duration = Duration::from_secs(3600);

/// Jumps that are remembered.
const JUMPS_MAX: usize = 16;

/// What both clocks show: due times are on the wall clock, since they outlive the process; intervals are monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub wall: Timestamp,
    /// The monotonic clock.
    pub mono: Mono,
}

impl From<&Clock> for Now {
    fn from(clock: &Clock) -> Self {
        Self { wall: clock.now(), mono: clock.mono() }
    }
}

impl Now {
    /// The monotonic moment at which the wall clock will show `at`, if nobody sets it meanwhile.
    pub fn mono_at(self, at: Timestamp) -> Mono {
        self.mono.plus(at.since(self.wall))
    }

    /// What the wall clock will show at a monotonic moment that is still to come; now for one that is over.
    pub fn wall_at(self, at: Mono) -> Timestamp {
        self.wall.plus(at.since(self.mono))
    }
}

/// The wall clock was set by more than an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// What it would have shown.
    pub from: Timestamp,
    /// What it shows.
    pub to: Timestamp,
}

/// Watches the wall clock against the monotonic one, so that a message's age does not grow by a jump: a clock that is
/// set by weeks must not expire the whole queue, nor keep it for ever. Jumps before this process began are unknown,
/// which is why nothing expires before an attempt has failed in its lifetime ([`crate::decide()`]).
#[derive(Clone, Debug)]
pub struct ClockWatch {
    last: Now,
    jumps: Vec<Jump>,
}

impl ClockWatch {
    /// Starts watching.
    pub fn new(now: Now) -> Self {
        Self { last: now, jumps: Vec::new() }
    }

    /// Looks at the clocks; to be called at least once a minute. After a jump back, rows on disk may be due further
    /// away than [`crate::Retry::longest`]: the driver makes them due.
    pub fn observe(&mut self, now: Now) -> Option<Jump> {
        let from = self.last.wall.plus(now.mono.since(self.last.mono));
        self.last = now;
        if now.wall.since(from) < JUMP && from.since(now.wall) < JUMP {
            return None;
        }
        let jump = Jump { from, to: now.wall };
        if self.jumps.len() == JUMPS_MAX {
            self.jumps.remove(0);
        }
        self.jumps.push(jump);
        Some(jump)
    }

    /// How old a message is that was received when the wall clock showed `received_at`; jumps do not count.
    pub fn age(&self, received_at: Timestamp, now: Now) -> Duration {
        // Walk back through the jumps: what the clock would show now, had it not been set after the message came.
        let mut shown = now.wall.millis();
        for jump in self.jumps.iter().rev() {
            let (from, to) = (jump.from.millis(), jump.to.millis());
            // It came before this jump: an earlier time than the clock showed ever since, or a later one than it
            // has shown since. A time that both sides of a jump back have shown is taken for the later side.
            let before = if to > from { received_at.millis() < to } else { received_at.millis() > shown };
            if !before {
                break;
            }
            shown -= to - from;
        }
        Timestamp(shown).since(received_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(wall_h: i64, mono_h: i64) -> Now {
        let mono = Duration::from_millis(u64::try_from(mono_h * HOUR).unwrap());
        Now { wall: Timestamp(wall_h * HOUR), mono: Mono(mono) }
    }

    fn hours(d: Duration) -> u64 {
        d.as_secs() / 3600
    }

    #[test]
    fn drift_is_no_jump() {
        let mut watch = ClockWatch::new(at(100, 0));
        assert_eq!(watch.observe(at(101, 1)), None);
        let mut late = at(102, 2);
        late.wall = late.wall.plus(Duration::from_secs(3000));
        assert_eq!(watch.observe(late), None);
    }

    #[test]
    fn a_jump_ahead_does_not_age_what_was_there() {
        let mut watch = ClockWatch::new(at(100, 0));
        let jump = watch.observe(at(821, 1)).unwrap();
        assert_eq!(jump, Jump { from: Timestamp(101 * HOUR), to: Timestamp(821 * HOUR) });
        assert_eq!(hours(watch.age(Timestamp(100 * HOUR), at(823, 3))), 3);
        assert_eq!(hours(watch.age(Timestamp(822 * HOUR), at(823, 3))), 1);
    }

    #[test]
    fn a_jump_back_still_ages_what_was_there() {
        let mut watch = ClockWatch::new(at(1000, 0));
        assert!(watch.observe(at(281, 1)).is_some());
        assert_eq!(hours(watch.age(Timestamp(1000 * HOUR), at(283, 3))), 3);
        assert_eq!(hours(watch.age(Timestamp(282 * HOUR), at(283, 3))), 1);
    }

    #[test]
    fn there_and_back_again() {
        let mut watch = ClockWatch::new(at(100, 0));
        assert!(watch.observe(at(821, 1)).is_some());
        assert!(watch.observe(at(102, 2)).is_some());
        // Both sides have shown 100: from before the first jump it is 3 hours old whichever way one walks.
        assert_eq!(hours(watch.age(Timestamp(100 * HOUR), at(103, 3))), 3);
        // It came in between, while the clock showed far too much.
        assert_eq!(hours(watch.age(Timestamp(821 * HOUR), at(103, 3))), 2);
    }

    #[test]
    fn few_jumps_are_remembered() {
        let mut watch = ClockWatch::new(at(0, 0));
        for n in 1..100 {
            assert!(watch.observe(at(n * 10, n)).is_some());
        }
        assert_eq!(watch.jumps.len(), JUMPS_MAX);
    }
}
