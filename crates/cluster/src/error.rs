//! What can go wrong, by who is at fault.

use postgres::{CommitError, PgError};

/// Why the cluster did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The operator: another living node has this name.
    #[error("another node named {name:?} is running ({address}): give each node a name of its own")]
    NameTaken {
        /// The name.
        name: String,
        /// Where the other says it is.
        address: String,
    },
    /// The operator: there is no such node, or it is not in a state for this.
    #[error("{0}")]
    NoSuchNode(String),
    /// The operator: all node numbers are in use.
    #[error("there are 1023 nodes already: forget some that are gone")]
    Full,
    /// This node was declared dead while it was frozen or cut off. What it had in hand is another's now.
    #[error("this node was declared dead; it has to join anew")]
    Deposed,
    /// The database.
    #[error(transparent)]
    Postgres(#[from] PgError),
    /// The database: a commit that may or may not have happened.
    #[error("nobody can tell whether this was committed: {0}")]
    Unknown(String),
}

impl From<CommitError> for ClusterError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::NotCommitted(why) => Self::Postgres(why),
            CommitError::Unknown(why) => Self::Unknown(why),
            CommitError::Refused { code, constraint, message } => {
                Self::Postgres(PgError::Refused { code, constraint, message })
            }
        }
    }
}
