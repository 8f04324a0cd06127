//! Reading: single deliveries, what is due next, listings of queues.

use std::sync::Arc;

use mail::{DeliveryId, QueueKey, Timestamp};
use postgres::{PgError, Row, Session};

use super::load::keys;
use super::shared::Shared;
use super::work::queue_columns;
use super::write::content_ref;
use crate::codec;
use crate::error::StoreError;
use crate::model::{Horizon, PendingRecipient, QueueStats, Waiting};

type Result<T> = std::result::Result<T, PgError>;

/// What stands in a delivery's row and beside it.
pub(crate) const DELIVERY: &str =
    "SELECT d.message, d.idx, d.state, d.due, d.attempts, d.crashes, d.warned, d.reason, d.node, d.epoch,
    q.org, q.stream, q.destination, m.length, m.crc, m.detail, m.received_at, m.sender,
    d.n, d.address, d.detail, d.outcome, d.status, m.place
    FROM store.delivery d JOIN store.queue q ON q.id = d.queue JOIN store.message m ON m.id = d.message";

/// A delivery as its row has it.
pub(crate) struct Found {
    pub(crate) waiting: Waiting,
    /// Who has it in hand.
    pub(crate) owner: Option<i32>,
    /// Its recipients have rows of their own, which are not read yet.
    several: bool,
}

/// The number of a queue that has had a delivery.
pub(crate) async fn find_queue(
    shared: &Shared,
    queue: &QueueKey,
) -> std::result::Result<Option<i64>, StoreError> {
    let now = shared.clock.mono();
    if let Some(number) = shared.queues.number(queue, now) {
        return Ok(Some(number));
    }
    let columns = queue_columns(queue);
    let Some((number, used)) = shared.read(|session| find(session, columns.clone())).await? else {
        return Ok(None);
    };
    // Remembered only if its row is sure to be there for as long.
    if shared.clock.now().0.saturating_sub(used) < FRESH_MS {
        shared.queues.learn([(queue.clone(), number)], now);
    }
    Ok(Some(number))
}

/// A queue that was used so lately is not dropped while its number is remembered: that is a day after.
const FRESH_MS: i64 = 43_200_000;

