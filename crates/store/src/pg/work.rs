//! A group in memory: the rows that it concerns, read and locked, and what its tasks make of them one after the other. What
//! is written in the end is the sum of it, a statement for each kind of change.

use std::collections::{BTreeMap, HashMap};

use mail::{DeliveryId, Event, EventKind, MessageId, OrgId, QueueKey, RecipientStatus, State, Timestamp};
use postgres::PgError;

use super::inbox::{Release, Released, Suspects, Task};
use super::sums::Effects;
use crate::codec;
use crate::config::Fence;
use crate::filter::{Action, ChangedDelivery};
use crate::model::{Admission, Next, Settlement};
use crate::operate::{outcome, queue_after, told};
use crate::settle::{Met, after, is_told};

/// What stands in a delivery's row, as far as groups change it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) queue: i64,
    pub(crate) state: State,
    pub(crate) due: Option<i64>,
    pub(crate) attempts: i32,
    pub(crate) crashes: i32,
    pub(crate) warned: bool,
    pub(crate) reason: Option<String>,
    /// Who has it in hand: node and epoch.
    pub(crate) owner: Option<(i32, i64)>,
    pub(crate) status: i32,
    /// The outcome of its only recipient, if that changes.
    pub(crate) outcome: Option<Option<Vec<u8>>>,
}

/// A delivery's row before and after.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The number of its only recipient; none when its recipients have rows of their own.
    pub(crate) only: Option<i32>,
    /// Where it waits, as columns: seldom asked for.
    pub(crate) key: (i64, i32, String),
    pub(crate) before: Row,
    /// None: it goes.
    pub(crate) now: Option<Row>,
}

/// Where a new message has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Nowhere.
    Not,
    Stored,
    /// Nowhere: its dedupe key belongs to this message.
    Duplicate(MessageId),
}

/// What happened to a task inside the transaction.
#[derive(Debug)]
pub(crate) enum Outcome {
    Admitted(Placement),
    Settled(Met, Vec<Placement>),
    /// Another node has the delivery.
    Refused(String),
    Changed(Vec<ChangedDelivery>, Vec<Event>),
    Told(Vec<Event>),
    Released(Released, Vec<Event>),
}

/// The new status of a recipient that has a row of its own.
pub(crate) type Status = (i32, Option<Vec<u8>>);

pub(crate) struct Work {
    me: (i32, i64),
    now: Timestamp,
    crashes_max: u32,
    pub(crate) slots: BTreeMap<DeliveryId, Slot>,
    pub(crate) statuses: BTreeMap<(DeliveryId, i32), Status>,
    /// Recipients that are not final, of deliveries that may be removed by an operator and have several.
    pub(crate) pending: HashMap<DeliveryId, Vec<u16>>,
    /// The numbers of the queues that the group speaks of.
    pub(crate) queues: HashMap<QueueKey, i64>,
    /// What a release has found, by the place of its task.
    pub(crate) owned: HashMap<usize, Vec<DeliveryId>>,
    /// What a quarantine has found.
    pub(crate) of_message: HashMap<MessageId, Vec<DeliveryId>>,
    pub(crate) effects: Effects,
}

