//! A way to one destination, with a connection that stays open between messages.

use std::sync::Arc;
use std::time::Duration;

use mail::{Attempt, Destination, Disposition, EnhancedStatus, Mono, Outcome, Site, SourceName};
use smtp::client::{Lost, Transcript};
use store::{Content, Waiting};

use crate::engine::Engine;
use crate::maildir;
use crate::open::Connection;
use crate::settings::Settings;
use crate::transact::{Prepared, settle};
use crate::way::Way;

/// A delivery to be attempted.
#[derive(Debug)]
pub struct Job {
    /// What is to be delivered to whom.
    pub waiting: Waiting,
    /// Its content.
    pub content: Content,
    /// Whether to return the dialogue also when all goes well.
    pub full_transcript: bool,
}

/// A way from one source to one site. It keeps its connection between attempts until it is closed or dropped.
#[derive(Debug)]
pub struct Link {
    engine: Arc<Engine>,
    path: (SourceName, Site),
    limit: Option<u32>,
    latency: Option<Duration>,
    open: Option<Connection>,
    unreachable: Option<Outcome>,
    record: Transcript,
    prepared: Prepared,
}

impl Link {
    pub(crate) fn new(engine: Arc<Engine>, path: (SourceName, Site)) -> Self {
        let record = Transcript::new(engine.settings().transcript_max);
        let prepared = Prepared::default();
        Self { engine, path, limit: None, latency: None, open: None, unreachable: None, record, prepared }
    }

    /// From which source to which site.
    pub fn path(&self) -> &(SourceName, Site) {
        &self.path
    }

