//! Who changed what, and when.

use mail::Timestamp;
use rusqlite::params;
use serde::Serialize;

use crate::directory::Directory;
use crate::error::DirectoryError;

/// The most entries in one answer.
const LIMIT_MAX: usize = 1000;

/// One change on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its number; grows.
    pub id: i64,
    /// When.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// `add`, `set` or `remove`.
    pub action: String,
    /// `organisation`, `credential`, `domain`, `key`, `route` or `smarthost`.
    pub what: String,
    /// Its name.
    pub name: String,
    /// How it was before; none when it was added.
    pub before: Option<serde_json::Value>,
    /// How it is since; none when it was removed.
    pub after: Option<serde_json::Value>,
}

/// Which entries; the newest come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only entries with smaller numbers: the last one of the page before.
    pub before: Option<i64>,
    /// Only changes to this kind of thing.
    pub what: Option<String>,
    /// Only changes to the thing of this name.
    pub name: Option<String>,
    /// At most so many; 1000 when it is more or nothing is said.
    pub limit: Option<usize>,
}

impl Directory {
    /// Reads the log of changes.
    ///
    /// # Errors
    /// The disk.
    pub async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditEntry>, DirectoryError> {
        self.read(move |db| {
            let limit = i64::try_from(query.limit.unwrap_or(LIMIT_MAX).min(LIMIT_MAX)).unwrap_or(1);
            let mut statement = db.prepare_cached(
                "SELECT id, at, actor, action, what, name, earlier, later FROM audit \
                 WHERE id < $1 AND ($2 = '' OR what = $2) AND ($3 = '' OR name = $3) ORDER BY id DESC LIMIT $4",
            )?;
            let json = |text: Option<String>| text.and_then(|t| serde_json::from_str(&t).ok());
            let rows = statement.query_map(
                params![
                    query.before.unwrap_or(i64::MAX),
                    query.what.unwrap_or_default(),
                    query.name.unwrap_or_default(),
                    limit
                ],
                |row| {
                    Ok(AuditEntry {
                        id: row.get(0)?,
                        at: Timestamp(row.get(1)?),
                        by: row.get(2)?,
                        action: row.get(3)?,
                        what: row.get(4)?,
                        name: row.get(5)?,
                        before: json(row.get(6)?),
                        after: json(row.get(7)?),
                    })
                },
            )?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn as_text<S: serde::Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
