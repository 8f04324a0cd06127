//! What PostgreSQL says, as the store says it.

use postgres::{CommitError, PgError};

use crate::codec::Unreadable;
use crate::error::StoreError;

/// Why a commit was not one.
#[derive(Debug)]
pub(crate) enum Lost {
    /// Nothing was stored.
    Told(StoreError),
    /// Nobody knows yet.
    Unknown(String),
}

impl From<Unreadable> for PgError {
    fn from(error: Unreadable) -> Self {
        PgError::Damaged(error.to_string())
    }
}

/// An error of a statement.
pub(crate) fn read_error(error: &PgError) -> StoreError {
    match error {
        PgError::Refused { message, .. } => StoreError::Invalid(message.clone()),
        PgError::Resources(text) if text.contains("53100") => StoreError::NoSpace,
        PgError::Damaged(reason) | PgError::Bug(reason) => StoreError::Io {
            what: "the database".into(),
            reason: reason.clone(),
            kind: std::io::ErrorKind::InvalidData,
        },
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// An error at the start, where an operator waits for words.
pub(crate) fn at_start(error: &PgError) -> StoreError {
    if error.is_transient() && !matches!(error, PgError::Unsafe { .. }) {
        return read_error(error);
    }
    StoreError::Server(error.clone())
}

/// An error of a commit.
pub(crate) fn commit_error<T>(result: Result<T, CommitError>, what: &str) -> Result<T, Lost> {
    result.map_err(|error| match error {
        CommitError::NotCommitted(error) => Lost::Told(read_error(&error)),
        CommitError::Refused { message, .. } => Lost::Told(StoreError::Invalid(format!("{what}: {message}"))),
        CommitError::Unknown(reason) => Lost::Unknown(reason),
    })
}

/// The same where it makes no difference: it is done again, or looked at, before anything is built on it.
pub(crate) fn committed<T>(result: Result<T, CommitError>, what: &str) -> Result<T, StoreError> {
    commit_error(result, what).map_err(|lost| match lost {
        Lost::Told(error) => error,
        Lost::Unknown(reason) => StoreError::Unavailable(format!("{what}: {reason}")),
    })
}
