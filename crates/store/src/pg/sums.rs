//! Sums that are kept in the commits that change them (ADR-0011): how many deliveries are in each state and how much
//! content there is, in the row of the node that wrote; how many wait in each queue and when the first is due, in the row
//! of the queue.

use std::collections::BTreeMap;

use mail::{MessageId, State};
use postgres::{PgError, Row, Session, Tx};

use crate::codec;
use crate::model::Counts;

type Result<T> = std::result::Result<T, PgError>;

/// Where a delivery stands: its queue by number, its state and its due time.
pub(crate) type Standing = (i64, State, Option<i64>);

/// What a node's commits have added up to: parts of a sum, negative ones too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    states: [i64; 5],
    live: i64,
}

/// What a group changes beside the rows.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) admitted: u64,
    pub(crate) settled: u64,
    pub(crate) content_bytes: u64,
    /// Times that a delivery was given a due time.
    pub(crate) due_writes: u64,
    /// Messages that are gone whose content is in object storage.
    pub(crate) objects_gone: Vec<MessageId>,
    /// By how much the octets of content change.
    pub(crate) live: i64,
    /// By how much the number of deliveries in each state changes.
    states: [i64; 5],
    /// Queues in which what waits has changed.
    queues: BTreeMap<i64, Queue>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    /// By how much in number.
    by: i64,
    /// The earliest due time that was added.
    added: Option<i64>,
}

/// Columns of a node's row that hold its sums, in order.
pub(crate) const COLUMNS: &str = "active, waiting, held, sandboxed, quarantined, live";

impl Totals {
    /// From [`COLUMNS`], of which `first` is the place of the first.
    pub(crate) fn of(row: &Row, first: usize) -> Result<Self> {
        let mut totals = Self::default();
        for (i, state) in totals.states.iter_mut().enumerate() {
            *state = row.try_get(first + i)?;
        }
        totals.live = row.try_get(first + 5)?;
        Ok(totals)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let mut states = self.states;
        states.iter_mut().zip(other.states).for_each(|(sum, more)| *sum += more);
        Self { states, live: self.live + other.live }
    }

    pub(crate) fn counts(self) -> Counts {
        let [active, waiting, held, sandboxed, quarantined] =
            self.states.map(|n| u64::try_from(n).unwrap_or(0));
        Counts { active, waiting, held, sandboxed, quarantined }
    }

    pub(crate) fn live(self) -> u64 {
        u64::try_from(self.live).unwrap_or(0)
    }
}

impl Effects {
    /// A delivery has come into being, gone, or changed.
    pub(crate) fn moved(&mut self, from: Option<Standing>, to: Option<Standing>) {
        if let Some((queue, state, due)) = from {
            self.states[usize::from(codec::state_code(state))] -= 1;
            if due.is_some() {
                self.queues.entry(queue).or_default().by -= 1;
            }
        }
        if let Some((queue, state, due)) = to {
            self.states[usize::from(codec::state_code(state))] += 1;
            if let Some(due) = due {
                let queue = self.queues.entry(queue).or_default();
                queue.by += 1;
                queue.added = Some(queue.added.map_or(due, |earlier| earlier.min(due)));
                self.due_writes += 1;
            }
        }
    }

    /// A queue's number was asked for: its row says so, that nobody drops it.
    pub(crate) fn used(&mut self, queue: i64) {
        self.queues.entry(queue).or_default();
    }

    /// The earliest due time that was added to each queue.
    pub(crate) fn added(&self) -> impl Iterator<Item = (i64, i64)> {
        self.queues.iter().filter_map(|(queue, change)| Some((*queue, change.added?)))
    }

    /// Brings the rows of the queues up to date. Last of all, as from here on other nodes wait that write to the same
    /// queues; and in order, so that no two wait for each other.
    pub(crate) async fn write_queues(&self, tx: &Tx, now: i64) -> Result<()> {
        if self.queues.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = self.queues.keys().copied().collect();
        let by: Vec<i64> = self.queues.values().map(|change| change.by).collect();
        let added: Vec<Option<i64>> = self.queues.values().map(|change| change.added).collect();
        tx.execute("SELECT FROM store.queue WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", &[&ids])
            .await?;
        // A statement of its own sees what those have committed that we have waited for. What was first is where the
        // search for the first begins: nothing is due before, but dead rows may lie there in numbers.
        tx.execute(
            "UPDATE store.queue q SET waiting = q.waiting + c.by, used = greatest(q.used, $4),
               due = (SELECT min(d.due) FROM store.delivery d WHERE d.queue = q.id AND d.due >= least(q.due, c.added))
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS c(id, by, added) WHERE q.id = c.id",
            &[&ids, &by, &added, &now],
        )
        .await?;
        Ok(())
    }

    /// By how much the [`COLUMNS`] of the node change.
    pub(crate) fn columns(&self) -> [i64; 6] {
        let [active, waiting, held, sandboxed, quarantined] = self.states;
        [active, waiting, held, sandboxed, quarantined, self.live]
    }
}

/// The sums of all nodes but this one; -1 is none.
pub(crate) async fn without(session: Session, node: i32) -> Result<Totals> {
    let sum = |column: &str| format!("coalesce(sum({column}), 0)::bigint");
    let columns: Vec<String> = COLUMNS.split(", ").map(sum).collect();
    let sql = format!("SELECT {} FROM store.node WHERE id <> $1", columns.join(", "));
    Totals::of(&session.query_one(&sql, &[&node]).await?, 0)
}

/// Compares the sums with the rows. Empty when all is well.
pub(crate) const CHECKS: [(&str, &str); 3] = [
    (
        "states",
        "SELECT count(*) FROM (SELECT sum(active) AS n, 0 AS state FROM store.node UNION ALL
             SELECT sum(waiting), 1 FROM store.node UNION ALL SELECT sum(held), 2 FROM store.node UNION ALL
             SELECT sum(sandboxed), 3 FROM store.node UNION ALL SELECT sum(quarantined), 4 FROM store.node) s
         LEFT JOIN (SELECT state, count(*) AS n FROM store.delivery GROUP BY state) f USING (state)
         WHERE coalesce(f.n, 0) <> s.n",
    ),
    (
        "queues",
        "SELECT count(*) FROM store.queue q LEFT JOIN (SELECT queue AS id, count(*) AS n, min(due) AS due
           FROM store.delivery WHERE due IS NOT NULL GROUP BY queue) f USING (id)
         WHERE q.waiting <> coalesce(f.n, 0) OR q.due IS DISTINCT FROM f.due",
    ),
    (
        "octets",
        "SELECT count(*) FROM (SELECT coalesce(sum(live), 0) AS live FROM store.node) s,
           (SELECT coalesce(sum(length), 0) AS live FROM store.message) f WHERE s.live <> f.live",
    ),
];
