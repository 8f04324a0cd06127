//! Connections to the server that takes writes, lent one at a time.

use std::future::Future;

use crate::{CommitError, Config, Listener, PgError, Session, Tx};

/// A pool of connections to the writer. A clone is the same pool.
#[derive(Clone)]
pub struct Pool {}

impl Pool {
    /// Connects once and looks whether the server is safe to store mail in.
    ///
    /// # Errors
    /// [`PgError::Configuration`], [`PgError::Unreachable`], [`PgError::NotWritable`], [`PgError::Login`] or
    /// [`PgError::Unsafe`], each in words for the operator.
    pub async fn connect(config: Config) -> Result<Self, PgError> {
        let _ = config;
        todo!()
    }

    /// Lends a connection for statements that only read (or that may be lost): each has ten seconds. When the
    /// connection goes, the closure runs again on another, for ten seconds in all.
    ///
    /// # Errors
    /// What the closure returned last.
    pub async fn read<T, F, Fut>(&self, work: F) -> Result<T, PgError>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<T, PgError>>,
    {
        let _ = work;
        todo!()
    }

    /// Runs one transaction and commits it. The closure may run several times: after a deadlock, or when the
    /// connection goes before COMMIT was sent, until [`Config::hold`] is over. It never runs again once it may have
    /// been committed. [`Tx::abandon`] makes it a rollback.
    ///
    /// # Errors
    /// [`CommitError`], which says whether it is safe to do again.
    pub async fn commit<T, F, Fut>(&self, work: F) -> Result<T, CommitError>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, PgError>>,
    {
        let _ = work;
        todo!()
    }

    /// The same for a closure that may be committed twice with the effect of once (`ON CONFLICT … DO UPDATE`, fenced
    /// updates): it runs again also when nobody can tell whether the first was committed. What a held reply needs
    /// during a fail-over.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); [`CommitError::Unknown`] if any of the tries may have been committed.
    pub async fn commit_idempotent<T, F, Fut>(&self, work: F) -> Result<T, CommitError>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, PgError>>,
    {
        let _ = work;
        todo!()
    }

    /// Looks again whether the server is safe to store mail in; to be asked at each beat of a node.
    ///
    /// # Errors
    /// [`PgError::Unsafe`], or why it could not be asked.
    pub async fn check(&self) -> Result<(), PgError> {
        todo!()
    }

    /// Listens to channels (NOTIFY) on a connection of its own, not of the pool.
    pub fn listen(&self, channels: &[&str]) -> Listener {
        let _ = channels;
        todo!()
    }

    /// How it was configured.
    pub fn config(&self) -> &Config {
        todo!()
    }
}
