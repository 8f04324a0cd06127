//! Whether a path is open: failures to connect, rests after being slowed down, suspensions by the site.

use std::sync::Arc;
use std::time::Duration;

use mail::{Disposition, EnhancedStatus, Mono, Outcome};

use crate::limits::{Limits, jittered};

/// After so many rests in a row without a message that went through, the site is as good as down: its mail is answered
/// for instead of waiting, so that it gets its attempts, its warning and its end.
const RESTS_MAX: u32 = 5;

/// Why a path is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection could be made.
    #[default]
    Unreachable,
    /// The site asked us to slow down, and the window can't be smaller.
    Slowed,
    /// The site does not want this source for a while.
    Unwanted,
}

/// Whether something may be sent on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Yes, on new connections too.
    Open,
    /// On the connections that are open; new ones failed.
    Inside,
    /// A connection is being tried, and the others wait for what becomes of it.
    Probing,
    /// No, until then.
    Closed {
        until: Mono,
        /// Its mail is answered for meanwhile.
        answers: bool,
    },
}

/// What recent connections tell about a path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// Failures to connect in a row, or rests without a success between them.
    pub(crate) failures: u32,
    pub(crate) closed_until: Option<Mono>,
    pub(crate) cause: Cause,
    /// A connection is being tried after failures; until it is known, nobody else tries.
    pub(crate) probing: bool,
    /// The last failure.
    pub(crate) failure: Option<Arc<Outcome>>,
}

impl Health {
    /// A connection was made.
    pub(crate) fn connected(&mut self) {
        self.probing = false;
        if self.cause == Cause::Unreachable {
            *self = Self::default();
        }
    }

    /// A message got its answer, and it was no request to slow down.
    pub(crate) fn good(&mut self, now: Mono) {
        if self.failures > 0 && self.closed_until.is_none_or(|until| until <= now) {
            *self = Self::default();
        }
    }

    /// No connection could be made. Of twenty connections that fail together, the first one counts.
    pub(crate) fn bad(&mut self, outcome: Arc<Outcome>, now: Mono, limits: &Limits, seed: u64) {
        let is_news = self.probing || self.closed_until.is_none_or(|until| until <= now);
        self.probing = false;
        if self.cause == Cause::Unreachable || is_news {
            self.failure = Some(outcome);
        }
        if is_news {
            self.close(Cause::Unreachable, limits, now, seed);
        }
    }

    /// The path has to rest.
    pub(crate) fn rest(&mut self, now: Mono, limits: &Limits, seed: u64) {
        self.close(Cause::Slowed, limits, now, seed);
        self.failure = Some(own(7, 0, "the site asks us to slow down; it is tried again in a while"));
    }

    /// The site does not want this source for so long.
    pub(crate) fn suspend(&mut self, path_for: Duration, reason: &str, now: Mono) {
        let until = now.plus(path_for);
        if self.closed_until.is_none_or(|at| at < until) {
            self.closed_until = Some(until);
        }
        self.cause = Cause::Unwanted;
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(own(7, 1, reason));
    }

    fn close(&mut self, cause: Cause, limits: &Limits, now: Mono, seed: u64) {
        if self.cause != cause {
            (self.cause, self.failures) = (cause, 0);
        }
        self.failures = self.failures.saturating_add(1);
        self.closed_until = Some(now.plus(backoff(self.failures, limits, seed)));
    }

    /// Whether it lets something through, with so many connections open.
    pub(crate) fn door(&self, open: usize, now: Mono) -> Door {
        if self.probing {
            return if open > 0 { Door::Inside } else { Door::Probing };
        }
        let Some(until) = self.closed_until.filter(|&until| until > now) else { return Door::Open };
        match self.cause {
            // While other connections work, a failed one means that the peer wants no more of them.
            Cause::Unreachable if open > 0 => Door::Inside,
            Cause::Unreachable | Cause::Unwanted => Door::Closed { until, answers: true },
            Cause::Slowed => Door::Closed { until, answers: self.failures >= RESTS_MAX },
        }
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_fresh(&self) -> bool {
        self.failures == 0
    }
}

fn own(subject: u16, detail: u16, text: &str) -> Arc<Outcome> {
    Arc::new(Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, subject, detail), text))
}

/// How long a path is left alone after so many failures in a row.
fn backoff(failures: u32, limits: &Limits, seed: u64) -> Duration {
    let doubled = limits.suspend_first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    jittered(doubled.min(limits.suspend_longest), 0.1, seed ^ u64::from(failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Arc<Outcome> {
        own(4, 1, "refused")
    }

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[test]
    fn pauses_double_to_a_ceiling_and_failures_together_count_once() {
        let limits = Limits::default();
        let mut health = Health::default();
        health.bad(failure(), at(0), &limits, 1);
        let first = health.closed_until.unwrap();
        assert!((9..=11).contains(&first.0.as_secs()));
        health.bad(failure(), at(1), &limits, 1);
        assert_eq!((health.failures, health.closed_until), (1, Some(first)));
        let mut now = first;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            health.probing = true;
            assert_eq!(health.door(0, now), Door::Probing);
            health.bad(failure(), now, &limits, 1);
            let until = health.closed_until.unwrap();
            pauses.push(until.since(now).as_secs());
            now = until;
        }
        assert!((17..=22).contains(&pauses[0]), "{pauses:?}");
        assert!(pauses[7] >= 270 && pauses[7] <= 330, "{pauses:?}");
        health.connected();
        assert!(health.is_fresh() && health.door(0, now) == Door::Open);
    }

    #[test]
    fn rests_wait_at_first_and_answer_in_the_end() {
        let limits = Limits::default();
        let mut health = Health::default();
        let mut now = at(0);
        for n in 1..=5 {
            health.rest(now, &limits, 3);
            let Door::Closed { until, answers } = health.door(1, now) else { panic!("{health:?}") };
            assert_eq!(answers, n == 5);
            now = until;
            health.connected();
            assert_eq!(health.failures, n, "a connection alone is no success");
        }
        health.good(now);
        assert!(health.is_fresh());
    }

    #[test]
    fn unwanted_for_as_long_as_the_site_says() {
        let mut health = Health::default();
        health.suspend(Duration::from_secs(3600), "blocked", at(0));
        health.suspend(Duration::from_secs(60), "blocked", at(1));
        assert_eq!(health.door(3, at(3599)), Door::Closed { until: at(3600), answers: true });
        assert_eq!(health.door(0, at(3600)), Door::Open);
    }
}
