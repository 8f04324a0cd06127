//! What an operator's action means for a delivery, whichever engine has it.

use mail::{Destination, EventKind, QueueKey, State};

use crate::filter::{Action, ChangedDelivery, QueueEntry};

/// What an action does to a delivery in a state: the state it gets, or none when it does nothing.
pub(crate) fn outcome(action: &Action, was: State, queue: &QueueKey) -> Option<Option<State>> {
    use State::{Active, Held, Quarantined, Sandboxed, Waiting};
    match (action, was) {
        (Action::Remove, _) => Some(None),
        (Action::Hold { .. }, Active | Waiting) => Some(Some(Held)),
        (Action::Release, Held | Quarantined) => Some(Some(Waiting)),
        (Action::Retry, Waiting) => Some(Some(Waiting)),
        (Action::Reroute { to }, _) if queue.destination == *to => None,
        (Action::Reroute { .. }, Held | Quarantined) => Some(Some(was)),
        (Action::Reroute { to }, _) if *to == Destination::Sandbox => Some(Some(Sandboxed)),
        (Action::Reroute { .. }, _) => Some(Some(Waiting)),
        _ => None,
    }
}

/// The queue a delivery is in after an action.
pub(crate) fn queue_after(action: &Action, queue: &QueueKey) -> QueueKey {
    match action {
        Action::Reroute { to } => QueueKey { destination: to.clone(), ..queue.clone() },
        _ => queue.clone(),
    }
}

/// The event of an action that leaves the delivery in the queue.
pub(crate) fn told(action: &Action, by: String) -> EventKind {
    match action {
        Action::Hold { reason } => EventKind::Held { by, reason: reason.clone() },
        Action::Release => EventKind::Released { by },
        Action::Retry => EventKind::Retried { by },
        Action::Reroute { to } => EventKind::Rerouted { by, to: to.clone() },
        Action::Remove => EventKind::Removed { by, recipients: Vec::new() },
    }
}

/// What a change would do, for a dry run. `elsewhere` is whoever has it, this node as well.
pub(crate) fn would_change(entries: Vec<QueueEntry>, action: &Action) -> Vec<ChangedDelivery> {
    let entries = entries.into_iter();
    entries
        .filter_map(|entry| {
            let state = outcome(action, entry.state, &entry.queue)?;
            let now_in = state.map(|_| queue_after(action, &entry.queue));
            Some(ChangedDelivery {
                id: entry.id,
                queue: entry.queue,
                now_in,
                was: entry.state,
                state,
                elsewhere: entry.node,
            })
        })
        .collect()
}
