//! Limits that all nodes of a cluster share: how much of each this node was lent, and when it asks again.
//!
//! A limit has places. A connection takes one for as long as it is there, a message under a rate takes one for the rate's
//! period, a message of a warm-up plan takes one until midnight. A node takes no more places than it was lent, and asks anew
//! every few seconds. What it says with that is a promise: until the answer is there it takes no more than it named as
//! in use. So what the database has down for a node is never less than what the node takes, whichever answers get
//! lost, and the sum over all nodes is never above the limit.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use mail::Mono;
use slab::Slab;

use crate::queue::NONE;
use crate::traffic::Rate;
use crate::uses::Uses;

/// Index of a share in the scheduler's table; [`NONE`]: the limit is this node's own.
pub(crate) type ShareIx = usize;

/// How often a loan is renewed.
pub(crate) const RENEW: Duration = Duration::from_secs(3);
/// How soon this node asks again for what others have still to give back.
const POLL: Duration = Duration::from_millis(500);
/// How often a day's plan is asked for that the others have used up, or may not need.
const WARMUP: Duration = Duration::from_secs(60);
/// Wishes for the same limit are no closer together.
const SPACING: Duration = Duration::from_millis(100);
/// How long until the next try after one without an answer.
const AGAIN: Duration = Duration::from_secs(1);

/// What this node would like of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The limit's name, the same on all nodes.
    pub key: String,
    /// How many places there are, for all nodes together.
    pub capacity: u64,
    /// How many this node would like.
    pub wanted: u64,
    /// How many it keeps whatever the answer is.
    pub in_use: u64,
    /// How long places stay taken when this node is not heard of any more, beyond the time of the loan: what it sent counts
    /// until its period is over.
    pub lasts: Duration,
}

/// What this node was lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The limit.
    pub key: String,
    /// How many places it has, those in use among them.
    pub amount: u64,
    /// How many it may have in the long run: the others wait for what it has above that.
    pub fair: u64,
    /// Until when.
    pub until: Mono,
}

/// A limit that is shared, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borrowed {
    /// The limit's name: what is counted, and whose.
    pub key: Arc<str>,
    /// Places for all nodes together.
    pub capacity: u64,
    /// Places that this node was lent, and may use now.
    pub amount: u64,
    /// Something waits for more.
    pub is_short: bool,
}

/// Whose limit it is, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Path(usize),
    Org(usize),
    Credential(usize),
    Dest(usize),
}

/// What takes the places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Connections, or deliveries under way.
    Connections,
    /// Messages, or attempts.
    Messages,
    NewConnections,
    /// Messages of this day (UTC).
    Warmup(i64),
}

/// Whether a share lets one more go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Free {
    Yes,
    /// At that moment a place is free again.
    Until(Mono),
    /// When more is lent.
    No,
}

/// One limit.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) key: Arc<str>,
    /// Nobody's while its owner is forgotten; what was sent counts on.
    pub(crate) of: Option<Of>,
    pub(crate) kind: Kind,
    pub(crate) capacity: u64,
    pub(crate) amount: u64,
    pub(crate) fair: u64,
    pub(crate) until: Mono,
    /// What the last loan was: messages are spread evenly by it.
    pub(crate) paced: u64,
    pub(crate) uses: Option<Uses>,
    /// It was made use of since the last wish.
    pub(crate) touched: bool,
    /// Something waits for it.
    pub(crate) hungry: bool,
    /// What was wanted last, whether all of it was lent, and whether the answer is still out.
    pub(crate) wanted: u64,
    /// What was taken then.
    pub(crate) kept: u64,
    pub(crate) was_filled: bool,
    pub(crate) asking: bool,
    pub(crate) asked: Option<Mono>,
    /// When it is asked for next.
    pub(crate) due: Mono,
    pub(crate) timer: Option<Mono>,
}

impl Share {
    /// How many places may be taken.
    pub(crate) fn usable(&self, now: Mono) -> u64 {
        if now < self.until { self.amount.min(self.fair) } else { 0 }
    }

    /// Messages that count now.
    pub(crate) fn used(&self, now: Mono) -> u64 {
        self.uses.as_ref().map_or(0, |uses| uses.count(now))
    }

    fn ask_at(&mut self, at: Mono) {
        let soonest = self.asked.map_or(Mono::default(), |asked| asked.plus(SPACING));
        self.due = self.due.min(at.max(soonest));
    }

