//! Ceilings: what an organisation, a credential or a route may take in all.

use std::time::Duration;

use mail::Mono;

use crate::pace::{Pace, book};
use crate::policy::Ceiling;

/// No time further away than this is given to mail that is over a rate: clocks are set, and ceilings are changed.
const BOOKED_MAX: Duration = Duration::from_secs(12 * 3600);

/// Whether one more may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// When one of those under way ends.
    Full(u32),
    /// At this moment.
    Until(Mono),
}

/// What somebody takes, and may take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    pub(crate) ceiling: Ceiling,
    /// Under way on connections.
    pub(crate) taken: u32,
    pub(crate) pace: Pace,
    /// The last moment that was given to mail on disk.
    pub(crate) booked: Mono,
}

impl Meter {
    pub(crate) fn new(ceiling: Option<&Ceiling>) -> Self {
        Self { ceiling: ceiling.copied().unwrap_or_default(), ..Self::default() }
    }

    pub(crate) fn gate(&self, now: Mono) -> Gate {
        if let Some(most) = self.ceiling.connections.filter(|&most| self.taken >= most.max(1)) {
            return Gate::Full(most);
        }
        match self.ceiling.rate.map(|rate| self.pace.free_at(rate)) {
            Some(at) if at > now => Gate::Until(at),
            _ => Gate::Open,
        }
    }

    /// One more is under way.
    pub(crate) fn start(&mut self, now: Mono) {
        self.taken += 1;
        if let Some(rate) = self.ceiling.rate {
            self.pace.take(rate, now);
        }
    }

    /// One less is.
    pub(crate) fn end(&mut self) {
        self.taken = self.taken.saturating_sub(1);
    }

    /// A time of its own for one more, behind `before` others that wait in memory. Each takes `took` when there is no rate.
    pub(crate) fn book(&mut self, before: usize, took: Duration, now: Mono) -> Mono {
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        let at = match self.ceiling.rate {
            Some(rate) => {
                self.booked = self.booked.max(now.plus(rate.interval().saturating_mul(before)));
                book(&mut self.booked, rate, now)
            }
            None => {
                let each =
                    (took / self.ceiling.connections.unwrap_or(1).max(1)).max(Duration::from_millis(20));
                self.booked = self.booked.max(now.plus(each.saturating_mul(before))).plus(each);
                self.booked
            }
        };
        self.booked = at.min(now.plus(BOOKED_MAX));
        self.booked
    }

    /// Whether mail on disk has times that are still to come.
    pub(crate) fn is_booked(&self, now: Mono) -> bool {
        self.booked > now
    }
}
