//! Numbered steps that bring a schema up to date, whichever node comes first.

use tracing::info;

use crate::{CommitError, PgError, Pool, Tx};

/// Versions of all schemas of Posthouse in this database.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS posthouse_schema \
    (name text PRIMARY KEY, version integer NOT NULL)";

/// How often a step is tried when nobody can tell whether it was committed.
const TRIES: u32 = 5;

/// Brings the schema `name` up to date: `steps[i]` (statements separated by `;`) makes version `i + 1` of version
/// `i`. Each step is committed with its version. Several nodes may do it at once: one does, the others wait.
/// Returns the version found before.
///
/// # Errors
/// [`PgError::Newer`] if the schema has more steps than are given here; otherwise what the server said.
pub async fn migrate(pool: &Pool, name: &str, steps: &[&str]) -> Result<u32, PgError> {
    let mut before = None;
    let mut tries = 0;
    loop {
        let found = pool.commit(|tx| step(tx, name, steps)).await;
        let found = match found {
            Ok(found) => found,
            // What is true is read at the next turn.
            Err(CommitError::Unknown(_)) if tries < TRIES => {
                tries += 1;
                continue;
            }
            Err(CommitError::Unknown(why)) => return Err(PgError::Lost(why)),
            Err(CommitError::NotCommitted(why)) => return Err(why),
            Err(CommitError::Refused { code, constraint, message }) => {
                return Err(PgError::Refused { code, constraint, message });
            }
        };
        let before = *before.get_or_insert(found);
        if found as usize == steps.len() {
            return Ok(before);
        }
        info!("PostgreSQL: the {name} schema is now at version {}", found + 1);
    }
}

/// Does the next step, if there is one; returns the version found before it.
async fn step(tx: Tx, name: &str, steps: &[&str]) -> Result<u32, PgError> {
    // One node at a time, for all schemas: the table of versions is made under it as well.
    tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('posthouse schema', 0))", &[]).await?;
    tx.batch(TABLE).await?;
    let row = tx.query_opt("SELECT version FROM posthouse_schema WHERE name = $1", &[&name]).await?;
    let found = u32::try_from(row.map_or(0, |r| r.get::<_, i32>(0))).unwrap_or(0);
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(PgError::Newer { name: name.to_owned(), found, known });
    }
    let Some(sql) = steps.get(found as usize) else {
        tx.abandon();
        return Ok(found);
    };
    tx.batch(sql).await?;
    let version = i32::try_from(found + 1).unwrap_or(i32::MAX);
    let upsert = "INSERT INTO posthouse_schema (name, version) VALUES ($1, $2) \
        ON CONFLICT (name) DO UPDATE SET version = excluded.version";
    tx.execute(upsert, &[&name, &version]).await?;
    Ok(found)
}
