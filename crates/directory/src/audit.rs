//! Who changed what, and when.

use mail::{Actor, Timestamp};
use serde::Serialize;

use crate::db::{Bad, Row, values};
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
    /// `add`, `set`, `remove`; for the queue `hold`, `release`, `retry`, `reroute`, `remove`.
    pub action: String,
    /// `organisation`, `credential`, `domain`, `key`, `route`, `smarthost`, `source`, `pool`, `egress`, `shape`, `ceiling`,
    /// `tls-policy`, `alias`, `rewrite`, `suspension`, `suppression` or `queue`.
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
    /// Only what was done by someone whose name holds this.
    pub by: Option<String>,
    /// Only what was done at this time or later.
    pub since: Option<Timestamp>,
    /// At most so many; 1000 when it is more or nothing is said.
    pub limit: Option<usize>,
}

impl Directory {
    /// Puts on record what an operator did that is kept elsewhere: to deliveries in the queue.
    ///
    /// # Errors
    /// The disk.
    pub async fn record(
        &self,
        by: &Actor,
        action: &'static str,
        (what, name): (&'static str, String),
        detail: serde_json::Value,
    ) -> Result<(), DirectoryError> {
        let by = by.clone();
        self.change(move |draft| {
            draft.audit(&by, action, (what, &name), None, Some(&detail));
            Ok(((), Vec::new()))
        })
        .await
    }

    /// Reads the log of changes.
    ///
    /// # Errors
    /// The disk.
    pub async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditEntry>, DirectoryError> {
        let limit = i64::try_from(query.limit.unwrap_or(LIMIT_MAX).min(LIMIT_MAX)).unwrap_or(1);
        let values = values![
            query.before.unwrap_or(i64::MAX),
            query.what.unwrap_or_default(),
            query.name.unwrap_or_default(),
            query.by.unwrap_or_default(),
            query.since.map_or(i64::MIN, Timestamp::millis),
            limit,
        ];
        let sql = "SELECT id, at, actor, action, what, name, earlier, later FROM directory.audit \
                   WHERE id < $1 AND ($2 = '' OR what = $2) AND ($3 = '' OR name = $3) \
                   AND ($4 = '' OR replace(actor, $4, '') <> actor) AND at >= $5 ORDER BY id DESC LIMIT $6";
        self.list(sql.to_owned(), values, read).await
    }
}

fn read(row: &Row<'_>) -> Result<AuditEntry, Bad> {
    let json = |text: Option<String>| text.and_then(|t| serde_json::from_str(&t).ok());
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
}

fn as_text<S: serde::Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
