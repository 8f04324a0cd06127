//! The way to a connection: host after host, until one lets us in.

use std::net::SocketAddr;
use std::sync::Arc;

use mail::{Disposition, EnhancedStatus, HostPort, Mono, Outcome, Remote};
use smtp::client::{OpenFailure, Transcript};

use crate::error::ConnectError;
use crate::look::Look;
use crate::open::{self, Connection, Failed, Found, Try};
use crate::security::{Observed, Requirement, Session};
use crate::smarthost::LoginSource;
use crate::source::SourceAddress;
use crate::target::{Candidate, Candidates, Target, Wanted};

/// How far one attempt has come on its way to a connection.
#[derive(Debug)]
pub(crate) struct Way {
    started: Mono,
    target: Option<Target>,
    candidates: Option<Candidates>,
    socket_is_tried: bool,
    /// Hosts that are not to be asked again.
    left_out: Vec<HostPort>,
    /// The outcome if nothing more comes of it.
    failure: Option<Outcome>,
    /// Whether any failure was of this domain or message alone, and says nothing about the hosts.
    is_particular: bool,
}

impl Way {
    /// For an attempt that began at `started`.
    pub(crate) fn new(started: Mono) -> Self {
        Self {
            started,
            target: None,
            candidates: None,
            socket_is_tried: false,
            left_out: Vec::new(),
            failure: None,
            is_particular: false,
        }
    }

