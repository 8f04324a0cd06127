//! The rows of the outbox: events of a group on their way into them, and back.

use mail::Event;
use rusqlite::Connection;

use crate::codec;
use crate::outbox::{PACK_BYTES, PACK_EVENTS};

/// Events of a group on their way into a row: one row for many costs a fraction of a row for each.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    bytes: Vec<u8>,
    events: usize,
}

impl Pack {
    /// Adds an event whose number is `seq`; a full row is written.
    pub(crate) fn add(
        &mut self,
        conn: &Connection,
        seq: u64,
        event: &Event,
        scratch: &mut Vec<u8>,
    ) -> rusqlite::Result<()> {
        codec::encode(event, scratch);
        codec::pack(&mut self.bytes, scratch);
        self.events += 1;
        if self.events >= PACK_EVENTS || self.bytes.len() >= PACK_BYTES {
            self.write(conn, seq)
        } else {
            Ok(())
        }
    }

    /// Writes what there is as a row; `seq` is the number of the last event.
    pub(crate) fn write(&mut self, conn: &Connection, seq: u64) -> rusqlite::Result<()> {
        if self.events == 0 {
            return Ok(());
        }
        conn.prepare_cached("INSERT INTO outbox (seq, event) VALUES (?1, ?2)")?
            .execute((seq.cast_signed(), &self.bytes))?;
        self.clear();
        Ok(())
    }

    /// Forgets what a transaction that failed had told.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.events = 0;
    }
}

/// Events behind `after` from the database. A row's number is that of its last event.
pub(crate) fn stored(conn: &Connection, after: u64, n: usize) -> rusqlite::Result<Vec<(u64, Event)>> {
    let mut found = Vec::new();
    let mut select = conn.prepare_cached("SELECT seq, event FROM outbox WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = select.query([after.cast_signed()])?;
    while found.len() < n
        && let Some(row) = rows.next()?
    {
        let last = row.get::<_, i64>(0)?.cast_unsigned();
        let events = codec::unpack(row.get_ref(1)?.as_blob()?)?;
        let first = last + 1 - events.len() as u64;
        let behind = (first..).zip(events).filter(|(seq, _)| *seq > after);
        found.extend(behind.take(n - found.len()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{EventKind, MessageId, Timestamp};

    fn event(n: u64) -> (u64, Event) {
        let kind = EventKind::Released { by: "test".into() };
        (n, Event { at: Timestamp(0), message: MessageId(n), kind })
    }

    #[test]
    fn packed_events_come_back_one_by_one() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute("CREATE TABLE outbox (seq INTEGER PRIMARY KEY, event BLOB NOT NULL)", []).unwrap();
        let (mut pack, mut scratch) = (Pack::default(), Vec::new());
        // What was written before rows were shared.
        codec::encode(&event(1).1, &mut scratch);
        conn.execute("INSERT INTO outbox VALUES (1, ?1)", [&scratch]).unwrap();
        for n in 2..=200 {
            pack.add(&conn, n, &event(n).1, &mut scratch).unwrap();
        }
        pack.write(&conn, 200).unwrap();
        let rows: i64 = conn.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1 + 199_i64.div_euclid(64) + 1);
        for (after, n) in [(0, 1), (0, 1000), (1, 3), (63, 5), (64, 64), (100, 1000), (199, 9), (200, 9)] {
            let expected: Vec<_> = (after + 1..=200).take(n).map(event).collect();
            assert_eq!(stored(&conn, after, n).unwrap(), expected, "{n} behind {after}");
        }
    }
}
