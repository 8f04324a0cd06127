//! Which of the servers takes writes: finding it, and noticing when it is no longer the one we talk to.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use crate::connect::{Connection, Facts};
use crate::url::{Endpoint, endpoints};
use crate::{Config, Heard, PgError, guard};

/// How long the server that took writes last is asked alone; how long others may take to contradict the first that
/// answers when none was known.
const HEAD_START: Duration = Duration::from_millis(300);
/// A statement that takes longer makes us look whether its server is still the one.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// So many looks without any answer, and a server counts as gone.
const SILENT_MAX: u32 = 4;

/// The servers, and what we know of them.
pub(crate) struct Writer {
    endpoints: Vec<Endpoint>,
    /// The highest timeline seen. A server with a lower one was replaced and must not be written to.
    timeline: AtomicU32,
    last: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    /// Held by whoever looks, so that many waiting commits do not all knock.
    looking: tokio::sync::Mutex<()>,
    /// Something new was seen.
    found: Notify,
}

/// What the last looks at a server found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Its facts, when it gave them.
    facts: Option<Facts>,
    /// Looks in a row that had no answer at all.
    silent: u32,
}

impl Writer {
    pub(crate) fn new(config: &Config) -> Result<Self, PgError> {
        let endpoints = endpoints(config)?;
        Ok(Self {
            seen: Mutex::new(vec![Seen::default(); endpoints.len()]),
            endpoints,
            timeline: AtomicU32::new(0),
            last: AtomicUsize::new(usize::MAX),
            looking: tokio::sync::Mutex::default(),
            found: Notify::new(),
        })
    }

    /// Opens a connection to the server that takes writes. All are asked at the same time, the
    /// last good one a little earlier.
    pub(crate) async fn open(&self, heard: Option<&mpsc::Sender<Heard>>) -> Result<Connection, PgError> {
        let last = self.last.load(Ordering::Relaxed);
        let mut asked: FuturesUnordered<_> = (0..self.endpoints.len())
            .map(|i| {
                let heard = heard.cloned();
                async move {
                    if last < self.endpoints.len() && i != last {
                        sleep(HEAD_START).await;
                    }
                    (i, self.open_one(i, heard).await)
                }
            })
            .collect();
        let mut errors = Vec::new();
        let mut found: Option<Connection> = None;
        // When it is not known yet who it should be, a server that was replaced may be the first to answer.
        let grace = if last < self.endpoints.len() { Duration::ZERO } else { HEAD_START };
        loop {
            let next = match found {
                Some(_) => timeout(grace, asked.next()).await.unwrap_or(None),
                None => asked.next().await,
            };
            match next {
                Some((_, Ok(new))) => {
                    if found.as_ref().is_none_or(|old| new.facts().timeline > old.facts().timeline) {
                        found = Some(new);
                    }
                }
                Some((i, Err(error))) => errors.push((i, error)),
                None => break,
            }
        }
        if let Some(connection) = found {
            self.last.store(connection.endpoint(), Ordering::Relaxed);
            return Ok(connection);
        }
        self.last.store(usize::MAX, Ordering::Relaxed);
        Err(self.together(errors))
    }

    /// Which server took writes when a connection was last opened; none when none did.
    pub(crate) fn server(&self) -> Option<String> {
        self.endpoints.get(self.last.load(Ordering::Relaxed)).map(|endpoint| endpoint.name.clone())
    }

    async fn open_one(&self, i: usize, heard: Option<mpsc::Sender<Heard>>) -> Result<Connection, PgError> {
        let connection = Connection::open(&self.endpoints[i], i, heard).await?;
        let facts = connection.facts();
        if !facts.writable() {
            let what = if facts.standby { "a standby" } else { "read-only" };
            return Err(PgError::NotWritable(what.to_owned()));
        }
        let newest = self.timeline.fetch_max(facts.timeline, Ordering::SeqCst);
        if facts.timeline < newest {
            return Err(PgError::NotWritable(format!(
                "on timeline {} while another server was promoted to {newest}",
                facts.timeline
            )));
        }
        guard::version(facts.version)?;
        // What was seen of it earlier must not speak against this connection.
        self.seen.lock()[i] = Seen { facts: Some(facts.clone()), silent: 0 };
        Ok(connection)
    }

