//! Numbered steps that bring a schema up to date, whichever node comes first, while nodes of the version before go on.
//!
//! During a rolling upgrade two versions of Posthouse work with one database. So a step only adds: tables, columns with
//! a default, indices; what the version before reads and writes stays as it is. A step that takes something away says so
//! in a line of its own, `-- readable by: N`: from then on only programs that know version N of this schema or a later
//! one may work with it. N is at most the version that the release before it knew, or that release cannot go on.

use tracing::info;

use crate::{CommitError, PgError, Pool, Tx};

/// Versions of all schemas of Posthouse in this database.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS posthouse_schema \
    (name text PRIMARY KEY, version integer NOT NULL, readable_by integer)";
/// A table that was made before versions told who may read them.
const COLUMN: &str = "ALTER TABLE posthouse_schema ADD COLUMN IF NOT EXISTS readable_by integer";
/// Works with and without that column.
const FOUND: &str = "SELECT version, (to_jsonb(s) ->> 'readable_by')::integer FROM posthouse_schema AS s \
    WHERE name = $1";
/// Begins the line of a step that ends the work of older programs.
const MARK: &str = "-- readable by:";

/// How often a step is tried when nobody can tell whether it was committed.
const TRIES: u32 = 5;

/// How a schema is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    version: u32,
    /// The oldest version whose programs may work with it.
    readable_by: u32,
}

/// Brings the schema `name` up to date: `steps[i]` (statements separated by `;`) makes version `i + 1` of version
/// `i`. Each step is committed with its version. Several nodes may do it at once: one does, the others wait. A schema
/// that has more steps than are given here is left as it is, if it may be worked with all the same.
/// Returns the version found before.
///
/// # Errors
/// [`PgError::Newer`] if the schema is one that this program must not work with; otherwise what the server said.
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
        let known = steps.len();
        if found as usize > known {
            info!(
                "PostgreSQL: the {name} schema has version {found}; this Posthouse knows {known} and can use it"
            );
        }
        if found as usize >= known {
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
    let row = tx.query_opt(FOUND, &[&name]).await?;
    let found = row.map_or(Found::default(), |row| {
        let number = |n: i32| u32::try_from(n).unwrap_or(0);
        let version = number(row.get(0));
        // Nobody has said that an older program could.
        Found { version, readable_by: row.get::<_, Option<i32>>(1).map_or(version, number) }
    });
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found.readable_by > known {
        let Found { version: found, readable_by } = found;
        return Err(PgError::Newer { name: name.to_owned(), found, readable_by, known });
    }
    let Some(sql) = steps.get(found.version as usize) else {
        tx.abandon();
        return Ok(found.version);
    };
    tx.batch(COLUMN).await?;
    tx.batch(sql).await?;
    let after = after(found, sql);
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let upsert = "INSERT INTO posthouse_schema (name, version, readable_by) VALUES ($1, $2, $3) \
        ON CONFLICT (name) DO UPDATE SET version = excluded.version, readable_by = excluded.readable_by";
    tx.execute(upsert, &[&name, &number(after.version), &number(after.readable_by)]).await?;
    Ok(found.version)
}

/// How a schema is after this step.
fn after(found: Found, sql: &str) -> Found {
    let said = sql.lines().find_map(|line| line.trim().strip_prefix(MARK)?.trim().parse().ok());
    let readable_by = found.readable_by.max(said.unwrap_or(0)).max(1);
    Found { version: found.version + 1, readable_by }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_only_adds_leaves_who_may_read() {
        let none = Found::default();
        let first = after(none, "CREATE TABLE t (a int)");
        assert_eq!(first, Found { version: 1, readable_by: 1 });
        let second = after(first, "-- More.\nALTER TABLE t ADD COLUMN b int");
        assert_eq!(second, Found { version: 2, readable_by: 1 });
        let third = after(second, "-- Less.\n  -- readable by: 2\nALTER TABLE t DROP COLUMN a");
        assert_eq!(third, Found { version: 3, readable_by: 2 });
        assert_eq!(after(third, "").readable_by, 2);
        // What was said once is not taken back.
        assert_eq!(after(third, "-- readable by: 1\n").readable_by, 2);
    }
}
