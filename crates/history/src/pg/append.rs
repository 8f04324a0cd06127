//! A batch of events on its way into the tables, in one transaction.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::{try_join, try_join_all, try_join5};
use mail::{Event, MessageId};
use postgres::{PgError, Pool, Tx};

use super::{Shared, runs, signed};
use crate::batch::{Batch, EventRow, Loose};
use crate::error::HistoryError;
use crate::key::Entry;
use crate::{day, record};

/// Plans for tables that are empty when they are made must do when they are full.
const NO_SCANS: &str =
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

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
    let ((), mut row) = try_join(tx.batch(NO_SCANS), tx.query_opt(LOCK, &[&node])).await?;
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
    let (inserted, lone, (), (), _) = try_join5(
        insert_messages(&tx, &work),
        fold(&tx, &work, work.batch.loose.iter().collect()),
        insert_events(&tx, work.today, work.batch.events.iter().collect()),
        index(&tx, &work),
        advance(&tx, node, work.to),
    )
    .await?;
    if inserted < work.batch.rows.len() as u64 {
        fold_again(&tx, &work).await?;
    }
    if !lone.is_empty() {
        insert_events(&tx, work.today, lone.iter().map(|loose| &loose.event).collect()).await?;
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
    let transcripts: Vec<Option<&[u8]>> = rows.iter().map(|row| row.transcript.as_deref()).collect();
    tx.execute(
        "INSERT INTO history.event (message, number, day, body, transcript)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::bytea[], $5::bytea[])",
        &[&messages, &numbers, &days, &bodies, &transcripts],
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

/// One attempt for the row of a message: what shows that it is there, what is added, and how many it delivered to.
type Fold<'a> = (&'a [u8], &'a [u8], i32);

/// Adds attempts to the rows of their messages. Returns those that there is no row for: none that is of these days and of
/// the form that is written now.
async fn fold<'a>(tx: &Tx, work: &Work, loose: Vec<&'a Loose>) -> Result<Vec<&'a Loose>, PgError> {
    let (fresh, mut lone): (Vec<_>, Vec<_>) =
        loose.into_iter().partition(|l| day::of_id(l.id) >= work.today - 1);
    let mut left = fresh;
    // A statement changes a row once: the second attempt of a message waits for the next.
    while !left.is_empty() {
        let mut seen = HashSet::new();
        let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|l| seen.insert(l.id));
        let folds = now.iter().map(|l| (l.id, (l.sign(), &*l.tail, l.recipients))).collect();
        let found = update(tx, folds).await?;
        lone.extend(now.into_iter().filter(|l| !found.contains(&l.id)));
        left = later;
    }
    Ok(lone)
}

/// Some of the new messages were there already, as the outbox was restored and tells again: their rows are given what
/// they do not tell of yet.
async fn fold_again(tx: &Tx, work: &Work) -> Result<(), PgError> {
    let folds = |round| {
        let rows = work.batch.rows.iter();
        let some: Vec<(MessageId, Fold<'_>)> =
            rows.filter_map(|row| Some((row.id, row.folds().nth(round)?))).collect();
        (!some.is_empty()).then_some(some)
    };
    for some in (0..).map_while(folds) {
        update(tx, some).await?;
    }
    Ok(())
}

/// Adds one attempt to each of these rows, unless the row tells of it already. Returns the rows that were there.
async fn update(tx: &Tx, folds: Vec<(MessageId, Fold<'_>)>) -> Result<HashSet<MessageId>, PgError> {
    let mut days = BTreeMap::<i32, Vec<(MessageId, Fold<'_>)>>::new();
    for fold in folds {
        days.entry(day::of_id(fold.0)).or_default().push(fold);
    }
    let mut found = HashSet::new();
    for (day, folds) in days {
        let ids: Vec<i64> = folds.iter().map(|(id, _)| signed(*id)).collect();
        let signs: Vec<&[u8]> = folds.iter().map(|(_, f)| f.0).collect();
        let tails: Vec<&[u8]> = folds.iter().map(|(_, f)| f.1).collect();
        let counts: Vec<i32> = folds.iter().map(|(_, f)| f.2).collect();
        let rows = tx
            .query(
                "UPDATE history.message m SET
                   body = CASE WHEN position(f.sign IN m.body) > 0 THEN m.body ELSE m.body || f.tail END,
                   open = CASE WHEN position(f.sign IN m.body) > 0 THEN m.open ELSE m.open - f.n END
                 FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::int[]) AS f(id, sign, tail, n)
                 WHERE m.day = $1 AND m.id = f.id AND get_byte(m.body, 0) = $6 RETURNING m.id",
                &[&day, &ids, &signs, &tails, &counts, &i32::from(record::VERSION)],
            )
            .await?;
        for row in &rows {
            found.insert(MessageId(row.try_get::<_, i64>(0)?.cast_unsigned()));
        }
    }
    Ok(found)
}
