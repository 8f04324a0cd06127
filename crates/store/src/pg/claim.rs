//! Pages of a queue: deliveries that are due, taken in hand by this node. `FOR UPDATE SKIP LOCKED` lets several nodes page
//! the same queue at once without one waiting for the other, and what one has in hand no other is given.
//!
//! A page begins at a mark, below which nothing is known to wait: a search from the very beginning would go through all
//! the dead entries of the index that a long reading transaction (a backup) keeps the vacuum from removing. What this node puts
//! below the mark lowers it, and so does a horizon that shows it what others have put there; if nobody asks for one, a full
//! sweep every half minute finds that.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::{DeliveryId, Mono, QueueKey, Timestamp};
use parking_lot::Mutex;
use postgres::{PgError, Tx};

use super::errors::committed;
use super::load::keys;
use super::read;
use super::shared::Shared;
use crate::error::StoreError;
use crate::model::Waiting;

/// A full sweep is made so often.
const SWEEP: Duration = Duration::from_secs(30);
/// Clocks of nodes differ, and a row is seen some time after it was due: a mark stays so far (ms) behind the present.
const SLACK: i64 = 10_000;
/// Marks of so many queues are kept.
const MARKS_MAX: usize = 50_000;

/// Up to where nothing waits, by queue.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<HashMap<i64, Mark>>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    from: i64,
    swept: Mono,
}

impl Marks {
    /// Where a page begins.
    fn from(&self, queue: i64, now: Mono) -> i64 {
        let marks = self.0.lock();
        marks.get(&queue).filter(|mark| now.since(mark.swept) < SWEEP).map_or(i64::MIN, |mark| mark.from)
    }

    /// A page that began at `began` has found that nothing waits before `from`.
    fn raise(&self, queue: i64, began: i64, from: i64, now: Mono) {
        let mut marks = self.0.lock();
        if marks.len() >= MARKS_MAX && !marks.contains_key(&queue) {
            marks.clear();
        }
        let swept = began == i64::MIN;
        let mark = marks.entry(queue).or_insert(Mark { from, swept: now });
        if swept {
            *mark = Mark { from, swept: now };
        } else if mark.from == began {
            // Not if somebody has lowered it meanwhile.
            mark.from = from;
        }
    }

    /// Something waits in these queues from these times on.
    pub(crate) fn lower(&self, added: impl Iterator<Item = (i64, i64)>) {
        let mut added = added.peekable();
        if added.peek().is_none() {
            return;
        }
        let mut marks = self.0.lock();
        for (queue, due) in added {
            if let Some(mark) = marks.get_mut(&queue) {
                mark.from = mark.from.min(due);
            }
        }
    }

    /// Anything may be anywhere.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// The deliveries of a queue that have been due longest, of those that no other node has.
pub(crate) async fn page(
    shared: &Shared,
    queue: &QueueKey,
    now: Timestamp,
    n: usize,
) -> Result<Vec<Waiting>, StoreError> {
    shared.open()?;
    let Some(number) = read::find_queue(shared, queue).await? else { return Ok(Vec::new()) };
    let mono = shared.clock.mono();
    let from = shared.marks.from(number, mono);
    let limit = i64::try_from(n).unwrap_or(i64::MAX);
    let ask = Ask { me: (shared.node(), shared.me.epoch), queue: number, from, now: now.0, limit };
    let claimed = shared.pool.commit_idempotent(|tx| claim(tx, ask)).await;
    let Some((page, taken)) = committed(claimed, "paging a queue")? else { return Err(shared.fenced()) };
    shared.counters.claims.fetch_add(u64::from(taken > 0), Ordering::Relaxed);
    shared.counters.claimed.fetch_add(taken, Ordering::Relaxed);
    let present = now.0.min(shared.clock.now().0).saturating_sub(SLACK);
    let first = page.first().and_then(|waiting| waiting.due).map_or(i64::MAX, |due| due.0);
    shared.marks.raise(number, from, first.min(present).max(from), mono);
    Ok(page)
}

#[derive(Clone, Copy)]
struct Ask {
    me: (i32, i64),
    queue: i64,
    from: i64,
    now: i64,
    limit: i64,
}

/// A page, and how much of it was nobody's before. None: this node has been taken for dead.
async fn claim(tx: Tx, ask: Ask) -> Result<Option<(Vec<Waiting>, u64)>, PgError> {
    let (node, epoch) = ask.me;
    // This lock lets the committer go on, and makes who takes the node for dead wait for the claim: none is left behind.
    let fence = "SELECT fenced < $2 AND epoch = $2 FROM store.node WHERE id = $1 FOR KEY SHARE";
    let page = format!(
        "{} WHERE d.queue = $1 AND d.due >= $2 AND d.due <= $3 AND (d.node IS NULL OR d.node = $4 AND d.epoch = $5)
         ORDER BY d.due, d.message, d.idx LIMIT $6 FOR UPDATE OF d SKIP LOCKED",
        read::DELIVERY
    );
    let values: [&(dyn postgres::types::ToSql + Sync); 6] =
        [&ask.queue, &ask.from, &ask.now, &node, &epoch, &ask.limit];
    let life: [&(dyn postgres::types::ToSql + Sync); 2] = [&node, &epoch];
    let (begun, ()) = tokio::try_join!(tx.query_one(fence, &life), tx.batch(BY_INDEX))?;
    if !begun.try_get::<_, bool>(0)? {
        tx.abandon();
        return Ok(None);
    }
    let rows = tx.query(&page, &values).await?;
    let mut page = Vec::with_capacity(rows.len());
    let mut free: Vec<DeliveryId> = Vec::new();
    for row in &rows {
        let found = read::delivery(row)?;
        if found.owner.is_none() {
            free.push(found.waiting.id);
        }
        page.push(found);
    }
    let page = read::with_recipients(&tx, page).await?;
    if free.is_empty() {
        // Nothing is written: nothing has to wait for a standby.
        tx.abandon();
        return Ok(Some((page, 0)));
    }
    let (messages, indices) = keys(free.iter());
    tx.execute(
        "UPDATE store.delivery d SET node = $3, epoch = $4 FROM unnest($1::bigint[], $2::int[]) AS k(message, idx)
         WHERE d.message = k.message AND d.idx = k.idx",
        &[&messages, &indices, &node, &epoch],
    )
    .await?;
    Ok(Some((page, free.len() as u64)))
}

/// Never by anything but the index of what is due, in its order.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off; SET LOCAL enable_bitmapscan = off";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_rise_with_pages_and_fall_with_what_is_added() {
        let marks = Marks::default();
        let clock = mail::ManualClock::new(Timestamp(0));
        let now = || clock.clock().mono();
        assert_eq!(marks.from(1, now()), i64::MIN);
        marks.raise(1, i64::MIN, 100, now());
        assert_eq!(marks.from(1, now()), 100);
        marks.raise(1, 100, 200, now());
        marks.lower([(1, 150), (2, 7)].into_iter());
        assert_eq!(marks.from(1, now()), 150);
        // A page that began before it was lowered knows nothing of what was added.
        marks.raise(1, 200, 300, now());
        assert_eq!(marks.from(1, now()), 150);
        clock.advance(SWEEP);
        assert_eq!(marks.from(1, now()), i64::MIN, "a full sweep");
        marks.raise(1, i64::MIN, 400, now());
        assert_eq!(marks.from(1, now()), 400);
        marks.clear();
        assert_eq!(marks.from(1, now()), i64::MIN);
    }
}
