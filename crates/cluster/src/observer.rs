//! What one node makes of the beats of the others. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use mail::Mono;

use crate::{BEAT, DEAD_AFTER, Token};

/// A node that is up, as one look at the database found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Number and epoch.
    pub token: Token,
    /// Its beats so far.
    pub beat: i64,
}

/// Longer than this, and a cycle says nothing of the others: whatever slowed ours may have slowed theirs.
const SLOW: Duration = BEAT.saturating_mul(2);

/// Remembers since when it has seen each node's beat unchanged. It trusts what it sees only while its own beats
/// succeed: the look at the others travels with a beat of one's own, and any failure starts all counts anew. So after
/// a fail-over every node has eight seconds to be back.
#[derive(Debug, Default)]
pub struct Observer {
    seen: BTreeMap<u16, (Sight, Mono)>,
    last_end: Option<Mono>,
}

impl Observer {
    /// A beat of our own has failed.
    pub fn failed(&mut self) {
        self.seen.clear();
        self.last_end = None;
    }

    /// A beat of our own succeeded, and with it we saw these nodes, all that are up but ourselves. Returns who is to
    /// be declared dead.
    pub fn cycle(&mut self, started: Mono, ended: Mono, up: &[Sight]) -> Vec<Sight> {
        let paused = self.last_end.is_some_and(|end| started.since(end) > SLOW);
        if paused || ended.since(started) > SLOW {
            self.failed();
        }
        self.last_end = Some(ended);
        let mut dead = Vec::new();
        let mut seen = BTreeMap::new();
        for sight in up {
            let since = match self.seen.get(&sight.token.node) {
                Some((before, since)) if before == sight => *since,
                // The beat may be as young as the end of this cycle.
                _ => ended,
            };
            // This look may be as old as the beginning of this cycle.
            if started.since(since) >= DEAD_AFTER {
                dead.push(*sight);
            }
            seen.insert(sight.token.node, (*sight, since));
        }
        self.seen = seen;
        dead
    }

    /// When the next node will have stood still for long enough, if it goes on standing still. Looking just then, and
    /// not up to two seconds later, is what keeps a takeover within twelve.
    pub fn due(&self) -> Option<Mono> {
        self.seen.values().map(|(_, since)| since.plus(DEAD_AFTER)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    fn sight(beat: i64) -> Sight {
        Sight { token: Token { node: 2, epoch: 1 }, beat }
    }

    /// The other stands still; ours are cycles of 20 ms at these seconds. When is it declared dead?
    fn declared(seconds: &[u64]) -> Option<u64> {
        let mut observer = Observer::default();
        seconds
            .iter()
            .copied()
            .find(|s| !observer.cycle(at(s * 1000), at(s * 1000 + 20), &[sight(7)]).is_empty())
    }

    #[test]
    fn eight_seconds_of_the_same_beat() {
        assert_eq!(declared(&[0, 2, 4, 6, 8, 10]), Some(10));
        let mut observer = Observer::default();
        for (i, beat) in [1, 2, 2, 3, 3, 3, 4, 4, 4, 4].into_iter().enumerate() {
            let start = 2000 * u64::try_from(i).unwrap_or(0);
            assert_eq!(observer.cycle(at(start), at(start + 20), &[sight(beat)]), []);
        }
    }

    #[test]
    fn a_pause_a_failure_or_a_slow_cycle_of_ours_starts_anew() {
        assert_eq!(declared(&[0, 2, 4, 6, 20, 22, 24, 26, 28]), None);
        let mut observer = Observer::default();
        for s in [0, 2, 4, 6] {
            assert_eq!(observer.cycle(at(s * 1000), at(s * 1000 + 20), &[sight(7)]), []);
        }
        observer.failed();
        for s in [8, 10, 12, 14, 16] {
            assert_eq!(observer.cycle(at(s * 1000), at(s * 1000 + 20), &[sight(7)]), []);
        }
        // Slow: five seconds.
        assert_eq!(observer.cycle(at(17_000), at(22_000), &[sight(7)]), []);
        assert_eq!(observer.cycle(at(24_000), at(24_020), &[sight(7)]), []);
        assert_eq!(observer.cycle(at(28_000), at(28_020), &[sight(7)]), []);
        assert_eq!(observer.cycle(at(30_000), at(30_020), &[sight(7)]), [sight(7)]);
    }

    #[test]
    fn a_new_life_is_counted_anew() {
        let mut observer = Observer::default();
        let other = Sight { token: Token { node: 2, epoch: 2 }, beat: 7 };
        for s in [0, 2, 4, 6] {
            assert_eq!(observer.cycle(at(s * 1000), at(s * 1000 + 20), &[sight(7)]), []);
        }
        for s in [8, 10, 12, 14, 16] {
            assert_eq!(observer.cycle(at(s * 1000), at(s * 1000 + 20), &[other]), []);
        }
    }
}