    /// When it is asked for again, after an answer.
    pub(crate) fn answered(&mut self, now: Mono) {
        self.asking = false;
        self.was_filled = self.amount >= self.wanted;
        // Places that are taken for a time come back grain by grain.
        let (poll, calm) = match (&self.uses, self.kind) {
            (Some(uses), _) => ((uses.period / 32).clamp(POLL, RENEW), (uses.period / 8).max(RENEW)),
            (None, Kind::Warmup(_)) => (WARMUP, WARMUP),
            (None, _) => (POLL, RENEW),
        };
        let is_entitled = self.amount < self.fair || self.fair == 0;
        let is_calm = !self.hungry && self.wanted <= self.kept;
        self.due = if self.of.is_some() && self.wanted == 0 && self.amount == 0 {
            NEVER
        } else if is_calm {
            // Nothing is to be told, but that less counts. Should more be wanted, it is asked for then.
            now.plus(calm)
        } else if !self.was_filled && is_entitled {
            now.plus(poll)
        } else {
            now.plus(RENEW)
        };
    }

    /// No answer came.
    pub(crate) fn unanswered(&mut self, now: Mono) {
        (self.asking, self.was_filled) = (false, false);
        self.due = now.plus(AGAIN);
    }
}

/// No moment.
pub(crate) const NEVER: Mono = Mono(Duration::MAX);

/// All limits that are shared.
#[derive(Debug)]
pub(crate) struct Shares {
    pub(crate) on: bool,
    pub(crate) all: Slab<Share>,
    by_key: HashMap<Arc<str>, ShareIx>,
    /// Those that were asked for last.
    pub(crate) asked: Vec<ShareIx>,
    /// When something is to be asked for, and whether the driver was told.
    pub(crate) next: Mono,
    pub(crate) told: bool,
}

impl Default for Shares {
    fn default() -> Self {
        let (all, by_key) = (Slab::new(), HashMap::new());
        Self { on: false, all, by_key, asked: Vec::new(), next: NEVER, told: false }
    }
}

impl Shares {
    /// The share of this name, which belongs to `of` from now on.
    pub(crate) fn attach(&mut self, key: String, of: Of, kind: Kind, capacity: u64) -> ShareIx {
        if let Some(&ix) = self.by_key.get(key.as_str()) {
            let share = &mut self.all[ix];
            (share.of, share.capacity) = (Some(of), capacity);
            return ix;
        }
        let key: Arc<str> = key.into();
        let ix = self.all.insert(Share {
            key: key.clone(),
            of: Some(of),
            kind,
            capacity,
            amount: 0,
            fair: 0,
            until: Mono::default(),
            paced: 0,
            uses: None,
            touched: false,
            hungry: false,
            wanted: 0,
            kept: 0,
            was_filled: true,
            asking: false,
            asked: None,
            due: NEVER,
            timer: None,
        });
        self.by_key.insert(key, ix);
        ix
    }

    /// As [`Shares::attach`], for a rate.
    pub(crate) fn attach_rate(&mut self, key: String, of: Of, kind: Kind, rate: Rate, now: Mono) -> ShareIx {
        let ix = self.attach(key, of, kind, u64::from(rate.n.get()));
        let uses = self.all[ix].uses.get_or_insert_with(|| Uses::new(rate.period));
        uses.set_period(rate.period, now);
        ix
    }

    /// Its owner is forgotten. What it has is given back at the next occasion.
    pub(crate) fn detach(&mut self, ix: ShareIx, now: Mono) {
        let Some(share) = self.all.get_mut(ix) else { return };
        if matches!(share.kind, Kind::Warmup(_)) {
            // What was sent today counts until midnight: the loan lasts as long, and nothing has to be said.
            self.remove(ix);
            return;
        }
        (share.of, share.hungry) = (None, false);
        share.ask_at(now);
        self.next = self.next.min(share.due);
    }

    /// Nothing is lent any more, and nothing is to be told.
    pub(crate) fn remove(&mut self, ix: ShareIx) -> Option<Mono> {
        let share = self.all.remove(ix);
        self.by_key.remove(&share.key);
        share.timer
    }

