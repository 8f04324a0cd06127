//! The keys of a file's messages, in sorted runs.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::key::{ENTRY, Entry, FAN_IN, Hash, decode, encode, ids_in, level};

/// Entries in one part, about 12 KiB.
const PART_ENTRIES: usize = 1024;
/// Runs of this level are left alone.
const LEVEL_MAX: u32 = 3;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE run (id INTEGER PRIMARY KEY, level INTEGER NOT NULL, entries INTEGER NOT NULL);
    -- key: the run's id in the upper 32 bits, the first entry's hash in the lower.
    CREATE TABLE part (key INTEGER PRIMARY KEY, entries BLOB NOT NULL);
";

/// Writes a run of new entries and merges when there are enough of a size.
pub(crate) fn write(tx: &Transaction<'_>, entries: &mut Vec<Entry>) -> rusqlite::Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut level = put(tx, entries)?;
    while level < LEVEL_MAX {
        let mut statement = tx.prepare_cached("SELECT id FROM run WHERE level = $1")?;
        let runs: Vec<i64> =
            statement.query_map(params![level], |row| row.get(0))?.collect::<Result<_, _>>()?;
        if runs.len() < FAN_IN {
            break;
        }
        entries.clear();
        for run in runs {
            let mut parts = tx.prepare_cached("SELECT entries FROM part WHERE key >= $1 AND key < $2")?;
            let mut rows = parts.query(params![run << 32, (run + 1) << 32])?;
            while let Some(row) = rows.next()? {
                decode(row.get_ref(0)?.as_blob()?, entries);
            }
            tx.prepare_cached("DELETE FROM part WHERE key >= $1 AND key < $2")?
                .execute(params![run << 32, (run + 1) << 32])?;
            tx.prepare_cached("DELETE FROM run WHERE id = $1")?.execute(params![run])?;
        }
        level = put(tx, entries)?.max(level + 1);
    }
    Ok(())
}

/// Writes one run and tells its level: how often 16 goes into its length.
fn put(tx: &Transaction<'_>, entries: &mut [Entry]) -> rusqlite::Result<u32> {
    entries.sort_unstable();
    let level = level(entries.len()).min(LEVEL_MAX);
    tx.prepare_cached(
        "INSERT INTO run (id, level, entries) SELECT coalesce(max(id), 0) + 1, $1, $2 FROM run",
    )?
    .execute(params![level, i64::try_from(entries.len()).unwrap_or(i64::MAX)])?;
    let run = tx.last_insert_rowid();
    let mut insert = tx.prepare_cached("INSERT INTO part (key, entries) VALUES ($1, $2)")?;
    let mut blob = Vec::with_capacity(PART_ENTRIES * ENTRY);
    let mut rest = &*entries;
    while let Some(first) = rest.first() {
        // Entries of one hash stay in one part, so that a lookup reads one part.
        let mut end = PART_ENTRIES.min(rest.len());
        end += rest[end..].iter().take_while(|e| e.0 == rest[end - 1].0).count();
        blob.clear();
        encode(&rest[..end], &mut blob);
        insert.execute(params![run << 32 | i64::from(first.0), blob])?;
        rest = &rest[end..];
    }
    Ok(level)
}

/// The ids of all messages that may have this key.
pub(crate) fn find(db: &Connection, hash: Hash, ids: &mut Vec<u64>) -> rusqlite::Result<()> {
    let mut runs = db.prepare_cached("SELECT id FROM run")?;
    let runs: Vec<i64> = runs.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut part = db
        .prepare_cached("SELECT entries FROM part WHERE key >= $1 AND key <= $2 ORDER BY key DESC LIMIT 1")?;
    for run in runs {
        let blob: Option<Vec<u8>> =
            part.query_row(params![run << 32, run << 32 | i64::from(hash)], |row| row.get(0)).optional()?;
        ids.extend(blob.iter().flat_map(|blob| ids_in(blob, hash)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn db() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        db
    }

    fn found(db: &Connection, hash: Hash) -> Vec<u64> {
        let mut ids = Vec::new();
        find(db, hash, &mut ids).unwrap();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn everything_is_found_through_all_merges() {
        let mut db = db();
        let mut expected: std::collections::BTreeMap<Hash, Vec<u64>> = Default::default();
        let mut id = 0;
        for batch in 0..600u64 {
            let mut entries = Vec::new();
            // Batches of one to fifty messages; one hash that every message has, and the ends of the range.
            for n in 0..1 + batch % 50 {
                id += 1;
                for hash in
                    [7, Key::Recipient(format!("{batch} {n}")).hash(), if n % 2 == 0 { 0 } else { u32::MAX }]
                {
                    entries.push((hash, id));
                    expected.entry(hash).or_default().push(id);
                }
            }
            let tx = db.transaction().unwrap();
            write(&tx, &mut entries).unwrap();
            tx.commit().unwrap();
        }
        for (hash, ids) in &expected {
            assert_eq!(found(&db, *hash), *ids, "{hash:x}");
        }
        assert!(found(&db, 8).is_empty());
        let runs: i64 = db.query_row("SELECT count(*) FROM run", [], |row| row.get(0)).unwrap();
        assert!(runs < 4 * FAN_IN as i64, "{runs} runs");
        let (entries, total): (i64, i64) = db
            .query_row(
                "SELECT sum(length(entries)) / 12, (SELECT sum(entries) FROM run) FROM part",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(entries, total);
        assert_eq!(entries, i64::try_from(3 * id).unwrap());
    }
}
