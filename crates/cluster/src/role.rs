//! Roles that only one node may have at a time.
//!
//! A role belongs to a life of a node for as long as that lives, which the beats decide; there is no second lease. A
//! row with a term fences what its holder writes.

use postgres::{PgError, Row, Tx};

use crate::{ClusterError, Member, Node, NodeState, Token};

pub(crate) const ALL: &str = "SELECT name, node, epoch, term FROM cluster.role ORDER BY name";

/// One role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) holder: Token,
    pub(crate) term: i64,
}

impl Role {
    pub(crate) fn of(row: &Row) -> Self {
        let node = u16::try_from(row.get::<_, i32>(1)).unwrap_or(0);
        Self { name: row.get(0), holder: Token { node, epoch: row.get(2) }, term: row.get(3) }
    }
}

/// A candidate for a role. Dropping it does not withdraw: the role goes when the node leaves, drains or dies.
#[derive(Clone)]
pub struct Elected {
    member: Member,
    role: String,
}

impl Elected {
    pub(crate) fn new(member: Member, role: &str) -> Self {
        Self { member, role: role.to_owned() }
    }

    /// The term of this node, if it has the role and may start things. To be asked before each piece of work.
    pub fn term(&self) -> Option<i64> {
        if self.member.lease().may_start() { self.member.term(&self.role) } else { None }
    }

    /// Whether the term still counts, to be asked within the transaction that does the work: it holds the role in place
    /// until the commit. When it says no, [`Tx::abandon`].
    ///
    /// # Errors
    /// What the database says.
    pub async fn fence(&self, tx: &Tx, term: i64) -> Result<bool, PgError> {
        let Token { node, epoch } = self.member.token();
        let sql = "SELECT 1 FROM cluster.role AS r JOIN cluster.node AS n ON n.id = r.node \
            WHERE r.name = $1 AND r.node = $2 AND r.epoch = $3 AND r.term = $4 AND n.epoch = r.epoch \
            FOR SHARE OF r";
        Ok(tx.query_opt(sql, &[&self.role, &i32::from(node), &epoch, &term]).await?.is_some())
    }
}

/// Takes the roles that this node stands for and nobody has; gives up all when it drains. Not within a beat: a row that
/// another has locked must not hold that up.
pub(crate) async fn change(member: &Member, roles: &[Role], nodes: &[Node]) -> Result<(), ClusterError> {
    let me = member.token();
    let node = i32::from(me.node);
    if member.lease().is_draining() {
        if roles.iter().any(|r| r.holder == me) {
            let sql = "UPDATE cluster.role SET node = 0 WHERE node = $1 AND epoch = $2";
            let give = member.0.pool.commit(|tx| async move { tx.execute(sql, &[&node, &me.epoch]).await });
            give.await?;
        }
        return Ok(());
    }
    let held = |name: &str| {
        let role = roles.iter().find(|r| r.name == name);
        role.is_some_and(|r| nodes.iter().any(|n| n.token == r.holder && n.state == NodeState::Up))
    };
    let free: Vec<_> = member.0.wanted.lock().iter().filter(|name| !held(name)).cloned().collect();
    for name in &free {
        let sql = "INSERT INTO cluster.role AS r (name, node, epoch, term) VALUES ($1, $2, $3, 1) \
            ON CONFLICT (name) DO UPDATE SET node = $2, epoch = $3, term = r.term + 1 \
            WHERE NOT EXISTS (SELECT FROM cluster.node AS n \
                WHERE n.id = r.node AND n.epoch = r.epoch AND n.state = 'up')";
        // It shows at the next beat whether it worked.
        member.0.pool.commit(|tx| async move { tx.execute(sql, &[name, &node, &me.epoch]).await }).await?;
    }
    Ok(())
}
