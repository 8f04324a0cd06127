//! What each node has in hand and has still to tell, for people: asked of the database by whoever wants to know, be it a
//! node or not.

use postgres::{PgError, Pool, Session};

use super::errors::read_error;
use crate::error::StoreError;

/// What a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hand {
    /// The node's number.
    pub node: u16,
    /// Deliveries that it has in hand.
    pub deliveries: u64,
    /// Events that it has not yet brought into the history.
    pub untold: u64,
}

/// What each node has, by number. A database without a queue has none, which is no error.
///
/// # Errors
/// When the database could not be asked.
pub async fn hands(pool: &Pool) -> Result<Vec<Hand>, StoreError> {
    pool.read(look).await.map_err(|error| read_error(&error))
}

async fn look(session: Session) -> Result<Vec<Hand>, PgError> {
    let there = "SELECT to_regclass('store.node') IS NOT NULL";
    if !session.query_one(there, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    // The deliveries in hand have an index of their own, and they are few: windows are bounded.
    let sql = "SELECT n.id, coalesce(d.count, 0), n.last_event - n.outbox_done FROM store.node AS n \
        LEFT JOIN (SELECT node, count(*) FROM store.delivery WHERE node IS NOT NULL GROUP BY node) AS d \
        ON d.node = n.id ORDER BY n.id";
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let rows = session.query(sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Hand {
                node: u16::try_from(row.try_get::<_, i32>(0)?).unwrap_or(0),
                deliveries: number(row.try_get(1)?),
                untold: number(row.try_get(2)?),
            })
        })
        .collect()
}
