//! Connections to the server that takes writes, lent one at a time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tracing::{debug, info};

use crate::connect::Connection;
use crate::stats::Counters;
use crate::writer::Writer;
use crate::{Config, Listener, PgError, Session, guard};

/// What one call of [`Pool::read`] may take in all.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Pauses between tries, growing to the second.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A pool of connections to the writer. A clone is the same pool.
#[derive(Clone)]
pub struct Pool(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) writer: Writer,
    pub(crate) counters: Counters,
    idle: Mutex<Vec<Arc<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    /// Connects once and looks whether the server is safe to store mail in.
    ///
    /// # Errors
    /// [`PgError::Configuration`], [`PgError::Unreachable`], [`PgError::NotWritable`], [`PgError::Login`] or
    /// [`PgError::Unsafe`], each in words for the operator.
    pub async fn connect(config: Config) -> Result<Self, PgError> {
        let writer = Writer::new(&config)?;
        let permits = Arc::new(Semaphore::new(config.pool.max(1)));
        let pool = Self(Arc::new(Inner {
            config,
            writer,
            counters: Counters::default(),
            idle: Mutex::default(),
            permits,
        }));
        let lease = pool.lease().await?;
        guard::check(&lease.connection.facts().settings, pool.config().durability)?;
        lease.give_back();
        Ok(pool)
    }

    /// How it was configured.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Lends a connection for statements that only read (or that may be lost): each has ten seconds, the closure
    /// thirty in all. When the connection goes, the closure runs again on another within these thirty.
    ///
    /// # Errors
    /// What the closure returned last.
    pub async fn read<T, F, Fut>(&self, work: F) -> Result<T, PgError>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<T, PgError>>,
    {
        let mut tries = Tries::new(READ_LIMIT);
        let mut deadline = pin!(sleep(READ_LIMIT));
        loop {
            let error = match self.read_once(&work, deadline.as_mut()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again = matches!(
                error,
                PgError::Unreachable(_) | PgError::NotWritable(_) | PgError::Lost(_) | PgError::Resources(_)
            );
            if !again || !tries.pause(deadline.as_mut()).await {
                return Err(error);
            }
            debug!("reading again: {error}");
        }
    }

    async fn read_once<T, F, Fut>(
        &self,
        work: &F,
        mut deadline: std::pin::Pin<&mut Sleep>,
    ) -> Result<T, PgError>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<T, PgError>>,
    {
        let lease = tokio::select! {
            lease = self.lease() => lease?,
            () = &mut deadline => return Err(PgError::Timeout("no connection came free".to_owned())),
        };
        let session = Session::new(lease.connection.clone());
        let done = self.within(&lease, deadline, work(session.clone())).await;
        session.end();
        let result = done.and_then(|done| done);
        match &result {
            Err(error) if ends_connection(error) => self.doubt(lease),
            _ => lease.give_back(),
        }
        result
    }

    /// Looks again whether the server is safe to store mail in; to be asked at each beat of a node.
    ///
    /// # Errors
    /// [`PgError::Unsafe`], or why it could not be asked.
    pub async fn check(&self) -> Result<(), PgError> {
        let lease = self.lease().await?;
        let mut deadline = pin!(sleep(READ_LIMIT));
        let facts = self.within(&lease, deadline.as_mut(), lease.connection.ask()).await.and_then(|f| f);
        match facts {
            Ok(facts) if facts.writable() => {
                lease.give_back();
                guard::check(&facts.settings, self.0.config.durability)
            }
            Ok(_) => {
                self.doubt(lease);
                Err(PgError::NotWritable("it has become a standby".to_owned()))
            }
            Err(error) => {
                self.doubt(lease);
                Err(error)
            }
        }
    }

    /// Listens to channels (NOTIFY) on a connection of its own, not of the pool.
    pub fn listen(&self, channels: &[&str]) -> Listener {
        Listener::start(self.0.clone(), channels)
    }

    /// How many connections are in use, and how many are not.
    pub(crate) fn connections(&self) -> (u64, u64) {
        let busy = self.0.config.pool.max(1) - self.0.permits.available_permits();
        (busy as u64, self.0.idle.lock().len() as u64)
    }

    /// A connection, idle or new, when one of the permitted ones is free.
    pub(crate) async fn lease(&self) -> Result<Lease, PgError> {
        let permits = self.0.permits.clone();
        let permit =
            permits.acquire_owned().await.map_err(|_| PgError::Bug("the pool is closed".to_owned()))?;
        let idle = {
            let mut idle = self.0.idle.lock();
            let all = idle.len();
            idle.retain(|c| !c.is_closed());
            self.0.counters.lost.fetch_add((all - idle.len()) as u64, Relaxed);
            idle.pop()
        };
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let new = self.0.writer.open(None).await?;
                self.0.counters.opened.fetch_add(1, Relaxed);
                Arc::new(new)
            }
        };
        Ok(Lease { connection, pool: self.0.clone(), _permit: permit, good: false })
    }

    /// Waits for an answer as long as there is sense in it. On an error nothing more comes of the work and the
    /// connection must go.
    pub(crate) async fn within<T>(
        &self,
        lease: &Lease,
        deadline: std::pin::Pin<&mut Sleep>,
        work: impl Future<Output = T>,
    ) -> Result<T, PgError> {
        tokio::select! {
            // What has come counts, even if the time is over.
            biased;
            done = work => Ok(done),
            why = self.0.writer.watch(&lease.connection) => Err(PgError::Lost(why)),
            () = deadline => Err(PgError::Timeout("the time for it is over".to_owned())),
        }
    }

    /// Drops a connection and with it all that are idle: what is wrong with one is so with all.
    pub(crate) fn doubt(&self, lease: Lease) {
        drop(lease);
        let idle = std::mem::take(&mut *self.0.idle.lock());
        if !idle.is_empty() {
            self.0.counters.lost.fetch_add(idle.len() as u64, Relaxed);
            info!(
                "{} idle connections to PostgreSQL dropped: the server they lead to may be gone",
                idle.len()
            );
        }
    }
}

/// Whether a connection is of no more use after this error.
pub(crate) fn ends_connection(error: &PgError) -> bool {
    matches!(
        error,
        PgError::Lost(_) | PgError::Timeout(_) | PgError::NotWritable(_) | PgError::Unreachable(_)
    )
}

/// One connection of the pool. Dropped, it closes the connection; given back, it keeps it.
pub(crate) struct Lease {
    pub(crate) connection: Arc<Connection>,
    pool: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
    good: bool,
}

impl Lease {
    pub(crate) fn give_back(mut self) {
        self.good = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.good && !self.connection.is_closed() {
            self.pool.idle.lock().push(self.connection.clone());
        } else {
            self.pool.counters.lost.fetch_add(1, Relaxed);
            // The caller's closure may have kept a session; it must not keep the connection alive.
            self.connection.kill();
        }
    }
}

/// Pauses between tries until a deadline.
pub(crate) struct Tries {
    pause: Duration,
    limit: Duration,
}

impl Tries {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { pause: PAUSE, limit }
    }

    /// Waits a little longer than the last time; false when the deadline came.
    pub(crate) async fn pause(&mut self, deadline: std::pin::Pin<&mut Sleep>) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        tokio::select! {
            () = deadline => false,
            () = sleep(pause) => true,
        }
    }
}