impl Work {
    pub(crate) fn new(me: Fence, now: Timestamp, crashes_max: u32) -> Self {
        Self {
            me: (i32::from(me.node), me.epoch),
            now,
            crashes_max,
            slots: BTreeMap::new(),
            statuses: BTreeMap::new(),
            pending: HashMap::new(),
            queues: HashMap::new(),
            owned: HashMap::new(),
            of_message: HashMap::new(),
            effects: Effects::default(),
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.now.0
    }

    pub(crate) fn me(&self) -> (i32, i64) {
        self.me
    }

    /// Does a task to the rows; what it admits comes later, when it is known which dedupe keys are free.
    pub(crate) fn apply(&mut self, place: usize, task: &Task) -> Result<Outcome, PgError> {
        Ok(match task {
            Task::Admit(_) => Outcome::Admitted(Placement::Not),
            Task::Settle(settlement) => {
                let outcome = self.settle(settlement);
                self.effects.settled += u64::from(!matches!(outcome, Outcome::Refused(_)));
                outcome
            }
            Task::Change { ids, action, by } => {
                let (changed, events) = self.change(ids, action, by)?;
                Outcome::Changed(changed, events)
            }
            Task::Quarantine { message, reason } => Outcome::Told(self.quarantine(*message, reason)),
            Task::Release(release) => {
                let found = self.owned.remove(&place).unwrap_or_default();
                let (released, events) = self.release(&found, release);
                Outcome::Released(released, events)
            }
            Task::Withdraw(ids) => Outcome::Told(self.withdraw(ids)),
        })
    }

    /// The row of a delivery that is there.
    fn row(&mut self, id: DeliveryId) -> Option<&mut Row> {
        self.slots.get_mut(&id)?.now.as_mut()
    }

    fn settle(&mut self, settlement: &Settlement) -> Outcome {
        let (id, me) = (settlement.delivery, self.me);
        let placements = vec![Placement::Not; settlement.reports.len()];
        let Some(slot) = self.slots.get_mut(&id) else { return Outcome::Settled(Met::default(), placements) };
        let Some(row) = slot.now.as_mut() else { return Outcome::Settled(Met::default(), placements) };
        if let Some((node, epoch)) = row.owner
            && row.owner != Some(me)
        {
            return Outcome::Refused(format!("delivery {id} is in the hands of node {node} (epoch {epoch})"));
        }
        if settlement.next == Next::Done {
            slot.now = None;
            return Outcome::Settled(Met { found: true, ..Met::default() }, placements);
        }
        for (n, status) in &settlement.recipients {
            set_status(slot, &mut self.statuses, id, i32::from(*n), status);
        }
        let Some(row) = slot.now.as_mut() else { return Outcome::Settled(Met::default(), placements) };
        let was = row.state;
        let (state, due, reason) = after(&settlement.next, was);
        if state != was {
            row.reason = reason.map(storable);
        }
        (row.state, row.due, row.owner) = (state, due, None);
        if let Next::Deferred { attempts, .. } = settlement.next {
            (row.attempts, row.crashes) = (i32::try_from(attempts).unwrap_or(i32::MAX), 0);
        }
        row.warned |= settlement.warned;
        let met = Met { found: true, state: Some(state), was_quarantined: was == State::Quarantined };
        Outcome::Settled(met, placements)
    }

    /// Changes those deliveries that are still there and that the action means something to. Who has one in hand keeps it:
    /// an attempt that goes on will be settled.
    fn change(
        &mut self,
        ids: &[DeliveryId],
        action: &Action,
        by: &str,
    ) -> Result<(Vec<ChangedDelivery>, Vec<Event>), PgError> {
        let (mut changed, mut events) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(slot) = self.slots.get(id) else { continue };
            let Some(row) = &slot.now else { continue };
            let queue = self.queue_of(slot, row)?;
            let was = row.state;
            let elsewhere = self.elsewhere(row);
            let Some(state) = outcome(action, was, &queue) else { continue };
            let now_in = state.map(|_| queue_after(action, &queue));
            let kind = match state {
                None => {
                    let recipients = self.still_pending(*id);
                    if let Some(slot) = self.slots.get_mut(id) {
                        slot.now = None;
                    }
                    EventKind::Removed { by: by.to_owned(), recipients }
                }
                Some(state) => {
                    self.change_one(*id, action, state, &queue_after(action, &queue))?;
                    told(action, by.to_owned())
                }
            };
            events.push(Event { at: self.now, message: id.message, kind });
            changed.push(ChangedDelivery { id: *id, queue, now_in, was, state, elsewhere });
        }
        Ok((changed, events))
    }

    /// The other node that has a delivery in hand.
    fn elsewhere(&self, row: &Row) -> Option<u16> {
        let (node, _) = row.owner.filter(|(node, _)| *node != self.me.0)?;
        u16::try_from(node).ok()
    }

