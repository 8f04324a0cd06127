//! What a group has to know before it does anything: the numbers of queues, and the rows of its deliveries, locked in the
//! order of their ids so that no two nodes wait for each other.

use std::collections::BTreeSet;

use mail::{DeliveryId, MessageId, QueueKey};
use postgres::{PgError, Row as Columns, Tx};

use super::inbox::{Op, Release, Task};
use super::work::{Row, Slot, Work, queue_columns};
use crate::codec;
use crate::filter::Action;
use crate::operate::queue_after;

type Result<T> = std::result::Result<T, PgError>;

/// Rows that a release takes at a time.
const RELEASE: i64 = 1000;

const ROW: &str =
    "SELECT d.message, d.idx, d.queue, d.state, d.due, d.attempts, d.crashes, d.warned, d.reason,
    d.node, d.epoch, d.n, d.status, q.org, q.stream, q.destination
    FROM store.delivery d JOIN store.queue q ON q.id = d.queue";

/// The queues that new deliveries of a group go to.
pub(crate) fn queues_of(ops: &[Op]) -> BTreeSet<&QueueKey> {
    let admissions = ops.iter().flat_map(|op| op.task.admissions());
    admissions.flat_map(|admission| &admission.deliveries).map(|delivery| &delivery.queue).collect()
}

/// The numbers of queues, those that have none yet getting one. In order of their names.
pub(crate) async fn numbers<'a>(
    tx: &Tx,
    queues: &[&'a QueueKey],
    now: i64,
) -> Result<Vec<(&'a QueueKey, i64)>> {
    if queues.is_empty() {
        return Ok(Vec::new());
    }
    let mut columns: Vec<_> = queues.iter().map(|queue| (queue_columns(queue), *queue)).collect();
    columns.sort_by(|a, b| a.0.cmp(&b.0));
    let orgs: Vec<i64> = columns.iter().map(|(c, _)| c.0).collect();
    let streams: Vec<i32> = columns.iter().map(|(c, _)| c.1).collect();
    let destinations: Vec<&str> = columns.iter().map(|(c, _)| c.2.as_str()).collect();
    let find = "SELECT k.place, q.id FROM unnest($1::bigint[], $2::int[], $3::text[])
          WITH ORDINALITY AS k(org, stream, destination, place)
        LEFT JOIN store.queue q USING (org, stream, destination) ORDER BY k.place";
    let mut rows = tx.query(find, &[&orgs, &streams, &destinations]).await?;
    if rows.iter().any(|row| !matches!(row.try_get::<_, Option<i64>>(1), Ok(Some(_)))) {
        tx.execute(
            "INSERT INTO store.queue (org, stream, destination, used)
             SELECT org, stream, destination, $4 FROM unnest($1::bigint[], $2::int[], $3::text[])
               AS k(org, stream, destination)
             WHERE NOT EXISTS (SELECT FROM store.queue q WHERE (q.org, q.stream, q.destination) = (k.org, k.stream, k.destination))
             ON CONFLICT DO NOTHING",
            &[&orgs, &streams, &destinations, &now],
        )
        .await?;
        rows = tx.query(find, &[&orgs, &streams, &destinations]).await?;
    }
    columns.iter().zip(&rows).map(|((_, queue), row)| Ok((*queue, row.try_get(1)?))).collect()
}

impl Work {
    /// Reads and locks the rows that the tasks concern.
    pub(crate) async fn load(&mut self, tx: &Tx, ops: &[Op]) -> Result<()> {
        let ids: BTreeSet<DeliveryId> = ops.iter().flat_map(|op| deliveries(&op.task)).copied().collect();
        self.load_ids(tx, &ids).await?;
        for (place, op) in ops.iter().enumerate() {
            match &op.task {
                Task::Quarantine { message, .. } => self.load_message(tx, *message).await?,
                Task::Release(release) => self.load_owned(tx, place, release).await?,
                _ => {}
            }
        }
        self.load_pending(tx, ops).await?;
        self.load_targets(tx, ops).await
    }

