//! What bounds the scheduler, and when deliveries are tried again.

use std::time::Duration;

use mail::DeliveryId;

/// Bounds; all of them hold whatever the length of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most deliveries of one queue in memory: reserved, ready, under way and being paged in.
    pub window: usize,
    /// Most deliveries in memory over all queues. As it fills up, each queue's window shrinks to a quarter of what
    /// is free, so that a few hundred slow destinations can't take it all.
    pub active_total: usize,
    /// Most connections on a path, from one source to one site, unless a shape or the provider data say otherwise.
    pub connections_per_site: usize,
    /// So many connections a path begins with; success makes them more.
    pub connections_first: usize,
    /// Most connections to all sites.
    pub connections_total: usize,
    /// Most pages asked for at a time.
    pub pages: usize,
    /// Of so many turns at a site one goes to bulk mail while transactional mail waits too.
    pub bulk_turn: u32,
    /// How long a site is left alone after a first failed connection; doubles with each failed probe.
    pub suspend_first: Duration,
    /// The longest that a site is left alone.
    pub suspend_longest: Duration,
    /// How long the state of a queue with nothing in it is kept.
    pub idle: Duration,
    /// Most queues whose state is in memory. Queues with nothing but rows that are due later are forgotten first, and
    /// asked for again ([`crate::Effect::Horizon`]).
    pub queues: usize,
    /// Most sites without mail of which is remembered what was learned, and most paths over a restart. Beyond it the
    /// oldest are forgotten, their rates among it.
    pub sites: usize,
    /// How long that is remembered.
    pub remember: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: 200,
            active_total: 10_000,
            connections_per_site: 20,
            connections_first: 5,
            connections_total: 500,
            pages: 8,
            bulk_turn: 5,
            suspend_first: Duration::from_secs(10),
            suspend_longest: Duration::from_secs(300),
            idle: Duration::from_secs(60),
            queues: 20_000,
            sites: 5_000,
            remember: Duration::from_secs(3600),
        }
    }
}

/// When a delivery that failed for now is tried again, and when it is given up: the `[queue]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Time to the next attempt after the first failure, the second, …; the last one repeats. Empty: one hour.
    pub steps: Vec<Duration>,
    /// Each step is made longer or shorter by up to this part of it: 0.1 is 10 %.
    pub jitter: f64,
    /// How old a message may become before what is left of it is given up.
    pub lifetime: Duration,
    /// How old it is when the sender is told that it is late.
    pub warn_after: Duration,
    /// Makes the jitter; the same seed, delivery and attempt give the same step.
    pub seed: u64,
}

impl Default for Retry {
    fn default() -> Self {
        let minutes = |m: u64| Duration::from_secs(m * 60);
        Self {
            steps: [1, 5, 15, 30, 60, 120, 240].map(minutes).to_vec(),
            jitter: 0.1,
            lifetime: minutes(5 * 24 * 60),
            warn_after: minutes(4 * 60),
            seed: 0,
        }
    }
}

impl Retry {
    /// How long to wait after `attempts` failed attempts (1 after the first), jitter included.
    pub fn delay(&self, id: DeliveryId, attempts: u32) -> Duration {
        let nth = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let step = self.steps.get(nth).or(self.steps.last()).copied().unwrap_or(Duration::from_secs(3600));
        let seed =
            self.seed ^ id.message.0.rotate_left(17) ^ u64::from(id.index) ^ (u64::from(attempts) << 32);
        jittered(step, self.jitter, seed)
    }

    /// The longest that a delivery ever waits between two attempts. A row that is due later than that from now was
    /// written when the clock showed something else.
    pub fn longest(&self) -> Duration {
        let step = self.steps.iter().max().copied().unwrap_or(Duration::from_secs(3600));
        step.mul_f64(1.0 + self.jitter.clamp(0.0, 1.0))
    }
}

/// `d`, longer or shorter by up to `part` of it.
pub(crate) fn jittered(d: Duration, part: f64, seed: u64) -> Duration {
    // 53 bits make a number from 0 to 1 that a float holds exactly.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let unit = (mix(seed) >> 11) as f64 / (1u64 << 53) as f64;
    d.mul_f64(1.0 + part.clamp(0.0, 1.0) * (2.0 * unit - 1.0))
}

/// SplitMix64's finaliser: spreads close seeds over all values.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use mail::MessageId;

    use super::*;

    fn id(n: u64) -> DeliveryId {
        DeliveryId { message: MessageId(n), index: 0 }
    }

    #[test]
    fn steps_grow_and_the_last_repeats() {
        let retry = Retry { jitter: 0.0, ..Retry::default() };
        let minutes: Vec<u64> = (1..=9).map(|n| retry.delay(id(1), n).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 5, 15, 30, 60, 120, 240, 240, 240]);
        assert_eq!(Retry { steps: vec![], ..retry }.delay(id(1), 3), Duration::from_secs(3600));
    }

    #[test]
    fn jitter_stays_within_ten_percent_and_spreads() {
        let retry = Retry { seed: 7, ..Retry::default() };
        let all: Vec<u128> = (0..1000).map(|n| retry.delay(id(n), 1).as_millis()).collect();
        assert!(all.iter().all(|ms| (54_000..=66_000).contains(ms)), "{all:?}");
        let early = all.iter().filter(|&&ms| ms < 60_000).count();
        assert!((400..600).contains(&early), "{early} of 1000 are shorter than the step");
        assert_eq!(retry.delay(id(5), 2), retry.delay(id(5), 2));
        assert_ne!(retry.delay(id(5), 1), Retry { seed: 8, ..Retry::default() }.delay(id(5), 1));
        assert!(retry.longest() >= Duration::from_secs(264 * 60));
    }
}
