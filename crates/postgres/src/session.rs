//! What a caller holds while it talks to the server: statements, prepared once a connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::PgError;
use crate::connect::Connection;

/// How many prepared statements a connection keeps; past it all are forgotten and prepared again as they come.
const STATEMENTS_MAX: usize = 256;

/// Statements by their text.
#[derive(Default)]
pub(crate) struct Statements(Mutex<HashMap<Box<str>, Statement>>);

/// One connection, lent to a closure. A clone is the same connection; statements that are polled at the same time
/// (`tokio::join!`) travel together. It must not be kept: past the closure's end every call is a [`PgError::Bug`].
#[derive(Clone)]
pub struct Session {
    connection: Arc<Connection>,
    ended: Arc<AtomicBool>,
}

impl Session {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, ended: Arc::default() }
    }

    /// From here on clones of it do nothing.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Runs a statement and returns its rows. Parameters are `$1`, `$2`, …
    ///
    /// # Errors
    /// Whatever the server said, by who is at fault; [`PgError::Lost`] when it said nothing.
    pub async fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PgError> {
        let statement = self.prepared(sql).await?;
        Ok(self.connection.client().query(&statement, parameters).await?)
    }

    /// The same for a statement that has one row, or none.
    ///
    /// # Errors
    /// As [`query`](Self::query); more than one row is a [`PgError::Bug`].
    pub async fn query_opt(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, PgError> {
        let mut rows = self.query(sql, parameters).await?;
        if rows.len() > 1 {
            return Err(PgError::Bug(format!("{} rows in place of one: {sql}", rows.len())));
        }
        Ok(rows.pop())
    }

    /// The same for a statement that has exactly one row.
    ///
    /// # Errors
    /// As [`query`](Self::query); another number of rows is a [`PgError::Bug`].
    pub async fn query_one(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row, PgError> {
        let row = self.query_opt(sql, parameters).await?;
        row.ok_or_else(|| PgError::Bug(format!("no row in place of one: {sql}")))
    }

    /// Runs a statement and returns how many rows it changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, PgError> {
        let statement = self.prepared(sql).await?;
        Ok(self.connection.client().execute(&statement, parameters).await?)
    }

    /// Runs several statements, separated by `;`, without parameters. Not for COMMIT.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn batch(&self, sql: &str) -> Result<(), PgError> {
        self.alive()?;
        Ok(self.connection.client().batch_execute(sql).await?)
    }

    async fn prepared(&self, sql: &str) -> Result<Statement, PgError> {
        self.alive()?;
        let known = self.connection.statements().0.lock().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.connection.client().prepare(sql).await?;
        let mut statements = self.connection.statements().0.lock();
        if statements.len() >= STATEMENTS_MAX {
            statements.clear();
        }
        statements.insert(sql.into(), statement.clone());
        Ok(statement)
    }

    fn alive(&self) -> Result<(), PgError> {
        if self.ended.load(Ordering::Acquire) {
            return Err(PgError::Bug("a session was used after its closure had returned".to_owned()));
        }
        Ok(())
    }
}

/// A transaction, lent to the closure of [`Pool::commit`](crate::Pool::commit). It has the methods of [`Session`].
#[derive(Clone)]
pub struct Tx {
    session: Session,
    abandoned: Arc<AtomicBool>,
}

impl Tx {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, abandoned: Arc::default() }
    }

    /// Asks for a rollback in place of the commit, whatever the closure returns: `commit` then answers `Ok` with the
    /// closure's value and nothing is stored. For a caller that looks first and finds it has nothing to do, or that
    /// refuses with an error of its own.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub(crate) fn abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }
}

impl std::ops::Deref for Tx {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}
