//! What the writer remembers of messages that it has just admitted, the usual ones: one delivery, active, one recipient.
//! Most of them are delivered at the first attempt, and then their rows go without being looked at again.

use std::collections::HashMap;

use mail::{DeliveryId, MessageId};

use super::write::Queues;
use crate::content::ContentRef;
use crate::model::{Admission, NewState};

/// So many are remembered; of the rest the rows are looked at.
const MAX: usize = 50_000;

/// The rows of a message as they were admitted and still are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// The number of its queue.
    pub(crate) queue: i64,
    pub(crate) content: ContentRef,
}

/// Messages whose rows nothing has touched since they were committed.
#[derive(Debug, Default)]
pub(crate) struct Fresh(HashMap<MessageId, Rows>);

impl Fresh {
    /// Remembers what a commit has admitted, if it is one of the usual kind.
    pub(crate) fn remember(&mut self, admission: &Admission, content: ContentRef, queues: &Queues) {
        let [delivery] = admission.deliveries.as_slice() else { return };
        if delivery.state != NewState::Active || delivery.recipients.len() != 1 || self.0.len() >= MAX {
            return;
        }
        if let Some(queue) = queues.known(&delivery.queue) {
            self.0.insert(admission.message.id, Rows { queue, content });
        }
    }

    /// What is known of a delivery that is about to go.
    pub(crate) fn take(&mut self, id: DeliveryId) -> Option<Rows> {
        // There is but the first delivery of these messages.
        if id.index == 0 { self.0.remove(&id.message) } else { None }
    }

    /// The rows of a delivery change: from now on they are looked at.
    pub(crate) fn forget(&mut self, id: DeliveryId) {
        self.0.remove(&id.message);
    }

    pub(crate) fn forget_message(&mut self, id: MessageId) {
        self.0.remove(&id);
    }

    /// A transaction failed: what it had taken is not known any more, and nothing else needs to be.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
