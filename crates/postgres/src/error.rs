//! What can go wrong, by who is at fault.

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::url::full_text;

/// Why PostgreSQL did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PgError {
    /// The operator: the URL or a file that it names cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// The network or the server: there is no connection to any of the servers, and this is what each of them said.
    #[error("no connection to PostgreSQL: {0}")]
    Unreachable(String),
    /// The cluster: servers answer, none of them takes writes now.
    #[error("no PostgreSQL server takes writes: {0}")]
    NotWritable(String),
    /// The operator: the server refuses this user, password or database.
    #[error("PostgreSQL refuses the login: {0}")]
    Login(String),
    /// The operator: a setting of the server with which it could lose what it acknowledged.
    #[error("PostgreSQL is not safe to store mail in: {setting} is {value:?}; {advice}")]
    Unsafe {
        /// The setting, by its name in postgresql.conf.
        setting: String,
        /// What it is.
        value: String,
        /// What to do.
        advice: String,
    },
    /// The operator: the data was written by a newer Posthouse.
    #[error(
        "the {name} schema in PostgreSQL has version {found}, which needs a Posthouse that knows version {readable_by}, \
         and this one knows {known}: run the newer version"
    )]
    Newer {
        /// Whose schema.
        name: String,
        /// The version found.
        found: u32,
        /// The oldest version whose programs may work with it.
        readable_by: u32,
        /// The newest version this program knows.
        known: u32,
    },
    /// The caller: the data breaks a constraint (SQLSTATE class 23).
    #[error("PostgreSQL refuses the data: {message}")]
    Refused {
        /// SQLSTATE, as in `23505` (unique).
        code: String,
        /// The constraint's name, where the server told.
        constraint: Option<String>,
        /// What the server said.
        message: String,
    },
    /// Another transaction: a deadlock or a serialisation failure (SQLSTATE class 40). Again may succeed.
    #[error("another transaction was in the way: {0}")]
    Conflict(String),
    /// The server: no space, no memory, no more connections (SQLSTATE class 53).
    #[error("PostgreSQL lacks resources: {0}")]
    Resources(String),
    /// The network or the server: the connection went.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(String),
    /// The server: it did not answer in time; the connection has been dropped.
    #[error("PostgreSQL did not answer in time: {0}")]
    Timeout(String),
    /// The disk of the server: what it reads is not what it wrote (SQLSTATE class XX, 58).
    #[error("PostgreSQL reports damage: {0}")]
    Damaged(String),
    /// Us: a statement that the server does not understand, or a use of this crate that its documentation forbids.
    #[error("bug: {0}")]
    Bug(String),
}

impl PgError {
    /// Whether the same thing may succeed on another connection or a moment later, with nothing changed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::NotWritable(_)
            | Self::Unsafe { .. }
            | Self::Conflict(_)
            | Self::Resources(_)
            | Self::Lost(_)
            | Self::Timeout(_) => true,
            Self::Configuration(_)
            | Self::Login(_)
            | Self::Newer { .. }
            | Self::Refused { .. }
            | Self::Damaged(_)
            | Self::Bug(_) => false,
        }
    }

    /// Whether the unique or other constraint of this name was broken.
    pub fn is_constraint(&self, name: &str) -> bool {
        matches!(self, Self::Refused { constraint: Some(c), .. } if c == name)
    }

    /// What the server said to a statement.
    pub(crate) fn of_server(error: &DbError) -> Self {
        if fatal(error) { Self::Lost(message(error)) } else { Self::of_code(error) }
    }

    /// What the server said, be the connection open or not.
    pub(crate) fn of_code(error: &DbError) -> Self {
        let code = error.code().code();
        let message = message(error);
        let said = || format!("{message} [{code}]");
        match *error.code() {
            // A connection of ours to a server that has become a standby.
            SqlState::READ_ONLY_SQL_TRANSACTION => return Self::NotWritable(message),
            SqlState::QUERY_CANCELED => return Self::Timeout(message),
            SqlState::LOCK_NOT_AVAILABLE => return Self::Conflict(said()),
            // The schema was migrated under a prepared statement; a new connection prepares it anew.
            SqlState::FEATURE_NOT_SUPPORTED if message.contains("cached plan") => return Self::Lost(message),
            _ => {}
        }
        match code.get(..2).unwrap_or_default() {
            "23" => Self::Refused {
                code: code.to_owned(),
                constraint: error.constraint().map(str::to_owned),
                message,
            },
            "40" => Self::Conflict(said()),
            "53" => Self::Resources(said()),
            "08" | "57" => Self::Lost(said()),
            "28" | "3D" => Self::Login(message),
            "58" | "XX" => Self::Damaged(said()),
            _ => Self::Bug(said()),
        }
    }
}

fn message(error: &DbError) -> String {
    match error.detail() {
        Some(detail) => format!("{} ({detail})", error.message()),
        None => error.message().to_owned(),
    }
}

/// Whether the server ends the connection with this message.
pub(crate) fn fatal(error: &DbError) -> bool {
    matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            return Self::of_server(server);
        }
        let text = full_text(&error);
        if error.is_closed() || std::error::Error::source(&error).is_some_and(|s| s.is::<std::io::Error>()) {
            Self::Lost(text)
        } else {
            Self::Bug(text)
        }
    }
}

/// Why a commit does not count. What is told here decides whether the caller may do it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Nothing was stored. It is safe to do again.
    #[error("not committed: {0}")]
    NotCommitted(#[source] PgError),
    /// It may have been stored, here or on one server only: the connection went or a notice came while committing.
    /// Do it again only if doing it twice is the same as once.
    #[error("nobody can tell whether this was committed: {0}")]
    Unknown(String),
    /// Nothing was stored and nothing will be: the data breaks a constraint.
    #[error("PostgreSQL refuses the data: {message}")]
    Refused {
        /// SQLSTATE, as in `23505` (unique).
        code: String,
        /// The constraint's name, where the server told.
        constraint: Option<String>,
        /// What the server said.
        message: String,
    },
}

impl CommitError {
    /// Whether the unique or other constraint of this name was broken.
    pub fn is_constraint(&self, name: &str) -> bool {
        matches!(self, Self::Refused { constraint: Some(c), .. } if c == name)
    }
}

impl From<PgError> for CommitError {
    /// For an error before the COMMIT was sent.
    fn from(error: PgError) -> Self {
        match error {
            PgError::Refused { code, constraint, message } => Self::Refused { code, constraint, message },
            other => Self::NotCommitted(other),
        }
    }
}
