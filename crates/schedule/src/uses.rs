//! What was sent under a rate that all nodes share: each message takes one place for the rate's period, as a connection takes
//! one for as long as it is open. So a place that this node gives away has not been used for a period, whoever gets it.

use std::collections::VecDeque;
use std::time::Duration;

use mail::Mono;

/// A period is counted in so many grains. What was sent in a grain stays counted until a period after the grain's end.
const GRAINS: u32 = 32;

/// How many were sent, and when, to a grain.
#[derive(Debug)]
pub(crate) struct Uses {
    pub(crate) period: Duration,
    grain: Duration,
    /// Grains by number, with how many each; the oldest first.
    counts: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Uses {
    pub(crate) fn new(period: Duration) -> Self {
        let grain = (period / GRAINS).max(Duration::from_millis(1));
        Self { period, grain, counts: VecDeque::new(), sum: 0 }
    }

    /// Another period from now on: what is counted counts as if it had been sent just now.
    pub(crate) fn set_period(&mut self, period: Duration, now: Mono) {
        if period != self.period {
            let sum = self.count(now);
            *self = Self::new(period);
            self.add(sum, now);
        }
    }

    /// One more is sent.
    pub(crate) fn take(&mut self, now: Mono) {
        self.add(1, now);
    }

    fn add(&mut self, n: u64, now: Mono) {
        while let Some(&(_, count)) = self.counts.front().filter(|(grain, _)| self.end(*grain) <= now) {
            self.counts.pop_front();
            self.sum -= count;
        }
        if n == 0 {
            return;
        }
        let grain = self.grain_of(now);
        match self.counts.back_mut() {
            Some((last, count)) if *last >= grain => *count += n,
            _ => self.counts.push_back((grain, n)),
        }
        self.sum += n;
    }

    /// How many count now.
    pub(crate) fn count(&self, now: Mono) -> u64 {
        let over = self.counts.iter().take_while(|(grain, _)| self.end(*grain) <= now);
        self.sum - over.map(|(_, count)| count).sum::<u64>()
    }

    /// When fewer will.
    pub(crate) fn next_end(&self, now: Mono) -> Option<Mono> {
        self.counts.iter().map(|(grain, _)| self.end(*grain)).find(|end| *end > now)
    }

    fn grain_of(&self, at: Mono) -> u64 {
        u64::try_from(at.0.as_nanos() / self.grain.as_nanos()).unwrap_or(u64::MAX)
    }

    /// When what was sent in a grain counts no more.
    fn end(&self, grain: u64) -> Mono {
        let nanos = self.grain.as_nanos() * (u128::from(grain) + 1);
        // Below 584 years.
        let end = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Mono(end.saturating_add(self.period))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    #[test]
    fn each_counts_for_a_period_and_hardly_longer() {
        let mut uses = Uses::new(Duration::from_secs(32));
        uses.take(at(500));
        uses.take(at(900));
        uses.take(at(10_100));
        assert_eq!(uses.count(at(10_200)), 3);
        // The grain ends at one second: no sooner than a period after its last moment.
        assert_eq!((uses.count(at(32_999)), uses.count(at(33_000))), (3, 1));
        assert_eq!(uses.next_end(at(10_200)), Some(at(33_000)));
        assert_eq!(uses.next_end(at(33_000)), Some(at(43_000)));
        assert_eq!(uses.next_end(at(43_000)), None);
        uses.take(at(100_000));
        assert_eq!((uses.count(at(100_000)), uses.counts.len()), (1, 1));
    }

    #[test]
    fn another_period_forgets_nothing() {
        let mut uses = Uses::new(Duration::from_secs(10));
        (0..5).for_each(|n| uses.take(at(n * 1000)));
        uses.set_period(Duration::from_secs(1), at(5_000));
        assert_eq!((uses.count(at(5_900)), uses.count(at(6_100))), (5, 0));
    }
}
