//! Rows as they are stored, to be carried from one engine to the other.

use mail::MessageId;
use serde::{Deserialize, Serialize};

use crate::record;

/// A row of the history, the same for both engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The day that it is kept with, in days since 1970: it goes when this day is over for as long as history is kept.
    pub day: i32,
    /// The message that it tells of.
    pub message: MessageId,
    /// What is stored.
    pub raw: Raw,
}

/// What a row holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Raw {
    /// How the message was accepted, and the attempts that delivered it.
    Message {
        /// Of a version that it begins with.
        body: Vec<u8>,
    },
    /// Something else that became of it.
    Event {
        /// Its number in the outbox that it came from; that outbox's node is in the upper 16 bits.
        number: u64,
        /// Of a version that it begins with.
        body: Vec<u8>,
        /// The dialogue, compressed.
        transcript: Option<Vec<u8>>,
    },
}

/// Where an export stands: behind everything of this day about messages up to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// In days since 1970.
    pub day: i32,
    /// The message.
    pub message: MessageId,
}

impl Record {
    /// What to ask [`export`](crate::History::export) for after this one, when it is the last of a page.
    pub fn mark(&self) -> Mark {
        Mark { day: self.day, message: self.message }
    }
}

/// The rows of a message of one day, in their order: one that tells how it was accepted, and each of the others once. A
/// second one that tells of it (the outbox was restored from a backup and told again, into another file) gives the attempts
/// in it.
pub(crate) fn gather(day: i32, message: MessageId, mut rows: Vec<Raw>) -> Vec<Record> {
    rows.sort_unstable();
    rows.dedup();
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        match (&row, all.first()) {
            (Raw::Message { body }, Some(Raw::Message { body: first })) => {
                let known = record::read_row(first).map(|r| r.folded).unwrap_or_default();
                let folded = record::read_row(body).map(|r| r.folded).unwrap_or_default();
                let more = folded.into_iter().filter(|(_, event)| known.iter().all(|(_, k)| k != event));
                all.extend(more.filter_map(|(number, mut event)| {
                    let (body, transcript) = record::write_event(&mut event).ok()?;
                    Some(Raw::Event { number, body, transcript })
                }));
            }
            _ => all.push(row),
        }
    }
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|raw| Record { day, message, raw }).collect()
}
