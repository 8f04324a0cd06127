//! What can go wrong with the history, by who is at fault.

use std::path::PathBuf;

use postgres::{CommitError, PgError};

/// Why the history could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The disk, or SQLite on it: full, not readable, a failed fsync.
    #[error("history: {path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The directory could not be read or written.
    #[error("history: {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A record is not what was written.
    #[error("history: {path}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The operator: a newer Posthouse wrote this file.
    #[error("history: {path} was written by a newer Posthouse (format {found}, this one knows {known})")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format known here.
        known: i64,
    },
    /// PostgreSQL, or the way to it; nothing was written.
    #[error("history: {0}")]
    Postgres(#[source] PgError),
    /// PostgreSQL did not say whether it was written; it can be tried again.
    #[error("history: whether it was written is not known: {0}")]
    Unknown(String),
    /// The asker: this is not done with this engine, and what is done in its place.
    #[error("{0}")]
    Engine(&'static str),
    /// An event could not be encoded; our own fault.
    #[error("history: an event could not be encoded: {0}")]
    Encode(#[source] postcard::Error),
    /// The asker: a query that makes no sense.
    #[error("{0}")]
    Query(String),
    /// The history has been closed.
    #[error("history: closed")]
    Closed,
}

impl From<PgError> for HistoryError {
    fn from(error: PgError) -> Self {
        Self::Postgres(error)
    }
}

impl From<CommitError> for HistoryError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::NotCommitted(error) => Self::Postgres(error),
            CommitError::Refused { code, constraint, message } => {
                Self::Postgres(PgError::Refused { code, constraint, message })
            }
            CommitError::Unknown(why) => Self::Unknown(why),
        }
    }
}

impl HistoryError {
    /// Whether the file itself is broken, so that it is set aside rather than tried again.
    pub(crate) fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            HistoryError::Damaged { .. } => true,
            HistoryError::Disk { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
            }
            _ => false,
        }
    }
}