    fn change_one(
        &mut self,
        id: DeliveryId,
        action: &Action,
        state: State,
        queue: &QueueKey,
    ) -> Result<(), PgError> {
        let now = self.now.0;
        let number = match action {
            Action::Reroute { .. } => Some(self.number(queue)?),
            _ => None,
        };
        let Some(row) = self.row(id) else { return Ok(()) };
        if row.state != state {
            row.reason = if let Action::Hold { reason } = action { Some(storable(reason)) } else { None };
        }
        row.queue = number.unwrap_or(row.queue);
        (row.state, row.due) = (state, (state == State::Waiting).then_some(now));
        if matches!(action, Action::Release) {
            // Somebody has looked at it: it gets all its chances again.
            row.crashes = 0;
        }
        Ok(())
    }

    /// Where a delivery is now: another task of the group may have moved it.
    fn queue_of(&self, slot: &Slot, row: &Row) -> Result<QueueKey, PgError> {
        if row.queue == slot.before.queue {
            let (org, stream, destination) = &slot.key;
            return Ok(codec::queue_key(*org, u8::try_from(*stream).unwrap_or(0), destination)?);
        }
        let found = self.queues.iter().find(|(_, number)| **number == row.queue);
        found.map(|(key, _)| key.clone()).ok_or_else(|| PgError::Bug("a queue without a name".into()))
    }

    pub(crate) fn number(&self, queue: &QueueKey) -> Result<i64, PgError> {
        let found = self.queues.get(queue).copied();
        found.ok_or_else(|| PgError::Bug(format!("queue {} has no number", queue.destination)))
    }

    /// The numbers of the recipients that are not final.
    fn still_pending(&self, id: DeliveryId) -> Vec<u16> {
        let Some(slot) = self.slots.get(&id) else { return Vec::new() };
        match slot.only {
            Some(n) => {
                let pending = slot.now.as_ref().is_some_and(|row| row.status == 0);
                u16::try_from(n).ok().filter(|_| pending).into_iter().collect()
            }
            None => {
                let stored = self.pending.get(&id).into_iter().flatten();
                let final_now =
                    |n: &u16| self.statuses.get(&(id, i32::from(*n))).is_some_and(|(status, _)| *status != 0);
                stored.filter(|n| !final_now(n)).copied().collect()
            }
        }
    }

    /// Quarantines the deliveries of a message whose content is damaged. Told once; nothing when it was quarantined before
    /// or is gone.
    fn quarantine(&mut self, message: MessageId, reason: &str) -> Vec<Event> {
        let mut any = false;
        for id in self.of_message.get(&message).cloned().unwrap_or_default() {
            let Some(row) = self.row(id) else { continue };
            if row.state != State::Quarantined {
                (row.state, row.due, row.reason) = (State::Quarantined, None, Some(storable(reason)));
                any = true;
            }
        }
        let kind = EventKind::Damaged { reason: reason.to_owned() };
        any.then_some(Event { at: self.now, message, kind }).into_iter().collect()
    }

    /// Gives back what a node had in hand.
    fn release(&mut self, ids: &[DeliveryId], release: &Release) -> (Released, Vec<Event>) {
        let mut released = Released { found: ids.len() as u64, ..Released::default() };
        let (max, now) = (self.crashes_max, self.now);
        let reason = format!("the relay stopped {max} times in a row while this was being delivered");
        let mut events = Vec::new();
        for id in ids {
            let Some(row) = self.row(*id) else { continue };
            // Settled by a task of this very group, or by a later life of the node.
            if row
                .owner
                .is_none_or(|(node, epoch)| node != i32::from(release.of.node) || epoch > release.of.epoch)
            {
                continue;
            }
            row.owner = None;
            if row.state == State::Active {
                (row.state, row.due) = (State::Waiting, Some(now.0));
                released.active += 1;
            }
            let suspected = match &release.suspects {
                Suspects::None => continue,
                Suspects::All => true,
                Suspects::Only(attempted) => attempted.contains(id),
            };
            if !suspected {
                row.crashes = 0;
            } else if row.state == State::Waiting {
                row.crashes += 1;
                if u32::try_from(row.crashes).unwrap_or(0) >= max {
                    (row.state, row.due, row.reason) = (State::Held, None, Some(reason.clone()));
                    let kind = EventKind::Held { by: "posthouse".into(), reason: reason.clone() };
                    events.push(Event { at: now, message: id.message, kind });
                    released.held.push(*id);
                }
            }
        }
        (released, events)
    }

