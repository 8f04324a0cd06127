//! Which deliveries an operator means, and what shall happen to them.

use std::sync::Arc;

use mail::{
    DeliveryId, Destination, Message, MessageId, OrgId, QueueKey, Recipient, RecipientStatus, State, Stream,
    Timestamp,
};
use serde::{Deserialize, Serialize};

/// Which deliveries: all that is given must match; an empty filter matches everything.
///
/// Addresses may be written as `user@example.com`, `*@example.com`, `@example.com`, `example.com`, or with `*` for any
/// run of characters; case does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueFilter {
    /// Whose mail.
    pub org: Option<OrgId>,
    /// What kind.
    pub stream: Option<Stream>,
    /// Where it goes.
    pub destination: Option<Destination>,
    /// Where it goes: any of these, as those of a site; empty means any.
    pub destinations: Vec<Destination>,
    /// The domain of a recipient that is not final, or of the queue (`mx:DOMAIN`).
    pub domain: Option<String>,
    /// The envelope's sender; `<>` is the null sender.
    pub from: Option<String>,
    /// A recipient.
    pub to: Option<String>,
    /// The login that it was sent with.
    pub credential: Option<String>,
    /// Any of these states; empty means any.
    pub states: Vec<State>,
    /// Words in the reason it is held for, or in the last reply of a recipient.
    pub reason: Option<String>,
    /// Accepted before.
    pub before: Option<Timestamp>,
    /// These messages; empty means any.
    pub messages: Vec<MessageId>,
    /// These deliveries; empty means any.
    pub deliveries: Vec<DeliveryId>,
}

/// What shall happen to deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Active and waiting ones are held.
    Hold {
        /// Why.
        reason: String,
    },
    /// Held and quarantined ones wait again, due at once.
    Release,
    /// Waiting ones are due at once.
    Retry,
    /// They go to another queue, due at once; held and quarantined ones stay what they are, sandboxed ones are sent.
    Reroute {
        /// Where to.
        to: Destination,
    },
    /// They go, and are on record.
    Remove,
}

/// A delivery that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedDelivery {
    /// Which.
    pub id: DeliveryId,
    /// The queue it was in.
    pub queue: QueueKey,
    /// The queue it is in now; none when it was removed.
    pub now_in: Option<QueueKey>,
    /// The state it was in.
    pub was: State,
    /// The state it is in now; none when it was removed.
    pub state: Option<State>,
    /// The node that has it in hand, where that is another than the one that changed it: whether it is being attempted
    /// is known there alone, and told to that node within a second or so. Never in an embedded store.
    pub elsewhere: Option<u16>,
}

/// What a change did, or would do when it was a dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// How many.
    pub count: u64,
    /// How many of them another node has in hand: of these it is not known here whether they are being attempted.
    pub elsewhere: u64,
    /// Each of them, in order of their ids.
    pub changed: Vec<ChangedDelivery>,
}

/// A delivery as a listing shows it.
#[derive(Clone, Debug)]
pub struct QueueEntry {
    /// Its name.
    pub id: DeliveryId,
    /// Where it waits.
    pub queue: QueueKey,
    /// The message.
    pub message: Arc<Message>,
    /// Its state.
    pub state: State,
    /// Why it is held or quarantined.
    pub reason: Option<String>,
    /// When it is due; none unless it is waiting.
    pub due: Option<Timestamp>,
    /// Attempts so far.
    pub attempts: u32,
    /// Unclean stops in a row in which it was active.
    pub crashes: u32,
    /// The node of the cluster that has it in hand.
    pub node: Option<u16>,
    /// All its recipients, final ones too.
    pub recipients: Vec<(u16, Recipient, RecipientStatus)>,
}

/// Whether an outcome says these words, which are in small letters.
pub(crate) fn says(outcome: &mail::Outcome, words: &str) -> bool {
    outcome.text.to_lowercase().contains(words)
        || format!("{} {}", outcome.code.unwrap_or(0), outcome.status).contains(words)
}

/// What a user typed for an address, as a LIKE pattern.
pub(crate) fn pattern(typed: &str) -> String {
    let typed = typed.trim();
    match typed {
        "<>" => String::new(),
        _ if typed.contains('*') => like(typed).replace('*', "%"),
        _ if typed.starts_with('@') => format!("%{}", like(typed)),
        _ if typed.contains('@') => like(typed),
        _ => format!("%@{}", like(typed)),
    }
}

/// A text with LIKE's own signs made harmless.
pub(crate) fn like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (typed, expected) in [
            ("a@b.example", "a@b.example"),
            ("*@b.example", "%@b.example"),
            ("@b.example", "%@b.example"),
            ("b.example", "%@b.example"),
            ("<>", ""),
            ("50%_off@b.example", "50\\%\\_off@b.example"),
            ("news*@b.example", "news%@b.example"),
        ] {
            assert_eq!(pattern(typed), expected);
        }
    }
}
