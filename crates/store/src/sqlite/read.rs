//! Reading: pages of a queue, single deliveries, listings. Each on a connection of its own and in short transactions, so
//! that the write-ahead log can begin anew.

use std::sync::Arc;

use mail::{DeliveryId, MessageId, QueueKey, Timestamp};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row};

use super::write::{content_ref, find_queue};
use crate::codec;
use crate::content::ContentRef;
use crate::model::{PendingRecipient, Waiting};

type Result<T> = rusqlite::Result<T>;

/// So many connections are kept open.
const KEEP: usize = 4;

/// Connections that read.
#[derive(Debug, Default)]
pub(crate) struct Readers(Mutex<Vec<Connection>>);

impl Readers {
    pub(crate) fn take(&self) -> Option<Connection> {
        self.0.lock().pop()
    }

    pub(crate) fn give_back(&self, conn: Connection) {
        let mut idle = self.0.lock();
        if idle.len() < KEEP {
            idle.push(conn);
        }
    }

    pub(crate) fn close(&self) {
        self.0.lock().clear();
    }
}

/// What stands in a delivery's row and beside it.
const DELIVERY: &str =
    "SELECT d.message, d.idx, d.state, d.due, d.attempts, d.crashes, d.warned, d.reason, d.claimed,
    q.org, q.stream, q.destination, m.segment, m.offset, m.length, m.crc, m.detail, m.received_at, m.sender,
    d.n, d.address, d.detail, d.outcome, d.status
    FROM delivery d JOIN queue q ON q.id = d.queue JOIN message m ON m.id = d.message";

/// The deliveries of a queue that have been due longest, and whether each has been claimed by a run.
pub(crate) fn page(
    conn: &Connection,
    queue: &QueueKey,
    now: Timestamp,
    n: usize,
) -> Result<Vec<(Waiting, Option<i64>)>> {
    let tx = conn.unchecked_transaction()?;
    let Some(number) = find_queue(&tx, queue)? else { return Ok(Vec::new()) };
    let sql = format!(
        "{DELIVERY} WHERE d.queue = ?1 AND d.due IS NOT NULL AND d.due <= ?2
         ORDER BY d.due, d.message, d.idx LIMIT ?3"
    );
    let limit = i64::try_from(n).unwrap_or(i64::MAX);
    let mut select = tx.prepare_cached(&sql)?;
    let rows = select.query_map((number, now.0, limit), delivery)?;
    rows.map(|row| with_recipients(&tx, row?)).collect()
}

pub(crate) fn next_due(conn: &Connection, queue: &QueueKey, now: Timestamp) -> Result<Option<Timestamp>> {
    let tx = conn.unchecked_transaction()?;
    let Some(number) = find_queue(&tx, queue)? else { return Ok(None) };
    let sql = "SELECT min(due) FROM delivery WHERE queue = ?1 AND due IS NOT NULL AND due > ?2";
    let due: Option<i64> = tx.prepare_cached(sql)?.query_row((number, now.0), |row| row.get(0))?;
    Ok(due.map(Timestamp))
}

pub(crate) fn load(conn: &Connection, id: DeliveryId) -> Result<Option<Waiting>> {
    let tx = conn.unchecked_transaction()?;
    let sql = format!("{DELIVERY} WHERE d.message = ?1 AND d.idx = ?2");
    let found = tx.prepare_cached(&sql)?.query_row((codec::id(id.message), id.index), delivery).optional()?;
    Ok(found.map(|row| with_recipients(&tx, row)).transpose()?.map(|(waiting, _)| waiting))
}

/// A delivery as its row has it, and the run that claimed it. Its recipients are there if it has but one; false: they have
/// rows of their own.
fn delivery(row: &Row<'_>) -> Result<(Waiting, Option<i64>, bool)> {
    let id = codec::message_id(row.get(0)?);
    let only: Option<u16> = row.get(19)?;
    let recipients = match only {
        Some(number) if row.get::<_, u8>(23)? == 0 => vec![PendingRecipient {
            number,
            recipient: codec::recipient(row.get_ref(20)?.as_str()?, row.get_ref(21)?.as_blob_or_null()?)?,
            last: codec::outcome(row.get_ref(22)?.as_blob_or_null()?)?,
        }],
        _ => Vec::new(),
    };
    let columns = codec::Columns {
        id,
        received_at: Timestamp(row.get(17)?),
        sender: row.get_ref(18)?.as_str()?,
        length: row.get::<_, i64>(14)?.cast_unsigned(),
    };
    let waiting = Waiting {
        id: DeliveryId { message: id, index: row.get(1)? },
        queue: codec::queue_key(row.get(9)?, row.get(10)?, row.get_ref(11)?.as_str()?)?,
        message: Arc::new(codec::message(columns, row.get_ref(16)?.as_blob()?)?),
        content: content_ref(id, row, 12)?,
        body: None,
        recipients,
        attempts: row.get(4)?,
        due: row.get::<_, Option<i64>>(3)?.map(Timestamp),
        crashes: row.get(5)?,
        warned: row.get(6)?,
        state: codec::state(row.get(2)?)?,
        reason: row.get(7)?,
    };
    Ok((waiting, row.get(8)?, only.is_some()))
}

fn with_recipients(
    conn: &Connection,
    (mut waiting, claimed, there): (Waiting, Option<i64>, bool),
) -> Result<(Waiting, Option<i64>)> {
    if there {
        return Ok((waiting, claimed));
    }
    waiting.recipients = conn
        .prepare_cached(
            "SELECT n, address, detail, outcome FROM recipient
             WHERE message = ?1 AND delivery = ?2 AND status = 0 ORDER BY n",
        )?
        .query_map((codec::id(waiting.id.message), waiting.id.index), |row| {
            Ok(PendingRecipient {
                number: row.get(0)?,
                recipient: codec::recipient(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_blob_or_null()?)?,
                last: codec::outcome(row.get_ref(3)?.as_blob_or_null()?)?,
            })
        })?
        .collect::<Result<_>>()?;
    Ok((waiting, claimed))
}

/// Where the content of a message is now.
pub(crate) fn locate(conn: &Connection, message: MessageId) -> Result<Option<ContentRef>> {
    conn.prepare_cached("SELECT segment, offset, length, crc FROM message WHERE id = ?1")?
        .query_row([codec::id(message)], |row| content_ref(message, row, 0))
        .optional()
}

/// Content references in order of their ids, behind `after`.
pub(crate) fn contents(conn: &Connection, after: i64, n: i64) -> Result<Vec<ContentRef>> {
    conn.prepare_cached(
        "SELECT segment, offset, length, crc, id FROM message WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?
    .query_map((after, n), |row| content_ref(codec::message_id(row.get(4)?), row, 0))?
    .collect()
}
