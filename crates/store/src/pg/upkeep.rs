//! What is done beside the work: free space of the spool is asked for, the sums of other nodes are read, partitions made
//! and dropped, expired keys and idle queues deleted. Each node does it; that they do it at once harms nobody.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postgres::{PgError, Session, Tx};

use super::errors::committed;
use super::shared::Shared;
use super::{objects, schema, sums, told};
use crate::error::StoreError;

/// How often the sums of other nodes are read.
const EVERY: Duration = Duration::from_secs(1);
/// How often what was told is deleted, in rounds.
const FORGET: u32 = 60;
/// How often dedupe keys and idle queues are looked at, in rounds: ten minutes,
const TIDY: u32 = 600;
/// and partitions: an hour.
const PARTITIONS: u32 = 3600;
/// Rows deleted in one commit.
const ROWS: i64 = 1000;
/// A queue that nobody has asked for in so long is dropped when it is empty. Numbers are remembered for an hour.
const IDLE_MS: i64 = 86_400_000;

/// Goes on until the engine is gone or closed.
pub(crate) async fn run(shared: Weak<Shared>) {
    let mut round = 0_u32;
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.open().is_err() {
            return;
        }
        round = round.wrapping_add(1);
        shared.room.refresh(0);
        if let Err(error) = turn(&shared, round).await {
            tracing::debug!(%error, "upkeep of the queue");
        }
    }
}

async fn turn(shared: &Shared, round: u32) -> Result<(), StoreError> {
    others(shared).await?;
    // Nodes that were started together do not do the same at the same time.
    let phase = round.wrapping_add(u32::from(shared.me.node) * 7);
    if phase.is_multiple_of(FORGET) {
        told::forget(shared).await?;
    }
    if phase.is_multiple_of(TIDY) {
        expire_keys(shared).await?;
        drop_idle_queues(shared).await?;
        let size = shared.read(size).await?;
        shared.counters.database_bytes.store(size, Ordering::Relaxed);
        *shared.counters.placed.lock() = shared.read(objects::stored).await?;
        objects::sweep_in_turn(shared).await?;
    }
    if phase.is_multiple_of(PARTITIONS) {
        schema::make_partitions(&shared.pool, shared.clock.now().0).await?;
        schema::drop_partitions(&shared.pool, shared.clock.now().0).await?;
    }
    Ok(())
}

/// Reads the sums of the other nodes.
pub(crate) async fn others(shared: &Shared) -> Result<(), StoreError> {
    let node = shared.node();
    let totals = shared.read(|session| sums::without(session, node)).await?;
    shared.counters.set_others(totals);
    Ok(())
}

async fn size(session: Session) -> Result<u64, PgError> {
    let sql = "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'store' AND c.relkind = 'r'";
    let row = session.query_one(sql, &[]).await?;
    Ok(row.try_get::<_, Option<i64>>(0)?.unwrap_or(0).cast_unsigned())
}

/// Deletes dedupe keys that have expired.
pub(crate) async fn expire_keys(shared: &Shared) -> Result<(), StoreError> {
    loop {
        let now = shared.clock.now().0;
        let deleted = committed(shared.pool.commit_idempotent(|tx| expire(tx, now)).await, "expiring keys")?;
        if deleted < ROWS.cast_unsigned() {
            return Ok(());
        }
    }
}

async fn expire(tx: Tx, now: i64) -> Result<u64, PgError> {
    // What another node is about to take again is left alone.
    tx.execute(
        "DELETE FROM store.dedupe d USING
           (SELECT org, key FROM store.dedupe WHERE expires <= $1 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED) k
         WHERE d.org = k.org AND d.key = k.key",
        &[&now, &ROWS],
    )
    .await
}

/// Deletes queues that are empty and that nobody has asked for in a long time.
pub(crate) async fn drop_idle_queues(shared: &Shared) -> Result<u64, StoreError> {
    let before = shared.clock.now().0 - IDLE_MS;
    committed(shared.pool.commit_idempotent(|tx| drop_idle(tx, before)).await, "dropping idle queues")
}

async fn drop_idle(tx: Tx, before: i64) -> Result<u64, PgError> {
    tx.execute(
        "DELETE FROM store.queue WHERE id IN (SELECT q.id FROM store.queue q WHERE q.used < $1 AND q.due IS NULL
           AND NOT EXISTS (SELECT FROM store.delivery d WHERE d.queue = q.id) LIMIT 10000 FOR UPDATE SKIP LOCKED)
         AND used < $1",
        &[&before],
    )
    .await
}
