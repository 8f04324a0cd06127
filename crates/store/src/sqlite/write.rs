//! The rows of a group: what an admission and a settlement do inside the writer's transaction.

use std::collections::{HashMap, HashSet};

use mail::{DeliveryId, Event, MessageId, QueueKey, RecipientStatus, State, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::fresh::Fresh;
use super::outbox::Pack;
use super::sums::{Effects, Standing};
use crate::codec;
use crate::content::ContentRef;
use crate::model::{Admission, Dedupe, NewDelivery, Next, Settlement};
use crate::settle::{Met, after, begins, is_told};

/// So many queues are remembered by number; the rest is looked up.
const QUEUES_MAX: usize = 10_000;

/// The numbers of queues seen lately.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    known: HashMap<QueueKey, i64>,
    /// While idle queues are looked for: those that were used meanwhile.
    used: Option<HashSet<i64>>,
}

/// A step of tidying up.
#[derive(Debug)]
pub(crate) enum Tidy {
    /// Begin to note which queues are used.
    Watch,
    /// Drop these queues, unless they were used since.
    Drop {
        /// Queues without a delivery.
        idle: Vec<i64>,
    },
    /// Drop expired dedupe keys, a thousand at most.
    Dedupe,
    /// Give so many free pages at the end of the file back, moving those that are not free.
    GiveBack {
        /// How many.
        pages: u64,
    },
}

/// The writer's transaction.
pub(crate) struct Tx<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) queues: &'a mut Queues,
    pub(crate) scratch: &'a mut Vec<u8>,
    pub(crate) fresh: &'a mut Fresh,
    pub(crate) pack: &'a mut Pack,
    pub(crate) effects: Effects,
    /// The last event number given.
    pub(crate) seq: u64,
    pub(crate) now: Timestamp,
}

type Result<T> = rusqlite::Result<T>;

impl Queues {
    pub(crate) fn clear(&mut self) {
        self.known.clear();
    }

    pub(crate) fn number(&mut self, conn: &Connection, queue: &QueueKey) -> Result<i64> {
        if let Some(number) = self.known.get(queue) {
            return Ok(*number);
        }
        let number = match find_queue(conn, queue)? {
            Some(number) => number,
            None => conn
                .prepare_cached("INSERT INTO queue (org, stream, destination) VALUES (?1, ?2, ?3)")?
                .insert(queue_columns(queue))?,
        };
        if self.known.len() >= QUEUES_MAX {
            self.known.clear();
        }
        self.known.insert(queue.clone(), number);
        if let Some(used) = &mut self.used {
            used.insert(number);
        }
        Ok(number)
    }

    /// The number of a queue that was used lately.
    pub(crate) fn known(&self, queue: &QueueKey) -> Option<i64> {
        self.known.get(queue).copied()
    }

    /// From now on notes which queues are used.
    fn watch(&mut self) {
        // Forgotten, each is looked up and so noted when it is used next.
        self.known.clear();
        self.used = Some(HashSet::new());
    }

    /// Of the queues that were idle before, those that still are.
    fn still_idle(&mut self, idle: &[i64]) -> Vec<i64> {
        self.known.clear();
        let used = self.used.take().unwrap_or_default();
        idle.iter().copied().filter(|number| !used.contains(number)).collect()
    }
}

/// The number of a queue that has had a delivery.
pub(crate) fn find_queue(conn: &Connection, queue: &QueueKey) -> Result<Option<i64>> {
    conn.prepare_cached("SELECT id FROM queue WHERE org = ?1 AND stream = ?2 AND destination = ?3")?
        .query_row(queue_columns(queue), |row| row.get(0))
        .optional()
}

fn queue_columns(queue: &QueueKey) -> (i64, u8, String) {
    (queue.org.0, codec::stream_code(queue.stream), queue.destination.to_string())
}

/// The message that holds a dedupe key.
pub(crate) fn holder(conn: &Connection, dedupe: &Dedupe, now: Timestamp) -> Result<Option<MessageId>> {
    conn.prepare_cached("SELECT message FROM dedupe WHERE org = ?1 AND key = ?2 AND expires > ?3")?
        .query_row((dedupe.org.0, &dedupe.key, now.0), |row| row.get(0).map(codec::message_id))
        .optional()
}