    /// Takes back what was committed after its sender had been told that it was not.
    fn withdraw(&mut self, ids: &[DeliveryId]) -> Vec<Event> {
        let mut events = Vec::new();
        for id in ids {
            let recipients = self.still_pending(*id);
            let Some(slot) = self.slots.get_mut(id) else { continue };
            if slot.now.take().is_some() {
                let by = "posthouse: its sender was told to try again".to_owned();
                let kind = EventKind::Removed { by, recipients };
                events.push(Event { at: self.now, message: id.message, kind });
            }
        }
        events
    }

    /// Notes what has changed in the sums.
    pub(crate) fn sum(&mut self) {
        let standing = |row: &Row| (row.queue, row.state, row.due);
        for slot in self.slots.values() {
            let (from, to) = (standing(&slot.before), slot.now.as_ref().map(standing));
            if Some(from) != to {
                self.effects.moved(Some(from), to);
            }
        }
    }
}

fn set_status(
    slot: &mut Slot,
    statuses: &mut BTreeMap<(DeliveryId, i32), Status>,
    id: DeliveryId,
    n: i32,
    status: &RecipientStatus,
) {
    let encoded = codec::status_outcome(status).map(|outcome| {
        let mut blob = Vec::new();
        codec::encode(outcome, &mut blob);
        blob
    });
    let code = i32::from(codec::status_code(status));
    match (slot.only, slot.now.as_mut()) {
        (Some(only), Some(row)) if only == n => (row.status, row.outcome) = (code, Some(encoded)),
        (None, _) => {
            statuses.insert((id, n), (code, encoded));
        }
        _ => {}
    }
}

/// The messages that a task admits if their keys are free, given what has happened to it.
pub(crate) fn wanted<'a>(task: &'a Task, outcome: &Outcome) -> &'a [Admission] {
    match (task, outcome) {
        (Task::Admit(admission), _) => std::slice::from_ref(admission),
        (Task::Settle(settlement), Outcome::Settled(met, _)) if met.found => &settlement.reports,
        _ => &[],
    }
}

/// The placements of a task's messages, in the order of [`wanted`].
pub(crate) fn placements(outcome: &mut Outcome) -> &mut [Placement] {
    match outcome {
        Outcome::Admitted(placement) => std::slice::from_mut(placement),
        Outcome::Settled(_, placements) => placements,
        _ => &mut [],
    }
}

/// The events of a task, in the order in which they are told.
pub(crate) fn events<'a>(task: &'a Task, outcome: &'a Outcome) -> Vec<&'a Event> {
    match (task, outcome) {
        (Task::Admit(admission), Outcome::Admitted(Placement::Stored)) => admission.events.iter().collect(),
        (Task::Settle(settlement), Outcome::Settled(met, placements)) => {
            let reports = settlement.reports.iter().zip(placements).filter(|(_, p)| **p == Placement::Stored);
            let of_reports = reports.flat_map(|(report, _)| &report.events);
            of_reports.chain(settlement.events.iter().filter(|event| is_told(event, *met))).collect()
        }
        (_, Outcome::Changed(_, events) | Outcome::Told(events) | Outcome::Released(_, events)) => {
            events.iter().collect()
        }
        _ => Vec::new(),
    }
}

/// A text as PostgreSQL takes it: without the octet 0.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The raw columns of a queue.
pub(crate) fn queue_columns(queue: &QueueKey) -> (i64, i32, String) {
    let OrgId(org) = queue.org;
    (org, i32::from(codec::stream_code(queue.stream)), queue.destination.to_string())
}
