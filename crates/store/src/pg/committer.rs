//! The one task of a node that writes: it takes whatever waits, puts it into one transaction, and answers everybody. What
//! cannot be written because the database is away is told so, but for settlements, which wait until it is back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::DeliveryId;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::commit::{Done, Group, Verdict};
use super::errors::{Lost, commit_error};
use super::inbox::{GROUP_OPS, Op, Release, Released, Reply, Task, group_length};
use super::release;
use super::shared::Shared;
use super::work::{Outcome, Placement, events};
use super::write::content_ref;
use crate::error::StoreError;
use crate::model::{Admission, Admitted, Settled};
use crate::settle::handed_back;

/// How long an idle committer leaves handed-on events and notes before it writes a group for them alone.
const IDLE: Duration = Duration::from_millis(250);
/// How long it waits before it tries again what the database would not take.
const AGAIN: Duration = Duration::from_millis(500);

pub(crate) struct Committer {
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Op>,
    /// Taken from the inbox.
    waiting: VecDeque<Op>,
    /// What has to happen and could not yet.
    carried: Vec<Op>,
    /// Counts the groups.
    number: i64,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, inbox: mpsc::UnboundedReceiver<Op>) -> Self {
        Self { shared, inbox, waiting: VecDeque::new(), carried: Vec::new(), number: 0 }
    }

    /// Works until the inbox is closed and empty, then gives back what the node has in hand.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        while let Some(group) = self.take().await {
            if !self.carried.is_empty() && !self.carry(&group).await {
                return self.give_up(group);
            }
            let (later, now) = if self.carried.is_empty() {
                (Vec::new(), group)
            } else {
                // Settlements that wait go first, in their order.
                group.into_iter().partition(|op| op.task.must_happen())
            };
            self.carried.extend(later);
            self.group(now).await;
        }
        self.finish().await
    }

    /// The next group: an empty one when there is something to write beside the operations. None: closed, all is done.
    async fn take(&mut self) -> Option<Vec<Op>> {
        if self.waiting.is_empty() && self.carried.is_empty() {
            let mut some = Vec::new();
            let shared = self.shared.clone();
            let leftovers = shared.outbox.to_delete().is_some() || !shared.notes.is_empty();
            tokio::select! {
                biased;
                n = self.inbox.recv_many(&mut some, GROUP_OPS) => {
                    self.waiting.extend(some);
                    if n == 0 {
                        return None;
                    }
                }
                () = tokio::time::sleep(IDLE), if leftovers => return Some(Vec::new()),
                // Looked at again.
                () = shared.inbox.nudge.notified(), if !leftovers => return Some(Vec::new()),
            }
        }
        while self.waiting.len() < GROUP_OPS
            && let Ok(op) = self.inbox.try_recv()
        {
            self.waiting.push_back(op);
        }
        if self.waiting.is_empty() && self.inbox.is_closed() && self.carried.is_empty() {
            return None;
        }
        let n = group_length(self.waiting.iter());
        Some(self.waiting.drain(..n).filter_map(Op::checked).collect())
    }

    /// Tries again what had to wait. False: the store is closing, and it still cannot be done.
    async fn carry(&mut self, next: &[Op]) -> bool {
        let carried = std::mem::take(&mut self.carried);
        self.group(carried).await;
        if self.carried.is_empty() {
            return true;
        }
        if self.inbox.is_closed() && next.is_empty() && self.waiting.is_empty() {
            return false;
        }
        tokio::time::sleep(AGAIN).await;
        true
    }

    fn give_up(mut self, group: Vec<Op>) -> Result<(), StoreError> {
        let error = StoreError::Unavailable("the database was away when the store was closed".into());
        for op in self.carried.drain(..).chain(group) {
            op.refuse(&error);
        }
        Err(error)
    }

    /// Does everything in one commit, or what fails of it alone; answers everybody.
    async fn group(&mut self, mut ops: Vec<Op>) {
        let leftovers = self.shared.outbox.to_delete().is_some() || !self.shared.notes.is_empty();
        if ops.is_empty() && !leftovers {
            return;
        }
        self.number += 1;
        let last_try = Mutex::new(None);
        loop {
            match self.commit(&ops, &last_try).await {
                Ok(done) => {
                    self.down(None);
                    return self.publish(ops, done);
                }
                Err(Lost::Told(StoreError::Invalid(_))) if ops.len() > 1 => {
                    // One of them brought along what cannot be stored: the others shall not suffer for it.
                    for op in ops {
                        Box::pin(self.group(vec![op])).await;
                    }
                    return;
                }
                Err(Lost::Told(error)) => return self.refuse(ops, &error),
                Err(Lost::Unknown(reason)) => {
                    // Whoever waits has waited long enough and is told to come again; what becomes of the group is found
                    // out, and then what nobody believes in any more is taken back.
                    let error = StoreError::Unavailable(reason);
                    self.down(Some(&error));
                    for op in &mut ops {
                        if !op.task.must_happen() {
                            op.take_reply().refuse(&error);
                        }
                    }
                    if self.inbox.is_closed() {
                        // The next start sorts out what there is.
                        ops.into_iter().for_each(|op| op.refuse(&error));
                        return;
                    }
                    // With the same number, which tells whether it was committed.
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn commit(&self, ops: &[Op], done: &Mutex<Option<Done>>) -> Result<Done, Lost> {
        let shared = &self.shared;
        shared.health.check().map_err(Lost::Told)?;
        let group = Group { shared, ops, number: self.number, done };
        let result = shared.pool.commit_idempotent(|tx| group.attempt(tx)).await;
        match commit_error(result, "the queue")? {
            Verdict::Fenced => Err(Lost::Told(shared.fenced())),
            Verdict::Stands => done.lock().take().ok_or_else(|| {
                Lost::Told(
                    shared.health.fail("a group was found committed that this process had not written"),
                )
            }),
        }
    }

    fn down(&self, error: Option<&StoreError>) {
        let was = self.shared.down.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) => tracing::warn!(%error, "the queue cannot be written at the moment"),
            None if was => tracing::info!("the queue can be written again"),
            None => {}
        }
    }

    fn refuse(&mut self, ops: Vec<Op>, error: &StoreError) {
        let passes = matches!(error, StoreError::Unavailable(_) | StoreError::NoSpace);
        if passes {
            self.down(Some(error));
        }
        for op in ops {
            if passes && op.task.must_happen() {
                self.carried.push(op);
            } else {
                op.refuse(error);
            }
        }
    }

    /// The commit stands: memory follows, then everybody is told.
    fn publish(&mut self, ops: Vec<Op>, done: Done) {
        let shared = self.shared.clone();
        shared.counters.groups.fetch_add(1, Ordering::Relaxed);
        shared.counters.group_size.store(ops.len() as u64, Ordering::Relaxed);
        shared.counters.apply(&done.effects, done.own);
        shared.queues.learn(done.queues, shared.clock.mono());
        shared.marks.lower(done.effects.added());
        shared.notes.written(done.noted);
        if let Some(up_to) = done.deleted {
            shared.outbox.set_deleted(up_to);
        }
        let told = ops.iter().zip(&done.outcomes).flat_map(|(op, outcome)| events(&op.task, outcome));
        shared.outbox.publish((shared.outbox.last() + 1..).zip(told.cloned()));
        if done
            .outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Released(released, _) if released.found > 0))
        {
            shared.marks.clear();
        }
        for (op, outcome) in ops.into_iter().zip(done.outcomes) {
            self.answer(op, outcome);
        }
    }

    fn answer(&mut self, op: Op, outcome: Outcome) {
        let (task, reply) = op.into_parts();
        match (task, reply, outcome) {
            (Task::Admit(admission), reply, Outcome::Admitted(placement)) => {
                self.admitted(*admission, reply, placement);
            }
            (Task::Settle(settlement), Reply::Settle(done), Outcome::Settled(met, placements)) => {
                let reports = settlement.reports.into_iter().zip(placements);
                let reports =
                    if met.found { reports.map(|(r, p)| admitted(r, p)).collect() } else { Vec::new() };
                done.tell(Ok(Settled { reports, found: met.found, state: met.state }));
            }
            (Task::Settle(_), reply, Outcome::Refused(reason)) => reply.refuse(&StoreError::Fenced(reason)),
            // Those who ask for the rest may have gone away: it is done all the same.
            (_, Reply::Change(answer), Outcome::Changed(changed, _)) => drop(answer.send(Ok(changed))),
            (_, Reply::Quarantine(answer), _) => drop(answer.send(Ok(()))),
            (_, Reply::Release(answer), Outcome::Released(released, _)) => drop(answer.send(Ok(released))),
            _ => {}
        }
    }

    fn admitted(&mut self, admission: Admission, reply: Reply, placement: Placement) {
        let Reply::Admit(answer) = reply else {
            // Its sender has been told to try again: it would come twice.
            if placement == Placement::Stored {
                let message = admission.message.id;
                let ids = (0..).zip(&admission.deliveries).map(|(index, _)| DeliveryId { message, index });
                self.waiting.push_back(Op::new(Task::Withdraw(ids.collect()), Reply::Nobody));
            }
            return;
        };
        if let Err(Ok(Admitted::New(waiting))) = answer.send(Ok(admitted(admission, placement))) {
            self.shared.adopt(waiting);
        }
    }

    /// Gives back what this node has in hand, for the others to do, and says that it ended well.
    async fn finish(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        shared.health.check()?;
        if shared.abandoned.load(Ordering::Relaxed) {
            return Ok(());
        }
        loop {
            let (answer, mut answered) = tokio::sync::oneshot::channel();
            let release = Release { of: shared.me, crashed: false };
            let op = Op::new(Task::Release(release), Reply::Release(answer));
            self.group(vec![op]).await;
            match answered.try_recv() {
                Ok(Ok(Released { found: 0, .. })) => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(StoreError::Closed),
            }
        }
        release::mark_clean(&shared).await
    }
}

/// What is handed back for an admission that is on stable storage, or for one that was before.
fn admitted(admission: Admission, placement: Placement) -> Admitted {
    match placement {
        Placement::Duplicate(of) => Admitted::Duplicate(of),
        Placement::Not => Admitted::New(Vec::new()),
        Placement::Stored => {
            let at = content_ref(admission.message.id, admission.content.len(), admission.content.crc);
            Admitted::New(handed_back(admission, at))
        }
    }
}

/// Whatever ends the committer, nobody is left waiting for it.
pub(crate) struct LastWords(pub(crate) Arc<Shared>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.health.fail("the committer panicked");
        }
        self.0.inbox.close();
    }
}
