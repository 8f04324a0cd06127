//! Sums that are kept beside the rows, in the commits that change them: how each content segment is referred to, how many
//! deliveries there are in each state, how many wait in each queue and when the first is due. With them a start, a
//! horizon and a listing of the queues cost what they return, not what is stored (ADR-0011).

use std::collections::HashMap;

use mail::State;
use rusqlite::Connection;

use super::schema;
use crate::codec;
use crate::content::{ContentRef, Segment, SegmentId, Segments};
use crate::model::Counts;

type Result<T> = rusqlite::Result<T>;

/// The facts that hold how many deliveries are in each state, by its number.
const STATES: [&str; 5] = ["active", "waiting", "held", "sandboxed", "quarantined"];

/// Where a delivery stands: its queue by number, its state and its due time.
pub(crate) type Standing = (i64, State, Option<i64>);

/// What a group changes beside the rows: applied to memory once it is committed.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) added: Vec<ContentRef>,
    pub(crate) removed: Vec<ContentRef>,
    pub(crate) admitted: u64,
    pub(crate) settled: u64,
    /// Times that a delivery was given a due time.
    pub(crate) due_writes: u64,
    /// Whether a dedupe key was taken.
    pub(crate) dedupe: bool,
    /// By how much the number of deliveries in each state changes.
    pub(crate) states: [i64; 5],
    /// Queues in which what waits has changed, and by how much in number.
    queues: HashMap<i64, i64>,
}

impl Effects {
    /// A delivery has come into being, gone, or changed.
    pub(crate) fn moved(&mut self, from: Option<Standing>, to: Option<Standing>) {
        if let Some((queue, state, due)) = from {
            self.states[usize::from(codec::state_code(state))] -= 1;
            if due.is_some() {
                *self.queues.entry(queue).or_default() -= 1;
            }
        }
        if let Some((queue, state, due)) = to {
            self.states[usize::from(codec::state_code(state))] += 1;
            if due.is_some() {
                *self.queues.entry(queue).or_default() += 1;
                self.due_writes += 1;
            }
        }
    }

    /// Writes the sums, at the end of the transaction.
    pub(crate) fn write(&self, conn: &Connection, segments: &Segments) -> Result<()> {
        self.write_rows(conn)?;
        for (id, segment) in segments.after(&self.added, &self.removed) {
            write_segment(conn, id, &segment)?;
        }
        Ok(())
    }

    /// The sums of deliveries alone.
    pub(crate) fn write_rows(&self, conn: &Connection) -> Result<()> {
        for (name, by) in STATES.iter().zip(self.states) {
            if by != 0 {
                conn.prepare_cached("UPDATE meta SET value = value + ?2 WHERE name = ?1")?
                    .execute((name, by))?;
            }
        }
        for (queue, by) in &self.queues {
            refresh_queue(conn, *queue, *by)?;
        }
        Ok(())
    }
}

/// Sets what a queue's row says of it; `by` is how many more wait.
fn refresh_queue(conn: &Connection, queue: i64, by: i64) -> Result<()> {
    conn.prepare_cached(
        "UPDATE queue SET waiting = waiting + ?2,
           due = (SELECT min(d.due) FROM delivery d WHERE d.queue = ?1 AND d.due IS NOT NULL) WHERE id = ?1",
    )?
    .execute((queue, by))?;
    Ok(())
}

fn write_segment(conn: &Connection, id: SegmentId, segment: &Segment) -> Result<()> {
    let id = id.cast_signed();
    if segment.records == 0 {
        conn.prepare_cached("DELETE FROM segment WHERE id = ?1")?.execute([id])?;
        return Ok(());
    }
    conn.prepare_cached(
        "REPLACE INTO segment (id, records, live, reach, first, last) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((
        id,
        segment.records.cast_signed(),
        segment.live.cast_signed(),
        segment.reach.cast_signed(),
        segment.first.cast_signed(),
        segment.last.cast_signed(),
    ))?;
    Ok(())
}

/// The segments that messages refer to, as the last commit left them; their files have not been looked at.
pub(crate) fn segments(conn: &Connection) -> Result<Vec<(SegmentId, Segment)>> {
    conn.prepare("SELECT id, records, live, reach, first, last FROM segment")?
        .query_map([], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let segment = Segment {
                records: number(1)?,
                live: number(2)?,
                reach: number(3)?,
                first: number(4)?,
                last: number(5)?,
                ..Segment::default()
            };
            Ok((number(0)?, segment))
        })?
        .collect()
}

/// Deliveries by state, as the last commit left them.
pub(crate) fn counts(conn: &Connection) -> Result<Counts> {
    let of = |name| -> Result<u64> { Ok(u64::try_from(schema::fact(conn, name)?.unwrap_or(0)).unwrap_or(0)) };
    let [active, waiting, held, sandboxed, quarantined] = STATES;
    Ok(Counts {
        active: of(active)?,
        waiting: of(waiting)?,
        held: of(held)?,
        sandboxed: of(sandboxed)?,
        quarantined: of(quarantined)?,
    })
}

/// Compares the sums with the rows, in one snapshot. Empty when all is well.
pub(crate) fn check(conn: &Connection) -> Result<Vec<String>> {
    let snapshot = conn.unchecked_transaction()?;
    let mut wrong = Vec::new();
    for (what, sql) in [
        (
            "content segments",
            "SELECT count(*) FROM (SELECT segment AS id, count(*) AS records, sum(length) + 24 * count(*) AS live
               FROM message GROUP BY segment) f FULL JOIN segment s USING (id)
             WHERE f.records IS NOT s.records OR f.live IS NOT s.live",
        ),
        (
            "states",
            "SELECT count(*) FROM (SELECT 0 AS state, 'active' AS name UNION ALL SELECT 1, 'waiting'
               UNION ALL SELECT 2, 'held' UNION ALL SELECT 3, 'sandboxed' UNION ALL SELECT 4, 'quarantined') s
             LEFT JOIN (SELECT state, count(*) AS n FROM delivery GROUP BY state) f USING (state)
             LEFT JOIN meta USING (name) WHERE coalesce(f.n, 0) IS NOT meta.value",
        ),
        (
            "queues",
            "SELECT count(*) FROM queue q LEFT JOIN (SELECT queue AS id, count(*) AS n, min(due) AS due
               FROM delivery WHERE due IS NOT NULL GROUP BY queue) f USING (id)
             WHERE q.waiting <> coalesce(f.n, 0) OR q.due IS NOT f.due",
        ),
    ] {
        let n: i64 = snapshot.query_row(sql, [], |row| row.get(0))?;
        if n > 0 {
            wrong.push(format!("the sums of {n} {what} are not those of the rows"));
        }
    }
    Ok(wrong)
}
