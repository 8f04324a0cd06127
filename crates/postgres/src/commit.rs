//! The rule of a commit.
//!
//! A commit counts when the server said so, no notice came while it did, and commits wait for a standby still. Each
//! of the three was broken once in an experiment:
//! - a commit that waits for its standby and is cancelled reports success, with a warning before it;
//! - standby names that are emptied while it waits (Patroni does so without `synchronous_mode_strict`) let it go
//!   with neither a standby nor a warning, so the names are asked for behind every COMMIT;
//! - a transaction that wrote nothing waits for nobody. One that finds what an earlier, unknown commit left behind
//!   would vouch for it without any standby having it. So every transaction writes: a message into the log
//!   (`pg_logical_emit_message`), some sixty bytes, whose standby has everything before it as well.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::join;
use mail::Clock;
use tokio::time::{Sleep, sleep};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::{DbError, SqlState};
use tracing::{debug, error, info};

use crate::connect::{Connection, SETTINGS_COLUMNS, Settings, first_row};
use crate::error::fatal;
use crate::pool::{Lease, Pool, Tries, ends_connection};
use crate::{CommitError, PgError, Session, Tx, guard};

/// No statement of a transaction is cut short by the server: cancelled in the wrong moment, its commit would not be
/// what it seems. Notices must come whatever the role's default is. What the guard looks at follows.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL client_min_messages = notice; SELECT ";
/// In a transaction that has failed the first statement fails, where COMMIT alone would say nothing and roll back.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'posthouse', ''); COMMIT";
const STANDBY_NAMES: &str = "SELECT current_setting('synchronous_standby_names')";

impl Pool {
    /// Runs one transaction and commits it. The closure may run several times: after a deadlock, or when the
    /// connection goes before COMMIT was sent, until [`Config::hold`](crate::Config::hold) is over. It never runs
    /// again once it may have been committed. [`Tx::abandon`] makes it a rollback.
    ///
    /// # Errors
    /// [`CommitError`], which says whether it is safe to do again.
    pub async fn commit<T, F, Fut>(&self, work: F) -> Result<T, CommitError>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, PgError>>,
    {
        self.committed(false, work).await
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
        self.committed(true, work).await
    }

