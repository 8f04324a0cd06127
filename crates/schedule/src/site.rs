//! The state of one site: its connections, its health, and whose turn it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mail::{Destination, Mono, OrgId, Outcome, QueueKey, Stream};

use crate::limits::{Limits, jittered};
use crate::queue::QueueIx;

/// Index of a site in the scheduler's slab.
pub(crate) type SiteIx = usize;
/// Index of an organisation's turn at a site in the scheduler's slab.
pub(crate) type TurnIx = usize;

/// Answers for an unreachable site that are settled at a time.
pub(crate) const ANSWERS_MAX: usize = 50;

/// The site that a queue's mail goes to; its connections are limited together. Each destination is a site of its own
/// for now; domains that share their mail exchangers will share a site.
pub fn site_of(queue: &QueueKey) -> &Destination {
    &queue.destination
}

/// A site that deliveries go to.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) key: Destination,
    /// Queues in memory that go here.
    pub(crate) queues: usize,
    /// Deliveries that wait for a slot.
    pub(crate) ready: usize,
    /// Organisations with something ready, by stream, in order of their turns.
    pub(crate) lanes: [VecDeque<TurnIx>; 2],
    /// Turns of transactional mail since bulk had one.
    pub(crate) streak: u32,
    /// Connections, or attempts to make one.
    pub(crate) slots: usize,
    /// Of these, known to be open.
    pub(crate) open: usize,
    /// Of these, waiting for something to do.
    pub(crate) idle: usize,
    /// Deliveries being answered without a connection.
    pub(crate) answering: usize,
    pub(crate) health: Health,
    /// It stands in the line for a connection.
    pub(crate) starved: bool,
    /// It stands in the list of sites that may have an idle connection.
    pub(crate) idle_listed: bool,
}

/// One organisation's queues at a site, by stream.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) key: (SiteIx, OrgId, Stream),
    /// Queues with something ready, in order of their turns.
    pub(crate) queues: VecDeque<QueueIx>,
    /// Queues that exist.
    pub(crate) members: usize,
    /// It stands in its lane.
    pub(crate) listed: bool,
}

/// Whether a connection may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connect {
    Yes,
    /// Others are at it: a probe, or open connections that have to do for now.
    Wait,
    /// The site is suspended.
    Suspended,
}

/// What recent connections tell about a site.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Failures to connect in a row.
    pub(crate) failures: u32,
    /// No new connection before this.
    pub(crate) closed_until: Option<Mono>,
    /// A connection is being tried after a suspension; until it is known, nobody else tries.
    pub(crate) probing: bool,
    /// The last failure.
    pub(crate) failure: Option<Arc<Outcome>>,
}

impl Health {
    /// A connection was made.
    pub(crate) fn good(&mut self) {
        *self = Self::default();
    }

    /// No connection could be made. Says until when the site is left alone, if that is news: of twenty connections
    /// that fail together, the first one counts.
    pub(crate) fn bad(
        &mut self,
        outcome: Arc<Outcome>,
        now: Mono,
        limits: &Limits,
        seed: u64,
    ) -> Option<Mono> {
        self.failure = Some(outcome);
        let is_news = self.probing || self.closed_until.is_none_or(|until| until <= now);
        if !is_news {
            return None;
        }
        self.probing = false;
        self.failures = self.failures.saturating_add(1);
        let until = now.plus(backoff(self.failures, limits, seed));
        self.closed_until = Some(until);
        Some(until)
    }
}

/// How long a site is left alone after so many failures in a row.
fn backoff(failures: u32, limits: &Limits, seed: u64) -> Duration {
    let doubled = limits.suspend_first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    jittered(doubled.min(limits.suspend_longest), 0.1, seed ^ u64::from(failures))
}

impl Site {
    pub(crate) fn new(key: Destination) -> Self {
        Self {
            key,
            queues: 0,
            ready: 0,
            lanes: [VecDeque::new(), VecDeque::new()],
            streak: 0,
            slots: 0,
            open: 0,
            idle: 0,
            answering: 0,
            health: Health::default(),
            starved: false,
            idle_listed: false,
        }
    }

    /// Whether a new connection may be made now. While other connections work, a failed one means that the peer
    /// wants no more of them: the open ones carry on.
    pub(crate) fn connect(&self, now: Mono) -> Connect {
        if self.health.probing {
            return Connect::Wait;
        }
        match self.health.closed_until {
            Some(until) if until > now && self.open == 0 => Connect::Suspended,
            Some(until) if until > now => Connect::Wait,
            _ => Connect::Yes,
        }
    }

    /// Whether nothing refers to it any more.
    pub(crate) fn is_unused(&self) -> bool {
        self.queues == 0 && self.slots == 0 && self.answering == 0
    }

    /// The lane whose turn it is: transactional mail first, but bulk gets one turn of `bulk_turn`.
    pub(crate) fn lane(&mut self, bulk_turn: u32) -> Option<usize> {
        let [transactional, bulk] = &self.lanes;
        match (transactional.is_empty(), bulk.is_empty()) {
            (true, true) => None,
            (false, true) => {
                self.streak = 0;
                Some(0)
            }
            (false, false) if self.streak + 1 < bulk_turn.max(2) => {
                self.streak += 1;
                Some(0)
            }
            (_, false) => {
                self.streak = 0;
                Some(1)
            }
        }
    }
}

/// The lane of a stream.
pub(crate) fn lane_of(stream: Stream) -> usize {
    match stream {
        Stream::Transactional => 0,
        Stream::Bulk => 1,
    }
}

#[cfg(test)]
mod tests {
    use mail::{Disposition, EnhancedStatus};

    use super::*;

    fn failure() -> Arc<Outcome> {
        Arc::new(Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 4, 1), "refused"))
    }

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[test]
    fn suspension_doubles_to_a_ceiling_and_failures_together_count_once() {
        let limits = Limits::default();
        let mut health = Health::default();
        let first = health.bad(failure(), at(0), &limits, 1).unwrap();
        assert!((9..=11).contains(&first.0.as_secs()));
        assert_eq!(health.bad(failure(), at(1), &limits, 1), None);
        assert_eq!(health.failures, 1);
        let mut now = first;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            health.probing = true;
            let until = health.bad(failure(), now, &limits, 1).unwrap();
            pauses.push(until.since(now).as_secs());
            now = until;
        }
        assert!((17..=22).contains(&pauses[0]), "{pauses:?}");
        assert!(pauses[7] >= 270 && pauses[7] <= 330, "{pauses:?}");
        health.good();
        assert_eq!((health.failures, health.closed_until), (0, None));
    }

    #[test]
    fn bulk_gets_one_turn_of_five() {
        let mut site = Site::new(Destination::Discard);
        site.lanes[0].push_back(0);
        site.lanes[1].push_back(1);
        let lanes: Vec<usize> = (0..10).filter_map(|_| site.lane(5)).collect();
        assert_eq!(lanes, [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
        site.lanes[0].clear();
        assert_eq!(site.lane(5), Some(1));
        site.lanes[1].clear();
        assert_eq!(site.lane(5), None);
    }
}
