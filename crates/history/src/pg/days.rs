//! The partitions, which come and go by the day.

use postgres::{CommitError, PgError, Pool, Session, Tx};

use crate::error::HistoryError;

/// Partitions are made for so many days ahead.
pub(super) const AHEAD: i32 = 2;

/// Each is partitioned in the same way.
const TABLES: [&str; 3] = ["message", "event", "part"];

/// Makes the partitions of a day, if they are not there; what was written of it elsewhere moves into them.
pub(super) async fn make(pool: &Pool, day: i32) -> Result<(), CommitError> {
    pool.commit_idempotent(|tx| make_in(tx, day)).await
}

/// Made beside the table and then attached: that keeps nobody from writing to the others meanwhile.
async fn make_in(tx: Tx, day: i32) -> Result<(), PgError> {
    lock(&tx).await?;
    if exists(&tx, day).await? {
        tx.abandon();
        return Ok(());
    }
    let until = i64::from(day) + 1;
    let mut sql = String::from("SET LOCAL lock_timeout = '2s';");
    for table in TABLES {
        // What is there of the day has to move before, and nothing may come behind it.
        sql.push_str(&format!(
            "CREATE TABLE history.{table}_{name} (LIKE history.{table} INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING INDEXES)
               WITH (autovacuum_vacuum_scale_factor = 0.1);
             LOCK TABLE history.{table}_other IN ACCESS EXCLUSIVE MODE;
             WITH moved AS (DELETE FROM history.{table}_other WHERE day = {day} RETURNING *)
               INSERT INTO history.{table}_{name} SELECT * FROM moved;
             ALTER TABLE history.{table}_{name} ADD CHECK (day >= {day} AND day < {until});
             ALTER TABLE history.{table} ATTACH PARTITION history.{table}_{name} FOR VALUES FROM ({day}) TO ({until});",
            name = name(day),
        ));
    }
    tx.batch(&sql).await
}

/// Drops the partitions of a day: their space comes back at once. What is told of the day elsewhere is deleted.
pub(super) async fn drop(pool: &Pool, day: i32) -> Result<(), CommitError> {
    pool.commit(|tx| drop_in(tx, day)).await
}

async fn drop_in(tx: Tx, day: i32) -> Result<(), PgError> {
    lock(&tx).await?;
    // Those who write wait behind this lock: rather not have it than make them wait long.
    let mut sql = String::from("SET LOCAL lock_timeout = '300ms';");
    let there = exists(&tx, day).await?;
    for table in TABLES {
        if there {
            sql.push_str(&format!("DROP TABLE history.{table}_{};", name(day)));
        }
        sql.push_str(&format!("DELETE FROM history.{table}_other WHERE day = {day};"));
    }
    sql.push_str(&format!("DELETE FROM history.run WHERE day = {day};"));
    tx.batch(&sql).await
}

/// Days that there are rows or partitions of, oldest first.
pub(super) async fn all(session: &Session) -> Result<Vec<i32>, PgError> {
    let rows = session
        .query(
            "SELECT substring(c.relname FROM '[0-9]+$')::int FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'history.message'::regclass AND c.relname ~ '^message_[0-9]+$'
             UNION SELECT day FROM history.message_other UNION SELECT day FROM history.event_other
             UNION SELECT day FROM history.run ORDER BY 1",
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The same, asked for by itself.
pub(super) async fn list(pool: &Pool) -> Result<Vec<i32>, HistoryError> {
    Ok(pool.read(|session| async move { all(&session).await }).await?)
}

/// One node at a time makes or drops partitions.
async fn lock(tx: &Tx) -> Result<(), PgError> {
    tx.query("SELECT pg_advisory_xact_lock(hashtext('posthouse history partitions'))::text", &[])
        .await
        .map(drop_rows)
}

fn drop_rows<T>(_: T) {}

async fn exists(tx: &Tx, day: i32) -> Result<bool, PgError> {
    let name = format!("history.message_{}", name(day));
    Ok(tx.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await?.try_get(0)?)
}

/// Days before 1970 have rows only where a clock was wrong, and no partitions.
fn name(day: i32) -> String {
    day.max(0).to_string()
}
