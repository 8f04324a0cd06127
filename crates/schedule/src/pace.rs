//! Rates held without counting periods: the generic cell rate algorithm. One moment is all there is to remember, and it
//! says when the next one may go, so that nothing has to poll.

use std::time::Duration;

use mail::Mono;

use crate::traffic::Rate;

/// The clock of one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// When the next one would go if all were spread evenly.
    even: Mono,
}

/// How much earlier than evenly spread one may go: a twentieth of the period, a second at most. Without it each late wake-up would
/// be lost for ever.
fn slack(rate: Rate) -> Duration {
    (rate.period / 20).min(Duration::from_secs(1))
}

/// The time from one to the next. The slack is paid for here, so that no period, wherever it begins, sees more than `n`.
fn interval(rate: Rate) -> Duration {
    // Rounded up, or a long period of many would see one more.
    (rate.period + slack(rate)) / rate.n.get() + Duration::from_nanos(1)
}

impl Pace {
    /// A clock that stands there, as [`Pace::stands_at`] said. It can't be further ahead than a period: the clock of another
    /// rate, or a wall clock that was set, must not hold anybody for longer.
    pub(crate) fn from(at: Mono, rate: Rate, now: Mono) -> Self {
        Self { even: at.min(now.plus(rate.period + slack(rate))) }
    }

    /// Where it stands: when the next one would go if all were spread evenly.
    pub(crate) fn stands_at(self) -> Mono {
        self.even
    }

    /// When the next one may go; in the past when it may go now.
    pub(crate) fn free_at(self, rate: Rate) -> Mono {
        Mono(self.even.0.saturating_sub(slack(rate)))
    }

    /// One goes.
    pub(crate) fn take(&mut self, rate: Rate, now: Mono) {
        self.even = self.even.max(now).plus(interval(rate));
    }

    /// The rate was one thing and is another now: what is to be waited for becomes shorter or longer with it.
    pub(crate) fn rescale(&mut self, from: u64, to: u64, now: Mono) {
        if from > 0 && to > 0 && from != to && self.even > now {
            let ahead = self.even.since(now);
            let nanos = ahead.as_nanos().saturating_mul(u128::from(from)) / u128::from(to);
            self.even = now.plus(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        }
    }

    /// Whether it would hold up the next one.
    pub(crate) fn is_ahead(self, now: Mono) -> bool {
        self.even > now
    }
}

/// When one more that waits on disk may come, behind those that were told their time already.
pub(crate) fn book(booked: &mut Mono, rate: Rate, now: Mono) -> Mono {
    // A tenth slower than the rate: the rest is for mail that is tried again, which nobody booked a time for.
    *booked = (*booked).max(now).plus(interval(rate).mul_f64(1.1));
    *booked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes whenever it may, looking every `step`; the moments.
    fn run(rate: Rate, step: Duration, steps: u32) -> Vec<Mono> {
        let mut pace = Pace::default();
        let mut taken = Vec::new();
        for n in 0..steps {
            let now = Mono(Duration::from_secs(100) + step * n);
            while pace.free_at(rate) <= now {
                pace.take(rate, now);
                taken.push(now);
            }
        }
        taken
    }

    #[test]
    fn no_period_sees_more_than_the_rate_and_little_is_lost() {
        for (text, step_ms) in [("100/1m", 7), ("5/1s", 1), ("1/10s", 100), ("1000/1s", 1), ("3/250ms", 1)] {
            let rate: Rate = text.parse().unwrap();
            let taken = run(rate, Duration::from_millis(step_ms), 40_000);
            let n = usize::try_from(rate.n.get()).unwrap();
            for pair in taken.windows(n + 1) {
                assert!(pair[n].since(pair[0]) >= rate.period, "{text}: {} in less than a period", n + 1);
            }
            let periods = 40_000.0 * step_ms as f64 / 1000.0 / rate.period.as_secs_f64();
            let possible = periods * f64::from(rate.n.get());
            assert!(taken.len() as f64 > possible * 0.93, "{text}: {} of {possible}", taken.len());
        }
    }

    #[test]
    fn late_looks_lose_nothing_within_the_slack() {
        let rate: Rate = "600/1m".parse().unwrap();
        // Looks every 900 ms only, at a rate of one each 100 ms.
        assert!(run(rate, Duration::from_millis(900), 1000).len() > 8_700);
    }
}
