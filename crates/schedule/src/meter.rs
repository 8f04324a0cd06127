//! Ceilings: what an organisation, a credential or a route may take in all.

use std::time::Duration;

use mail::Mono;

use crate::pace::{Pace, book};
use crate::policy::Ceiling;
use crate::queue::NONE;
use crate::share::{Free, ShareIx, Shares};
use crate::traffic::Rate;

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
    /// When more of it is lent to this node.
    Lent(ShareIx),
}

/// What somebody takes, and may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    pub(crate) ceiling: Ceiling,
    /// Under way on connections.
    pub(crate) taken: u32,
    pub(crate) pace: Pace,
    /// The last moment that was given to mail on disk.
    pub(crate) booked: Mono,
    /// The two limits as shares, if all nodes share them.
    pub(crate) places: ShareIx,
    pub(crate) sending: ShareIx,
}

impl Meter {
    pub(crate) fn new(ceiling: Option<&Ceiling>) -> Self {
        Self {
            ceiling: ceiling.copied().unwrap_or_default(),
            taken: 0,
            pace: Pace::default(),
            booked: Mono::default(),
            places: NONE,
            sending: NONE,
        }
    }

    pub(crate) fn gate(&self, shares: &Shares, now: Mono) -> Gate {
        if let Some(most) = self.ceiling.connections {
            if self.taken >= most.max(1) {
                return Gate::Full(most);
            }
            if !shares.has_place(self.places, self.taken as usize, now) {
                return Gate::Lent(self.places);
            }
        }
        let Some(rate) = self.ceiling.rate else { return Gate::Open };
        let at = self.pace.free_at(rate);
        match shares.may_send(self.sending, now) {
            Free::No => Gate::Lent(self.sending),
            Free::Until(end) => Gate::Until(end.max(at)),
            Free::Yes if at > now => Gate::Until(at),
            Free::Yes => Gate::Open,
        }
    }

    /// The rate by which attempts are spread.
    fn rate(&self, shares: &Shares) -> Option<Rate> {
        self.ceiling.rate.map(|rate| shares.paced(self.sending, rate))
    }

    /// One more is under way.
    pub(crate) fn start(&mut self, shares: &mut Shares, now: Mono) {
        self.taken += 1;
        if let Some(rate) = self.rate(shares) {
            self.pace.take(rate, now);
        }
        shares.touch(self.places);
        shares.sent(self.sending, now);
    }

    /// One less is.
    pub(crate) fn end(&mut self, shares: &mut Shares, now: Mono) {
        self.taken = self.taken.saturating_sub(1);
        shares.freed(self.places, now);
    }

    /// A time of its own for one more, behind `before` others that wait in memory. Each takes `took` when there is no rate.
    pub(crate) fn book(&mut self, shares: &Shares, before: usize, took: Duration, now: Mono) -> Mono {
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        let at = match self.ceiling.rate.map(|rate| shares.booked(self.sending, rate)) {
            Some(rate) => {
                self.booked = self.booked.max(now.plus(rate.interval().saturating_mul(before)));
                book(&mut self.booked, rate, now)
            }
            None => {
                let lent = u32::try_from(shares.usable(self.places, now)).unwrap_or(u32::MAX);
                let most = self.ceiling.connections.unwrap_or(1).min(lent).max(1);
                let each = (took / most).max(Duration::from_millis(20));
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
