//! What admissions and settlements mean, whichever engine does them.

use mail::{DeliveryId, Event, EventKind, State};

use crate::content::ContentRef;
use crate::error::StoreError;
use crate::model::{Admission, NewState, Next, PendingRecipient, Settled, Settlement, Waiting};

/// Whom to tell of a settlement. Told once, whatever happens: dropped untold it says that the store has stopped.
pub(crate) struct Done(Option<DoneFn>);
pub(crate) type DoneFn = Box<dyn FnOnce(Result<Settled, StoreError>) + Send>;

impl Done {
    pub(crate) fn new(done: DoneFn) -> Self {
        Self(Some(done))
    }

    pub(crate) fn tell(mut self, result: Result<Settled, StoreError>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(StoreError::Closed));
        }
    }
}

/// What a settlement met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) found: bool,
    pub(crate) state: Option<State>,
    /// It had been quarantined before, and that was told.
    pub(crate) was_quarantined: bool,
}

/// Why an admission cannot be stored.
pub(crate) fn nonsense(admission: &Admission) -> Option<String> {
    if admission.content.message != admission.message.id {
        return Some(format!(
            "the content was received for message {}, not for {}",
            admission.content.message, admission.message.id
        ));
    }
    (admission.deliveries.len() > usize::from(u16::MAX)).then(|| "more than 65535 deliveries".into())
}

/// The state, due time and reason that a delivery begins with.
pub(crate) fn begins(state: &NewState) -> (State, Option<i64>, Option<&str>) {
    match state {
        NewState::Active => (State::Active, None, None),
        NewState::Waiting { due } => (State::Waiting, Some(due.0), None),
        NewState::Held { reason } => (State::Held, None, Some(reason.as_str())),
        NewState::Sandboxed => (State::Sandboxed, None, None),
    }
}

/// The state, due time and reason of a delivery after an attempt that leaves it in the queue; the reason counts when the
/// state is another than before.
pub(crate) fn after(next: &Next, was: State) -> (State, Option<i64>, Option<&str>) {
    let free = matches!(was, State::Active | State::Waiting);
    // An operator's hold made while the attempt went on stays.
    match next {
        Next::Deferred { due, .. } | Next::Parked { due } if free => (State::Waiting, Some(due.0), None),
        Next::Held { reason } if free => (State::Held, None, Some(reason.as_str())),
        Next::Quarantined { reason } => (State::Quarantined, None, Some(reason.as_str())),
        Next::Sandboxed if free => (State::Sandboxed, None, None),
        _ => (was, None, None),
    }
}

/// Whether an event of a settlement is told. When an operator has removed the delivery meanwhile, the attempt took place all
/// the same, but the report does not. Damage is told once.
pub(crate) fn is_told(event: &Event, met: Met) -> bool {
    match event.kind {
        EventKind::Reported { .. } => met.found,
        EventKind::Damaged { .. } => !met.was_quarantined,
        _ => true,
    }
}

/// What is handed back for an admission that is on stable storage, its content at `at`.
pub(crate) fn handed_back(admission: Admission, at: ContentRef) -> Vec<Waiting> {
    let id = admission.message.id;
    let message = std::sync::Arc::new(admission.message);
    let content = admission.content.into_content();
    let waiting = (0..).zip(admission.deliveries).map(|(index, delivery)| {
        let (state, due, reason) = match delivery.state {
            NewState::Active => (State::Active, None, None),
            NewState::Waiting { due } => (State::Waiting, Some(due), None),
            NewState::Held { reason } => (State::Held, None, Some(reason)),
            NewState::Sandboxed => (State::Sandboxed, None, None),
        };
        let recipients = delivery.recipients.into_iter();
        Waiting {
            id: DeliveryId { message: id, index },
            queue: delivery.queue,
            message: message.clone(),
            content: at,
            body: Some(content.clone()),
            recipients: recipients
                .map(|(number, recipient)| PendingRecipient { number, recipient, last: None })
                .collect(),
            attempts: 0,
            due,
            crashes: 0,
            warned: false,
            state,
            reason,
        }
    });
    waiting.collect()
}

/// A settlement that puts a delivery back untouched, due at once.
pub(crate) fn put_back(id: DeliveryId, now: mail::Timestamp) -> Settlement {
    Settlement {
        delivery: id,
        recipients: Vec::new(),
        next: Next::Parked { due: now },
        warned: false,
        reports: Vec::new(),
        events: Vec::new(),
    }
}
