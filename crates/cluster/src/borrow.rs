//! Limits that all nodes share: each borrows some of a limit for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use mail::Mono;
use postgres::{PgError, Tx};

use crate::share::fair_share;
use crate::{Claim, ClusterError, GRANT, Member, share};

/// The node gives a grant up so much earlier than the database does: for clocks that do not run alike.
const MARGIN: Duration = Duration::from_secs(1);

/// Tells a server from its successor, and from itself before a restart.
const SERVER: &str = "SELECT pg_postmaster_start_time()::text";

/// What this node would like of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The limit's name, the same on all nodes.
    pub key: String,
    /// How much of it there is, for all nodes together. Slots, or tokens of one [`GRANT`]; any unit.
    pub capacity: u64,
    /// How much this node would like. Zero gives back what it has.
    pub wanted: u64,
    /// How much it cannot give back now, such as open connections.
    pub in_use: u64,
    /// How long what it got stays its own when it does not renew, beyond [`GRANT`]. For what is used up for a time, such as
    /// the messages of a period: nobody knows how many of them a dead node has sent.
    pub lasts: Duration,
}

/// What this node got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The limit.
    pub key: String,
    /// How much it may use, all in all. Never more than it wished for, save what is in use.
    pub amount: u64,
    /// How much would be its part if all could be divided anew. What it has above that, others wait for.
    pub fair: u64,
    /// Until when, by this node's monotonic clock. Renew it at half-time.
    pub until: Mono,
}

/// Borrows from the shared limits for one node.
#[derive(Clone)]
pub struct Borrow {
    member: Member,
}

impl Borrow {
    /// For this node.
    pub fn new(member: Member) -> Self {
        Self { member }
    }

    /// Renews all that this node borrows; what is not wished for again runs out. All wishes are one commit. After a
    /// fail-over or a restart nobody gets more for one [`GRANT`], since what was lent before is worth its full time by the new
    /// server's clock.
    ///
    /// # Errors
    /// What the database says: then what was granted before counts until it runs out.
    pub async fn renew(&self, wishes: &[Wish]) -> Result<Vec<Grant>, ClusterError> {
        let mut wishes = wishes.to_vec();
        // Every node locks the rows in the same order.
        wishes.sort_by(|a, b| a.key.cmp(&b.key));
        wishes.dedup_by(|a, b| a.key == b.key);
        let started = self.member.0.clock.mono();
        let node = self.member.token().node;
        let wishes = &wishes;
        let parts = self.member.0.pool.commit_idempotent(|tx| lend(tx, node, wishes)).await?;
        let until = started.plus(GRANT - MARGIN);
        let grant = |(wish, part): (&Wish, Part)| Grant {
            key: wish.key.clone(),
            amount: part.amount,
            fair: part.fair,
            until,
        };
        Ok(wishes.iter().zip(parts).map(grant).collect())
    }
}

/// What a node gets of a limit, and what would be its part.
#[derive(Clone, Copy, Debug)]
struct Part {
    amount: u64,
    fair: u64,
}

