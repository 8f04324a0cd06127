//! What is dropped at retention, and what is kept of it: the rows of messages that are still in the queue. They move to
//! the day that it is, so that a held message can be traced for as long as it is held.

use std::time::Duration;

use mail::{MessageId, Timestamp};
use postgres::{PgError, Session, Tx};

use super::{Shared, count, days, runs, signed, story};
use crate::day;
use crate::error::HistoryError;
use crate::key;

/// Rows that one statement goes through.
const SCAN: usize = 5000;

/// So far apart the clocks of a node and of the server may be.
const CLOCKS_APART: Duration = Duration::from_secs(3600);

/// Whether a day has been over for so long.
pub(super) fn is_over(day: i32, keep: Duration, now: Timestamp) -> bool {
    day::begin(day.saturating_add(1)).plus(keep) <= now
}

/// Drops the days that are older than what is kept, if this node is the one to do so.
pub(super) async fn sweep(shared: &Shared) -> Result<(), HistoryError> {
    let _one = shared.sweeping.lock().await;
    if !(shared.may_sweep)() {
        return Ok(());
    }
    let Some(now) = shared.trust.lock().now(&shared.clock) else { return Ok(()) };
    if shared.clock.is_system() && !agree(now, server_time(shared).await?) {
        tracing::error!(now = %now, "the clocks of this node and of PostgreSQL differ: no history is dropped");
        return Ok(());
    }
    for day in days::list(&shared.pool).await? {
        if !is_over(day, shared.config.keep, now) {
            break;
        }
        shared.open()?;
        carry(shared, day, day::of(now)).await?;
        // The role may have gone to another node meanwhile.
        if !(shared.may_sweep)() {
            return Ok(());
        }
        days::drop(&shared.pool, day).await?;
        tracing::info!(day = %day::date(day), "a day of the history was dropped");
    }
    Ok(())
}

/// Whether two clocks tell the same. One node whose clock is wrong would drop what all have written.
fn agree(one: Timestamp, other: Timestamp) -> bool {
    one.since(other).max(other.since(one)) < CLOCKS_APART
}

async fn server_time(shared: &Shared) -> Result<Timestamp, HistoryError> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let read = |s: Session| async move { Ok(s.query_one(sql, &[]).await?.try_get(0)?) };
    Ok(Timestamp(shared.pool.read(read).await?))
}

/// Copies what must be kept of `old` to the day `to`. What is there already is not copied again.
async fn carry(shared: &Shared, old: i32, to: i32) -> Result<(), HistoryError> {
    let mut kept = 0;
    for source in [Source::Messages, Source::Events] {
        let mut after = -1;
        loop {
            let (last, ids) =
                shared.pool.read(|s| async move { candidates(&s, source, old, after).await }).await?;
            for some in ids.chunks(story::CHUNK) {
                kept += keep(shared, old, to, some).await?;
            }
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
    }
    if kept > 0 {
        tracing::info!(messages = kept, "messages still in the queue keep their history");
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Source {
    /// Those with recipients that their row does not tell to be delivered.
    Messages,
    /// Those that only events tell of on this day.
    Events,
}

/// Some of the messages that may not be over, and where to go on, if there are more to look at.
async fn candidates(
    session: &Session,
    source: Source,
    day: i32,
    after: i64,
) -> Result<(Option<i64>, Vec<MessageId>), PgError> {
    let sql = match source {
        Source::Messages => {
            // What was delivered the next morning counts, too; later than that, the whole story is read.
            "SELECT max(m.id), array_agg(m.id) FILTER (WHERE m.open > coalesce(s.delivered, 0)) FROM
               (SELECT id, open FROM history.message WHERE day = $1 AND id > $2 ORDER BY id LIMIT $3) m
               LEFT JOIN LATERAL (SELECT sum(delivered) AS delivered FROM
                 (SELECT DISTINCT body, delivered FROM history.event e
                  WHERE m.open > 0 AND e.message = m.id AND e.delivered > 0 AND e.day BETWEEN $1 AND $1 + 1) d) s ON true"
        }
        Source::Events => {
            "SELECT max(message), array_agg(message) FILTER
                 (WHERE NOT EXISTS (SELECT FROM history.message m WHERE m.day = $1 AND m.id = e.message))
             FROM (SELECT DISTINCT message FROM
               (SELECT message FROM history.event WHERE day = $1 AND message > $2 ORDER BY message LIMIT $3) e) e"
        }
    };
    let row = session.query_one(sql, &[&day, &after, &count(SCAN)]).await?;
    let ids: Vec<i64> = row.try_get::<_, Option<_>>(1)?.unwrap_or_default();
    Ok((row.try_get(0)?, ids.into_iter().map(|id| MessageId(id.cast_unsigned())).collect()))
}

/// Copies the rows of those of these messages that are not over. How many there were.
async fn keep(shared: &Shared, old: i32, to: i32, ids: &[MessageId]) -> Result<usize, HistoryError> {
    let mut stories = story::of(&shared.pool, ids).await?;
    let mut entries = Vec::new();
    let mut folding = String::new();
    let mut kept = Vec::new();
    for (id, story) in &mut stories {
        // Without its row nobody finds the message, and nothing tells whether it is over.
        if story.accepted.is_none() || story.is_over() {
            continue;
        }
        kept.push(signed(*id));
        if let Some((_, _, accepted)) = &story.accepted {
            key::add_keys(accepted, &mut entries, &mut folding);
        }
    }
    if kept.is_empty() {
        return Ok(0);
    }
    let (kept, entries) = (&kept, &entries);
    shared
        .pool
        .commit_idempotent(|tx| async move {
            if copy(&tx, old, to, kept).await? > 0 {
                runs::put(&tx, to, shared.node, entries.clone(), 0).await?;
            }
            Ok(())
        })
        .await?;
    Ok(kept.len())
}

/// How many rows of messages were copied.
async fn copy(tx: &Tx, old: i32, to: i32, ids: &[i64]) -> Result<u64, PgError> {
    let messages = tx
        .execute(
            "INSERT INTO history.message (id, day, open, body)
             SELECT id, $2, open, body FROM history.message WHERE day = $1 AND id = ANY($3) ON CONFLICT DO NOTHING",
            &[&old, &to, &ids],
        )
        .await?;
    tx.execute(
        "INSERT INTO history.event (message, number, day, delivered, body, transcript)
         SELECT message, number, $2, delivered, body, transcript FROM history.event e WHERE day = $1 AND message = ANY($3)
           AND NOT EXISTS (SELECT FROM history.event n
             WHERE n.day = $2 AND n.message = e.message AND n.number = e.number AND n.body = e.body)",
        &[&old, &to, &ids],
    )
    .await?;
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_and_days() {
        let now = Timestamp(1_795_503_600_000);
        let hour = Duration::from_secs(3600);
        assert!(agree(now, now) && agree(now, now.plus(hour / 2)) && agree(now.plus(hour / 2), now));
        assert!(!agree(now, now.plus(hour)) && !agree(now.plus(hour), now));
        let today = day::of(now);
        assert!(!is_over(today, Duration::ZERO, now) && is_over(today - 1, Duration::ZERO, now));
        assert!(!is_over(today - 2, hour * 48, now) && is_over(today - 3, hour * 48, now));
    }
}