    /// To this very target.
    pub(crate) fn to(target: Target, started: Mono) -> Self {
        Self { target: Some(target), ..Self::new(started) }
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

    /// Whether nothing was met but hosts that are not there or let nobody in: then it is so for the whole site.
    pub(crate) fn says_all_of_the_site(&self) -> bool {
        !self.is_particular
    }

    /// Goes on to another host than `host`, after `heard` of them have heard of the message, if there is one. Says
    /// whether there is.
    pub(crate) async fn leaves(&mut self, host: &HostPort, heard: u32, wanted: &Wanted<'_>) -> bool {
        if self.target.is_none() {
            self.target = Target::of(wanted.destination, wanted.settings).await.ok();
        }
        let Some(target) = &self.target else { return false };
        if heard >= target.hear_max() || !target.has_other_than(host) {
            return false;
        }
        self.left_out.push(host.clone());
        match &mut self.candidates {
            Some(candidates) => {
                candidates.leave(host);
                candidates.has_more()
            }
            None => true,
        }
    }

    /// Connects to the next host that lets us in. `remote` says at any time whom we spoke to last.
    ///
    /// # Errors
    /// The outcome when there is none.
    pub(crate) async fn connect(
        &mut self,
        wanted: &Wanted<'_>,
        record: &mut Transcript,
        remote: &mut Option<Remote>,
    ) -> Result<Connection, Outcome> {
        let target = match self.target.take() {
            Some(target) => target,
            None => Target::of(wanted.destination, wanted.settings).await.map_err(|error| {
                self.is_particular = true;
                record.note(&error.to_string());
                error.outcome(!matches!(wanted.destination, mail::Destination::Mx(_)))
            })?,
        };
        let connected = self.try_all(&target, wanted, record, remote).await;
        self.target = Some(target);
        connected
    }

    async fn try_all(
        &mut self,
        target: &Target,
        wanted: &Wanted<'_>,
        record: &mut Transcript,
        remote: &mut Option<Remote>,
    ) -> Result<Connection, Outcome> {
        loop {
            let in_time =
                wanted.engine.clock().mono().since(self.started) < wanted.settings.timeouts.envelope;
            let (name, error) = match target {
                Target::Socket(path) if !self.socket_is_tried => {
                    self.socket_is_tried = true;
                    *remote = Some(Remote { name: path.to_string(), address: None });
                    match open::open_socket(path, target, wanted, record).await {
                        Ok(connection) => return Ok(connection),
                        Err(error) => (path.clone(), error),
                    }
                }
                Target::Socket(_) => return Err(self.outcome()),
                _ if !in_time => return Err(self.outcome()),
                _ => match self.next(target, wanted, record).await {
                    None => return Err(self.outcome()),
                    Some(Err((host, error))) => (host.host, error),
                    Some(Ok(candidate)) => {
                        match self.try_host(&candidate, target, wanted, record, remote).await {
                            Ok(connection) => return Ok(connection),
                            Err(error) => (candidate.host.host, error),
                        }
                    }
                },
            };
            if self.gives_up(&name, &error, target, record) {
                return Err(self.outcome());
            }
        }
    }

    async fn next(
        &mut self,
        target: &Target,
        wanted: &Wanted<'_>,
        record: &mut Transcript,
    ) -> Option<Result<Candidate, (HostPort, ConnectError)>> {
        let candidates = match &mut self.candidates {
            Some(candidates) => candidates,
            None => {
                let source = match SourceAddress::find(wanted.source, wanted.settings) {
                    Ok(source) => source,
                    Err(error) => {
                        let host = target.hosts(wanted).into_iter().next()?;
                        return Some(Err((host, error)));
                    }
                };
                let mut candidates = Candidates::new(source, target, wanted);
                for host in &self.left_out {
                    candidates.leave(host);
                }
                self.candidates.insert(candidates)
            }
        };
        let next = candidates.next(wanted).await;
        let due = candidates.take_due();
        if !due.is_empty() {
            for (host, address) in &due {
                record.note(&format!("{} ({address}) failed lately; looking whether it is back", host.host));
            }
            let (engine, settings) = (wanted.engine.clone(), wanted.settings.clone());
            Look { engine, settings, source: candidates.source().clone(), due }.begin();
        }
        next
    }

    /// Tries one host by those of its addresses that were not tried.
    async fn try_host(
        &mut self,
        candidate: &Candidate,
        target: &Target,
        wanted: &Wanted<'_>,
        record: &mut Transcript,
        remote: &mut Option<Remote>,
    ) -> Result<Connection, ConnectError> {
        let Candidate { host, addresses } = candidate;
        let Some(candidates) = self.candidates.as_mut() else {
            return Err(ConnectError::Configuration("no address".into()));
        };
        let requirement = Arc::new(target.requirement(&host.host, wanted).await);
        if let Some(outcome) = &requirement.barred {
            observe(&requirement, Observed::Barred, host, wanted);
            addresses.iter().for_each(|address| candidates.skip(*address));
            return Err(ConnectError::Unmet(outcome.clone()));
        }
        let login = match wanted.login {
            Some(source) => Some(wanted.engine.smarthosts().login(source, wanted.settings).await?),
            None => None,
        };
        let source = candidates.source().clone();
        let mut attempt = Try { host, addresses, requirement: &requirement, target, login, source: &source };
        let mut opened = open::open(&attempt, wanted, record).await;
        if let (
            Err(Failed { error: ConnectError::Open(OpenFailure::LoginRefused { .. }), tried, .. }),
            Some(of),
        ) = (&opened, wanted.login)
            && let Some(again) = renewed(of, &attempt, wanted).await?
        {
            record.note("the access token was refused; trying with a new one");
            attempt.login = Some(again);
            let only = tried.last().map(|(address, _)| *address);
            let only: Vec<SocketAddr> = only.into_iter().collect();
            opened = open::open(&Try { addresses: &only, ..attempt }, wanted, record).await;
        }
        let now = wanted.engine.clock().mono();
        let mut tell = |tried: &[(SocketAddr, Found)]| {
            for &(address, found) in tried {
                candidates.tried(address);
                *remote = Some(Remote { name: host.host.to_string(), address: Some(address) });
                let (hosts, interval) = (wanted.engine.hosts(), wanted.settings.probe_interval);
                match found {
                    Found::Works => hosts.worked(&source.name, address),
                    Found::Dead => hosts.failed(&source.name, address, now, interval),
                    Found::Other => {}
                }
            }
        };
        match opened {
            Ok((connection, tried)) => {
                tell(&tried);
                if let Target::SmartHost(smarthost) = target {
                    wanted.engine.smarthosts().worked(smarthost, host);
                }
                Ok(connection)
            }
            Err(Failed { error, tried }) => {
                tell(&tried);
                if let Target::SmartHost(smarthost) = target
                    && !error.is_about_the_login()
                    && !candidates.has_more_of_this_host()
                {
                    wanted.engine.smarthosts().failed(smarthost, host, &error.to_string());
                }
                Err(error)
            }
        }
    }

    /// Takes note of a failure. Says whether there is no point in going on.
    fn gives_up(
        &mut self,
        name: &str,
        error: &ConnectError,
        target: &Target,
        record: &mut Transcript,
    ) -> bool {
        record.note(&format!("{name}: {error}"));
        let mut outcome = error.outcome(target.is_named());
        if matches!(error, ConnectError::Open(_) | ConnectError::Lost(_)) {
            outcome.text = format!("{name}: {}", outcome.text);
        }
        self.is_particular |= !error.is_of_the_site();
        self.failed(Some(outcome));
        error.ends_it()
    }

    fn outcome(&self) -> Outcome {
        self.failure.clone().unwrap_or_else(|| {
            let text = "there is no host to deliver to";
            Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 4, 4), text)
        })
    }
}

/// Counts what became of a host without a connection to it.
fn observe(requirement: &Requirement, observed: Observed<'_>, host: &HostPort, wanted: &Wanted<'_>) {
    let session = Session { host: &host.host, ..Session::default() };
    requirement.observed(observed, &session, &wanted.settings.tls, &wanted.settings.tls_rules);
}

/// Another login after a refused one, where there is reason to hope.
async fn renewed(
    source: &LoginSource,
    attempt: &Try<'_>,
    wanted: &Wanted<'_>,
) -> Result<Option<Arc<smtp::client::Login>>, ConnectError> {
    let Some(refused) = &attempt.login else { return Ok(None) };
    Ok(wanted.engine.smarthosts().renewed(source, refused, wanted.settings).await?)
}
