//! Notes in the database.

use rusqlite::{Connection, OptionalExtension};

use crate::notes::Notes;

/// Writes what is pending into the transaction. Returns what to tell [`Notes::written`] after the commit.
pub(crate) fn write(notes: &Notes, conn: &Connection) -> rusqlite::Result<u64> {
    notes.write(|name, value| {
        conn.prepare_cached(
            "INSERT INTO note (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
        )?
        .execute((name, value))
        .map(drop)
    })
}

/// What the database has under a name.
pub(crate) fn stored(conn: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    conn.prepare_cached("SELECT value FROM note WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}
