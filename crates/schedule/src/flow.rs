//! The adaptive window of a path: how many connections the site's answers allow.
//!
//! It begins small, doubles with success, then grows by one for each window of successes; a 421 or words of rate limiting
//! halve it, once for all attempts that were under way together. Answers that take much longer than they used to shrink it gently. A window
//! that is not made use of does not grow.

use std::time::Duration;

use mail::Mono;

/// Answers this much slower than the best that is known, and [`SLOWER_FLOOR_MS`], are a sign of load.
const SLOWER: f32 = 3.0;
/// Below this nothing is called slow, in milliseconds.
const SLOWER_FLOOR_MS: f32 = 1_000.0;
/// Slow answers shrink the window no more often than this.
const SLOWER_PAUSE: Duration = Duration::from_secs(5);

/// What the answers of a site allow on one path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Flow {
    /// Connections it may have; at least 1.
    size: f32,
    /// Up to here it doubles; the size at which things went well after the last shrinking.
    calm: f32,
    /// The best latency that is known, drifting up slowly, and the smoothed one; 0: none yet. In milliseconds.
    best_ms: f32,
    smooth_ms: f32,
    /// When it shrank last.
    shrunk_at: Mono,
}

/// What became of a request to slow down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slowed {
    /// The attempt began before the last shrinking: it says nothing new.
    Known,
    /// The window is smaller now.
    Shrunk,
    /// It can't be smaller: the path has to rest.
    AtFloor,
}

impl Flow {
    pub(crate) fn new(first: usize) -> Self {
        let size = to_f32(first.max(1));
        Self { size, calm: f32::MAX, best_ms: 0.0, smooth_ms: 0.0, shrunk_at: Mono::default() }
    }

    /// From what was saved, in hundredths.
    pub(crate) fn restored(size: u32, calm: u32) -> Self {
        let hundredths = |n: u32| to_f32(usize::try_from(n).unwrap_or(100)) / 100.0;
        let calm = if calm == u32::MAX { f32::MAX } else { hundredths(calm).max(1.0) };
        Self { calm, ..Self { size: hundredths(size).max(1.0), ..Self::new(1) } }
    }

    /// To be saved, in hundredths.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small, not negative, saturating"
    )]
    pub(crate) fn saved(&self) -> (u32, u32) {
        (
            (self.size * 100.0) as u32,
            if self.calm == f32::MAX { u32::MAX } else { (self.calm * 100.0) as u32 },
        )
    }

    /// Connections it may have under this limit.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small, not negative, saturating"
    )]
    pub(crate) fn allows(&self, limit: usize) -> usize {
        (self.size as usize).clamp(1, limit.max(1))
    }

    /// Whether nothing was learned that a new one would not know.
    pub(crate) fn is_fresh(&self, first: usize) -> bool {
        self.size >= to_f32(first.max(1)) && self.calm == f32::MAX
    }

    /// How long the site takes to answer.
    pub(crate) fn latency(&self) -> Option<Duration> {
        (self.smooth_ms > 0.0).then(|| Duration::from_secs_f32(self.smooth_ms / 1000.0))
    }

    /// An attempt went well. `is_used`: all of the window is made use of.
    pub(crate) fn good(&mut self, latency: Option<Duration>, is_used: bool, limit: usize, now: Mono) {
        if latency.is_some_and(|latency| self.is_slower(latency)) {
            if now.since(self.shrunk_at) >= SLOWER_PAUSE && self.size > 1.0 {
                self.size = (self.size * 0.8).max(1.0);
                self.calm = self.size;
                self.shrunk_at = now;
            }
            return;
        }
        if is_used {
            let step = if self.size < self.calm { 1.0 } else { 1.0 / self.size };
            self.size = (self.size + step).min(to_f32(limit.max(1))).max(1.0);
        }
    }

    fn is_slower(&mut self, latency: Duration) -> bool {
        let ms = latency.as_secs_f32() * 1000.0;
        if self.smooth_ms == 0.0 {
            (self.best_ms, self.smooth_ms) = (ms, ms);
            return false;
        }
        self.smooth_ms += (ms - self.smooth_ms) / 8.0;
        // A best that came from a lucky moment is forgotten over some hundreds of messages.
        self.best_ms = if ms < self.best_ms { ms } else { self.best_ms + (ms - self.best_ms) / 500.0 };
        self.smooth_ms > self.best_ms * SLOWER + SLOWER_FLOOR_MS
    }

    /// The site asked us to slow down, in answer to an attempt that began then.
    pub(crate) fn slow(&mut self, began: Mono, now: Mono) -> Slowed {
        if began < self.shrunk_at {
            return Slowed::Known;
        }
        self.shrunk_at = now;
        if self.size < 2.0 {
            (self.size, self.calm) = (1.0, 1.0);
            return Slowed::AtFloor;
        }
        self.size /= 2.0;
        self.calm = self.size;
        Slowed::Shrunk
    }

    /// So many connections are too many.
    pub(crate) fn full(&mut self, connections: usize, now: Mono) {
        let fewer = to_f32(connections.saturating_sub(1).max(1));
        if fewer < self.size {
            (self.size, self.calm) = (fewer, fewer);
            self.shrunk_at = now;
        }
    }

    /// After a suspension it begins with one.
    pub(crate) fn restart(&mut self) {
        self.calm = (self.size / 2.0).max(1.0);
        self.size = 1.0;
    }
}

