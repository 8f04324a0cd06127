//! A way to one destination, with a connection that stays open between messages.

use std::sync::Arc;
use std::time::Duration;

use mail::{Attempt, Destination, Disposition, EnhancedStatus, Mono, Outcome, Site, SourceName};
use smtp::client::Transcript;
use store::{Content, Waiting};

use crate::delivery::Delivery;
use crate::engine::Engine;
use crate::maildir;
use crate::open::Connection;
use crate::permit::withheld;
use crate::settings::Settings;
use crate::transact::{Prepared, settle};

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
    pub(crate) engine: Arc<Engine>,
    pub(crate) path: (SourceName, Site),
    limit: Option<u32>,
    pub(crate) latency: Option<Duration>,
    pub(crate) open: Option<Connection>,
    pub(crate) unreachable: Option<Outcome>,
    pub(crate) record: Transcript,
    pub(crate) prepared: Prepared,
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
        let Some(connection) = &self.open else { return false };
        // All domains of a set of hosts have the same hosts; those of a provider may have some of them.
        connection.served.destination == *destination || matches!(self.path.1, Site::Hosts(_))
    }

    /// Most messages over one connection from now on; `None`: as [`Settings::messages_per_connection`] says. A peer
    /// that allows less gets no more than that.
    pub fn set_limit(&mut self, messages_per_connection: Option<u32>) {
        self.limit = messages_per_connection;
    }

    /// Most messages over one connection; 0 for no limit.
    pub(crate) fn limit(&self, settings: &Settings) -> u32 {
        self.limit.unwrap_or(settings.messages_per_connection)
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
                let hostname = Arc::clone(&self.engine.settings().hostname);
                maildir::deliver(template, &hostname, job, &mut attempt, self.engine.permit()).await;
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
        let withheld = withheld();
        let outcome = if self.engine.permit().is_given() { outcome } else { &withheld };
        let mut all = (0..job.waiting.recipients.len()).collect();
        settle(&job.waiting.recipients, &mut all, &mut attempt.outcomes, outcome);
        self.record.note(&outcome.text);
    }

    /// By SMTP or LMTP.
    async fn by_session(&mut self, job: &Job, attempt: &mut Attempt, started: Mono) {
        let all = &job.waiting.recipients;
        let mut left: Vec<usize> = (0..all.len()).collect();
        attempt.source = Some(self.path.0.clone());
        if let Err(outcome) = self.prepared.prepare(&job.content).await {
            self.record.note(&outcome.text);
            return settle(all, &mut left, &mut attempt.outcomes, &outcome);
        }
        let settings = self.engine.settings();
        if self.open.as_ref().is_some_and(|c| !Arc::ptr_eq(&c.settings, &settings)) {
            self.close().await;
        }
        let smarthost = match &job.waiting.queue.destination {
            Destination::SmartHost(name) => settings.smarthosts.get(name),
            _ => None,
        };
        match smarthost {
            Some(smarthost) => {
                let sender = job.waiting.message.reverse_path.as_ref();
                for (login, group) in smarthost.by_login(sender, all, left) {
                    let login = login.as_ref();
                    Delivery::new(self, job, &settings, login, started).run(group, attempt).await;
                }
            }
            None => Delivery::new(self, job, &settings, None, started).run(left, attempt).await,
        }
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
