//! The keys of messages in sorted runs, in parts of two kilobytes: four to a page.

use futures_util::future::try_join_all;
use mail::MessageId;
use postgres::{PgError, Session, Tx};

use super::{Shared, count};
use crate::error::HistoryError;
use crate::key::{self, Entry, FAN_IN, Hash};

/// Entries in one part.
const PART_ENTRIES: usize = 164;
/// Parts that are written by one statement.
const PARTS: usize = 256;
/// Runs of this level are left alone: about half a million entries.
const LEVEL_MAX: u32 = 3;

/// Writes a run of these entries, of this level at least.
pub(super) async fn put(
    tx: &Tx,
    day: i32,
    node: u16,
    mut entries: Vec<Entry>,
    level: u32,
) -> Result<(), PgError> {
    entries.sort_unstable();
    entries.dedup();
    let level = key::level(entries.len()).clamp(level.min(LEVEL_MAX), LEVEL_MAX);
    let row = tx
        .query_one(
            "INSERT INTO history.run (day, node, level, entries) VALUES ($1, $2, $3, $4) RETURNING id",
            &[&day, &i32::from(node), &level.cast_signed(), &count(entries.len())],
        )
        .await?;
    let run: i64 = row.try_get(0)?;
    let parts: Vec<&[Entry]> = entries.chunks(PART_ENTRIES).collect();
    try_join_all(parts.chunks(PARTS).map(|parts| put_parts(tx, day, run, parts))).await.map(drop)
}

async fn put_parts(tx: &Tx, day: i32, run: i64, parts: &[&[Entry]]) -> Result<(), PgError> {
    let firsts = parts.iter().filter_map(|part| part.first());
    let (hashes, ids): (Vec<i64>, Vec<i64>) =
        firsts.map(|(hash, id)| (i64::from(*hash), id.cast_signed())).unzip();
    let blobs: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| {
            let mut blob = Vec::new();
            key::encode(part, &mut blob);
            blob
        })
        .collect();
    tx.execute(
        "INSERT INTO history.part (run, day, first, first_id, entries)
         SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::bytea[])",
        &[&run, &day, &hashes, &ids, &blobs],
    )
    .await
    .map(drop)
}

/// Merges runs of this node for as long as there are enough of a size; with `of_all`, also those of days that are over,
/// whichever node wrote them: it may be gone.
pub(super) async fn merge(shared: &Shared, of_all: bool) -> Result<(), HistoryError> {
    let over = if of_all { shared.today() - 1 } else { i32::MIN };
    loop {
        shared.open()?;
        let node = i32::from(shared.node);
        let due = shared
            .pool
            .read(|session| async move {
                session
                    .query_opt(
                        "SELECT day, level, (array_agg(id ORDER BY id))[1:$3] FROM history.run
                         WHERE (node = $1 OR day < $4) AND level < $2
                         GROUP BY day, level HAVING count(*) >= $3 ORDER BY level LIMIT 1",
                        &[&node, &LEVEL_MAX.cast_signed(), &i32::try_from(FAN_IN).unwrap_or(i32::MAX), &over],
                    )
                    .await
            })
            .await?;
        let Some(due) = due else { return Ok(()) };
        let read = |e| HistoryError::Postgres(PgError::from(e));
        let (day, level) = (due.try_get(0).map_err(read)?, due.try_get::<_, i32>(1).map_err(read)?);
        let runs: Vec<i64> = due.try_get(2).map_err(read)?;
        let runs = &runs;
        shared
            .pool
            .commit_idempotent(|tx| merge_in(tx, day, shared.node, level.cast_unsigned() + 1, runs.clone()))
            .await?;
    }
}

async fn merge_in(tx: Tx, day: i32, node: u16, level: u32, runs: Vec<i64>) -> Result<(), PgError> {
    let gone = tx.execute("DELETE FROM history.run WHERE id = ANY($1)", &[&runs]).await?;
    if gone != runs.len() as u64 {
        // Somebody was faster, or the first answer was lost.
        tx.abandon();
        return Ok(());
    }
    let mut entries = Vec::new();
    for run in &runs {
        let parts = tx
            .query("DELETE FROM history.part WHERE day = $1 AND run = $2 RETURNING entries", &[&day, run])
            .await?;
        for part in &parts {
            key::decode(part.try_get(0)?, &mut entries);
        }
    }
    put(&tx, day, node, entries, level).await
}

/// Messages of a day that may have one of the keys. Complete from `from` on up to where it was asked for.
pub(super) struct Window {
    pub(super) from: MessageId,
    /// Not sorted.
    pub(super) ids: Vec<u64>,
}

/// Looks one part of each run up for each key: the newest of their messages before `before`.
pub(super) async fn find(
    session: &Session,
    day: i32,
    hashes: &[Hash],
    before: MessageId,
) -> Result<Window, PgError> {
    let keys: Vec<i64> = hashes.iter().map(|hash| i64::from(*hash)).collect();
    let rows = session
        .query(
            "SELECT k.hash, p.first = k.hash, p.first_id, p.entries
             FROM history.run r CROSS JOIN unnest($3::bigint[]) AS k(hash) CROSS JOIN LATERAL (
               SELECT first, first_id, entries FROM history.part
               WHERE day = $1 AND run = r.id AND (first, first_id) < (k.hash, $2)
               ORDER BY first DESC, first_id DESC LIMIT 1) p
             WHERE r.day = $1",
            &[&day, &super::signed(before), &keys],
        )
        .await?;
    let mut window = Window { from: MessageId(0), ids: Vec::new() };
    for row in &rows {
        let hash = Hash::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
        // There may be more of this key in the part before.
        if row.try_get(1)? {
            window.from = window.from.max(MessageId(row.try_get::<_, i64>(2)?.cast_unsigned()));
        }
        let entries: &[u8] = row.try_get(3)?;
        window.ids.extend(key::ids_in(entries, hash).filter(|id| *id < before.0));
    }
    let from = window.from.0;
    window.ids.retain(|id| *id >= from);
    Ok(window)
}
