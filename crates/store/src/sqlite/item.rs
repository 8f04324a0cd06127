//! One operation of a group on its way through the writer.

use mail::{DeliveryId, Event, MessageId};

use super::Shared;
use super::compact::Move;
use super::inbox::{Answer, Op};
use super::write::{Tidy, Tx};
use crate::content::{ContentRef, Place};
use crate::error::StoreError;
use crate::filter::{Action, ChangedDelivery};
use crate::model::{Admission, Admitted, Settled, Settlement};
use crate::settle::{Done, Met, handed_back, is_told, nonsense};

/// What is known of a new message on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Placement {
    /// Where its content is on stable storage.
    pub(crate) at: Option<ContentRef>,
    /// Its dedupe key belongs to this message: it is not admitted, and its content is dead from the start.
    pub(crate) duplicate_of: Option<MessageId>,
}

pub(crate) enum Item {
    Admit { admission: Box<Admission>, placement: Placement, answer: Answer<Admitted> },
    Settle { settlement: Box<Settlement>, placements: Vec<Placement>, done: Done },
    Change { ids: Vec<DeliveryId>, action: Action, by: String, answer: Answer<Vec<ChangedDelivery>> },
    Quarantine { message: MessageId, reason: String, answer: Answer<()> },
    Claim { ids: Vec<DeliveryId>, answer: Answer<()> },
    Relocate { moves: Vec<Move>, answer: Answer<()> },
    Tidy { step: Tidy, answer: Answer<()> },
}

/// What happened to an item inside the transaction.
pub(crate) enum Outcome {
    Nothing,
    Met(Met),
    Told(Option<Event>),
    Changed(Vec<ChangedDelivery>, Vec<Event>),
}

impl Item {
    /// None when it has been withdrawn.
    pub(crate) fn new(op: Op) -> Option<Self> {
        Some(match op {
            Op::Admit { answer, .. } if answer.is_closed() => return None,
            Op::Admit { admission, answer } => {
                if let Some(reason) = nonsense(&admission) {
                    // Whoever asked may be gone.
                    let _ = answer.send(Err(StoreError::Invalid(reason)));
                    return None;
                }
                Item::Admit { admission, placement: Placement::default(), answer }
            }
            Op::Settle { settlement, done } => {
                if let Some(reason) = settlement.reports.iter().find_map(nonsense) {
                    done.tell(Err(StoreError::Invalid(reason)));
                    return None;
                }
                let placements = vec![Placement::default(); settlement.reports.len()];
                Item::Settle { settlement, placements, done }
            }
            Op::Change { ids, action, by, answer } => Item::Change { ids, action, by, answer },
            Op::Quarantine { message, reason, answer } => Item::Quarantine { message, reason, answer },
            Op::Claim { ids, answer } => Item::Claim { ids, answer },
            Op::Relocate { moves, answer } => Item::Relocate { moves, answer },
            Op::Tidy { step, answer } => Item::Tidy { step, answer },
        })
    }