async fn find(
    session: Session,
    (org, stream, destination): (i64, i32, String),
) -> Result<Option<(i64, i64)>> {
    let sql = "SELECT id, used FROM store.queue WHERE org = $1 AND stream = $2 AND destination = $3";
    let row = session.query_opt(sql, &[&org, &stream, &destination]).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// When the next delivery of a queue is due that is not due yet and that this node could have.
pub(crate) async fn next_due(
    session: Session,
    queue: i64,
    now: i64,
    (node, epoch): (i32, i64),
) -> Result<Option<Timestamp>> {
    let row = session
        .query_opt(
            "SELECT due FROM store.delivery WHERE queue = $1 AND due > $2
               AND (node IS NULL OR node = $3 AND epoch = $4) ORDER BY due LIMIT 1",
            &[&queue, &now, &node, &epoch],
        )
        .await?;
    row.map(|row| row.try_get(0).map(Timestamp).map_err(PgError::from)).transpose()
}

pub(crate) async fn load(session: Session, id: DeliveryId) -> Result<Option<Waiting>> {
    let sql = format!("{DELIVERY} WHERE d.message = $1 AND d.idx = $2");
    let row = session.query_opt(&sql, &[&codec::id(id.message), &i32::from(id.index)]).await?;
    let found = row.iter().map(delivery).collect::<Result<Vec<_>>>()?;
    Ok(with_recipients(&session, found).await?.pop())
}

/// A delivery as its row has it. Its recipient is there if it has but one.
pub(crate) fn delivery(row: &Row) -> Result<Found> {
    let id = codec::message_id(row.try_get(0)?);
    let only: Option<i32> = row.try_get(18)?;
    let recipients = match only {
        Some(n) if row.try_get::<_, i32>(22)? == 0 => vec![pending(n, row, 19)?],
        _ => Vec::new(),
    };
    let length = row.try_get::<_, i64>(13)?.cast_unsigned();
    let columns =
        codec::Columns { id, received_at: Timestamp(row.try_get(16)?), sender: row.try_get(17)?, length };
    let waiting = Waiting {
        id: DeliveryId { message: id, index: u16::try_from(row.try_get::<_, i32>(1)?).unwrap_or(u16::MAX) },
        queue: queue_key(row, 10)?,
        message: Arc::new(codec::message(columns, row.try_get(15)?)?),
        content: content_ref(id, row.try_get(23)?, length, crc(row.try_get(14)?)),
        body: None,
        recipients,
        attempts: count(row.try_get(4)?),
        due: row.try_get::<_, Option<i64>>(3)?.map(Timestamp),
        crashes: count(row.try_get(5)?),
        warned: row.try_get(6)?,
        state: state(row.try_get(2)?)?,
        reason: row.try_get(7)?,
    };
    Ok(Found { waiting, owner: row.try_get(8)?, several: only.is_none() })
}

/// A recipient in the columns address, detail, outcome from `first` on.
fn pending(n: i32, row: &Row, first: usize) -> Result<PendingRecipient> {
    Ok(PendingRecipient {
        number: u16::try_from(n).unwrap_or(u16::MAX),
        recipient: codec::recipient(row.try_get(first)?, row.try_get(first + 1)?)?,
        last: codec::outcome(row.try_get(first + 2)?)?,
    })
}

/// Adds the recipients that have rows of their own.
pub(crate) async fn with_recipients(session: &Session, mut found: Vec<Found>) -> Result<Vec<Waiting>> {
    let several: Vec<DeliveryId> = found.iter().filter(|f| f.several).map(|f| f.waiting.id).collect();
    if several.is_empty() {
        return Ok(found.into_iter().map(|f| f.waiting).collect());
    }
    let (messages, indices) = keys(several.iter());
    let rows = session
        .query(
            "SELECT k.place, r.n, r.address, r.detail, r.outcome
             FROM unnest($1::bigint[], $2::int[]) WITH ORDINALITY AS k(message, idx, place)
             JOIN store.recipient r ON r.message = k.message AND r.delivery = k.idx
             WHERE r.status = 0 ORDER BY k.place, r.n",
            &[&messages, &indices],
        )
        .await?;
    let mut several: Vec<&mut Found> = found.iter_mut().filter(|f| f.several).collect();
    for row in &rows {
        let place = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or(usize::MAX);
        if let Some(found) = several.get_mut(place) {
            found.waiting.recipients.push(pending(row.try_get(1)?, row, 2)?);
        }
    }
    Ok(found.into_iter().map(|f| f.waiting).collect())
}

/// The queues whose first delivery that this node could have is due behind `after`, about `n` of them, with their numbers.
/// A queue in which everything that is due is in the hands of others is due when the first that is not is, or is left out:
/// nobody shall page it again and again for nothing.
pub(crate) async fn horizon(
    session: Session,
    after: i64,
    n: usize,
    (node, epoch): (i32, i64),
) -> Result<(Horizon, Vec<i64>)> {
    let limit = i64::try_from(n.max(1)).unwrap_or(i64::MAX);
    // The time of the nth: all that share it belong to the answer, so that the next question can begin behind it.
    let rows = session
        .query(
            "SELECT q.org, q.stream, q.destination, q.due, f.due, q.id FROM store.queue q LEFT JOIN LATERAL
               (SELECT d.due FROM store.delivery d WHERE d.queue = q.id AND d.due >= q.due
                  AND (d.node IS NULL OR d.node = $3 AND d.epoch = $4)
                ORDER BY d.queue, d.due, d.message, d.idx LIMIT 1) f ON true
             WHERE q.due > $1 AND q.due <= coalesce(
               (SELECT due FROM store.queue WHERE due > $1 ORDER BY due LIMIT 1 OFFSET $2::bigint - 1),
               9223372036854775807) ORDER BY q.due",
            &[&after, &limit, &node, &epoch],
        )
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(due) = row.try_get::<_, Option<i64>>(4)? {
            found.push((queue_key(row, 0)?, Timestamp(due), row.try_get::<_, i64>(5)?));
        }
    }
    found.sort_by_key(|(_, due, _)| *due);
    let until = match rows.last() {
        Some(last) if rows.len() >= n.max(1) => Timestamp(last.try_get(3)?),
        _ => Timestamp(i64::MAX),
    };
    let (queues, numbers) = found.into_iter().map(|(queue, due, number)| ((queue, due), number)).unzip();
    Ok((Horizon { queues, complete_until: until }, numbers))
}

/// The queues with something waiting whose number is behind `after`, in order of their numbers, and the last number.
pub(crate) async fn waiting(session: Session, after: i64, n: i64) -> Result<(Vec<QueueStats>, Option<i64>)> {
    let rows = session
        .query(
            "SELECT org, stream, destination, due, waiting, id FROM store.queue WHERE id > $1 AND due IS NOT NULL
             ORDER BY id LIMIT $2",
            &[&after, &n],
        )
        .await?;
    let found = rows
        .iter()
        .map(|row| {
            let waiting = row.try_get::<_, i64>(4)?.cast_unsigned();
            Ok(QueueStats { queue: queue_key(row, 0)?, waiting, due: Timestamp(row.try_get(3)?) })
        })
        .collect::<Result<Vec<_>>>()?;
    let last = rows.last().map(|row| row.try_get(5)).transpose()?;
    Ok((found, last))
}

/// A queue in the columns org, stream, destination from `first` on.
pub(crate) fn queue_key(row: &Row, first: usize) -> Result<QueueKey> {
    let stream: i32 = row.try_get(first + 1)?;
    let stream = u8::try_from(stream).unwrap_or(0);
    Ok(codec::queue_key(row.try_get(first)?, stream, row.try_get(first + 2)?)?)
}

pub(crate) fn state(code: i32) -> Result<mail::State> {
    Ok(codec::state(u8::try_from(code).unwrap_or(u8::MAX))?)
}

pub(crate) fn crc(column: i64) -> u32 {
    u32::try_from(column).unwrap_or(0)
}

pub(crate) fn count(column: i32) -> u32 {
    u32::try_from(column).unwrap_or(0)
}
