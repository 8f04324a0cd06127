//! Everything in the directory, carried from one engine to the other while no relay runs on either: what
//! `posthouse migrate` is made of. The tables are the same on both, so their rows are carried as they stand, and both sides
//! can be compared octet by octet.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use postgres::types::ToSql;
use postgres::{Pool, Tx};
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::db::{Bad, Row, Value};
use crate::embedded;
use crate::error::DirectoryError;
use crate::schema::sqlite;
use crate::server;
use crate::shared;

/// A table: its columns, those first that its rows are ordered by.
struct Table {
    name: &'static str,
    keys: usize,
    /// Whole numbers begin with `#`.
    columns: &'static [&'static str],
}

/// All tables, in an order in which they can be filled.
const TABLES: &[Table] = &[
    Table { name: "secret", keys: 1, columns: &["name", "value"] },
    Table { name: "org", keys: 1, columns: &["#id", "name", "#trusted", "state", "#created", "pool"] },
    Table { name: "domain", keys: 1, columns: &["name", "#org", "#created"] },
    Table {
        name: "credential",
        keys: 1,
        columns: &[
            "#id",
            "login",
            "login_folded",
            "#org",
            "from_domains",
            "networks",
            "#enabled",
            "#made_here",
            "scram",
            "argon2",
            "#generation",
            "#created",
            "stream",
        ],
    },
    Table {
        name: "api_key",
        keys: 1,
        columns: &[
            "#id",
            "name",
            "name_folded",
            "#org",
            "scope",
            "from_domains",
            "hash",
            "#enabled",
            "#created",
        ],
    },
    Table { name: "route", keys: 1, columns: &["#id", "#position", "domains", "senders", "target"] },
    Table {
        name: "smarthost",
        keys: 1,
        columns: &["name", "hosts", "tls", "username", "password", "more", "secrets"],
    },
    Table { name: "rule", keys: 2, columns: &["kind", "name", "#position", "body", "secret"] },
    Table {
        name: "suppression",
        keys: 2,
        columns: &["#org", "address", "class", "reason", "source", "actor", "#since"],
    },
    Table {
        name: "audit",
        keys: 1,
        columns: &["#id", "#at", "actor", "action", "what", "name", "earlier", "later"],
    },
];

/// Rows that go in one commit.
pub const PAGE: usize = 5000;

/// Which tables there are, in the order in which they are to be carried.
pub fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|table| table.name)
}

/// A row of a table as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried(Vec<Value>);

impl Carried {
    /// It in octets, the same on both sides: for comparing.
    pub fn octets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for value in &self.0 {
            match value {
                Value::Int(number) => {
                    out.push(1);
                    out.extend(number.to_le_bytes());
                }
                Value::Text(None) => out.push(2),
                Value::Text(Some(text)) => {
                    out.push(3);
                    out.extend((text.len() as u64).to_le_bytes());
                    out.extend(text.as_bytes());
                }
            }
        }
        out
    }
}

/// Which state the directory is in, and which numbers were given last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    version: i64,
    ids: i64,
    audits: i64,
}

/// One engine's directory, for nobody else meanwhile. The file blocks the thread that asks.
pub struct Side(Engine);

enum Engine {
    File(Mutex<Connection>),
    Tables(Pool),
}

impl Side {
    /// `data_dir/directory.db`, made if it is not there. Whoever asks holds the lock of the data directory.
    ///
    /// # Errors
    /// [`DirectoryError::Newer`], [`DirectoryError::Damaged`], or the disk.
    pub fn file(data_dir: &Path) -> Result<Self, DirectoryError> {
        Ok(Self(Engine::File(Mutex::new(embedded::connect(&data_dir.join("directory.db"))?))))
    }

    /// The directory in PostgreSQL, made if it is not there.
    ///
    /// # Errors
    /// [`DirectoryError::Postgres`].
    pub async fn tables(pool: Pool) -> Result<Self, DirectoryError> {
        server::migrate(&pool).await?;
        Ok(Self(Engine::Tables(pool)))
    }

    /// Whether nobody has ever changed anything: a directory that has just been made.
    ///
    /// # Errors
    /// The disk or the database.
    pub async fn is_empty(&self) -> Result<bool, DirectoryError> {
        let head = self.head().await?;
        Ok(head.version == 0 && head.audits == 0)
    }

    /// Removes everything.
    ///
    /// # Errors
    /// The disk or the database.
    pub async fn clear(&self) -> Result<(), DirectoryError> {
        let deletes = TABLES.iter().rev().map(|table| format!("DELETE FROM directory.{};", table.name));
        let head = "UPDATE directory.head SET version = 0, batch = '', ids = 1, audits = 0 WHERE one = 1; \
            DELETE FROM directory.change; INSERT INTO directory.change (version, batch, touched) VALUES (0, '', '[]')";
        self.run(&(deletes.collect::<String>() + head)).await
    }