    /// One error for all servers: that of the one that is nearest to being of use.
    fn together(&self, mut errors: Vec<(usize, PgError)>) -> PgError {
        errors.sort_by_key(|(i, error)| {
            let rank = match error {
                PgError::Unsafe { .. } => 0,
                PgError::Login(_) => 1,
                PgError::Resources(_) | PgError::Damaged(_) | PgError::Bug(_) => 2,
                PgError::NotWritable(_) => 3,
                _ => 4,
            };
            (rank, *i)
        });
        let text = |error: &PgError| match error {
            PgError::NotWritable(why)
            | PgError::Unreachable(why)
            | PgError::Lost(why)
            | PgError::Login(why) => why.clone(),
            other => other.to_string(),
        };
        let all: Vec<_> =
            errors.iter().map(|(i, e)| format!("{}: {}", self.endpoints[*i].name, text(e))).collect();
        let all = all.join("; ");
        match errors.into_iter().next() {
            None => PgError::Bug("no server was asked".to_owned()),
            Some((_, PgError::NotWritable(_))) => PgError::NotWritable(all),
            Some((_, PgError::Login(_))) => PgError::Login(all),
            Some((_, PgError::Unreachable(_) | PgError::Lost(_) | PgError::Timeout(_))) => {
                PgError::Unreachable(all)
            }
            Some((_, other)) => other,
        }
    }

    /// Ends, with the reason, when there is no more sense in waiting for an answer on this connection: its server
    /// is gone, was restarted, has become a standby, or another was promoted. While its server answers others, as it
    /// does when a commit waits for a standby, this goes on.
    pub(crate) async fn watch(&self, connection: &Connection) -> String {
        loop {
            sleep(LOOK_EVERY).await;
            let look = async {
                if let Ok(_turn) = self.looking.try_lock() {
                    self.look().await;
                }
            };
            // A server that does not answer must not keep us from hearing of the one that was promoted in its place.
            let mut look = pin!(look);
            loop {
                let found = self.found.notified();
                if let Some(why) = self.lost(connection) {
                    return why;
                }
                tokio::select! {
                    () = &mut look => break,
                    () = found => {}
                }
            }
            if let Some(why) = self.lost(connection) {
                return why;
            }
        }
    }

    /// Asks every server what it is.
    async fn look(&self) {
        let mut asked: FuturesUnordered<_> = (0..self.endpoints.len())
            .map(|i| async move { (i, Connection::open(&self.endpoints[i], i, None).await) })
            .collect();
        while let Some((i, answer)) = asked.next().await {
            self.note(i, answer);
            self.found.notify_waiters();
        }
    }

    fn note(&self, i: usize, answer: Result<Connection, PgError>) {
        let mut seen = self.seen.lock();
        match answer {
            Ok(connection) => {
                let facts = connection.facts().clone();
                self.timeline.fetch_max(facts.timeline, Ordering::SeqCst);
                seen[i] = Seen { facts: Some(facts), silent: 0 };
            }
            Err(PgError::Unreachable(_) | PgError::Lost(_) | PgError::Timeout(_)) => {
                seen[i] = Seen { facts: None, silent: seen[i].silent + 1 };
            }
            // "Too many clients" is an answer.
            Err(_) => seen[i] = Seen::default(),
        }
    }

    fn lost(&self, connection: &Connection) -> Option<String> {
        let mine = connection.facts();
        let name = &self.endpoints[connection.endpoint()].name;
        let newest = self.timeline.load(Ordering::SeqCst);
        if newest > mine.timeline {
            return Some(format!("another server was promoted while {name} did not answer"));
        }
        let seen = &self.seen.lock()[connection.endpoint()];
        if seen.silent >= SILENT_MAX {
            return Some(format!("{name} does not answer any more"));
        }
        match &seen.facts {
            Some(facts) if facts.standby => Some(format!("{name} has become a standby")),
            Some(facts) if later(&facts.started, &mine.started) => Some(format!("{name} was restarted")),
            _ => None,
        }
    }
}

/// Compares two moments in seconds, as text.
fn later(a: &str, b: &str) -> bool {
    matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a > b)
}
