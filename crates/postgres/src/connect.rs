//! One connection: opening it, and the driver that poisons it when a notice comes while committing.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage, SimpleQueryRow};
use tracing::{debug, warn};

use crate::error::fatal;
use crate::session::Statements;
use crate::url::{Endpoint, full_text};
use crate::{Heard, PgError};

/// A server that has not let us in by then is silent.
const OPEN_LIMIT: Duration = Duration::from_secs(4);

/// Notices must reach us whatever the role's defaults are, or the rule of a commit is blind. Statements outside of
/// transactions are limited; those in one are not, see `commit`. A transaction whose owner is frozen gives its locks
/// back before anybody takes over from it.
const SETTINGS: &str = "SET client_min_messages = notice; SET statement_timeout = '10s'; \
    SET lock_timeout = 0; SET idle_in_transaction_session_timeout = '5s'; \
    SET default_transaction_isolation = 'read committed'; SET timezone = 'UTC'";

/// Lets the server notice that we have gone while a statement of ours waits for a lock. Not every platform can.
const NOTICE_GONE: &str = "SET client_connection_check_interval = '10s'";

const FACTS: &str = "extract(epoch FROM pg_postmaster_start_time())::text, \
    current_setting('server_version_num'), pg_is_in_recovery(), current_setting('transaction_read_only'), ";

/// The server's timeline, which is part of the names of its log files. Some providers have no such files; where the
/// question is refused, there is no telling an old primary from a new one, and that is theirs to do.
const TIMELINE: &str = "CASE WHEN pg_is_in_recovery() THEN '0' \
    ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END";

/// The columns that [`Settings::read`] reads, behind those of [`FACTS`] or alone.
pub(crate) const SETTINGS_COLUMNS: &str = "current_setting('fsync'), current_setting('full_page_writes'), \
    current_setting('synchronous_commit'), current_setting('synchronous_standby_names')";

/// The settings that the guard looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) fsync: String,
    pub(crate) full_page_writes: String,
    pub(crate) synchronous_commit: String,
    pub(crate) standby_names: String,
}

impl Settings {
    /// Reads four columns of an answer, from `first` on.
    pub(crate) fn read(messages: &[SimpleQueryMessage], first: usize) -> Option<Self> {
        let row = first_row(messages)?;
        let text = |i: usize| row.get(first + i).map(str::to_owned);
        Some(Self {
            fsync: text(0)?,
            full_page_writes: text(1)?,
            synchronous_commit: text(2)?,
            standby_names: text(3)?,
        })
    }
}

/// The first row in an answer.
pub(crate) fn first_row(messages: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    messages.iter().find_map(|m| match m {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) standby: bool,
    pub(crate) read_only: bool,
    /// Grows with every promotion; 0 of a standby.
    pub(crate) timeline: u32,
    /// When the server process began; tells two runs of one server apart.
    pub(crate) started: String,
    /// As in `150008`.
    pub(crate) version: u32,
    pub(crate) settings: Settings,
}

impl Facts {
    pub(crate) fn writable(&self) -> bool {
        !self.standby && !self.read_only
    }
}

/// What the driver and the users of a connection share.
#[derive(Default)]
struct Shared {
    committing: AtomicBool,
    /// Why the driver ended, or the notice that poisoned the connection.
    fault: Mutex<Option<String>>,
    ended: watch::Sender<bool>,
}

/// One connection. Ends at once when it is killed or dropped, without a word to the server: a statement is never
/// cancelled.
pub(crate) struct Connection {
    client: Client,
    statements: Statements,
    shared: Arc<Shared>,
    driver: Driver,
    facts: Facts,
    endpoint: usize,
}

impl Connection {
    /// Connects to one server and asks it for its facts. `index` is its place among the endpoints.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        index: usize,
        heard: Option<mpsc::Sender<Heard>>,
    ) -> Result<Self, PgError> {
        let opening = async {
            let (client, connection) =
                endpoint.config.connect(endpoint.tls.clone()).await.map_err(|e| unreachable(&e))?;
            let shared = Arc::new(Shared::default());
            let driver = Driver(tokio::spawn(drive(connection, shared.clone(), heard)).abort_handle());
            client.batch_execute(SETTINGS).await?;
            // An error here is an answer as well.
            let _ = client.batch_execute(NOTICE_GONE).await;
            let facts = ask(&client).await?;
            Ok(Self { client, statements: Statements::default(), shared, driver, facts, endpoint: index })
        };
        match timeout(OPEN_LIMIT, opening).await {
            Ok(result) => result,
            Err(_) => Err(PgError::Unreachable(format!("no answer in {} s", OPEN_LIMIT.as_secs()))),
        }
    }

    /// What the server says of itself now.
    pub(crate) async fn ask(&self) -> Result<Facts, PgError> {
        ask(&self.client).await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.statements
    }

    /// As they were when it was opened.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// From here until it is told otherwise, a notice ends this connection.
    pub(crate) fn committing(&self, yes: bool) {
        self.shared.committing.store(yes, Ordering::SeqCst);
    }

    /// What ended it, if the driver knows.
    pub(crate) fn fault(&self) -> Option<String> {
        self.shared.fault.lock().clone()
    }

    /// Waits until it has ended by itself or by the server.
    pub(crate) async fn ended(&self) {
        // An error would mean that the sender is gone, which we hold.
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.shared.fault.lock().is_some()
    }

    /// Closes the socket, whatever is on the way.
    pub(crate) fn kill(&self) {
        self.driver.0.abort();
    }
}

