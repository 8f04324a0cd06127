//! NOTIFY, as a hint.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::PgError;
use crate::connect::Connection;
use crate::pool::Inner;

/// So many hints may wait to be heard; past it the connection is made anew and [`Heard::Missed`] stands for them.
const WAITING_MAX: usize = 1024;
/// A silent connection is asked for a sign of life this often, and has this long to give it.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);

/// What a [`Listener`] heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody notified.
    Notification {
        /// On this channel.
        channel: String,
        /// With this text.
        payload: String,
    },
    /// The connection is new, or too much came at once: anything may have been missed. Look at the truth.
    Missed,
}

/// Hears what is notified, and connects again when it must. Dropping it ends it.
pub struct Listener {
    heard: mpsc::Receiver<Heard>,
    task: AbortHandle,
}

impl Listener {
    pub(crate) fn start(pool: Arc<Inner>, channels: &[&str]) -> Self {
        let (sender, heard) = mpsc::channel(WAITING_MAX);
        let quoted: Vec<_> =
            channels.iter().map(|c| format!("LISTEN \"{}\"", c.replace('"', "\"\""))).collect();
        let task = tokio::spawn(listen(pool, quoted.join("; "), sender)).abort_handle();
        Self { heard, task }
    }

    /// Waits for the next hint. The first is always [`Heard::Missed`]. Safe to drop and call again.
    pub async fn next(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            // The task goes on until this is dropped; should it have panicked, there is nothing to hear.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(pool: Arc<Inner>, statements: String, heard: mpsc::Sender<Heard>) {
    loop {
        let error = match pool.writer.open(Some(&heard)).await {
            Ok(connection) => match stay(&connection, &statements, &heard).await {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        debug!("listening to PostgreSQL again: {error}");
        sleep(RETRY).await;
    }
}

/// Listens on one connection until it is of no more use; `Ok` when nobody wants to hear any more.
async fn stay(connection: &Connection, statements: &str, heard: &mpsc::Sender<Heard>) -> Result<(), PgError> {
    let client = connection.client();
    client.batch_execute(statements).await?;
    if heard.send(Heard::Missed).await.is_err() {
        return Ok(());
    }
    loop {
        tokio::select! {
            () = heard.closed() => return Ok(()),
            () = connection.ended() => {}
            () = sleep(ALIVE_EVERY) => {}
        }
        let facts = timeout(ALIVE_EVERY, connection.ask()).await;
        match facts {
            Ok(Ok(facts)) if facts.writable() => {}
            Ok(Ok(_)) => return Err(PgError::NotWritable("it has become a standby".to_owned())),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(PgError::Timeout("no sign of life".to_owned())),
        }
    }
}
