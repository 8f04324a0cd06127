//! Nodes as the database knows them, and what an operator does with them.

use mail::Timestamp;
use postgres::{Pool, Row};

use crate::ClusterError;

/// One life of one node: what it writes carries this, and counts only as long as the epoch is the node's newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The node's number, 1 to 1023.
    pub node: u16,
    /// Goes up with each start and each time the node is declared dead.
    pub epoch: i64,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It beats.
    Up,
    /// It was stopped in order.
    Left,
    /// It was declared dead.
    Dead,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number and present epoch.
    pub token: Token,
    /// Its name in the configuration.
    pub name: String,
    /// Where its management can be reached.
    pub address: String,
    /// The version of Posthouse that it runs.
    pub version: String,
    /// How it is.
    pub state: NodeState,
    /// It finishes what it has and starts nothing.
    pub draining: bool,
    /// Its beats so far in this life.
    pub beat: i64,
    /// When it beat last, by the database's clock. For people: nothing is decided by it.
    pub beat_at: Timestamp,
    /// What its earlier lives had in hand has still to be given back.
    pub owed: bool,
}

pub(crate) const COLUMNS: &str = "id, epoch, name, address, version, state, draining, beat, \
    (extract(epoch FROM beat_at) * 1000)::bigint, owed";

impl Node {
    pub(crate) fn of(row: &Row) -> Self {
        let state = match row.get::<_, &str>(5) {
            "up" => NodeState::Up,
            "left" => NodeState::Left,
            _ => NodeState::Dead,
        };
        Self {
            token: Token { node: u16::try_from(row.get::<_, i32>(0)).unwrap_or(0), epoch: row.get(1) },
            name: row.get(2),
            address: row.get(3),
            version: row.get(4),
            state,
            draining: row.get(6),
            beat: row.get(7),
            beat_at: Timestamp(row.get(8)),
            owed: row.get(9),
        }
    }
}

/// All nodes by number, as the database has them now.
///
/// # Errors
/// [`ClusterError::Postgres`].
pub async fn nodes(pool: &Pool) -> Result<Vec<Node>, ClusterError> {
    let sql = format!("SELECT {COLUMNS} FROM cluster.node ORDER BY id");
    let sql = &sql;
    let rows = pool.read(|s| async move { s.query(sql, &[]).await }).await?;
    Ok(rows.iter().map(Node::of).collect())
}

/// Has a node finish what it has and start nothing, or ends that. It obeys at its next beat.
///
/// # Errors
/// [`ClusterError::NoSuchNode`], [`ClusterError::Postgres`].
pub async fn set_draining(pool: &Pool, name: &str, draining: bool) -> Result<(), ClusterError> {
    let sql = "UPDATE cluster.node SET draining = $2 WHERE name = $1";
    let changed =
        pool.commit_idempotent(|tx| async move { tx.execute(sql, &[&name, &draining]).await }).await?;
    if changed == 0 {
        return Err(ClusterError::NoSuchNode(format!("there is no node {name:?}")));
    }
    Ok(())
}

/// Removes a node that will not come back, so that its number is free.
///
/// # Errors
/// [`ClusterError::NoSuchNode`] also while it is up or what it left has not been given back;
/// [`ClusterError::Postgres`].
pub async fn forget(pool: &Pool, name: &str) -> Result<(), ClusterError> {
    let sql = "DELETE FROM cluster.node WHERE name = $1 AND state <> 'up' AND NOT owed";
    let gone = pool.commit_idempotent(|tx| async move { tx.execute(sql, &[&name]).await }).await?;
    if gone > 0 {
        return Ok(());
    }
    let why = match nodes(pool).await?.into_iter().find(|n| n.name == name) {
        None => format!("there is no node {name:?}"),
        Some(node) if node.state == NodeState::Up => format!("{name:?} is up: stop it first"),
        Some(_) => {
            format!("what {name:?} left has not been given back yet: another node has to be up for that")
        }
    };
    Err(ClusterError::NoSuchNode(why))
}
