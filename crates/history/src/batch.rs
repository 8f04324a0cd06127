//! A batch of events on its way into either engine: which rows it makes, and what it adds to rows that are there.

use std::collections::HashMap;

use mail::{Event, EventKind, MessageId, Timestamp};

use crate::key::{self, Entry};
use crate::record;

/// What is written for a batch.
#[derive(Default)]
pub(crate) struct Batch {
    /// Rows of messages that it accepts.
    pub(crate) rows: Vec<NewRow>,
    /// What belongs into rows that are there already, if they are.
    pub(crate) loose: Vec<Loose>,
    /// Events with rows of their own.
    pub(crate) events: Vec<EventRow>,
    /// The keys of the new messages.
    pub(crate) entries: Vec<Entry>,
    /// The earliest and the latest acceptance.
    pub(crate) accepted: Option<(Timestamp, Timestamp)>,
}

/// The row of a new message.
pub(crate) struct NewRow {
    pub(crate) id: MessageId,
    /// Recipients whose delivery is not in the row.
    pub(crate) open: i32,
    pub(crate) body: Vec<u8>,
    folds: Vec<Fold>,
}

/// An attempt in a message's row: where it begins, where behind its number it begins, and how many it delivered to.
struct Fold {
    start: usize,
    told: usize,
    recipients: i32,
}

/// An attempt for the row of a message that an earlier batch accepted.
pub(crate) struct Loose {
    pub(crate) id: MessageId,
    /// What is added to the row,
    pub(crate) tail: Vec<u8>,
    /// and from where in it on it is looked whether the row tells of it already: behind the number.
    pub(crate) told: usize,
    /// Its own row, in case there is no such message.
    pub(crate) event: EventRow,
}

/// An event's row.
pub(crate) struct EventRow {
    pub(crate) message: MessageId,
    pub(crate) number: u64,
    /// Recipients, when it is an attempt that delivered to all it tried.
    pub(crate) delivered: i32,
    pub(crate) body: Vec<u8>,
    pub(crate) transcript: Option<Vec<u8>>,
}

impl Loose {
    /// What the row has in it when it tells of this already.
    pub(crate) fn sign(&self) -> &[u8] {
        &self.tail[self.told..]
    }
}

impl NewRow {
    pub(crate) fn has_folds(&self) -> bool {
        !self.folds.is_empty()
    }

    /// What its row would be given if it were there already, as the outbox was restored from a backup and tells again.
    pub(crate) fn folds(&self) -> impl Iterator<Item = (&[u8], &[u8], i32)> {
        let ends = self.folds.iter().skip(1).map(|f| f.start).chain([self.body.len()]);
        self.folds
            .iter()
            .zip(ends)
            .map(|(fold, end)| (&self.body[fold.told..end], &self.body[fold.start..end], fold.recipients))
    }
}

impl Batch {
    /// Numbers are made from those of the outbox by `number`.
    pub(crate) fn new(
        events: Vec<(u64, Event)>,
        number: impl Fn(u64) -> u64,
    ) -> Result<Self, postcard::Error> {
        let mut batch = Self::default();
        let (mut by_id, mut folding) = (HashMap::new(), String::new());
        for (seq, event) in events {
            batch.take(number(seq), event, &mut by_id, &mut folding)?;
        }
        batch.rows.sort_unstable_by_key(|row| row.id);
        Ok(batch)
    }

    fn take(
        &mut self,
        number: u64,
        mut event: Event,
        by_id: &mut HashMap<MessageId, usize>,
        folding: &mut String,
    ) -> Result<(), postcard::Error> {
        let id = event.message;
        if let EventKind::Accepted(accepted) = &event.kind {
            let at = accepted.message.received_at;
            let (first, last) = self.accepted.unwrap_or((at, at));
            self.accepted = Some((first.min(at), last.max(at)));
            key::add_keys(accepted, &mut self.entries, folding);
            let mut body = Vec::with_capacity(512);
            record::begin_row(&mut body, number, event.at, accepted)?;
            by_id.insert(id, self.rows.len());
            self.rows.push(NewRow { id, open: count(accepted.recipients.len()), body, folds: Vec::new() });
            return Ok(());
        }
        let Some(attempt) = record::folds(&event.kind) else {
            self.events.push(row(number, 0, &mut event)?);
            return Ok(());
        };
        let recipients = count(attempt.outcomes.len());
        if let Some(row) = by_id.get(&id).map(|n| &mut self.rows[*n]) {
            let start = row.body.len();
            let told = record::fold(&mut row.body, number, event.at, attempt)?;
            row.open -= recipients;
            row.folds.push(Fold { start, told, recipients });
            return Ok(());
        }
        // Accepted in an earlier batch, most often the one before.
        let mut tail = Vec::with_capacity(256);
        let told = record::fold(&mut tail, number, event.at, attempt)?;
        self.loose.push(Loose { id, tail, told, event: row(number, recipients, &mut event)? });
        Ok(())
    }
}

fn row(number: u64, delivered: i32, event: &mut Event) -> Result<EventRow, postcard::Error> {
    let (body, transcript) = record::write_event(event)?;
    Ok(EventRow { message: event.message, number, delivered, body, transcript })
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