    /// The messages it brings along, and where their content is to be noted.
    pub(crate) fn admissions(&mut self) -> Vec<(&Admission, &mut Placement)> {
        match self {
            Item::Admit { admission, placement, .. } => vec![(&**admission, placement)],
            Item::Settle { settlement, placements, .. } => {
                settlement.reports.iter().zip(placements.iter_mut()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether nobody waits for it any more, and it is as well not done.
    pub(crate) fn is_withdrawn(&self) -> bool {
        matches!(self, Item::Admit { answer, .. } if answer.is_closed())
    }

    /// Whether it is kept for later when the disk is full, rather than refused.
    pub(crate) fn must_happen(&self) -> bool {
        matches!(self, Item::Settle { .. })
    }

    pub(crate) fn execute(&self, tx: &mut Tx<'_>, run: i64) -> rusqlite::Result<Outcome> {
        Ok(match self {
            Item::Admit { admission, placement, .. } => {
                if let Some(at) = placement.admitted() {
                    tx.admit(admission, at)?;
                }
                Outcome::Nothing
            }
            Item::Settle { settlement, placements, .. } => {
                let reports: Vec<_> = placements.iter().map(Placement::admitted).collect();
                Outcome::Met(tx.settle(settlement, &reports)?)
            }
            Item::Change { ids, action, by, .. } => {
                let (changed, events) = tx.change(ids, action, by)?;
                Outcome::Changed(changed, events)
            }
            Item::Quarantine { message, reason, .. } => Outcome::Told(tx.quarantine(*message, reason)?),
            Item::Claim { ids, .. } => {
                tx.claim(ids, run)?;
                Outcome::Nothing
            }
            Item::Relocate { moves, .. } => {
                tx.relocate(moves)?;
                Outcome::Nothing
            }
            Item::Tidy { step, .. } => {
                tx.tidy(step)?;
                Outcome::Nothing
            }
        })
    }

    /// The events that were put into the outbox for it, in that order.
    pub(crate) fn events(&mut self, outcome: &mut Outcome) -> Vec<Event> {
        match (self, outcome) {
            (Item::Admit { admission, placement, .. }, _) if placement.admitted().is_some() => {
                std::mem::take(&mut admission.events)
            }
            (Item::Settle { settlement, placements, .. }, Outcome::Met(met)) => {
                let mut events = Vec::new();
                if met.found {
                    let reports = settlement.reports.iter_mut().zip(placements);
                    for (report, _) in reports.filter(|(_, p)| p.admitted().is_some()) {
                        events.append(&mut report.events);
                    }
                }
                let own = std::mem::take(&mut settlement.events);
                events.extend(own.into_iter().filter(|event| is_told(event, *met)));
                events
            }
            (_, Outcome::Told(event)) => event.take().into_iter().collect(),
            (_, Outcome::Changed(_, events)) => std::mem::take(events),
            _ => Vec::new(),
        }
    }

    /// Tells whoever asked that it is on stable storage.
    pub(crate) fn answer(self, outcome: Outcome, shared: &Shared) {
        match (self, outcome) {
            (Item::Admit { admission, placement, answer }, _) => {
                let admitted = admitted(*admission, placement);
                if let Err(Ok(Admitted::New(waiting))) = answer.send(Ok(admitted)) {
                    shared.adopt(waiting);
                }
            }
            (Item::Settle { settlement, placements, done }, Outcome::Met(met)) => {
                let reports = settlement.reports.into_iter().zip(placements);
                let reports =
                    if met.found { reports.map(|(r, p)| admitted(r, p)).collect() } else { Vec::new() };
                done.tell(Ok(Settled { reports, found: met.found, state: met.state }));
            }
            // Those who ask for the rest may have gone away: it is done all the same.
            (Item::Change { answer, .. }, Outcome::Changed(changed, _)) => drop(answer.send(Ok(changed))),
            (
                Item::Quarantine { answer, .. }
                | Item::Claim { answer, .. }
                | Item::Relocate { answer, .. }
                | Item::Tidy { answer, .. },
                _,
            ) => drop(answer.send(Ok(()))),
            _ => {}
        }
    }

    /// Tells whoever asked that it did not happen.
    pub(crate) fn refuse(self, error: &StoreError) {
        let error = error.clone();
        match self {
            Item::Admit { admission, answer, .. } => {
                keep_if_unknown(&admission, &error);
                drop(answer.send(Err(error)));
            }
            Item::Settle { settlement, done, .. } => {
                settlement.reports.iter().for_each(|report| keep_if_unknown(report, &error));
                done.tell(Err(error));
            }
            Item::Change { answer, .. } => drop(answer.send(Err(error))),
            Item::Quarantine { answer, .. }
            | Item::Claim { answer, .. }
            | Item::Relocate { answer, .. }
            | Item::Tidy { answer, .. } => {
                drop(answer.send(Err(error)));
            }
        }
    }
}

impl Placement {
    /// Where the content of a message is that is admitted.
    pub(crate) fn admitted(&self) -> Option<ContentRef> {
        if self.duplicate_of.is_none() { self.at } else { None }
    }
}

/// After a commit that failed nobody knows how, the row may be there: its file must be, too.
fn keep_if_unknown(admission: &Admission, error: &StoreError) {
    if let (Place::File(own), StoreError::Failed(_)) = (&admission.content.place, error) {
        own.keep();
    }
}

/// What is handed back for an admission that is on stable storage.
fn admitted(admission: Admission, placement: Placement) -> Admitted {
    if let Some(of) = placement.duplicate_of {
        return Admitted::Duplicate(of);
    }
    let Some(at) = placement.at else { return Admitted::New(Vec::new()) };
    if let Place::File(own) = &admission.content.place
        && !admission.deliveries.is_empty()
    {
        own.keep();
    }
    Admitted::New(handed_back(admission, at))
}
