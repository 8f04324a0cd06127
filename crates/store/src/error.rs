//! What can go wrong, by who is at fault.

use std::io;
use std::path::PathBuf;

use mail::MessageId;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator: another process uses this data directory.
    #[error("the data directory {} is in use by {}", dir.display(), process(*pid))]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The process that holds it, when it could be read.
        pid: Option<u32>,
    },
    /// The operator: the data was written by a newer Posthouse.
    #[error("{} has schema version {found}, this Posthouse knows {known} at most: run the newer version, or restore a backup made by this one", file.display())]
    Newer {
        /// The database.
        file: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version this program knows.
        known: u32,
    },
    /// The operator: the data in PostgreSQL was written by a newer Posthouse, the server is not safe, or it was not
    /// configured rightly.
    #[error("{0}")]
    Server(#[source] postgres::PgError),
    /// The operator: the object storage is not configured rightly, or refuses what it is asked.
    #[error("object storage: {0}")]
    Objects(String),
    /// The operator: a directory to restore into, or to back up to, is not empty.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The operator: what was given as a backup is none, or is damaged.
    #[error("{}: {reason}", path.display())]
    BadBackup {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk: it is full. Try again later.
    #[error("the disk is full")]
    NoSpace,
    /// The disk: the stored content of this message is not what was written. The message has been quarantined.
    #[error("the stored content of message {message} is damaged: {reason}")]
    Damaged {
        /// The message.
        message: MessageId,
        /// What was found.
        reason: String,
    },
    /// The disk: the store has stopped for good and says so in [`crate::Store::failed`]. A restart recovers.
    #[error("the store has failed: {0}")]
    Failed(String),
    /// The disk or the system: this one operation failed.
    #[error("{what}: {reason}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        reason: String,
        /// The kind of failure.
        kind: io::ErrorKind,
    },
    /// The cluster: the database cannot be reached, or takes no writes. Nothing was done; it may succeed later.
    #[error("the database cannot be used: {0}")]
    Unavailable(String),
    /// The cluster: this node has been taken for dead and its work given to others, or another node has the delivery.
    /// Nothing was changed.
    #[error("refused: {0}")]
    Fenced(String),
    /// Us: the store has been closed.
    #[error("the store is closed")]
    Closed,
    /// Us: what was asked makes no sense.
    #[error("not possible: {0}")]
    Invalid(String),
}

impl StoreError {
    pub(crate) fn io(what: impl Into<String>, error: &io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::NoSpace;
        }
        Self::Io { what: what.into(), reason: error.to_string(), kind: error.kind() }
    }

    /// Whether it is the disk being full, or somebody else holding the database, and nothing was changed.
    pub(crate) fn is_no_space_or_busy(&self) -> bool {
        matches!(self, Self::NoSpace | Self::Io { kind: io::ErrorKind::ResourceBusy, .. })
    }

    /// Whether the same may succeed later without anybody doing anything but making room.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NoSpace
                | Self::Io { .. }
                | Self::Failed(_)
                | Self::Closed
                | Self::Unavailable(_)
                | Self::Objects(_)
                | Self::Fenced(_)
        )
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

/// Why nothing new can be accepted at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Free bytes are down to the reserve.
    #[error("not enough disk space: {free} bytes free, {reserve} are kept in reserve")]
    Disk {
        /// Bytes free.
        free: u64,
        /// Bytes that are left alone.
        reserve: u64,
    },
    /// Free inodes are down to the reserve.
    #[error("not enough inodes: {free} free, {reserve} are kept in reserve")]
    Inodes {
        /// Inodes free.
        free: u64,
        /// Inodes that are left alone.
        reserve: u64,
    },
    /// The store has failed or is closed.
    #[error("the store is not available")]
    Unavailable,
}
