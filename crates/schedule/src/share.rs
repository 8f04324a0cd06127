//! Limits that all nodes of a cluster share: what this node would like of them, and what it was lent.

use mail::Mono;

use crate::clock::Now;
use crate::effect::Effect;
use crate::scheduler::Scheduler;

/// What this node would like of a limit. All is counted in places: a connection takes one for as long as it is there, a
/// message under a rate takes one for the rate's period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The limit's name, the same on all nodes.
    pub key: String,
    /// How many places there are, for all nodes together.
    pub capacity: u64,
    /// How many this node would like.
    pub wanted: u64,
    /// How many it keeps whatever the answer is. It takes no others before the answer is there.
    pub in_use: u64,
    /// How long a place stays taken after this node was last heard of: some messages of a period may have been sent.
    pub lasts: std::time::Duration,
}

/// What this node was lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The limit.
    pub key: String,
    /// How many places it may take, all in all.
    pub amount: u64,
    /// How many it may keep: others wait for what it has above that.
    pub fair: u64,
    /// Until when.
    pub until: Mono,
}

impl Scheduler {
    /// Whether the limits of paths, organisations, credentials and routes hold for all nodes together. To be said before
    /// anything else.
    pub fn set_sharing(&mut self, on: bool) {
        let _ = on;
    }

    /// What this node would like of the limits whose time has come, and of those that are new. Until
    /// [`Scheduler::granted`] brings the answer, nothing is taken beyond what the wishes name as in use. To be asked for at
    /// [`Effect::Borrow`], and each second.
    pub fn wishes(&mut self, now: Now) -> Vec<Wish> {
        self.seen = self.seen.max(now.mono);
        Vec::new()
    }

    /// The answer to the last wishes.
    pub fn granted(&mut self, granted: &[Granted], now: Now, out: &mut Vec<Effect>) {
        let _ = granted;
        self.arm(now, out);
    }
}
