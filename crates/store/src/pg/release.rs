//! The life of a node in the database: it begins by taking back what its earlier lives left, it ends by giving back what it
//! has, and when it dies another node does that for it.

use parking_lot::Mutex;
use postgres::Tx;
use tokio::sync::oneshot;

use super::errors::{at_start, committed};
use super::inbox::{Release, Released, Reply, Suspects, Task};
use super::shared::Shared;
use super::sums::{COLUMNS, Totals};
use crate::config::Fence;
use crate::error::StoreError;

type Result<T> = std::result::Result<T, postgres::PgError>;

/// What the row of a node said when a life of it began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begun {
    /// The last life was closed, or this is the first.
    pub(crate) clean: bool,
    pub(crate) last_id: u64,
    pub(crate) last_event: u64,
    pub(crate) outbox_done: u64,
    pub(crate) own: Totals,
}

/// Begins a life: from here on nothing counts that earlier ones write. None: this one is over already.
pub(crate) async fn begin(
    pool: &postgres::Pool,
    me: Fence,
) -> std::result::Result<Option<Begun>, StoreError> {
    let first = Mutex::new(None);
    let begun = pool.commit_idempotent(|tx| begin_in(tx, me, &first)).await.map_err(|error| match error {
        postgres::CommitError::NotCommitted(error) => at_start(&error),
        other => StoreError::Unavailable(other.to_string()),
    })?;
    Ok(begun)
}

/// `first` is what an earlier try has seen whose answer was lost.
async fn begin_in(tx: Tx, me: Fence, first: &Mutex<Option<Begun>>) -> Result<Option<Begun>> {
    let node = i32::from(me.node);
    tx.execute(
        "INSERT INTO store.node (id, fenced, epoch, clean) VALUES ($1, 0, 0, true) ON CONFLICT (id) DO NOTHING",
        &[&node],
    )
    .await?;
    let sql = format!(
        "SELECT fenced, epoch, clean, last_id, last_event, outbox_done, {COLUMNS}
         FROM store.node WHERE id = $1 FOR UPDATE"
    );
    let row = tx.query_one(&sql, &[&node]).await?;
    let (fenced, epoch): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let begun = Begun {
        clean: row.try_get(2)?,
        last_id: row.try_get::<_, i64>(3)?.cast_unsigned(),
        last_event: row.try_get::<_, i64>(4)?.cast_unsigned(),
        outbox_done: row.try_get::<_, i64>(5)?.cast_unsigned(),
        own: Totals::of(&row, 6)?,
    };
    // An epoch begins once, but for a try that finds what the one before it has committed.
    if fenced >= me.epoch || epoch > me.epoch || epoch == me.epoch && first.lock().is_none() {
        tx.abandon();
        return Ok(None);
    }
    tx.execute(
        "UPDATE store.node SET fenced = $2::bigint - 1, epoch = $2, batch = 0, clean = false WHERE id = $1",
        &[&node, &me.epoch],
    )
    .await?;
    Ok(Some(*first.lock().get_or_insert(begun)))
}

/// Says that a node's epoch is over. Waits for a commit of it that is under way: what that has written is found afterwards,
/// and what comes later is refused.
pub(crate) async fn end(shared: &Shared, dead: Fence) -> std::result::Result<(), StoreError> {
    committed(shared.pool.commit_idempotent(|tx| end_in(tx, dead)).await, "taking over from a node")
}

async fn end_in(tx: Tx, dead: Fence) -> Result<()> {
    let node = i32::from(dead.node);
    tx.query_opt("SELECT FROM store.node WHERE id = $1 FOR UPDATE", &[&node]).await?;
    tx.execute(
        "INSERT INTO store.node AS n (id, fenced, epoch, clean) VALUES ($1, $2, 0, false)
         ON CONFLICT (id) DO UPDATE SET fenced = greatest(n.fenced, excluded.fenced)",
        &[&node, &dead.epoch],
    )
    .await
    .map(drop)
}

/// Gives back everything that a node had in hand, some at a time.
pub(crate) async fn all(
    shared: &Shared,
    of: Fence,
    suspects: &Suspects,
) -> std::result::Result<Released, StoreError> {
    let mut all = Released::default();
    loop {
        let (answer, answered) = oneshot::channel();
        shared.hand_in(Task::Release(Release { of, suspects: suspects.clone() }), Reply::Release(answer))?;
        let part = answered.await.unwrap_or_else(|_| Err(shared.why_closed()))?;
        if part.found == 0 {
            return Ok(all);
        }
        all.found += part.found;
        all.active += part.active;
        all.held.extend(part.held);
    }
}

/// The node has ended well.
pub(crate) async fn mark_clean(shared: &Shared) -> std::result::Result<(), StoreError> {
    let (node, epoch) = (shared.node(), shared.me.epoch);
    committed(shared.pool.commit_idempotent(|tx| clean(tx, node, epoch)).await, "closing the queue")
}

async fn clean(tx: Tx, node: i32, epoch: i64) -> Result<()> {
    tx.execute(
        "UPDATE store.node SET clean = true WHERE id = $1 AND epoch = $2 AND fenced < $2",
        &[&node, &epoch],
    )
    .await
    .map(drop)
}