    async fn committed<T, F, Fut>(&self, again_when_unknown: bool, work: F) -> Result<T, CommitError>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, PgError>>,
    {
        let hold = self.config().hold;
        let mut tries = Tries::new(hold);
        let mut deadline = pin!(sleep(hold));
        let mut unknown = None;
        let mut last: Option<PgError> = None;
        loop {
            let mut error = match self.attempt(&work, deadline.as_mut()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            // Of "no connection in time" and what kept it from coming, the latter is of use.
            if let (CommitError::NotCommitted(PgError::Timeout(_)), Some(earlier)) = (&error, last.take()) {
                error = CommitError::NotCommitted(earlier);
            }
            let again = match &error {
                CommitError::NotCommitted(why) => {
                    last = Some(why.clone());
                    why.is_transient()
                }
                CommitError::Unknown(why) => {
                    self.0.counters.unknown.fetch_add(1, Relaxed);
                    unknown = Some(why.clone());
                    again_when_unknown
                }
                CommitError::Refused { .. } => false,
            };
            if !again || !tries.pause(deadline.as_mut()).await {
                // What was refused now may have been committed by the try before it.
                return Err(unknown.map_or(error, CommitError::Unknown));
            }
            debug!("committing again: {error}");
        }
    }

    async fn attempt<T, F, Fut>(&self, work: &F, mut deadline: Pin<&mut Sleep>) -> Result<T, CommitError>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, PgError>>,
    {
        let lease = tokio::select! {
            biased;
            lease = self.lease() => lease?,
            () = &mut deadline => return Err(PgError::Timeout("no connection came free".to_owned()).into()),
        };
        let tx = Tx::new(Session::new(lease.connection.clone()));
        // BEGIN is sent first and travels with the first statement. Should the server refuse it, which it has no
        // reason to, that statement has run on its own.
        let run = join(begin(&lease.connection), work(tx.clone()));
        let outcome = self.within(&lease, deadline.as_mut(), run).await;
        tx.end();
        let (begun, done) = match outcome {
            Ok(both) => both,
            Err(why) => {
                // COMMIT was not sent: the server rolls back when it finds us gone.
                self.doubt(lease);
                return Err(why.into());
            }
        };
        let settings = match begun {
            Ok(settings) => settings,
            Err(error) if ends_connection(&error) => {
                self.doubt(lease);
                return Err(error.into());
            }
            Err(error) => return Err(CommitError::Unknown(format!("BEGIN: {error}"))),
        };
        let ready = done.and_then(|value| {
            guard::check(&settings, self.config().durability)?;
            Ok(value)
        });
        match ready {
            Ok(value) if tx.abandoned() => {
                self.roll_back(lease, deadline).await;
                Ok(value)
            }
            Ok(value) => {
                self.conclude(lease, deadline).await?;
                Ok(value)
            }
            Err(error) if ends_connection(&error) => {
                self.doubt(lease);
                Err(error.into())
            }
            Err(error) => {
                self.roll_back(lease, deadline).await;
                Err(error.into())
            }
        }
    }

    /// Sends COMMIT and judges what comes back.
    async fn conclude(&self, lease: Lease, deadline: Pin<&mut Sleep>) -> Result<(), CommitError> {
        let connection = lease.connection.clone();
        let client = connection.client();
        let clock = Clock::system();
        let started = clock.mono();
        connection.committing(true);
        let sent = join(client.simple_query(COMMIT), client.simple_query(STANDBY_NAMES));
        let outcome = self.within(&lease, deadline, sent).await;
        connection.committing(false);
        let (committed, names) = match outcome {
            Ok(both) => both,
            Err(why) => {
                self.doubt(lease);
                return Err(CommitError::Unknown(format!("no answer to COMMIT: {why}")));
            }
        };
        if let Some(fault) = connection.fault() {
            self.doubt(lease);
            return Err(CommitError::Unknown(fault));
        }
        match committed {
            Ok(messages) if statements_done(&messages) == 2 => {}
            Ok(messages) => {
                return Err(CommitError::Unknown(format!("unexpected answer to COMMIT: {messages:?}")));
            }
            Err(error) => {
                let Some(why) = error.as_db_error().and_then(rolled_back) else {
                    self.doubt(lease);
                    return Err(CommitError::Unknown(PgError::from(error).to_string()));
                };
                // A failed COMMIT has ended the transaction, a failed statement before it has not.
                self.roll_back(lease, pin!(sleep(self.config().hold))).await;
                return Err(why.into());
            }
        }
        let names = names.map_err(PgError::from).and_then(|m| first_text(&m));
        match names.and_then(|names| guard::standby_names(&names, self.config().durability)) {
            Ok(()) => {
                self.0.counters.committed(clock.mono().since(started));
                lease.give_back();
                Ok(())
            }
            Err(why) => {
                error!("committed, but perhaps on one server only: {why}");
                Err(CommitError::Unknown(format!("committed, but perhaps on one server only: {why}")))
            }
        }
    }

    /// Ends a transaction that shall not be; the connection is kept if that works.
    async fn roll_back(&self, lease: Lease, deadline: Pin<&mut Sleep>) {
        let rollback = lease.connection.client().batch_execute("ROLLBACK");
        match self.within(&lease, deadline, rollback).await {
            Ok(Ok(())) => lease.give_back(),
            Ok(Err(error)) => info!("ROLLBACK: {error}"),
            Err(error) => info!("ROLLBACK: {error}"),
        }
    }
}

/// Begins a transaction and returns what decides whether its commit would be safe.
async fn begin(connection: &Connection) -> Result<Settings, PgError> {
    let messages = connection.client().simple_query(&format!("{BEGIN}{SETTINGS_COLUMNS}")).await?;
    Settings::read(&messages, 0)
        .ok_or_else(|| PgError::Bug(format!("unexpected answer to BEGIN: {messages:?}")))
}

fn first_text(messages: &[SimpleQueryMessage]) -> Result<String, PgError> {
    let text = first_row(messages).and_then(|row| row.get(0).map(str::to_owned));
    text.ok_or_else(|| PgError::Bug(format!("unexpected answer: {messages:?}")))
}

fn statements_done(messages: &[SimpleQueryMessage]) -> usize {
    messages.iter().filter(|m| matches!(m, SimpleQueryMessage::CommandComplete(_))).count()
}

/// Why nothing was committed, if the answer to COMMIT leaves no doubt about that.
fn rolled_back(error: &DbError) -> Option<PgError> {
    if fatal(error) {
        return None;
    }
    if error.code() == &SqlState::IN_FAILED_SQL_TRANSACTION {
        return Some(PgError::Bug("a statement failed and the closure returned Ok all the same".to_owned()));
    }
    // A deferred constraint, or a serialisation failure that shows only at the end.
    matches!(error.code().code().get(..2), Some("23" | "40")).then(|| PgError::of_server(error))
}