    async fn load_ids(&mut self, tx: &Tx, ids: &BTreeSet<DeliveryId>) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let (messages, indices) = keys(ids.iter());
        let sql = format!(
            "{ROW} JOIN unnest($1::bigint[], $2::int[]) AS k(message, idx) ON d.message = k.message AND d.idx = k.idx
             ORDER BY d.message, d.idx FOR UPDATE OF d"
        );
        let rows = tx.query(&sql, &[&messages, &indices]).await?;
        rows.iter().try_for_each(|row| self.take(row).map(drop))
    }

    async fn load_message(&mut self, tx: &Tx, message: MessageId) -> Result<()> {
        let sql = format!("{ROW} WHERE d.message = $1 ORDER BY d.message, d.idx FOR UPDATE OF d");
        let rows = tx.query(&sql, &[&codec::id(message)]).await?;
        let ids = rows.iter().map(|row| self.take(row)).collect::<Result<_>>()?;
        self.of_message.insert(message, ids);
        Ok(())
    }

    async fn load_owned(&mut self, tx: &Tx, place: usize, release: &Release) -> Result<()> {
        // The rows are chosen first and locked in order then: what the index gives has no order of ids.
        let sql = format!(
            "{ROW} JOIN (SELECT message, idx FROM store.delivery WHERE node = $1 AND epoch <= $2 LIMIT $3) k
               ON d.message = k.message AND d.idx = k.idx
             ORDER BY d.message, d.idx FOR UPDATE OF d"
        );
        let node = i32::from(release.of.node);
        let rows = tx.query(&sql, &[&node, &release.of.epoch, &RELEASE]).await?;
        let ids = rows.iter().map(|row| self.take(row)).collect::<Result<_>>()?;
        self.owned.insert(place, ids);
        Ok(())
    }

    /// Notes a row. One that another statement of this transaction has read before is locked since, so nothing has changed.
    fn take(&mut self, row: &Columns) -> Result<DeliveryId> {
        let index: i32 = row.try_get(1)?;
        let message = codec::message_id(row.try_get(0)?);
        let id = DeliveryId { message, index: u16::try_from(index).unwrap_or(u16::MAX) };
        let owner = match (row.try_get::<_, Option<i32>>(9)?, row.try_get::<_, Option<i64>>(10)?) {
            (Some(node), Some(epoch)) => Some((node, epoch)),
            _ => None,
        };
        let state: i32 = row.try_get(3)?;
        let before = Row {
            queue: row.try_get(2)?,
            state: codec::state(u8::try_from(state).unwrap_or(u8::MAX))?,
            due: row.try_get(4)?,
            attempts: row.try_get(5)?,
            crashes: row.try_get(6)?,
            warned: row.try_get(7)?,
            reason: row.try_get(8)?,
            owner,
            status: row.try_get(12)?,
            outcome: None,
        };
        let key = (row.try_get(13)?, row.try_get(14)?, row.try_get(15)?);
        let now = Some(before.clone());
        self.slots.insert(id, Slot { only: row.try_get(11)?, key, before, now });
        Ok(id)
    }

    /// Who of several recipients is not final, where that is told.
    async fn load_pending(&mut self, tx: &Tx, ops: &[Op]) -> Result<()> {
        let told = ops
            .iter()
            .filter(|op| matches!(op.task, Task::Withdraw(_) | Task::Change { action: Action::Remove, .. }));
        let ids: BTreeSet<DeliveryId> = told
            .flat_map(|op| deliveries(&op.task))
            .filter(|id| self.slots.get(id).is_some_and(|slot| slot.only.is_none()))
            .copied()
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        let (messages, indices) = keys(ids.iter());
        let rows = tx
            .query(
                "SELECT r.message, r.delivery, r.n FROM store.recipient r
                 JOIN unnest($1::bigint[], $2::int[]) AS k(message, idx) ON r.message = k.message AND r.delivery = k.idx
                 WHERE r.status = 0 ORDER BY r.n",
                &[&messages, &indices],
            )
            .await?;
        for row in rows {
            let (index, n): (i32, i32) = (row.try_get(1)?, row.try_get(2)?);
            let message = codec::message_id(row.try_get(0)?);
            let id = DeliveryId { message, index: u16::try_from(index).unwrap_or(u16::MAX) };
            self.pending.entry(id).or_default().push(u16::try_from(n).unwrap_or(u16::MAX));
        }
        Ok(())
    }

    /// The numbers of the queues that an operator moves deliveries to.
    async fn load_targets(&mut self, tx: &Tx, ops: &[Op]) -> Result<()> {
        let mut targets = BTreeSet::new();
        for op in ops {
            let Task::Change { ids, action: action @ Action::Reroute { .. }, .. } = &op.task else {
                continue;
            };
            for slot in ids.iter().filter_map(|id| self.slots.get(id)) {
                let (org, stream, destination) = &slot.key;
                let queue = codec::queue_key(*org, u8::try_from(*stream).unwrap_or(0), destination)?;
                targets.insert(queue_after(action, &queue));
            }
        }
        let targets: Vec<_> = targets.iter().filter(|queue| !self.queues.contains_key(queue)).collect();
        let found = numbers(tx, &targets, self.now()).await?;
        for (queue, number) in found {
            self.effects.used(number);
            self.queues.insert(queue.clone(), number);
        }
        Ok(())
    }
}

/// The deliveries that a task names.
fn deliveries(task: &Task) -> &[DeliveryId] {
    match task {
        Task::Settle(settlement) => std::slice::from_ref(&settlement.delivery),
        Task::Change { ids, .. } | Task::Withdraw(ids) => ids,
        _ => &[],
    }
}

/// Ids as columns.
pub(crate) fn keys<'a>(ids: impl Iterator<Item = &'a DeliveryId>) -> (Vec<i64>, Vec<i32>) {
    ids.map(|id| (codec::id(id.message), i32::from(id.index))).unzip()
}