    /// It is another limit from now on, of which nothing is lent yet.
    pub(crate) fn turn_into(&mut self, ix: ShareIx, key: String, kind: Kind, capacity: u64) {
        let key: Arc<str> = key.into();
        if let Some(other) = self.by_key.insert(key.clone(), ix).filter(|&other| other != ix) {
            // Left behind by an owner that was forgotten: what it counts is counted elsewhere.
            self.all.remove(other);
        }
        let share = &mut self.all[ix];
        (share.kind, share.capacity, share.amount, share.fair) = (kind, capacity, 0, 0);
        let old = std::mem::replace(&mut share.key, key);
        if old != share.key {
            self.by_key.remove(&old);
        }
    }

    pub(crate) fn by_key(&self, key: &str) -> Option<ShareIx> {
        self.by_key.get(key).copied()
    }

    /// How many places may be taken; any number of a limit that is not shared.
    pub(crate) fn usable(&self, ix: ShareIx, now: Mono) -> u64 {
        self.all.get(ix).map_or(u64::MAX, |share| share.usable(now))
    }

    /// Whether a connection, or a delivery, may be added to those that there are.
    pub(crate) fn has_place(&self, ix: ShareIx, taken: usize, now: Mono) -> bool {
        ix == NONE || (taken as u64) < self.usable(ix, now)
    }

    /// Whether one more message may go under a rate.
    pub(crate) fn may_send(&self, ix: ShareIx, now: Mono) -> Free {
        let Some(share) = self.all.get(ix) else { return Free::Yes };
        let (usable, used) = (share.usable(now), share.used(now));
        if used < usable {
            return Free::Yes;
        }
        let end = share.uses.as_ref().filter(|_| usable > 0).and_then(|uses| uses.next_end(now));
        end.map_or(Free::No, Free::Until)
    }

    /// The rate by which this node spreads its messages.
    pub(crate) fn paced(&self, ix: ShareIx, rate: Rate) -> Rate {
        let Some(share) = self.all.get(ix) else { return rate };
        let n = u32::try_from(share.paced).unwrap_or(u32::MAX).clamp(1, rate.n.get());
        Rate { n: NonZeroU32::new(n).unwrap_or(rate.n), period: rate.period }
    }

    /// The rate by which times are given to mail on disk: what this node has now may be little because it asked for little. Who
    /// comes too early gets another time.
    pub(crate) fn booked(&self, ix: ShareIx, rate: Rate) -> Rate {
        if !self.all.contains(ix) {
            return rate;
        }
        // More than four nodes seldom want the same.
        let least = NonZeroU32::new(rate.n.get().div_ceil(4)).unwrap_or(rate.n);
        Rate { n: self.paced(ix, rate).n.max(least), period: rate.period }
    }

    /// A message goes under a rate.
    pub(crate) fn sent(&mut self, ix: ShareIx, now: Mono) {
        let Some(share) = self.all.get_mut(ix) else { return };
        share.touched = true;
        if let Some(uses) = &mut share.uses {
            uses.take(now);
        }
    }

    /// A place was taken.
    pub(crate) fn touch(&mut self, ix: ShareIx) {
        if let Some(share) = self.all.get_mut(ix) {
            share.touched = true;
        }
    }

    /// Something waits for more of it.
    pub(crate) fn want(&mut self, ix: ShareIx, now: Mono) {
        let Some(share) = self.all.get_mut(ix) else { return };
        share.hungry = true;
        // Whoever got less than it wanted would be told the same again: it is asked for at its time.
        let may_have_more = share.amount < share.capacity || now >= share.until;
        if !share.asking && share.was_filled && may_have_more {
            share.ask_at(now);
            self.next = self.next.min(share.due);
        }
    }

    /// A place is free that others wait for.
    pub(crate) fn freed(&mut self, ix: ShareIx, now: Mono) {
        let Some(share) = self.all.get_mut(ix).filter(|share| share.amount > share.fair && !share.asking)
        else {
            return;
        };
        share.ask_at(now);
        self.next = self.next.min(share.due);
    }

    /// Whether the driver may be told to ask: it was not told yet, and waits for no answer.
    pub(crate) fn may_ask(&self) -> bool {
        self.on && !self.told && self.asked.is_empty()
    }

    /// When something is to be asked for next, as far as it is known now.
    pub(crate) fn set_next(&mut self) {
        let dues = self.all.iter().filter(|(_, share)| !share.asking).map(|(_, share)| share.due);
        self.next = dues.min().unwrap_or(NEVER);
    }
}
