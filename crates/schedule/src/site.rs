//! A site: the mail that goes there, in turns, and the paths to it.

use std::collections::VecDeque;

use mail::{Destination, Mono, Stream};

use crate::meter::Meter;
use crate::path::PathIx;
use crate::queue::QueueIx;

/// Index of a site in the scheduler's slab.
pub(crate) type SiteIx = usize;
/// Index of a group in the scheduler's slab.
pub(crate) type GroupIx = usize;
/// Index of an organisation's turn in the scheduler's slab.
pub(crate) type TurnIx = usize;
/// Index of a destination in the scheduler's slab.
pub(crate) type DestIx = usize;

/// Answers for an unreachable site that are settled at a time.
pub(crate) const ANSWERS_MAX: usize = 50;

/// A site that deliveries go to.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) key: mail::Site,
    /// Destinations that are known to be here.
    pub(crate) dests: usize,
    /// Mail by the pool it leaves by; most sites have one.
    pub(crate) groups: Vec<GroupIx>,
    /// The group whose turn it is, and how many more deliveries of it.
    pub(crate) group_now: usize,
    pub(crate) group_left: usize,
    /// Sources that were used.
    pub(crate) paths: Vec<PathIx>,
    /// Connections from all sources, or attempts to make one.
    pub(crate) slots: usize,
    /// Deliveries being answered without a connection.
    pub(crate) answering: usize,
    /// It stands in the line for a connection.
    pub(crate) starved: bool,
    /// Since when nobody refers to it.
    pub(crate) unused_since: Option<Mono>,
}

impl Site {
    pub(crate) fn new(key: mail::Site) -> Self {
        Self {
            key,
            dests: 0,
            groups: Vec::new(),
            group_now: 0,
            group_left: 0,
            paths: Vec::new(),
            slots: 0,
            answering: 0,
            starved: false,
            unused_since: None,
        }
    }

    /// Whether nothing refers to it any more.
    pub(crate) fn is_unused(&self) -> bool {
        self.dests == 0 && self.slots == 0 && self.answering == 0
    }
}

/// Mail for a site that leaves by one pool.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) site: SiteIx,
    pub(crate) pool: usize,
    /// The pool's sources as paths.
    pub(crate) members: Vec<Member>,
    /// Organisations with something ready, by stream, in order of their turns.
    pub(crate) lanes: [VecDeque<TurnIx>; 2],
    /// Turns of transactional mail since bulk had one.
    pub(crate) streak: u32,
    /// Deliveries that wait for a slot, blocked ones among them.
    pub(crate) ready: usize,
    /// Turns that exist.
    pub(crate) turns: usize,
}

/// A path with its weight in a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) path: PathIx,
    pub(crate) weight: u32,
    /// What it is owed: smooth weighted round robin.
    pub(crate) owed: i64,
}

impl Group {
    pub(crate) fn new(site: SiteIx, pool: usize, members: Vec<Member>) -> Self {
        let lanes = [VecDeque::new(), VecDeque::new()];
        Self { site, pool, members, lanes, streak: 0, ready: 0, turns: 0 }
    }

    /// Organisations that stand in line.
    pub(crate) fn in_line(&self) -> usize {
        self.lanes[0].len() + self.lanes[1].len()
    }

    /// The lane whose turn it is: transactional mail first, but bulk gets one turn of `bulk_turn`.
    pub(crate) fn lane(&self, bulk_turn: u32) -> Option<usize> {
        let [transactional, bulk] = &self.lanes;
        match (transactional.is_empty(), bulk.is_empty()) {
            (true, true) => None,
            (false, true) => Some(0),
            (false, false) if self.streak + 1 < bulk_turn.max(2) => Some(0),
            (_, false) => Some(1),
        }
    }

    /// Something of this lane goes.
    pub(crate) fn count(&mut self, lane: usize) {
        self.streak = if lane == 0 && !self.lanes[1].is_empty() { self.streak + 1 } else { 0 };
    }

