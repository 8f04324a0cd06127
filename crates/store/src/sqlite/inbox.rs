//! What waits for the next group, and how long that waits for more: the policy of the group commit.

use std::time::Duration;

use mail::{Actor, Clock, DeliveryId, MessageId};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::compact::Move;
use super::write::Tidy;
use crate::content::Place;
use crate::error::StoreError;
use crate::filter::{Action, ChangedDelivery};
use crate::model::{Admission, Admitted, Settlement};
use crate::settle::Done;

pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something to do.
pub(crate) enum Op {
    Admit { admission: Box<Admission>, answer: Answer<Admitted> },
    Settle { settlement: Box<Settlement>, done: Done },
    Change { ids: Vec<DeliveryId>, action: Action, by: Actor, answer: Answer<Vec<ChangedDelivery>> },
    Quarantine { message: MessageId, reason: String, answer: Answer<()> },
    Claim { ids: Vec<DeliveryId>, answer: Answer<()> },
    Relocate { moves: Vec<Move>, answer: Answer<()> },
    Tidy { step: Tidy, answer: Answer<()> },
}

/// A group takes no more operations than this,
const GROUP_OPS: usize = 1000;
/// nor more content.
const GROUP_BYTES: u64 = 8 << 20;
/// How long settlements wait for an admission to share a commit with,
const SETTLE_WAIT: Duration = Duration::from_millis(5);
/// unless there are as many as this.
const SETTLE_MANY: usize = 256;
/// How long an admission waits for others when there have been others lately.
const GATHER: Duration = Duration::from_millis(1);
/// Each so many groups it waits for more than there have been.
const PROBE: u32 = 8;
/// How long an idle store leaves handed-on events before it deletes them in a commit for that alone.
pub(crate) const IDLE: Duration = Duration::from_millis(250);

#[derive(Default)]
struct Waiting {
    ops: Vec<Op>,
    /// How many of them are admissions.
    admissions: usize,
    /// How many are neither admissions nor settlements: somebody waits for them.
    urgent: usize,
    closed: bool,
    sleep: Sleep,
    /// There is something to write beside the operations.
    nudged: bool,
    /// Admissions in recent groups: the largest, fading. Says how many clients there are.
    peak: f32,
    /// Counts groups.
    taken: u32,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Sleep {
    /// A group is being prepared.
    #[default]
    Awake,
    /// Anything wakes it.
    Idle,
    /// It waits for company: so many admissions wake it, settlements alone only when there are many. Woken for each of them
    /// it would switch threads as often as if there were no groups.
    Gathering { wanted: usize },
}

pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    clock: Clock,
}

