//! The way to a connection: host after host, until one lets us in.

use std::sync::Arc;

use mail::{Clock, Destination, Disposition, EnhancedStatus, Mono, Outcome, Remote};
use smtp::client::Transcript;

use crate::error::ConnectError;
use crate::open::{self, Connection};
use crate::settings::Settings;
use crate::target::{Candidates, Place, Target};

/// How far one attempt has come on its way to a connection.
#[derive(Debug)]
pub(crate) struct Way {
    started: Mono,
    target: Option<Target>,
    candidates: Option<Candidates>,
    socket_is_tried: bool,
    /// The outcome if nothing more comes of it.
    failure: Option<Outcome>,
}

impl Way {
    /// For an attempt that began at `started`.
    pub(crate) fn new(started: Mono) -> Self {
        Self { started, target: None, candidates: None, socket_is_tried: false, failure: None }
    }

    /// Whether there are more hosts to try.
    pub(crate) fn goes_on(&self) -> bool {
        self.candidates.as_ref().is_some_and(Candidates::has_more)
    }

    /// Remembers a failure. A deferral counts for more than a refusal: as long as one host may take the message later,
    /// it is not refused.
    pub(crate) fn failed(&mut self, outcome: Option<Outcome>) {
        let Some(outcome) = outcome else { return };
        let is_deferred = |o: &Outcome| o.disposition == Disposition::Deferred;
        if self.failure.as_ref().is_none_or(|old| !is_deferred(old) || is_deferred(&outcome)) {
            self.failure = Some(outcome);
        }
    }

    /// Connects to the next host that lets us in. `remote` says at any time whom we spoke to last.
    ///
    /// # Errors
    /// The outcome when there is none.
    pub(crate) async fn connect(
        &mut self,
        destination: &Destination,
        settings: &Arc<Settings>,
        clock: &Clock,
        record: &mut Transcript,
        remote: &mut Option<Remote>,
    ) -> Result<Connection, Outcome> {
        let named = !matches!(destination, Destination::Mx(_));
        let target = match self.target.take() {
            Some(target) => target,
            None => Target::of(destination, settings).await.map_err(|error| {
                record.note(&error.to_string());
                error.outcome(named)
            })?,
        };
        let connected = self.try_all(&target, settings, clock, record, remote).await;
        self.target = Some(target);
        connected
    }

    async fn try_all(
        &mut self,
        target: &Target,
        settings: &Arc<Settings>,
        clock: &Clock,
        record: &mut Transcript,
        remote: &mut Option<Remote>,
    ) -> Result<Connection, Outcome> {
        loop {
            let in_time = clock.mono().since(self.started) < settings.timeouts.envelope;
            let (name, opened) = match &target.place {
                Place::Socket(path) if !self.socket_is_tried => {
                    self.socket_is_tried = true;
                    *remote = Some(Remote { name: path.to_string(), address: None });
                    (path.clone(), open::open_socket(path, target, settings, clock, record).await)
                }
                Place::Hosts(hosts) if in_time => {
                    let candidates = self.candidates.get_or_insert_with(|| Candidates::new(hosts, settings));
                    match candidates.next(settings).await {
                        None => return Err(self.outcome()),
                        Some(Err((host, error))) => (host, Err(error)),
                        Some(Ok(next)) => {
                            *remote =
                                Some(Remote { name: next.host.to_string(), address: Some(next.address) });
                            let opened = open::open(&next, target, settings, clock, record).await;
                            (next.host, opened)
                        }
                    }
                }
                Place::Socket(_) | Place::Hosts(_) => return Err(self.outcome()),
            };
            let error = match opened {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            record.note(&format!("{name}: {error}"));
            let mut outcome = error.outcome(target.named);
            if matches!(error, ConnectError::Open(_) | ConnectError::Lost(_)) {
                outcome.text = format!("{name}: {}", outcome.text);
            }
            self.failed(Some(outcome));
            if error.ends_it() {
                return Err(self.outcome());
            }
        }
    }

    fn outcome(&self) -> Outcome {
        self.failure.clone().unwrap_or_else(|| {
            let text = "there is no host to deliver to";
            Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 4, 4), text)
        })
    }
}