    /// Of these members, all of which could take the next delivery, the one that shall: each is owed its weight a turn, and the
    /// one who is owed most pays for all. Those without weight come last.
    pub(crate) fn pick(&mut self, could: &[usize]) -> Option<usize> {
        let (&first, others) = could.split_first()?;
        if others.is_empty() {
            return Some(first);
        }
        let total: i64 = could.iter().map(|&m| i64::from(self.members[m].weight)).sum();
        for &m in could {
            self.members[m].owed += i64::from(self.members[m].weight);
        }
        let chosen = could
            .iter()
            .copied()
            .max_by_key(|&m| (self.members[m].weight > 0, self.members[m].owed, std::cmp::Reverse(m)))?;
        self.members[chosen].owed -= total;
        Some(chosen)
    }
}

/// One organisation's queues in a group, by stream.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) group: GroupIx,
    pub(crate) org: usize,
    pub(crate) stream: Stream,
    /// Queues with something ready, in order of their turns.
    pub(crate) queues: VecDeque<QueueIx>,
    /// Queues that exist.
    pub(crate) members: usize,
    /// What it may take before the others come; negative after something that cost more.
    pub(crate) credit: i32,
    /// It stands in its lane.
    pub(crate) listed: bool,
    /// It waits for its organisation's ceiling.
    pub(crate) blocked: bool,
}

/// The lane of a stream.
pub(crate) fn lane_of(stream: Stream) -> usize {
    match stream {
        Stream::Transactional => 0,
        Stream::Bulk => 1,
    }
}

/// A destination with something in memory: which site it is at, and its ceiling.
#[derive(Debug)]
pub(crate) struct Dest {
    pub(crate) key: Destination,
    pub(crate) queues: Vec<QueueIx>,
    pub(crate) site: Option<SiteIx>,
    /// DNS was asked, and has not answered.
    pub(crate) asked: bool,
    /// An operator wants it tried now, and where it is was not known yet.
    pub(crate) to_be_lifted: bool,
    /// When what is known of the site lapses, or DNS is asked again.
    pub(crate) expires: Mono,
    pub(crate) timer: Option<Mono>,
    pub(crate) meter: Meter,
    /// Queues that wait for the ceiling.
    pub(crate) blocked: VecDeque<QueueIx>,
}

/// An organisation that has a queue here.
#[derive(Debug)]
pub(crate) struct Org {
    pub(crate) id: mail::OrgId,
    /// Queues whose state is in memory.
    pub(crate) queues: usize,
    /// Places taken in its windows.
    pub(crate) held: usize,
    pub(crate) meter: Meter,
    pub(crate) timer: Option<Mono>,
    /// Turns that wait for the ceiling.
    pub(crate) blocked: VecDeque<TurnIx>,
}

/// A credential that has a ceiling.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) name: std::sync::Arc<str>,
    pub(crate) meter: Meter,
    pub(crate) timer: Option<Mono>,
    /// Deliveries that wait for the ceiling.
    pub(crate) aside: VecDeque<mail::DeliveryId>,
    /// How long its deliveries take, smoothed.
    pub(crate) took: std::time::Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(weights: &[u32]) -> Group {
        let members = weights.iter().map(|&weight| Member { path: 0, weight, owed: 0 }).collect();
        Group::new(0, 0, members)
    }

    #[test]
    fn bulk_gets_one_turn_of_five() {
        let mut group = group(&[1]);
        group.lanes[0].push_back(0);
        group.lanes[1].push_back(1);
        let mut lanes = Vec::new();
        for _ in 0..10 {
            let lane = group.lane(5).unwrap();
            group.count(lane);
            lanes.push(lane);
        }
        assert_eq!(lanes, [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
        group.lanes[0].clear();
        assert_eq!(group.lane(5), Some(1));
        group.lanes[1].clear();
        assert_eq!(group.lane(5), None);
    }

    #[test]
    fn sources_share_by_weight_and_those_without_come_last() {
        let mut group = group(&[3, 1, 0]);
        let mut counts = [0; 3];
        (0..400).for_each(|_| counts[group.pick(&[0, 1, 2]).unwrap()] += 1);
        assert_eq!(counts, [300, 100, 0]);
        assert_eq!((group.pick(&[2]), group.pick(&[])), (Some(2), None));
        // One that could not take anything for a while does not take everything afterwards.
        (0..1000).for_each(|_| assert_eq!(group.pick(&[0]), Some(0)));
        let taken = (0..8).filter(|_| group.pick(&[0, 1]) == Some(1)).count();
        assert!((1..=3).contains(&taken), "{taken} of 8");
    }
}
