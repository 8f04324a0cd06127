//! The schema, and the partitions of content, which come and go by the day.

use postgres::{CommitError, Pool, Tx};

use super::errors::{Lost, commit_error};
use crate::error::StoreError;

/// One file a step; its place is the version it leads to.
const STEPS: &[&str] =
    &[include_str!("../../migrations/postgres/0001.sql"), include_str!("../../migrations/postgres/0002.sql")];

/// Partitions are made for so many days ahead.
const AHEAD: i32 = 2;
const DAY_MS: i64 = 86_400_000;

/// Brings the schema up to date; several nodes may do so at once.
pub(crate) async fn migrate(pool: &Pool) -> Result<(), StoreError> {
    postgres::migrate(pool, "store", STEPS).await.map(drop).map_err(|e| super::errors::at_start(&e))
}

/// The day that a message's content is filed under.
pub(crate) fn day(message: mail::MessageId) -> i32 {
    day_of(message.accepted_at().0)
}

fn day_of(millis: i64) -> i32 {
    i32::try_from(millis.div_euclid(DAY_MS)).unwrap_or(i32::MAX - 1)
}

/// Makes the partitions of today and of the days to come. One that cannot be made, as its days have content elsewhere, is
/// not missed: there is one for all other days.
pub(crate) async fn make_partitions(pool: &Pool, now: i64) -> Result<(), StoreError> {
    let today = day_of(now);
    for day in today..=today.saturating_add(AHEAD) {
        match commit_error(pool.commit(|tx| make(tx, day)).await, "making a partition") {
            Ok(()) => {}
            Err(Lost::Unknown(_)) => tracing::info!(day, "whether a partition was made is not known yet"),
            Err(Lost::Told(StoreError::Invalid(error))) => {
                tracing::info!(day, error, "a partition is not made")
            }
            Err(Lost::Told(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Made beside the table and then attached: that keeps nobody from writing to the others meanwhile.
async fn make(tx: Tx, day: i32) -> Result<(), postgres::PgError> {
    lock(&tx).await?;
    let name = partition(day);
    if exists(&tx, &name).await? {
        tx.abandon();
        return Ok(());
    }
    let until = day + 1;
    tx.batch(&format!(
        "CREATE TABLE store.{name} (LIKE store.content INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING INDEXES);
         ALTER TABLE store.{name} ADD CHECK (day >= {day} AND day < {until});
         ALTER TABLE store.{name} SET (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
         ALTER TABLE store.content ATTACH PARTITION store.{name} FOR VALUES FROM ({day}) TO ({until});"
    ))
    .await
}

/// Drops the partitions of past days in which nothing is left: their space comes back at once, whatever the state of the
/// vacuum. Returns how many.
pub(crate) async fn drop_partitions(pool: &Pool, now: i64) -> Result<u64, StoreError> {
    let before = day_of(now) - 1;
    let days = pool
        .read(|session| async move {
            let rows = session
                .query(
                    "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                     WHERE i.inhparent = 'store.content'::regclass",
                    &[],
                )
                .await?;
            rows.iter()
                .map(|row| Ok(row.try_get::<_, String>(0)?))
                .collect::<Result<Vec<_>, postgres::PgError>>()
        })
        .await
        .map_err(|e| super::errors::read_error(&e))?;
    let mut dropped = 0;
    for name in days {
        let Some(day) = name.strip_prefix("content_").and_then(|day| day.parse::<i32>().ok()) else {
            continue;
        };
        if day >= before {
            continue;
        }
        match pool.commit(|tx| drop_if_empty(tx, day)).await {
            Ok(gone) => dropped += u64::from(gone),
            // Somebody reads there: the next round may have more luck.
            Err(CommitError::NotCommitted(error)) => {
                tracing::debug!(day, %error, "a partition stays for now")
            }
            Err(error) => tracing::info!(day, %error, "dropping a partition"),
        }
    }
    Ok(dropped)
}

async fn drop_if_empty(tx: Tx, day: i32) -> Result<bool, postgres::PgError> {
    lock(&tx).await?;
    let name = partition(day);
    // Those who write wait behind this lock: rather not have it than make them wait long.
    tx.batch("SET LOCAL lock_timeout = '200ms'").await?;
    if !exists(&tx, &name).await? {
        tx.abandon();
        return Ok(false);
    }
    tx.batch(&format!("LOCK TABLE store.content, store.{name} IN ACCESS EXCLUSIVE MODE")).await?;
    let left = tx.query_opt(&format!("SELECT 1 FROM store.{name} LIMIT 1"), &[]).await?;
    if left.is_some() {
        tx.abandon();
        return Ok(false);
    }
    tx.batch(&format!("DROP TABLE store.{name}")).await?;
    Ok(true)
}

/// One node at a time makes or drops partitions.
async fn lock(tx: &Tx) -> Result<(), postgres::PgError> {
    tx.query("SELECT pg_advisory_xact_lock(hashtext('posthouse store partitions'))::text", &[])
        .await
        .map(drop)
}

async fn exists(tx: &Tx, name: &str) -> Result<bool, postgres::PgError> {
    let name = format!("store.{name}");
    tx.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await?.try_get(0).map_err(Into::into)
}

fn partition(day: i32) -> String {
    format!("content_{day}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_ids() {
        let noon = mail::Timestamp(20_000 * DAY_MS + DAY_MS / 2);
        assert_eq!(day(mail::MessageId::first_at(noon)), 20_000);
        assert_eq!(day_of(-1), -1);
    }
}