#[allow(clippy::cast_precision_loss, reason = "numbers of connections are small")]
fn to_f32(n: usize) -> f32 {
    n as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_grows_with_success_when_used_and_never_over_the_limit() {
        let mut flow = Flow::new(5);
        (0..50).for_each(|_| flow.good(Some(20 * MS), false, 20, at(1)));
        assert_eq!(flow.allows(20), 5);
        (0..15).for_each(|_| flow.good(Some(20 * MS), true, 20, at(1)));
        assert_eq!(flow.allows(20), 20);
        (0..100).for_each(|_| flow.good(Some(20 * MS), true, 20, at(1)));
        assert_eq!((flow.allows(20), flow.allows(7)), (20, 7));
        assert!(flow.is_fresh(5));
    }

    #[test]
    fn many_that_were_slowed_down_together_count_once() {
        let mut flow = Flow::new(16);
        assert_eq!(flow.slow(at(1), at(2)), Slowed::Shrunk);
        for _ in 0..15 {
            assert_eq!(flow.slow(at(1), at(3)), Slowed::Known);
        }
        assert_eq!(flow.allows(20), 8);
        // Slow growth from there: one for each window of successes.
        (0..8).for_each(|_| flow.good(None, true, 20, at(4)));
        assert_eq!(flow.allows(20), 8);
        (0..2).for_each(|_| flow.good(None, true, 20, at(4)));
        assert_eq!(flow.allows(20), 9);
        assert_eq!((flow.slow(at(5), at(5)), flow.allows(20)), (Slowed::Shrunk, 4));
        assert_eq!((flow.slow(at(6), at(6)), flow.slow(at(7), at(7))), (Slowed::Shrunk, Slowed::Shrunk));
        assert_eq!((flow.slow(at(8), at(8)), flow.allows(20)), (Slowed::AtFloor, 1));
    }

    #[test]
    fn rising_latency_shrinks_it_and_slow_hosts_that_were_always_slow_do_not() {
        let mut flow = Flow::new(20);
        (0..100).for_each(|_| flow.good(Some(5000 * MS), true, 20, at(1)));
        assert_eq!(flow.allows(20), 20);
        let mut flow = Flow::new(20);
        (0..100).for_each(|_| flow.good(Some(50 * MS), true, 20, at(1)));
        (0..100).for_each(|n| flow.good(Some(8000 * MS), true, 20, at(10 + n)));
        assert!(flow.allows(20) < 8, "{flow:?}");
    }

    #[test]
    fn told_that_it_is_full_and_restored() {
        let mut flow = Flow::new(20);
        flow.full(6, at(1));
        assert_eq!(flow.allows(20), 5);
        let (size, calm) = flow.saved();
        assert_eq!(Flow::restored(size, calm).allows(20), 5);
        flow.restart();
        assert_eq!(flow.allows(20), 1);
    }
}
