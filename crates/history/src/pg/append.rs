//! A batch of events on its way into the tables, in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::{try_join_all, try_join4};
use mail::{Event, MessageId};
use postgres::{PgError, Pool, Tx};

use super::{Shared, runs, signed};
use crate::batch::{Batch, EventRow};
use crate::error::HistoryError;
use crate::key::Entry;
use crate::{day, record};

/// Whoever appends from an outbox has its row.
const LOCK: &str = "SELECT last FROM history.node WHERE id = $1 FOR UPDATE";

/// What a transaction writes; it may have to be run again.
struct Work {
    node: u16,
    writer: u16,
    /// How far the history has the outbox, as the batch was made,
    from: u64,
    /// and how far with it.
    to: u64,
    batch: Batch,
    today: i32,
}

/// Appends what the history does not have yet.
pub(super) async fn append(
    shared: &Shared,
    node: u16,
    mut events: Vec<(u64, Event)>,
) -> Result<(), HistoryError> {
    let mut turn = shared.turn.lock().await;
    shared.open()?;
    shared.make_days().await;
    let from = if node == shared.node { *turn } else { last(&shared.pool, node).await? };
    events.retain(|(seq, _)| *seq > from);
    let Some(to) = events.iter().map(|(seq, _)| *seq).max() else { return Ok(()) };
    let batch = Batch::new(events, |seq| record::number(node, seq)).map_err(HistoryError::Encode)?;
    let work = Arc::new(Work { node, writer: shared.node, from, to, batch, today: shared.today() });
    let reached = shared.pool.commit_idempotent(|tx| write(tx, Arc::clone(&work))).await?;
    if node == shared.node {
        *turn = reached;
        shared.last.store(reached, Ordering::Relaxed);
    }
    shared.written.notify_one();
    if reached < to {
        // Taken for dead, perhaps, so that another node appends what is in the outbox of this one.
        let why = format!("the outbox of node {node} is at {reached}, not at {from}");
        return Err(HistoryError::Postgres(PgError::Conflict(why)));
    }
    Ok(())
}

/// How far the history has the outbox of a node.
pub(super) async fn last(pool: &Pool, node: u16) -> Result<u64, HistoryError> {
    let node = i32::from(node);
    let last = pool
        .read(|session| async move {
            let row = session.query_opt("SELECT last FROM history.node WHERE id = $1", &[&node]).await?;
            Ok(row.map(|row| row.try_get::<_, i64>(0)).transpose()?)
        })
        .await?;
    Ok(last.unwrap_or(0).cast_unsigned())
}

/// Forgets how far this node's outbox is.
pub(super) async fn rewind(shared: &Shared) -> Result<(), HistoryError> {
    let mut turn = shared.turn.lock().await;
    let node = i32::from(shared.node);
    shared
        .pool
        .commit_idempotent(|tx| async move {
            tx.execute("UPDATE history.node SET last = 0 WHERE id = $1", &[&node]).await
        })
        .await?;
    *turn = 0;
    shared.last.store(0, Ordering::Relaxed);
    Ok(())
}

/// Writes the batch, unless the outbox is further than it was thought to be. Returns how far it is.
async fn write(tx: Tx, work: Arc<Work>) -> Result<u64, PgError> {
    let node = i32::from(work.node);
    let mut row = tx.query_opt(LOCK, &[&node]).await?;
    if row.is_none() {
        // Two that find none at once: one waits here for the other.
        let sql = "INSERT INTO history.node (id, last) VALUES ($1, 0) ON CONFLICT DO NOTHING";
        tx.execute(sql, &[&node]).await?;
        row = tx.query_opt(LOCK, &[&node]).await?;
    }
    let last = row.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?.cast_unsigned();
    if last != work.from {
        // Committed nevertheless, which waits for a standby as well: what is told here must be safe.
        return Ok(last);
    }
    // Their statements travel together.
    let batch = &work.batch;
    let events = batch.events.iter().chain(batch.loose.iter().map(|loose| &loose.event)).collect();
    let (inserted, (), (), _) = try_join4(
        insert_messages(&tx, &work),
        insert_events(&tx, work.today, events),
        index(&tx, &work),
        advance(&tx, node, work.to),
    )
    .await?;
    if inserted < batch.rows.len() as u64 {
        tell_again(&tx, &work).await?;
    }
    Ok(work.to)
}