/// The task that moves the bytes; dropped, it ends.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ask(client: &Client) -> Result<Facts, PgError> {
    let select = |timeline| format!("SELECT {FACTS}{SETTINGS_COLUMNS}, {timeline}");
    let messages = match client.simple_query(&select(TIMELINE)).await {
        Err(error) if error.as_db_error().is_some_and(|e| !fatal(e)) => {
            client.simple_query(&select("'0'")).await?
        }
        other => other?,
    };
    Facts::read(&messages).ok_or_else(|| PgError::Bug(format!("unexpected answer to {FACTS}")))
}

/// Moves bytes both ways until the connection ends.
///
/// The library hands a notice out of `poll_message` before it looks at the message behind it. So when a notice comes
/// while committing, the reply to COMMIT has not been routed yet; returning here drops the socket and every reply
/// with it, and the caller's COMMIT fails, as it must.
async fn drive<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    shared: Arc<Shared>,
    heard: Option<mpsc::Sender<Heard>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let fault = loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                let text = format!("{}: {} [{}]", notice.severity(), notice.message(), notice.code().code());
                if shared.committing.load(Ordering::SeqCst) {
                    warn!("PostgreSQL, while committing: {text}");
                    break text;
                }
                debug!("PostgreSQL: {text}");
            }
            Some(Ok(AsyncMessage::Notification(told))) => {
                if let Some(heard) = &heard {
                    let (channel, payload) = (told.channel().to_owned(), told.payload().to_owned());
                    if heard.try_send(Heard::Notification { channel, payload }).is_err() {
                        break "too many notifications at once".to_owned();
                    }
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => break full_text(&error),
            None => break "closed".to_owned(),
        }
    };
    // Before `connection` is dropped, which is what wakes the callers.
    *shared.fault.lock() = Some(fault);
    shared.ended.send_replace(true);
}

/// What a failed attempt to connect means.
fn unreachable(error: &tokio_postgres::Error) -> PgError {
    match error.as_db_error() {
        Some(server) => match PgError::of_code(server) {
            PgError::Lost(why) => PgError::Unreachable(why),
            other => other,
        },
        None => PgError::Unreachable(full_text(error)),
    }
}

impl Facts {
    fn read(messages: &[SimpleQueryMessage]) -> Option<Self> {
        let row = first_row(messages)?;
        Some(Self {
            started: row.get(0)?.to_owned(),
            version: row.get(1)?.parse().ok()?,
            standby: row.get(2)? == "t",
            read_only: row.get(3)? == "on",
            settings: Settings::read(messages, 4)?,
            timeline: u32::from_str_radix(row.get(8)?, 16).ok()?,
        })
    }
}
