//! Rows to and from the other engine.

use mail::MessageId;
use postgres::{PgError, Pool, Session, Tx};

use super::{Shared, count, days, runs, signed};
use crate::error::HistoryError;
use crate::key::{self, Entry};
use crate::raw::{self, Mark, Raw, Record};
use crate::{day, record};

/// At least `n` rows behind `after`. A message's rows of one day stay together.
pub(super) async fn export(pool: &Pool, after: Option<Mark>, n: usize) -> Result<Vec<Record>, HistoryError> {
    let mut records = Vec::new();
    for day in days::list(pool).await? {
        let mut behind = match after {
            Some(mark) if day < mark.day => continue,
            Some(mark) if day == mark.day => signed(mark.message),
            _ => -1,
        };
        loop {
            let want = n.saturating_sub(records.len()).max(1);
            let (page, last) = pool.read(|s| async move { page(&s, day, behind, want).await }).await?;
            records.extend(page);
            if records.len() >= n {
                return Ok(records);
            }
            match last {
                Some(last) => behind = last,
                None => break,
            }
        }
    }
    Ok(records)
}

/// All rows of a day of the next messages, and the last of these.
async fn page(
    session: &Session,
    day: i32,
    behind: i64,
    n: usize,
) -> Result<(Vec<Record>, Option<i64>), PgError> {
    let last = session
        .query_one(
            "SELECT max(id) FROM (
               (SELECT id FROM history.message WHERE day = $1 AND id > $2 ORDER BY id LIMIT $3)
               UNION (SELECT DISTINCT message FROM history.event WHERE day = $1 AND message > $2 ORDER BY message LIMIT $3)
               ORDER BY 1 LIMIT $3) ids",
            &[&day, &behind, &count(n)],
        )
        .await?;
    let Some(last) = last.try_get::<_, Option<i64>>(0)? else { return Ok((Vec::new(), None)) };
    let messages = session
        .query(
            "SELECT id, body FROM history.message WHERE day = $1 AND id > $2 AND id <= $3",
            &[&day, &behind, &last],
        )
        .await?;
    let events = session
        .query(
            "SELECT message, number, body, transcript FROM history.event
             WHERE day = $1 AND message > $2 AND message <= $3",
            &[&day, &behind, &last],
        )
        .await?;
    let mut by_id = std::collections::BTreeMap::<i64, Vec<Raw>>::new();
    for row in &messages {
        by_id.entry(row.try_get(0)?).or_default().push(Raw::Message { body: row.try_get(1)? });
    }
    for row in &events {
        let number = row.try_get::<_, i64>(1)?.cast_unsigned();
        let raw = Raw::Event { number, body: row.try_get(2)?, transcript: row.try_get(3)? };
        by_id.entry(row.try_get(0)?).or_default().push(raw);
    }
    let gathered =
        by_id.into_iter().flat_map(|(id, rows)| raw::gather(day, MessageId(id.cast_unsigned()), rows));
    Ok((gathered.collect(), Some(last)))
}

/// Takes rows with the days that they have.
pub(super) async fn import(shared: &Shared, records: Vec<Record>) -> Result<(), HistoryError> {
    let mut parts = std::collections::BTreeMap::<i32, Vec<Record>>::new();
    for record in records {
        // No row is filed under a day before its message.
        parts.entry(record.day.max(day::of_id(record.message))).or_default().push(record);
    }
    for (day, records) in parts {
        if (0..=shared.today() + days::AHEAD).contains(&day) {
            days::make(&shared.pool, day).await?;
        }
        let (day, records, node) = (day, &records, shared.node);
        shared.pool.commit_idempotent(|tx| async move { take(&tx, day, node, records).await }).await?;
    }
    shared.written.notify_one();
    Ok(())
}

async fn take(tx: &Tx, day: i32, node: u16, records: &[Record]) -> Result<(), PgError> {
    let (mut ids, mut open, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    let (mut messages, mut numbers, mut delivered) = (Vec::new(), Vec::new(), Vec::new());
    let (mut told, mut transcripts) = (Vec::new(), Vec::new());
    for record in records {
        match &record.raw {
            Raw::Message { body } => {
                ids.push(signed(record.message));
                open.push(record::open(body));
                bodies.push(&**body);
            }
            Raw::Event { number, body, transcript } => {
                messages.push(signed(record.message));
                numbers.push(number.cast_signed());
                delivered.push(record::delivered(body, transcript.as_deref()));
                told.push(&**body);
                transcripts.push(transcript.as_deref());
            }
        }
    }
    let new = tx
        .query(
            "INSERT INTO history.message (id, day, open, body)
             SELECT id, $1, open, body FROM unnest($2::bigint[], $3::int[], $4::bytea[]) AS r(id, open, body)
             ON CONFLICT DO NOTHING RETURNING id, body",
            &[&day, &ids, &open, &bodies],
        )
        .await?;
    tx.execute(
        "INSERT INTO history.event (message, number, day, delivered, body, transcript)
         SELECT message, number, $1, delivered, body, transcript
         FROM unnest($2::bigint[], $3::bigint[], $4::int[], $5::bytea[], $6::bytea[])
           AS r(message, number, delivered, body, transcript)
         WHERE NOT EXISTS (SELECT FROM history.event e
           WHERE e.day = $1 AND e.message = r.message AND e.number = r.number AND e.body = r.body)",
        &[&day, &messages, &numbers, &delivered, &told, &transcripts],
    )
    .await?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut folding = String::new();
    for row in &new {
        if let Ok(accepted) = record::read_accepted(row.try_get(1)?) {
            key::add_keys(&accepted, &mut entries, &mut folding);
        }
    }
    if entries.is_empty() { Ok(()) } else { runs::put(tx, day, node, entries, 0).await }
}
