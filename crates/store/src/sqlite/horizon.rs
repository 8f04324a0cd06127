//! Which queues have something waiting: those due next, and all of them part by part. What a queue's row says is enough;
//! no delivery is looked at.

use mail::{QueueKey, Timestamp};
use rusqlite::{Connection, Row};

use crate::codec;
use crate::model::{Horizon, QueueStats};

type Result<T> = rusqlite::Result<T>;

/// The queues whose first delivery is due behind `after`, about `n` of them.
pub(crate) fn horizon(conn: &Connection, after: Timestamp, n: usize) -> Result<Horizon> {
    let snapshot = conn.unchecked_transaction()?;
    let limit = i64::try_from(n.max(1)).unwrap_or(i64::MAX);
    // The time of the nth: all that share it belong to the answer, so that the next question can begin behind it.
    let mut last: Option<i64> = None;
    let queues = snapshot
        .prepare_cached(
            "SELECT org, stream, destination, due FROM queue WHERE due > ?1 AND due <= coalesce(
               (SELECT due FROM queue WHERE due > ?1 ORDER BY due LIMIT 1 OFFSET ?2 - 1), 9223372036854775807)
             ORDER BY due",
        )?
        .query_map((after.0, limit), |row| {
            let due: i64 = row.get(3)?;
            last = Some(due);
            Ok((key(row)?, Timestamp(due)))
        })?
        .collect::<Result<Vec<_>>>()?;
    let all = queues.len() < n.max(1);
    let complete_until = if all { Timestamp(i64::MAX) } else { Timestamp(last.unwrap_or(i64::MAX)) };
    Ok(Horizon { queues, complete_until })
}

/// The queues with something waiting whose number is behind `after`, in order of their numbers, and the last number.
pub(crate) fn waiting(conn: &Connection, after: i64, n: usize) -> Result<(Vec<QueueStats>, Option<i64>)> {
    let limit = i64::try_from(n).unwrap_or(i64::MAX);
    let mut last = None;
    let found = conn
        .prepare_cached(
            "SELECT org, stream, destination, due, waiting, id FROM queue WHERE id > ?1 AND due IS NOT NULL
             ORDER BY id LIMIT ?2",
        )?
        .query_map((after, limit), |row| {
            last = Some(row.get(5)?);
            Ok(QueueStats {
                queue: key(row)?,
                waiting: row.get::<_, i64>(4)?.cast_unsigned(),
                due: Timestamp(row.get(3)?),
            })
        })?
        .collect::<Result<Vec<_>>>()?;
    Ok((found, last))
}

fn key(row: &Row<'_>) -> Result<QueueKey> {
    Ok(codec::queue_key(row.get(0)?, row.get(1)?, row.get_ref(2)?.as_str()?)?)
}