    /// Whether the next attempt needs no new connection: one is open, or none is needed for this site.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
            || matches!(&self.path.1, Site::Alone(Destination::Maildir(_) | Destination::Discard))
    }

    /// Whether a delivery to `destination` may go over the open connection, as far as can be told without asking
    /// anybody; `false` also without a connection. [`Link::attempt`] finds out for certain.
    pub fn suits(&self, destination: &Destination) -> bool {
        self.open.is_some() && matches!(&self.path.1, Site::Alone(alone) if alone == destination)
    }

    /// Most messages over one connection from now on; `None`: as [`Settings::messages_per_connection`] says. A peer
    /// that allows less is told no more than that.
    pub fn set_limit(&mut self, messages_per_connection: Option<u32>) {
        self.limit = messages_per_connection;
    }

    /// How long the peer took in the last attempt to answer the message once it had all of it; `None` where it did
    /// not come that far.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// What the last attempt met, if it found no way to the destination: no host could be reached, or all of them
    /// turned us away before the first message.
    pub fn unreachable(&self) -> Option<&Outcome> {
        self.unreachable.as_ref()
    }

    /// Ready when the peer has closed the connection, or says something unasked, which comes down to the same. Never
    /// ready without a connection. Safe to drop.
    pub async fn closed_by_peer(&mut self) {
        match &mut self.open {
            Some(connection) => connection.wire.unasked().await,
            None => std::future::pending().await,
        }
        self.open = None;
    }

    /// Ends the connection with QUIT.
    pub async fn close(&mut self) {
        if let Some(connection) = self.open.take() {
            connection.quit().await;
        }
    }

    /// Attempts a delivery. There is always an outcome for every recipient that was pending.
    ///
    /// Dropped half-way, nothing is known of the outcome: the next attempt opens a new connection.
    pub async fn attempt(&mut self, job: &Job) -> Attempt {
        let started = self.engine.clock().mono();
        let mut attempt = Attempt {
            delivery: job.waiting.id,
            destination: job.waiting.queue.destination.clone(),
            started: self.engine.clock().now(),
            duration_ms: 0,
            remote: None,
            tls: None,
            outcomes: Vec::with_capacity(job.waiting.recipients.len()),
            dsn: false,
            transcript: None,
            source: None,
            security: None,
        };
        self.record.clear();
        self.unreachable = None;
        self.latency = None;
        match &job.waiting.queue.destination {
            Destination::Discard => self.by_our_word(job, &mut attempt, &discarded()),
            Destination::Sandbox => self.by_our_word(job, &mut attempt, &not_to_be_sent()),
            Destination::Maildir(template) => {
                maildir::deliver(template, &self.engine.settings().hostname, job, &mut attempt).await;
            }
            _ => self.by_session(job, &mut attempt, started).await,
        }
        self.prepared.trim();
        attempt.outcomes.sort_by_key(|outcome| outcome.recipient);
        let took = self.engine.clock().mono().since(started);
        attempt.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if (job.full_transcript || !attempt.all_delivered()) && !self.record.as_str().is_empty() {
            attempt.transcript = Some(self.record.as_str().to_owned());
        }
        attempt
    }

    fn by_our_word(&mut self, job: &Job, attempt: &mut Attempt, outcome: &Outcome) {
        let mut all = (0..job.waiting.recipients.len()).collect();
        settle(&job.waiting.recipients, &mut all, &mut attempt.outcomes, outcome);
        self.record.note(&outcome.text);
    }

    /// By SMTP or LMTP.
    async fn by_session(&mut self, job: &Job, attempt: &mut Attempt, started: Mono) {
        let all = &job.waiting.recipients;
        let mut left: Vec<usize> = (0..all.len()).collect();
        if let Err(outcome) = self.prepared.prepare(&job.content).await {
            self.record.note(&outcome.text);
            return settle(all, &mut left, &mut attempt.outcomes, &outcome);
        }
        let settings = self.engine.settings();
        if self.open.as_ref().is_some_and(|c| !Arc::ptr_eq(&c.settings, &settings)) {
            self.close().await;
        }
        let mut way = Way::new(started);
        // A connection that was left open may be dead by now. That says nothing about the message.
        let mut may_be_stale = self.open.is_some();
        while !left.is_empty() {
            let mut connection = match self.connection(&mut way, &settings, attempt).await {
                Ok(connection) => connection,
                Err(outcome) => {
                    let is_first = left.len() == all.len() && outcome.disposition == Disposition::Deferred;
                    self.unreachable = is_first.then(|| outcome.clone());
                    return settle(all, &mut left, &mut attempt.outcomes, &outcome);
                }
            };
            attempt.dsn = connection.session.capabilities().dsn;
            let (before, remembered) = (attempt.outcomes.len(), left.clone());
            let Link { engine, prepared, .. } = self;
            let lost =
                connection.transact(job, prepared, &mut left, &mut attempt.outcomes, engine.clock()).await;
            self.record = std::mem::take(connection.session.transcript());
            let silent = matches!(lost, Some(Lost::TimedOut(_) | Lost::Fault(_)));
            let unheard = !connection.session.is_usable() && connection.session.was_stale() && !silent;
            if connection.session.is_usable() {
                self.open = Some(connection);
            } else if unheard && (may_be_stale || way.goes_on()) {
                // The peer was gone before it heard of the message: once more, or by the next host.
                self.record.note("the connection was gone before the message was offered; trying another");
                let outcome = attempt.outcomes.drain(before..).next().map(|r| r.outcome);
                way.failed(outcome.filter(|_| !may_be_stale));
                left = remembered;
            } else if lost.is_none() {
                // What became of the message must not wait for a peer that takes its time over a farewell.
                tokio::spawn(connection.quit());
                // For the recipients that are left, if any, from the first host on.
                way = Way::new(started);
            }
            may_be_stale = false;
        }
    }

    /// The open connection, or a new one.
    async fn connection(
        &mut self,
        way: &mut Way,
        settings: &Arc<Settings>,
        attempt: &mut Attempt,
    ) -> Result<Connection, Outcome> {
        let connection = match self.open.take() {
            Some(mut connection) => {
                self.record.note(&format!("using the open connection to {}", connection.remote.name));
                *connection.session.transcript() = std::mem::take(&mut self.record);
                connection
            }
            None => {
                let Link { engine, record, .. } = self;
                let destination = &attempt.destination;
                way.connect(destination, settings, engine.clock(), record, &mut attempt.remote).await?
            }
        };
        attempt.remote = Some(connection.remote.clone());
        attempt.tls.clone_from(&connection.tls);
        Ok(connection)
    }
}

fn discarded() -> Outcome {
    Outcome::own(
        Disposition::Delivered,
        EnhancedStatus::new(2, 0, 0),
        "accepted and thrown away, as its route says",
    )
}

fn not_to_be_sent() -> Outcome {
    let text = "mail caught by the sandbox is never sent";
    Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 3, 5), text)
}
