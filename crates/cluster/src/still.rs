//! A cluster that stands still: for work on its data that no node may take part in.

use std::collections::BTreeMap;

use mail::Clock;
use postgres::{PgError, Pool, Session};
use tokio::time::sleep;

use crate::join::{LOOK_EVERY, LOOKS};
use crate::node::COLUMNS;
use crate::{ClusterError, Node, NodeState};

/// The nodes that beat. When some are up, this takes some five seconds, or as long as it takes to see one of them beat;
/// `clock` only tells how long it took. A database that no node has ever joined has none.
///
/// # Errors
/// [`ClusterError::Postgres`].
pub async fn beating(pool: &Pool, clock: &Clock) -> Result<Vec<Node>, ClusterError> {
    let started = clock.mono();
    let mut first: Option<BTreeMap<u16, Node>> = None;
    for _ in 0..=LOOKS {
        let up: BTreeMap<u16, Node> = pool.read(up).await?.into_iter().map(|n| (n.token.node, n)).collect();
        if up.is_empty() {
            return Ok(Vec::new());
        }
        let Some(first) = &first else {
            first = Some(up);
            sleep(LOOK_EVERY).await;
            continue;
        };
        let moved = |node: &Node| {
            first.get(&node.token.node).is_none_or(|old| (old.token, old.beat) != (node.token, node.beat))
        };
        let alive: Vec<Node> = up.into_values().filter(moved).collect();
        if !alive.is_empty() {
            return Ok(alive);
        }
        sleep(LOOK_EVERY).await;
    }
    tracing::info!(took = ?clock.mono().since(started), "no node beats");
    Ok(Vec::new())
}

async fn up(session: Session) -> Result<Vec<Node>, PgError> {
    if !session.query_one("SELECT to_regclass('cluster.node') IS NOT NULL", &[]).await?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = session.query(&format!("SELECT {COLUMNS} FROM cluster.node ORDER BY id"), &[]).await?;
    Ok(rows.iter().map(Node::of).filter(|node| node.state == NodeState::Up).collect())
}

/// Declares every node dead that has not left, without waiting: what they still write counts no more, and should a cluster
/// begin again here, its nodes give back what these had in hand. To be called when none is [`beating`].
///
/// # Errors
/// [`ClusterError::Postgres`], [`ClusterError::Unknown`].
pub async fn end_all(pool: &Pool) -> Result<u64, ClusterError> {
    let ended = pool.commit_idempotent(|tx| async move {
        if !tx.query_one("SELECT to_regclass('cluster.node') IS NOT NULL", &[]).await?.get::<_, bool>(0) {
            tx.abandon();
            return Ok(0);
        }
        let sql = "UPDATE cluster.node SET epoch = nextval('cluster.epoch'), state = 'dead', owed = true, \
            draining = false WHERE state = 'up'";
        tx.execute(sql, &[]).await
    });
    Ok(ended.await?)
}
