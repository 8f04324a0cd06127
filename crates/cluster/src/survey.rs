//! The cluster at one glance, for people: asked of the database by whoever wants to know, be it a node or not.

use std::time::Duration;

use postgres::{Pool, Session};

use crate::node::COLUMNS;
use crate::{ClusterError, Node, Token};

/// A role, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The role.
    pub role: String,
    /// The life of a node that has it; node 0 while nobody does. It counts only while that life is up.
    pub token: Token,
    /// Goes up whenever the role changes hands.
    pub term: i64,
}

/// All nodes and roles, as the database has them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The nodes by number, each with the age of its last beat by the database's clock.
    pub nodes: Vec<(Node, Duration)>,
    /// The roles by name.
    pub roles: Vec<Holder>,
}

/// Looks at the cluster. A database that no node has ever joined has none, which is no error.
///
/// # Errors
/// [`ClusterError::Postgres`].
pub async fn survey(pool: &Pool) -> Result<Survey, ClusterError> {
    Ok(pool.read(look).await?)
}

async fn look(session: Session) -> Result<Survey, postgres::PgError> {
    let there = "SELECT to_regclass('cluster.node') IS NOT NULL AND to_regclass('cluster.role') IS NOT NULL";
    if !session.query_one(there, &[]).await?.get::<_, bool>(0) {
        return Ok(Survey::default());
    }
    let nodes = format!(
        "SELECT {COLUMNS}, greatest(0, (extract(epoch FROM clock_timestamp() - beat_at) * 1000)::bigint) \
         FROM cluster.node ORDER BY id"
    );
    let roles = "SELECT name, node, epoch, term FROM cluster.role ORDER BY name";
    let (nodes, roles) = tokio::try_join!(session.query(&nodes, &[]), session.query(roles, &[]))?;
    let age = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    Ok(Survey {
        nodes: nodes.iter().map(|row| (Node::of(row), age(row.get(10)))).collect(),
        roles: roles
            .iter()
            .map(|row| Holder {
                role: row.get(0),
                token: Token { node: u16::try_from(row.get::<_, i32>(1)).unwrap_or(0), epoch: row.get(2) },
                term: row.get(3),
            })
            .collect(),
    })
}