async fn advance(tx: &Tx, node: i32, to: u64) -> Result<u64, PgError> {
    tx.execute("UPDATE history.node SET last = $2 WHERE id = $1", &[&node, &to.cast_signed()]).await
}

/// The day that a message's row is filed under: that of its id, as long as this is not about to be dropped.
fn row_day(id: MessageId, today: i32) -> i32 {
    let day = day::of_id(id);
    if day >= today - 1 { day } else { today }
}

async fn insert_messages(tx: &Tx, work: &Work) -> Result<u64, PgError> {
    let rows = &work.batch.rows;
    if rows.is_empty() {
        return Ok(0);
    }
    let ids: Vec<i64> = rows.iter().map(|row| signed(row.id)).collect();
    let days: Vec<i32> = rows.iter().map(|row| row_day(row.id, work.today)).collect();
    let open: Vec<i32> = rows.iter().map(|row| row.open).collect();
    let bodies: Vec<&[u8]> = rows.iter().map(|row| &*row.body).collect();
    tx.execute(
        "INSERT INTO history.message (id, day, open, body)
         SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bytea[]) ON CONFLICT DO NOTHING",
        &[&ids, &days, &open, &bodies],
    )
    .await
}

/// Rows of events of their own, kept with the day they are written on.
pub(super) async fn insert_events(tx: &Tx, today: i32, rows: Vec<&EventRow>) -> Result<(), PgError> {
    if rows.is_empty() {
        return Ok(());
    }
    let messages: Vec<i64> = rows.iter().map(|row| signed(row.message)).collect();
    let numbers: Vec<i64> = rows.iter().map(|row| row.number.cast_signed()).collect();
    let days: Vec<i32> = rows.iter().map(|row| day::of_id(row.message).max(today)).collect();
    let bodies: Vec<&[u8]> = rows.iter().map(|row| &*row.body).collect();
    let delivered: Vec<i32> = rows.iter().map(|row| row.delivered).collect();
    let transcripts: Vec<Option<&[u8]>> = rows.iter().map(|row| row.transcript.as_deref()).collect();
    tx.execute(
        "INSERT INTO history.event (message, number, day, delivered, body, transcript)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::int[], $5::bytea[], $6::bytea[])",
        &[&messages, &numbers, &days, &delivered, &bodies, &transcripts],
    )
    .await
    .map(drop)
}

/// The keys of the new messages, a run for each of their days.
async fn index(tx: &Tx, work: &Work) -> Result<(), PgError> {
    let mut days = BTreeMap::<i32, Vec<Entry>>::new();
    for entry in &work.batch.entries {
        days.entry(row_day(MessageId(entry.1), work.today)).or_default().push(*entry);
    }
    let put = days.into_iter().map(|(day, entries)| runs::put(tx, day, work.writer, entries, 0));
    try_join_all(put).await.map(drop)
}

/// Some of the new messages were there already, as the outbox was restored and tells again. What their rows would have
/// been given is told by itself: whoever reads it finds the same thing once. It counts for nothing, lest it count twice.
async fn tell_again(tx: &Tx, work: &Work) -> Result<(), PgError> {
    let bad = |e: record::Bad| PgError::Bug(e.0);
    let mut rows = Vec::new();
    for row in work.batch.rows.iter().filter(|row| row.has_folds()) {
        for (number, mut event) in record::read_row(&row.body).map_err(bad)?.folded {
            let (body, transcript) =
                record::write_event(&mut event).map_err(|e| PgError::Bug(e.to_string()))?;
            rows.push(EventRow { message: row.id, number, delivered: 0, body, transcript });
        }
    }
    insert_events(tx, work.today, rows.iter().collect()).await
}
