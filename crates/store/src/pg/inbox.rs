//! What waits for the committer. While a commit is on its way to the standby the next group gathers here: that is all
//! the policy there is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mail::{Actor, DeliveryId, MessageId};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::Fence;
use crate::content::MEMORY_MAX;
use crate::error::StoreError;
use crate::filter::{Action, ChangedDelivery};
use crate::model::{Admission, Admitted, Settlement};
use crate::settle::{Done, nonsense};

pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something for the committer to do, and whom to tell.
pub(crate) struct Op {
    pub(crate) task: Task,
    /// Behind a lock that nobody contends for: a transaction that is tried again looks at the tasks from several threads.
    reply: Mutex<Reply>,
    held: Option<Held>,
}

/// Counts as long as it lives.
struct Held(Arc<AtomicU64>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Task {
    Admit(Box<Admission>),
    Settle(Box<Settlement>),
    Change {
        ids: Vec<DeliveryId>,
        action: Action,
        by: Actor,
    },
    Quarantine {
        message: MessageId,
        reason: String,
    },
    Release(Release),
    /// Admissions whose caller was told that they failed, and which turned out to be committed.
    Withdraw(Vec<DeliveryId>),
}

/// Whom to tell.
pub(crate) enum Reply {
    Admit(Answer<Admitted>),
    Settle(Done),
    Change(Answer<Vec<ChangedDelivery>>),
    Quarantine(Answer<()>),
    Release(Answer<Released>),
    /// Nobody, or somebody who has been told already.
    Nobody,
}

/// Deliveries that a node has in hand are given back, some at a time.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    /// The node, and the last of its lives that is over.
    pub(crate) of: Fence,
    /// Which of them may have brought it down: that is counted.
    pub(crate) suspects: Suspects,
}

/// Who may have brought a node down.
#[derive(Clone, Debug)]
pub(crate) enum Suspects {
    /// None: it ended well.
    None,
    /// Whatever it had in hand.
    All,
    /// What is known to have been under attempt; the others are acquitted.
    Only(Arc<BTreeSet<DeliveryId>>),
}

/// What was given back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Released {
    /// How many were looked at; none is left when there are none.
    pub(crate) found: u64,
    /// How many were active.
    pub(crate) active: u64,
    /// Those that are held now.
    pub(crate) held: Vec<DeliveryId>,
}

/// A group takes no more operations than this,
pub(crate) const GROUP_OPS: usize = 1000;
/// nor more content.
const GROUP_BYTES: u64 = 8 << 20;
/// More octets than this go aside: what is too large for memory, as it is received.
const LARGE: u64 = MEMORY_MAX as u64;

pub(crate) struct Inbox {
    sender: Mutex<Option<mpsc::UnboundedSender<Op>>>,
    /// There is something to write beside the operations.
    pub(crate) nudge: Notify,
    held: Arc<AtomicU64>,
}

impl Inbox {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Op>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender: Mutex::new(Some(sender)), nudge: Notify::new(), held: Arc::default() }, receiver)
    }

    /// Hands something in; it comes back when the store is closed.
    pub(crate) fn push(&self, mut op: Op) -> Result<(), Op> {
        self.held.fetch_add(1, Ordering::Relaxed);
        op.held = Some(Held(self.held.clone()));
        match &*self.sender.lock() {
            Some(sender) => sender.send(op).map_err(|back| back.0),
            None => Err(op),
        }
    }

    /// How many were handed in and are not done yet.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes nothing more; the committer ends when it has done what is there.
    pub(crate) fn close(&self) {
        self.sender.lock().take();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.lock().as_ref().is_none_or(mpsc::UnboundedSender::is_closed)
    }
}

impl Op {
    pub(crate) fn new(task: Task, reply: Reply) -> Self {
        Self { task, reply: Mutex::new(reply), held: None }
    }

    /// Whether its content takes so long that others should not wait for it. Settlements keep their order.
    pub(crate) fn is_large(&self) -> bool {
        matches!(&self.task, Task::Admit(admission) if admission.content.len() > LARGE)
    }

    pub(crate) fn into_parts(self) -> (Task, Reply) {
        (self.task, self.reply.into_inner())
    }

    /// Whom to tell; nobody from now on.
    pub(crate) fn take_reply(&mut self) -> Reply {
        std::mem::replace(self.reply.get_mut(), Reply::Nobody)
    }

    /// Tells whoever asked that it did not happen.
    pub(crate) fn refuse(self, error: &StoreError) {
        self.reply.into_inner().refuse(error);
    }

    /// The operation if it is to be done; otherwise whoever asked has been told, or has withdrawn it.
    pub(crate) fn checked(self) -> Option<Self> {
        if let Reply::Admit(answer) = &*self.reply.lock()
            && answer.is_closed()
        {
            return None;
        }
        match self.task.admissions().iter().find_map(nonsense) {
            Some(reason) => {
                self.refuse(&StoreError::Invalid(reason));
                None
            }
            None => Some(self),
        }
    }
}

impl Task {
    /// Whether it is kept until it can be done, rather than refused.
    pub(crate) fn must_happen(&self) -> bool {
        matches!(self, Task::Settle(_) | Task::Withdraw(_))
    }

    /// The messages it brings along.
    pub(crate) fn admissions(&self) -> &[Admission] {
        match self {
            Task::Admit(admission) => std::slice::from_ref(admission),
            Task::Settle(settlement) => &settlement.reports,
            _ => &[],
        }
    }
}

impl Reply {
    /// Tells whoever asked that it did not happen.
    pub(crate) fn refuse(self, error: &StoreError) {
        let error = error.clone();
        match self {
            Reply::Settle(done) => done.tell(Err(error)),
            // Those who asked for the rest may have gone away.
            Reply::Admit(answer) => drop(answer.send(Err(error))),
            Reply::Change(answer) => drop(answer.send(Err(error))),
            Reply::Quarantine(answer) => drop(answer.send(Err(error))),
            Reply::Release(answer) => drop(answer.send(Err(error))),
            Reply::Nobody => {}
        }
    }
}

/// How many of the operations make the next group. Large content does not count: it goes aside.
pub(crate) fn group_length<'a>(ops: impl Iterator<Item = &'a Op>) -> usize {
    let (mut bytes, mut n) = (0, 0);
    for op in ops.take(GROUP_OPS) {
        if op.is_large() {
            n += 1;
            continue;
        }
        bytes += op.task.admissions().iter().map(|admission| admission.content.len()).sum::<u64>();
        if bytes > GROUP_BYTES {
            return n.max(1);
        }
        n += 1;
    }
    n
}