impl Inbox {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { waiting: Mutex::default(), arrived: Condvar::new(), clock }
    }

    /// Hands something in; it comes back when the store is closed.
    pub(crate) fn push(&self, op: Op) -> Result<(), Op> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(op);
        }
        match op {
            Op::Admit { .. } => waiting.admissions += 1,
            Op::Settle { .. } => {}
            _ => waiting.urgent += 1,
        }
        let is_admission = matches!(op, Op::Admit { .. });
        waiting.ops.push(op);
        let wake = match waiting.sleep {
            Sleep::Awake => false,
            Sleep::Idle => true,
            Sleep::Gathering { wanted } if is_admission => waiting.admissions >= wanted,
            Sleep::Gathering { .. } => waiting.urgent > 0 || waiting.ops.len() >= SETTLE_MANY,
        };
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Has it seen, also when nothing comes, what there is beside the operations.
    pub(crate) fn nudge(&self) {
        let mut waiting = self.waiting.lock();
        waiting.nudged = true;
        if waiting.sleep == Sleep::Idle {
            self.arrived.notify_one();
        }
    }

    /// Takes nothing more; the threads end when they have done what is there.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Drops what nobody will do any more; whoever waits for it is told by that.
    pub(crate) fn abandon(&self) {
        let ops = std::mem::take(&mut self.waiting.lock().ops);
        drop(ops);
    }

    /// How many operations no group has taken.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().ops.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.waiting.lock().closed
    }

    /// The next group into `group`, which is empty: also empty when `tick` and nothing came for a while. False: closed.
    pub(crate) fn take(&self, group: &mut Vec<Op>, tick: bool) -> bool {
        let mut waiting = self.waiting.lock();
        while waiting.ops.is_empty() {
            if waiting.closed {
                return false;
            }
            if std::mem::take(&mut waiting.nudged) && !tick {
                return true;
            }
            waiting.sleep = Sleep::Idle;
            let timed_out = if tick {
                self.arrived.wait_for(&mut waiting, IDLE).timed_out()
            } else {
                self.arrived.wait(&mut waiting);
                false
            };
            waiting.sleep = Sleep::Awake;
            if timed_out && waiting.ops.is_empty() {
                return true;
            }
        }
        self.gather(&mut waiting);
        let admissions = waiting.admissions;
        waiting.taken = waiting.taken.wrapping_add(1);
        waiting.peak = (waiting.peak * 0.9).max(f32::from(u16::try_from(admissions).unwrap_or(u16::MAX)));
        let n = group_length(&waiting.ops);
        if n == waiting.ops.len() {
            std::mem::swap(group, &mut waiting.ops);
            (waiting.admissions, waiting.urgent) = (0, 0);
        } else {
            group.extend(waiting.ops.drain(..n));
            waiting.admissions = waiting.ops.iter().filter(|op| matches!(op, Op::Admit { .. })).count();
            waiting.urgent = waiting.ops.len()
                - waiting.ops.iter().filter(|op| matches!(op, Op::Admit { .. } | Op::Settle { .. })).count();
        }
        true
    }

    /// Waits for company where that is worth it. A client alone is never kept waiting: nobody else would come.
    fn gather(&self, waiting: &mut MutexGuard<'_, Waiting>) {
        let alone = |w: &Waiting| w.admissions == 0 && w.urgent == 0 && w.ops.len() < SETTLE_MANY;
        if alone(waiting) {
            self.wait_while(waiting, SETTLE_WAIT, 1, alone);
        }
        let wanted = waiting.company();
        let few = |w: &Waiting| w.urgent == 0 && w.admissions > 0 && w.admissions < wanted;
        if few(waiting) {
            self.wait_while(waiting, GATHER, wanted, few);
        }
    }

    fn wait_while(
        &self,
        waiting: &mut MutexGuard<'_, Waiting>,
        most: Duration,
        wanted: usize,
        go_on: impl Fn(&Waiting) -> bool,
    ) {
        let end = self.clock.mono().plus(most);
        waiting.sleep = Sleep::Gathering { wanted };
        while go_on(waiting) && !waiting.closed {
            let left = end.since(self.clock.mono());
            // The time-out of the wait counts, too: a clock in a test may stand still.
            if left.is_zero() || self.arrived.wait_for(waiting, left).timed_out() {
                break;
            }
        }
        waiting.sleep = Sleep::Awake;
    }
}

impl Waiting {
    /// How many admissions are worth waiting for. Now and then more than ever came: that is how groups grow to what the
    /// time allows.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of clients, not negative"
    )]
    fn company(&self) -> usize {
        let clients = self.peak.ceil() as usize;
        if clients >= 4 && self.taken.is_multiple_of(PROBE) { clients * 2 } else { clients }
    }
}

/// How many of the operations make the next group.
fn group_length(ops: &[Op]) -> usize {
    let mut bytes = 0;
    for (i, op) in ops.iter().take(GROUP_OPS).enumerate() {
        bytes += content_bytes(op);
        if bytes > GROUP_BYTES {
            return i.max(1);
        }
    }
    ops.len().min(GROUP_OPS)
}

/// Content that will have to be written.
fn content_bytes(op: &Op) -> u64 {
    let of = |admission: &Admission| match &admission.content.place {
        Place::Memory(bytes) => bytes.len() as u64,
        Place::File(_) => 0,
    };
    match op {
        Op::Admit { admission, .. } => of(admission),
        Op::Settle { settlement, .. } => settlement.reports.iter().map(of).sum(),
        _ => 0,
    }
}