    /// Rows of a table behind `after`, in order, at most [`PAGE`] of them. What the nodes share beside the directory
    /// ([`Directory::shared_secret`](crate::Directory::shared_secret)) is left out.
    ///
    /// # Errors
    /// The disk or the database; [`DirectoryError::Damaged`]; [`DirectoryError::Invalid`] for a table that is not one.
    pub async fn rows(&self, table: &str, after: Option<&Carried>) -> Result<Vec<Carried>, DirectoryError> {
        let table = named(table)?;
        let names: Vec<&str> = table.columns.iter().map(|c| c.trim_start_matches('#')).collect();
        let (all, keys) = (names.join(", "), names[..table.keys].join(", "));
        let places: Vec<String> = (1..=table.keys).map(|n| format!("${n}")).collect();
        let behind = match after {
            Some(_) => format!("({keys}) > ({})", places.join(", ")),
            None => "1 = 1".to_owned(),
        };
        let hidden = if table.name == "secret" { "AND name NOT LIKE 'shared:%'" } else { "" };
        let sql = format!(
            "SELECT {all} FROM directory.{} WHERE {behind} {hidden} ORDER BY {keys} LIMIT {PAGE}",
            table.name
        );
        let values: Vec<Value> = after.map(|row| row.0[..table.keys].to_vec()).unwrap_or_default();
        let read = |row: &Row<'_>| -> Result<Carried, Bad> {
            let value = |(at, column): (usize, &&str)| {
                if column.starts_with('#') {
                    row.get(at).map(Value::Int)
                } else {
                    row.get(at).map(Value::Text)
                }
            };
            table.columns.iter().enumerate().map(value).collect::<Result<_, _>>().map(Carried)
        };
        let damaged = |bad: Bad| DirectoryError::Damaged {
            place: format!("table {} of the directory", table.name),
            what: bad.to_string(),
        };
        match &self.0 {
            Engine::File(db) => {
                let mut found = Vec::new();
                let mut take = |row: &Row<'_>| read(row).map(|row| found.push(row));
                embedded::each(&db.lock(), &sql, &values, &mut take).map_err(damaged)?;
                Ok(found)
            }
            Engine::Tables(pool) => {
                let rows = server::rows(pool, &sql, &values).await?;
                rows.iter().map(|row| read(&Row::Postgres(row)).map_err(damaged)).collect()
            }
        }
    }

    /// Puts rows of a table here; those that are here are left.
    ///
    /// # Errors
    /// The disk or the database; [`DirectoryError::Invalid`] for a table that is not one.
    pub async fn put(&self, table: &str, rows: &[Carried]) -> Result<(), DirectoryError> {
        let table = named(table)?;
        let names: Vec<&str> = table.columns.iter().map(|c| c.trim_start_matches('#')).collect();
        let into = format!("INSERT INTO directory.{} ({})", table.name, names.join(", "));
        match &self.0 {
            Engine::File(db) => {
                let places: Vec<String> = (1..=names.len()).map(|n| format!("${n}")).collect();
                let sql = sqlite(&format!("{into} VALUES ({}) ON CONFLICT DO NOTHING", places.join(", ")));
                let db = db.lock();
                let tx = db.unchecked_transaction()?;
                for row in rows {
                    tx.prepare_cached(&sql)?.execute(params_from_iter(&row.0))?;
                }
                Ok(tx.commit()?)
            }
            Engine::Tables(pool) => {
                let kind = |(n, column): (usize, &&str)| {
                    format!("${}::{}[]", n + 1, if column.starts_with('#') { "bigint" } else { "text" })
                };
                let arrays: Vec<String> = table.columns.iter().enumerate().map(kind).collect();
                let sql =
                    format!("{into} SELECT * FROM unnest({}) ON CONFLICT DO NOTHING", arrays.join(", "));
                let (sql, columns) = (&sql, &columns(table, rows));
                let put = |tx: Tx| async move {
                    let values: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|c| &**c as _).collect();
                    tx.execute(sql, &values).await
                };
                let done = pool.commit_idempotent(put).await;
                done.map(drop).map_err(|e| DirectoryError::Commit(e.to_string()))
            }
        }
    }

    /// Has the numbers go on where those of `other` stand, once all rows are here.
    ///
    /// # Errors
    /// The disk or the database.
    pub async fn finish(&self, other: &Self) -> Result<(), DirectoryError> {
        let Head { version, ids, audits } = other.head().await?;
        // One more, so that no change that anybody has heard of has the number.
        let version = version + 1;
        self.run(&format!(
            "UPDATE directory.head SET version = {version}, batch = 'migrated', ids = {ids}, audits = {audits} WHERE one = 1; \
             DELETE FROM directory.change; \
             INSERT INTO directory.change (version, batch, touched) VALUES ({version}, 'migrated', '[]')"
        ))
        .await
    }

    /// A secret that the nodes share, if there is one of this name.
    ///
    /// # Errors
    /// The disk or the database; [`DirectoryError::Damaged`].
    pub async fn shared_secret(&self, name: &str) -> Result<Option<Vec<u8>>, DirectoryError> {
        let name = shared::full(name);
        let sql = "SELECT value FROM directory.secret WHERE name = $1";
        let text: Option<String> = match &self.0 {
            Engine::File(db) => db.lock().query_row(&sqlite(sql), [name], |row| row.get(0)).optional()?,
            Engine::Tables(pool) => {
                server::rows(pool, sql, &[name.into()]).await?.first().map(|row| row.get(0))
            }
        };
        text.map(|text| shared::decode(&text)).transpose()
    }

    /// Makes it a secret that the nodes share.
    ///
    /// # Errors
    /// The disk or the database.
    pub async fn set_shared_secret(&self, name: &str, value: &[u8]) -> Result<(), DirectoryError> {
        let (name, value) = (shared::full(name), shared::encode(value));
        match &self.0 {
            Engine::File(db) => {
                db.lock().query_row(&sqlite(shared::SET), [name, value], |_| Ok(()))?;
                Ok(())
            }
            Engine::Tables(pool) => server::kept(pool, shared::SET, &name, &value).await.map(drop),
        }
    }

    async fn head(&self) -> Result<Head, DirectoryError> {
        let sql = "SELECT version, ids, audits FROM directory.head WHERE one = 1";
        let read = |row: &Row<'_>| Ok(Head { version: row.get(0)?, ids: row.get(1)?, audits: row.get(2)? });
        let damaged = |bad: Bad| DirectoryError::Damaged {
            place: "the directory's head".into(),
            what: bad.to_string(),
        };
        let mut found = None;
        match &self.0 {
            Engine::File(db) => {
                let mut take = |row: &Row<'_>| read(row).map(|head| found = Some(head));
                embedded::each(&db.lock(), sql, &[], &mut take).map_err(damaged)?;
            }
            Engine::Tables(pool) => {
                if let Some(row) = server::rows(pool, sql, &[]).await?.first() {
                    found = Some(read(&Row::Postgres(row)).map_err(damaged)?);
                }
            }
        }
        found.ok_or_else(|| damaged(Bad("there is none".to_owned())))
    }

    /// Runs several statements in one transaction; they may run again.
    async fn run(&self, sql: &str) -> Result<(), DirectoryError> {
        match &self.0 {
            Engine::File(db) => {
                let db = db.lock();
                let tx = db.unchecked_transaction()?;
                tx.execute_batch(&sqlite(sql))?;
                Ok(tx.commit()?)
            }
            Engine::Tables(pool) => {
                let done = pool.commit_idempotent(|tx| async move { tx.batch(sql).await }).await;
                done.map_err(|e| DirectoryError::Commit(e.to_string()))
            }
        }
    }
}