/// One transaction of [`Borrow::renew`]; the wishes are sorted. Returns a part for each.
async fn lend(tx: Tx, me: u16, wishes: &[Wish]) -> Result<Vec<Part>, PgError> {
    let keys: Vec<&str> = wishes.iter().map(|w| w.key.as_str()).collect();
    let server: String = tx.query_one(SERVER, &[]).await?.get(0);
    tx.execute(
        "INSERT INTO cluster.borrowed (key, server) SELECT key, $2 FROM unnest($1::text[]) AS key ORDER BY key \
         ON CONFLICT (key) DO NOTHING",
        &[&keys, &server],
    )
    .await?;
    let lock = "SELECT key, server FROM cluster.borrowed WHERE key = ANY($1) ORDER BY key FOR UPDATE";
    let locked = tx.query(lock, &[&keys]).await?;
    let moved: Vec<&str> =
        locked.iter().filter(|r| r.get::<_, &str>(1) != server).map(|r| r.get(0)).collect();
    let seconds: Vec<f64> = wishes.iter().map(|w| (GRANT + w.lasts).as_secs_f64()).collect();
    if !moved.is_empty() {
        let extend = "UPDATE cluster.loan AS l SET expires = clock_timestamp() + make_interval(secs => w.seconds) \
            FROM unnest($2::text[], $3::float8[]) AS w (key, seconds) \
            WHERE l.key = w.key AND l.key = ANY($1) AND l.amount > 0";
        tx.execute(extend, &[&moved, &keys, &seconds]).await?;
        let note = "UPDATE cluster.borrowed SET server = $2 WHERE key = ANY($1)";
        tx.execute(note, &[&moved, &server]).await?;
    }
    let claims = claims(&tx, &keys).await?;
    let parts: Vec<Part> = wishes
        .iter()
        .map(|wish| {
            let mut of_key = claims.get(&wish.key).cloned().unwrap_or_default();
            match of_key.iter_mut().find(|c| c.node == me) {
                Some(mine) => mine.wanted = wish.wanted.max(wish.in_use),
                // Whoever comes new has waited longest.
                None => {
                    of_key.push(Claim { node: me, wanted: wish.wanted.max(wish.in_use), held: 0, served: 0 })
                }
            }
            Part {
                amount: share(wish.capacity, &of_key, me, wish.in_use),
                fair: fair_share(wish.capacity, &of_key, me),
            }
        })
        .collect();
    let amounts: Vec<u64> = parts.iter().map(|part| part.amount).collect();
    store(&tx, me, wishes, &amounts, &seconds).await?;
    Ok(parts)
}

/// What all nodes want and have of these limits. A wish that was not renewed is none.
async fn claims(tx: &Tx, keys: &[&str]) -> Result<BTreeMap<String, Vec<Claim>>, PgError> {
    let sql = "SELECT key, node, wanted, amount, (extract(epoch FROM served) * 1000)::bigint FROM cluster.loan \
        WHERE key = ANY($1) AND expires > clock_timestamp()";
    let mut claims: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
    for row in tx.query(sql, &[&keys]).await? {
        let number = |i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or(0);
        claims.entry(row.get(0)).or_default().push(Claim {
            node: u16::try_from(row.get::<_, i32>(1)).unwrap_or(0),
            wanted: number(2),
            held: number(3),
            served: row.get(4),
        });
    }
    Ok(claims)
}

async fn store(tx: &Tx, me: u16, wishes: &[Wish], amounts: &[u64], seconds: &[f64]) -> Result<(), PgError> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let keys: Vec<&str> = wishes.iter().map(|w| w.key.as_str()).collect();
    let wanted: Vec<i64> = wishes.iter().map(|w| number(w.wanted.max(w.in_use))).collect();
    let amounts: Vec<i64> = amounts.iter().copied().map(number).collect();
    let sql = "INSERT INTO cluster.loan AS l (key, node, amount, wanted, served, expires) \
        SELECT key, $1, amount, wanted, CASE WHEN amount > 0 THEN clock_timestamp() ELSE to_timestamp(0) END, \
            clock_timestamp() + make_interval(secs => seconds) \
        FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::float8[]) AS w (key, amount, wanted, seconds) \
        ON CONFLICT (key, node) DO UPDATE SET amount = excluded.amount, wanted = excluded.wanted, \
            served = CASE WHEN excluded.amount > 0 AND (l.amount = 0 OR l.expires <= clock_timestamp()) \
                THEN excluded.served ELSE l.served END, expires = excluded.expires";
    tx.execute(sql, &[&i32::from(me), &keys, &amounts, &wanted, &seconds]).await?;
    // Limits that nobody has asked for since long.
    let old = "DELETE FROM cluster.borrowed AS b WHERE key IN (SELECT key FROM cluster.loan \
        WHERE expires < clock_timestamp() - interval '1 hour' ORDER BY expires LIMIT 100) \
        AND NOT EXISTS (SELECT FROM cluster.loan AS l WHERE l.key = b.key AND l.expires > clock_timestamp())";
    tx.execute(old, &[]).await?;
    Ok(())
}
