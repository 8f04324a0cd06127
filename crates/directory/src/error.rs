//! What can go wrong with the directory, by who is at fault.

use std::path::PathBuf;

/// Why the directory could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The asker: this value cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The asker: there is no such thing.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// `organisation`, `credential`, …
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// The asker: the name is taken.
    #[error("there is already a {what} {name:?}")]
    Exists {
        /// `organisation`, `credential`, …
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The asker: others depend on it.
    #[error("{0}")]
    InUse(String),
    /// The asker: it comes from the config file and is changed there.
    #[error("{what} {name:?} comes from the config file: change it there and reload")]
    ReadOnly {
        /// `route` or `smart host`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The operator: a newer Posthouse has written this file.
    #[error(
        "{path} was written by a newer Posthouse (schema {found}, this one knows {known}): run that version, or \
         restore a backup made before the upgrade"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The disk: a row is not what was written.
    #[error("{place} is damaged: {what}; restore it from a backup")]
    Damaged {
        /// The file, or that it is in PostgreSQL.
        place: String,
        /// What was found.
        what: String,
    },
    /// The disk, or SQLite on it.
    #[error("directory: {0}")]
    Disk(#[from] rusqlite::Error),
    /// The disk, the database, or the way to it: the change was not committed.
    #[error("directory: the change could not be committed: {0}")]
    Commit(String),
    /// The way to the database: it went while the change was being committed.
    #[error("directory: nobody can tell whether the change was made ({0}): look before you make it again")]
    Unknown(String),
    /// The database, the way to it, or the operator, as it says.
    #[error("directory: {0}")]
    Postgres(#[from] postgres::PgError),
    /// The disk: the file could not be made.
    #[error("directory: {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The directory has been closed.
    #[error("directory: closed")]
    Closed,
}

impl DirectoryError {
    pub(crate) fn not_found(what: &'static str, name: &str) -> Self {
        Self::NotFound { what, name: shown(name) }
    }

    pub(crate) fn exists(what: &'static str, name: &str) -> Self {
        Self::Exists { what, name: shown(name) }
    }
}

/// A name that someone sent, short enough for a message.
fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}
