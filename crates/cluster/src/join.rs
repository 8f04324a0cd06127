//! How a process becomes a node.

use std::time::Duration;

use postgres::{CommitError, PgError, Pool, Tx};
use tokio::time::sleep;

use crate::{BEAT, ClusterError, NodeConfig, Token};

/// Long enough for a living node to beat once more.
pub(crate) const LOOKS: u32 = 10;
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Begins a new life of the node of this name, or its first.
pub(crate) async fn join(pool: &Pool, config: &NodeConfig) -> Result<Token, ClusterError> {
    not_taken(pool, config).await?;
    loop {
        match pool.commit(|tx| enter(tx, config)).await {
            Ok(Some(token)) => return Ok(token),
            Ok(None) => return Err(ClusterError::Full),
            // If it was committed, that life is followed by another at once.
            Err(CommitError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sees whether the node of this name beats.
async fn not_taken(pool: &Pool, config: &NodeConfig) -> Result<(), ClusterError> {
    const { assert!(LOOK_EVERY.as_millis() * LOOKS as u128 > 2 * BEAT.as_millis()) };
    let mut first = None;
    for _ in 0..=LOOKS {
        let sql = "SELECT epoch, beat, address FROM cluster.node WHERE name = $1 AND state = 'up'";
        let name = &config.name;
        let row = pool.read(|s| async move { s.query_opt(sql, &[name]).await }).await?;
        // It was stopped in order, or there was none.
        let Some(row) = row else { return Ok(()) };
        let now: (i64, i64) = (row.get(0), row.get(1));
        if *first.get_or_insert(now) != now {
            return Err(ClusterError::NameTaken { name: name.clone(), address: row.get(2) });
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn enter(tx: Tx, config: &NodeConfig) -> Result<Option<Token>, PgError> {
    // One at a time, so that no two take the same number.
    tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('posthouse node numbers', 0))", &[]).await?;
    let NodeConfig { name, address, version } = config;
    let again = "UPDATE cluster.node SET epoch = nextval('cluster.epoch'), beat = 0, state = 'up', draining = false, \
        address = $2, version = $3, beat_at = clock_timestamp() WHERE name = $1 RETURNING id, epoch";
    let new = "INSERT INTO cluster.node (id, name, epoch, state, address, version) \
        SELECT n, $1, nextval('cluster.epoch'), 'up', $2, $3 FROM generate_series(1, 1023) AS n \
        WHERE NOT EXISTS (SELECT FROM cluster.node WHERE id = n) ORDER BY n LIMIT 1 RETURNING id, epoch";
    let row = match tx.query_opt(again, &[name, address, version]).await? {
        Some(row) => Some(row),
        None => tx.query_opt(new, &[name, address, version]).await?,
    };
    if row.is_none() {
        tx.abandon();
    }
    Ok(row.map(|row| Token { node: u16::try_from(row.get::<_, i32>(0)).unwrap_or(0), epoch: row.get(1) }))
}
