//! A group is written: tried until it is known what has become of it, published, answered. One at a time has the turn; a
//! group with large content sends that first and takes the turn then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::{DeliveryId, MessageId};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::commit::{Done, Group, Verdict};
use super::errors::{Lost, commit_error};
use super::inbox::{Op, Reply, Task};
use super::objects::{self, place};
use super::shared::Shared;
use super::work::{Outcome, Placement, events};
use super::write::content_ref;
use crate::error::StoreError;
use crate::model::{Admission, Admitted, Settled};
use crate::settle::handed_back;

/// How long it is waited before what the database would not take is tried again.
pub(crate) const AGAIN: Duration = Duration::from_millis(500);

/// The turn to write. Who has it counts up.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) number: i64,
}

/// The turn of a group, once it has it: through all its tries, and until it is published.
pub(crate) type MyTurn = Mutex<Option<OwnedMutexGuard<Turn>>>;

/// Does everything in one commit, or what fails of it alone; answers everybody. Returns what has to happen and could not
/// yet. `large`: content goes ahead of the turn.
pub(crate) async fn write(shared: &Arc<Shared>, mut ops: Vec<Op>, large: bool) -> Vec<Op> {
    let leftovers = shared.outbox.to_delete().is_some() || !shared.notes.is_empty();
    if ops.is_empty() && !leftovers {
        return ops;
    }
    let (turn, last_try) = (MyTurn::default(), Mutex::new(None));
    let placed = if large { objects::put(shared, &ops).await } else { Vec::new() };
    loop {
        let group = Group { shared, ops: &ops, turn: &turn, done: &last_try, large, placed: &placed };
        match commit(&group).await {
            Ok(done) => {
                shared.set_down(None);
                publish(shared, ops, done, &placed);
                return Vec::new();
            }
            Err(Lost::Told(StoreError::Invalid(_))) if ops.len() > 1 => {
                // One of them brought along what cannot be stored: the others shall not suffer for it.
                drop(turn);
                let mut carried = Vec::new();
                for op in ops {
                    carried.extend(Box::pin(write(shared, vec![op], large)).await);
                }
                return carried;
            }
            Err(Lost::Told(error)) => return refuse(shared, ops, &error),
            Err(Lost::Unknown(reason)) => {
                // Whoever waits has waited long enough and is told to come again; what becomes of the group is found out,
                // and then what nobody believes in any more is taken back.
                let error = StoreError::Unavailable(reason);
                shared.set_down(Some(&error));
                for op in ops.iter_mut().filter(|op| !op.task.must_happen()) {
                    op.take_reply().refuse(&error);
                }
                if shared.inbox.is_closed() {
                    // The next start sorts out what there is.
                    ops.into_iter().for_each(|op| op.refuse(&error));
                    return Vec::new();
                }
                // With the same number, which tells whether it was committed.
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn commit(group: &Group<'_>) -> Result<Done, Lost> {
    let shared = group.shared;
    if !group.large {
        group.take_turn().await;
    }
    shared.health.check().map_err(Lost::Told)?;
    let began = shared.clock.mono();
    let result = shared.pool.commit_idempotent(|tx| group.attempt(tx)).await;
    let verdict = commit_error(result, "the queue")?;
    shared.counters.commits.lock().add(shared.clock.mono().since(began));
    match verdict {
        Verdict::Fenced => Err(Lost::Told(shared.fenced())),
        Verdict::Stands => group.done.lock().take().ok_or_else(|| {
            Lost::Told(shared.health.fail("a group was found committed that this process had not written"))
        }),
    }
}

fn refuse(shared: &Shared, ops: Vec<Op>, error: &StoreError) -> Vec<Op> {
    let passes = matches!(error, StoreError::Unavailable(_) | StoreError::NoSpace);
    if passes {
        shared.set_down(Some(error));
    }
    let (later, never): (Vec<_>, Vec<_>) = ops.into_iter().partition(|op| passes && op.task.must_happen());
    never.into_iter().for_each(|op| op.refuse(error));
    later
}

/// The commit stands: memory follows, then everybody is told.
fn publish(shared: &Shared, ops: Vec<Op>, done: Done, placed: &[MessageId]) {
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
    if let Some(side) = &shared.objects {
        side.delete(done.effects.objects_gone);
        side.delete(for_nothing(&ops, &done.outcomes, placed));
    }
    for (op, outcome) in ops.into_iter().zip(done.outcomes) {
        answer(shared, op, outcome, placed);
    }
}

/// Messages whose content was put into object storage and that were duplicates after all.
fn for_nothing(ops: &[Op], outcomes: &[Outcome], placed: &[MessageId]) -> Vec<MessageId> {
    let duplicates = ops.iter().zip(outcomes).filter_map(|(op, outcome)| match (&op.task, outcome) {
        (Task::Admit(admission), Outcome::Admitted(Placement::Duplicate(_))) => Some(admission.message.id),
        _ => None,
    });
    duplicates.filter(|message| placed.contains(message)).collect()
}

fn answer(shared: &Shared, op: Op, outcome: Outcome, placed: &[MessageId]) {
    let (task, reply) = op.into_parts();
    match (task, reply, outcome) {
        (Task::Admit(admission), reply, Outcome::Admitted(placement)) => {
            answer_admission(shared, *admission, reply, placement, placed);
        }
        (Task::Settle(settlement), Reply::Settle(done), Outcome::Settled(met, placements)) => {
            let reports = settlement.reports.into_iter().zip(placements);
            let reports =
                if met.found { reports.map(|(r, p)| admitted(r, p, &[])).collect() } else { Vec::new() };
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

fn answer_admission(
    shared: &Shared,
    admission: Admission,
    reply: Reply,
    placement: Placement,
    placed: &[MessageId],
) {
    let Reply::Admit(answer) = reply else {
        // Its sender has been told to try again: it would come twice.
        if placement == Placement::Stored {
            let message = admission.message.id;
            let ids = (0..).zip(&admission.deliveries).map(|(index, _)| DeliveryId { message, index });
            // Closing down: what is in hand is given back at the end.
            let _ = shared.hand_in(Task::Withdraw(ids.collect()), Reply::Nobody);
        }
        return;
    };
    if let Err(Ok(Admitted::New(waiting))) = answer.send(Ok(admitted(admission, placement, placed))) {
        shared.adopt(waiting);
    }
}

/// What is handed back for an admission that is on stable storage, or for one that was before.
fn admitted(admission: Admission, placement: Placement, placed: &[MessageId]) -> Admitted {
    match placement {
        Placement::Duplicate(of) => Admitted::Duplicate(of),
        Placement::Not => Admitted::New(Vec::new()),
        Placement::Stored => {
            let at = content_ref(
                admission.message.id,
                place(admission.message.id, placed),
                admission.content.len(),
                admission.content.crc,
            );
            Admitted::New(handed_back(admission, at))
        }
    }
}
