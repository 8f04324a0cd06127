//! The outbox and the notes of a node, in the database.

use mail::Event;
use postgres::{PgError, Session, Tx};

use crate::codec;
use crate::notes::Notes;
use crate::outbox::{PACK_BYTES, PACK_EVENTS};

type Result<T> = std::result::Result<T, PgError>;

/// Puts events behind number `last` into the outbox, many to a row. Returns the number of the last.
pub(crate) async fn write<'a>(
    tx: &Tx,
    node: i32,
    mut last: u64,
    events: impl Iterator<Item = &'a Event>,
) -> Result<u64> {
    let (mut numbers, mut rows) = (Vec::new(), Vec::new());
    let (mut row, mut in_row, mut scratch) = (Vec::new(), 0, Vec::new());
    for event in events {
        last += 1;
        in_row += 1;
        codec::encode(event, &mut scratch);
        codec::pack(&mut row, &scratch);
        if in_row >= PACK_EVENTS || row.len() >= PACK_BYTES {
            numbers.push(last.cast_signed());
            rows.push(std::mem::take(&mut row));
            in_row = 0;
        }
    }
    if in_row > 0 {
        numbers.push(last.cast_signed());
        rows.push(row);
    }
    if !rows.is_empty() {
        tx.execute(
            "INSERT INTO store.outbox (node, seq, event) SELECT $1, * FROM unnest($2::bigint[], $3::bytea[])",
            &[&node, &numbers, &rows],
        )
        .await?;
    }
    Ok(last)
}

/// Deletes what has been handed on.
pub(crate) async fn delete(tx: &Tx, node: i32, up_to: u64) -> Result<()> {
    tx.execute("DELETE FROM store.outbox WHERE node = $1 AND seq <= $2", &[&node, &up_to.cast_signed()])
        .await
        .map(drop)
}

/// Events behind `after`. A row's number is that of its last event.
pub(crate) async fn stored(session: Session, node: i32, after: u64, n: usize) -> Result<Vec<(u64, Event)>> {
    let mut found = Vec::new();
    let mut behind = after;
    // Row by row would be a round trip each; all at once may be more than anybody wants to hold.
    while found.len() < n {
        let rows = session
            .query(
                "SELECT seq, event FROM store.outbox WHERE node = $1 AND seq > $2 ORDER BY seq LIMIT 64",
                &[&node, &behind.cast_signed()],
            )
            .await?;
        let Some(last) = rows.last() else { break };
        behind = last.try_get::<_, i64>(0)?.cast_unsigned();
        for row in &rows {
            let last = row.try_get::<_, i64>(0)?.cast_unsigned();
            let events = codec::unpack(row.try_get(1)?)?;
            let first = last + 1 - events.len() as u64;
            found.extend((first..).zip(events).filter(|(seq, _)| *seq > after));
        }
    }
    found.truncate(n);
    Ok(found)
}

/// The life of a node is over: it was closed, or taken for dead.
const OVER: &str = "(clean OR fenced >= epoch)";

/// The nodes whose life is over and that have left events behind.
pub(crate) async fn left(session: Session) -> Result<Vec<u16>> {
    let sql = format!(
        "SELECT id FROM store.node n WHERE {OVER} AND EXISTS (SELECT FROM store.outbox o WHERE o.node = n.id)
         ORDER BY id"
    );
    let rows = session.query(&sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let id: i32 = row.try_get(0)?;
            u16::try_from(id).map_err(|_| PgError::Damaged(format!("a node with the number {id}")))
        })
        .collect()
}

/// Deletes events of a node whose life is over. False: it lives again, and nothing is deleted. A life that begins waits
/// for this and reads then up to where the outbox was handed on.
pub(crate) async fn delete_left(tx: Tx, node: u16, up_to: u64) -> Result<bool> {
    let (id, done) = (i32::from(node), up_to.cast_signed());
    let over =
        tx.query_opt(&format!("SELECT {OVER} FROM store.node WHERE id = $1 FOR UPDATE"), &[&id]).await?;
    if !over.map_or(Ok(true), |row| row.try_get(0))? {
        tx.abandon();
        return Ok(false);
    }
    delete(&tx, id, up_to).await?;
    let sql =
        "UPDATE store.node SET outbox_done = greatest(outbox_done, least(last_event, $2)) WHERE id = $1";
    tx.execute(sql, &[&id, &done]).await?;
    Ok(true)
}

/// Writes what is pending of the notes. Returns what to tell [`Notes::written`] after the commit.
pub(crate) async fn write_notes(tx: &Tx, node: i32, notes: &Notes) -> Result<u64> {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    let noted = notes.write(|name, value| {
        names.push(name.to_owned());
        values.push(value.to_vec());
        Ok::<(), PgError>(())
    })?;
    if !names.is_empty() {
        tx.execute(
            "INSERT INTO store.note (node, name, value) SELECT $1, * FROM unnest($2::text[], $3::bytea[])
             ON CONFLICT (node, name) DO UPDATE SET value = excluded.value",
            &[&node, &names, &values],
        )
        .await?;
    }
    Ok(noted)
}

/// What is noted under a name.
pub(crate) async fn note(session: Session, node: i32, name: &str) -> Result<Option<Vec<u8>>> {
    let row = session
        .query_opt("SELECT value FROM store.note WHERE node = $1 AND name = $2", &[&node, &name])
        .await?;
    row.map(|row| row.try_get(0).map_err(PgError::from)).transpose()
}
