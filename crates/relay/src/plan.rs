//! Where a message goes: its recipients, each with its destination, grouped into deliveries. The live pipeline calls
//! this, and so does `explain`, which therefore cannot say anything else than what would happen.

use std::collections::HashMap;
use std::sync::Arc;

use directory::{Route, Snapshot};
use mail::{Address, Destination, OrgId, QueueKey, Recipient, Stream};

/// What is known of a message when its way is planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planning<'a> {
    /// Whose mail it is.
    pub(crate) org: OrgId,
    /// What kind of mail.
    pub(crate) stream: Stream,
    /// The envelope's sender; none is the null sender.
    pub(crate) sender: Option<&'a Address>,
}

/// Recipients of one message that go the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The queue they wait in.
    pub(crate) queue: QueueKey,
    /// The recipients with their numbers within the message.
    pub(crate) recipients: Vec<(u16, Recipient)>,
}

/// Groups the recipients of a message by destination, in the order in which destinations first appear.
pub(crate) fn plan(directory: &Snapshot, ask: Planning<'_>, recipients: &[Recipient]) -> Vec<Planned> {
    let mut planned: Vec<Planned> = Vec::with_capacity(1);
    let mut by_destination: HashMap<Destination, usize> = HashMap::new();
    for (number, recipient) in recipients.iter().enumerate() {
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        let destination = way(directory, ask.sender, &recipient.address).0;
        // Most messages have one destination: look at the last one before hashing.
        let last = planned.last().filter(|p| p.queue.destination == destination).map(|_| planned.len() - 1);
        let at = last.unwrap_or_else(|| {
            *by_destination.entry(destination.clone()).or_insert_with(|| {
                let queue = QueueKey { org: ask.org, stream: ask.stream, destination };
                planned.push(Planned { queue, recipients: Vec::new() });
                planned.len() - 1
            })
        });
        planned[at].recipients.push((number, recipient.clone()));
    }
    planned
}

/// Where mail from `sender` to `recipient` goes, and the route that says so; without a route, the mail exchangers of the
/// recipient's domain. A Maildir's template is filled in at delivery, so that all mailboxes share a queue.
pub(crate) fn way<'a>(
    directory: &'a Snapshot,
    sender: Option<&Address>,
    recipient: &Address,
) -> (Destination, Option<&'a Arc<Route>>) {
    directory.route(sender, recipient)
}