fn named(name: &str) -> Result<&'static Table, DirectoryError> {
    let table = TABLES.iter().find(|table| table.name == name);
    table.ok_or_else(|| DirectoryError::Invalid(format!("the directory has no table {name:?}")))
}

/// The rows column by column.
fn columns(table: &Table, rows: &[Carried]) -> Vec<Arc<dyn ToSql + Sync + Send>> {
    let number = |value: &Value| if let Value::Int(number) = value { *number } else { 0 };
    let text = |value: &Value| if let Value::Text(text) = value { text.clone() } else { None };
    let column = |(at, name): (usize, &&str)| -> Arc<dyn ToSql + Sync + Send> {
        if name.starts_with('#') {
            Arc::new(rows.iter().map(|row| number(&row.0[at])).collect::<Vec<i64>>())
        } else {
            Arc::new(rows.iter().map(|row| text(&row.0[at])).collect::<Vec<Option<String>>>())
        }
    };
    table.columns.iter().enumerate().map(column).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A table or a column that somebody adds is carried, or left out for a reason.
    #[test]
    fn no_table_and_no_column_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let db = embedded::connect(&dir.path().join("directory.db")).unwrap();
        let texts = |sql: &str| -> BTreeSet<String> {
            let mut select = db.prepare(sql).unwrap();
            select.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        };
        // `head` is carried by `finish`; what was touched concerns nodes that are not there.
        let mut there =
            texts("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
        for apart in ["head", "change", "schema_version"] {
            assert!(there.remove(apart), "{apart}");
        }
        assert_eq!(there, tables().map(str::to_owned).collect());
        for table in TABLES {
            let known: BTreeSet<String> =
                table.columns.iter().map(|c| c.trim_start_matches('#').to_owned()).collect();
            assert_eq!(texts(&format!("SELECT name FROM pragma_table_info('{}')", table.name)), known);
        }
    }
}