impl Tx<'_> {
    /// Writes the rows of a message whose content is at `at`, on stable storage.
    pub(crate) fn admit(&mut self, admission: &Admission, at: ContentRef) -> Result<()> {
        let message = codec::id(admission.message.id);
        if !admission.deliveries.is_empty() {
            let m = &admission.message;
            codec::message_detail(m, at.length, self.scratch);
            self.conn
                .prepare_cached(
                    "INSERT INTO message (id, received_at, sender, segment, offset, length, crc, detail)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    message,
                    m.received_at.0,
                    m.sender(),
                    at.segment.cast_signed(),
                    at.offset.cast_signed(),
                    at.length.cast_signed(),
                    at.crc,
                    &*self.scratch
                ])?;
            self.effects.added.push(at);
        }
        for (index, delivery) in (0..).zip(&admission.deliveries) {
            self.deliver(message, index, delivery)?;
        }
        if let Some(dedupe) = &admission.dedupe {
            self.conn
                .prepare_cached(
                    "INSERT INTO dedupe (org, key, expires, message) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET expires = ?3, message = ?4",
                )?
                .execute((dedupe.org.0, &dedupe.key, dedupe.expires.0, message))?;
            self.effects.dedupe = true;
        }
        for event in &admission.events {
            self.tell(event)?;
        }
        self.effects.admitted += 1;
        Ok(())
    }

    fn deliver(&mut self, message: i64, index: u16, delivery: &NewDelivery) -> Result<()> {
        let queue = self.queues.number(self.conn, &delivery.queue)?;
        let (state, due, reason) = begins(&delivery.state);
        let only = match delivery.recipients.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        let detail = only
            .and_then(|(_, recipient)| codec::recipient_detail(recipient, self.scratch))
            .map(|_| self.scratch.as_slice());
        self.conn
            .prepare_cached(
                "INSERT INTO delivery (message, idx, queue, state, due, reason, n, address, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                message,
                index,
                queue,
                codec::state_code(state),
                due,
                reason,
                only.map(|(n, _)| *n),
                only.map(|(_, recipient)| recipient.address.as_str()),
                detail
            ])?;
        if only.is_none() {
            self.recipients(message, index, delivery)?;
        }
        self.effects.moved(None, Some((queue, state, due)));
        Ok(())
    }

    /// Several recipients have rows of their own.
    fn recipients(&mut self, message: i64, index: u16, delivery: &NewDelivery) -> Result<()> {
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO recipient (message, delivery, n, address, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for (n, recipient) in &delivery.recipients {
            let detail = codec::recipient_detail(recipient, self.scratch).map(|_| self.scratch.as_slice());
            insert.execute((message, index, n, recipient.address.as_str(), detail))?;
        }
        Ok(())
    }

    /// Records what became of an attempt; `reports` are where the content of its reports is, none for those whose dedupe
    /// key is taken.
    pub(crate) fn settle(&mut self, settlement: &Settlement, reports: &[Option<ContentRef>]) -> Result<Met> {
        let met = match &settlement.next {
            Next::Done => Met { found: self.remove(settlement.delivery)?, ..Met::default() },
            next => self.change_state(settlement, next)?,
        };
        if met.found {
            for (report, at) in settlement.reports.iter().zip(reports) {
                if let Some(at) = at {
                    self.admit(report, *at)?;
                }
            }
        }
        for event in settlement.events.iter().filter(|e| is_told(e, met)) {
            self.tell(event)?;
        }
        self.effects.settled += 1;
        Ok(met)
    }

    /// Deletes a delivery, and its message with the last one. False when it was not there.
    ///
    /// Looking first and deleting then costs less than `RETURNING`, which makes a table for its answer each time.
    pub(crate) fn remove(&mut self, delivery: DeliveryId) -> Result<bool> {
        let (message, index) = (codec::id(delivery.message), delivery.index);
        if let Some(fresh) = self.fresh.take(delivery) {
            self.delete("DELETE FROM delivery WHERE message = ?1 AND idx = ?2", (message, index))?;
            self.delete("DELETE FROM message WHERE id = ?1", [message])?;
            self.effects.moved(Some((fresh.queue, State::Active, None)), None);
            self.effects.removed.push(fresh.content);
            return Ok(true);
        }
        let found = self
            .conn
            .prepare_cached(
                "SELECT queue, state, due, n IS NULL FROM delivery WHERE message = ?1 AND idx = ?2",
            )?
            .query_row((message, index), |row| {
                Ok(((row.get(0)?, codec::state(row.get(1)?)?, row.get(2)?), row.get::<_, bool>(3)?))
            })
            .optional()?;
        let Some((was, has_rows)) = found else { return Ok(false) };
        self.conn
            .prepare_cached("DELETE FROM delivery WHERE message = ?1 AND idx = ?2")?
            .execute((message, index))?;
        self.effects.moved(Some(was), None);
        if has_rows {
            self.conn
                .prepare_cached("DELETE FROM recipient WHERE message = ?1 AND delivery = ?2")?
                .execute((message, index))?;
        }
        let gone = self
            .conn
            .prepare_cached(
                "SELECT segment, offset, length, crc FROM message
                 WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE message = ?1)",
            )?
            .query_row([message], |row| content_ref(delivery.message, row, 0))
            .optional()?;
        if let Some(gone) = gone {
            self.conn.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([message])?;
            self.effects.removed.push(gone);
        }
        Ok(true)
    }

    /// Deletes a row that is there.
    fn delete(&self, sql: &str, key: impl rusqlite::Params) -> Result<()> {
        match self.conn.prepare_cached(sql)?.execute(key)? {
            1 => Ok(()),
            n => Err(rusqlite::Error::StatementChangedRows(n)),
        }
    }

    fn change_state(&mut self, settlement: &Settlement, next: &Next) -> Result<Met> {
        let id = settlement.delivery;
        self.fresh.forget(id);
        let Some((queue, was, was_due)) = self.standing(id)? else { return Ok(Met::default()) };
        for (n, status) in &settlement.recipients {
            self.set_status(id, *n, status)?;
        }
        let (state, due, reason) = after(next, was);
        let attempts = if let Next::Deferred { attempts, .. } = next { Some(*attempts) } else { None };
        self.conn
            .prepare_cached(
                "UPDATE delivery SET state = ?3, due = ?4, reason = iif(?3 = state, reason, ?5),
                   attempts = coalesce(?6, attempts), crashes = iif(?6 IS NULL, crashes, 0),
                   warned = max(warned, ?7), claimed = NULL
                 WHERE message = ?1 AND idx = ?2",
            )?
            .execute(params![
                codec::id(id.message),
                id.index,
                codec::state_code(state),
                due,
                reason,
                attempts,
                settlement.warned
            ])?;
        self.effects.moved(Some((queue, was, was_due)), Some((queue, state, due)));
        Ok(Met { found: true, state: Some(state), was_quarantined: was == State::Quarantined })
    }

    fn set_status(&mut self, id: DeliveryId, n: u16, status: &RecipientStatus) -> Result<()> {
        let outcome = codec::status_outcome(status).map(|outcome| {
            codec::encode(outcome, self.scratch);
            self.scratch.as_slice()
        });
        let changed = self
            .conn
            .prepare_cached(
                "UPDATE delivery SET status = ?4, outcome = ?5 WHERE message = ?1 AND idx = ?2 AND n = ?3",
            )?
            .execute((codec::id(id.message), id.index, n, codec::status_code(status), outcome))?;
        if changed == 1 {
            return Ok(());
        }
        self.conn
            .prepare_cached(
                "UPDATE recipient SET status = ?4, outcome = ?5 WHERE message = ?1 AND delivery = ?2 AND n = ?3",
            )?
            .execute((codec::id(id.message), id.index, n, codec::status_code(status), outcome))?;
        Ok(())
    }

    /// Drops what nobody needs any more: dedupe keys that have expired, queues that are idle.
    pub(crate) fn tidy(&mut self, step: &Tidy) -> Result<()> {
        match step {
            Tidy::Watch => self.queues.watch(),
            Tidy::Drop { idle } => {
                let mut delete = self.conn.prepare_cached("DELETE FROM queue WHERE id = ?1")?;
                for number in self.queues.still_idle(idle) {
                    delete.execute([number])?;
                }
            }
            Tidy::Dedupe => {
                self.conn
                    .prepare_cached(
                        "DELETE FROM dedupe WHERE (org, key) IN
                           (SELECT org, key FROM dedupe WHERE expires <= ?1 ORDER BY expires LIMIT 1000)",
                    )?
                    .execute([self.now.0])?;
            }
            Tidy::GiveBack { pages } => {
                // A row for each page.
                let mut shrink = self.conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
                let mut rows = shrink.query([])?;
                while rows.next()?.is_some() {}
            }
        }
        Ok(())
    }

    fn standing(&self, id: DeliveryId) -> Result<Option<Standing>> {
        self.conn
            .prepare_cached("SELECT queue, state, due FROM delivery WHERE message = ?1 AND idx = ?2")?
            .query_row((codec::id(id.message), id.index), |row| {
                Ok((row.get(0)?, codec::state(row.get(1)?)?, row.get(2)?))
            })
            .optional()
    }

    /// Puts an event into the outbox.
    pub(crate) fn tell(&mut self, event: &Event) -> Result<()> {
        self.seq += 1;
        self.pack.add(self.conn, self.seq, event, self.scratch)
    }
}

/// A content reference in the columns segment, offset, length, crc from column `first` on.
pub(crate) fn content_ref(message: MessageId, row: &rusqlite::Row<'_>, first: usize) -> Result<ContentRef> {
    Ok(ContentRef {
        message,
        segment: row.get::<_, i64>(first)?.cast_unsigned(),
        offset: row.get::<_, i64>(first + 1)?.cast_unsigned(),
        length: row.get::<_, i64>(first + 2)?.cast_unsigned(),
        crc: row.get(first + 3)?,
    })
}
