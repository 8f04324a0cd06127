//! Whether a connection that is open may take a message, which may be for another domain of the site.

use std::sync::Arc;
use std::time::Duration;

use mail::{Destination, HostPort, Mono};
use moka::sync::Cache;

use crate::open::Connection;
use crate::security::{Flags, Negotiated, Requirement};
use crate::target::{Target, Wanted};

/// What was found out about a destination is believed for this long on a connection that serves it.
const BELIEVED: Duration = Duration::from_secs(60);
/// A connection that waited for no longer than this was busy: a peer that ends it then has had enough of it.
const BUSY: Duration = Duration::from_secs(5);

/// How many of the latest answers are kept; about a kilobyte each.
const ANSWERS: u64 = 4096;

/// Whether a host serves a destination, and how a connection to it must be protected then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    destination: Destination,
    host: HostPort,
    require_tls: bool,
    tls_optional: bool,
    /// Under which settings, told apart by where they are.
    settings: usize,
}

impl Question {
    fn new(wanted: &Wanted<'_>, host: &HostPort) -> Self {
        let Flags { require_tls, tls_optional } = wanted.flags();
        let settings = Arc::as_ptr(wanted.settings).addr();
        Self {
            destination: wanted.destination.clone(),
            host: host.clone(),
            require_tls,
            tls_optional,
            settings,
        }
    }
}

/// The latest answers, so that a connection which serves a thousand domains in turn does not ask for each message. It
/// belongs to the engine; new settings empty it.
#[derive(Debug)]
pub(crate) struct Known(Cache<Question, Arc<Requirement>>);

impl Default for Known {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(ANSWERS).time_to_live(BELIEVED).build())
    }
}

impl Known {
    fn get(&self, question: &Question) -> Option<Arc<Requirement>> {
        self.0.get(question)
    }

    fn put(&self, question: Question, answer: Arc<Requirement>) {
        self.0.insert(question, answer);
    }

    pub(crate) fn forget_all(&self) {
        self.0.invalidate_all();
    }
}

/// What a connection was found to be good for.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) destination: Destination,
    flags: Flags,
    checked: Mono,
}

impl Served {
    pub(crate) fn new(wanted: &Wanted<'_>, now: Mono) -> Self {
        Self { destination: wanted.destination.clone(), flags: wanted.flags(), checked: now }
    }

    fn covers(&self, wanted: &Wanted<'_>, now: Mono) -> bool {
        self.destination == *wanted.destination
            && self.flags == wanted.flags()
            && now.since(self.checked) < BELIEVED
    }
}

impl Connection {
    /// Whether the message may go over this connection: its host serves the destination, and the way it is protected
    /// satisfies what the destination's domain asks for.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) async fn take_on(&mut self, wanted: &Wanted<'_>) -> Result<(), String> {
        let now = wanted.engine.clock().mono();
        if now.since(self.opened) >= self.settings.connection_age_max {
            return Err("it has been open for long enough".into());
        }
        if self.login.as_ref() != wanted.login {
            return Err("it has another login".into());
        }
        if let Destination::SmartHost(name) = wanted.destination
            && let (Some(smarthost), Some(host)) = (self.settings.smarthosts.get(name), &self.host)
            && !wanted.engine.smarthosts().keeps(
                smarthost,
                host,
                wanted.sender(),
                self.session.transactions(),
            )
        {
            return Err("another host is next for this sender".into());
        }
        if self.served.covers(wanted, now) {
            return Ok(());
        }
        self.check(wanted).await?;
        self.served = Served::new(wanted, now);
        Ok(())
    }

    async fn check(&mut self, wanted: &Wanted<'_>) -> Result<(), String> {
        let is_by_mx = matches!(wanted.destination, Destination::Mx(_));
        let key = self.host.as_ref().filter(|_| is_by_mx).map(|host| Question::new(wanted, host));
        let known = key.as_ref().and_then(|key| wanted.engine.known().get(key));
        let requirement = match known {
            Some(known) => known,
            None => match self.find_out(wanted).await? {
                Some(found) => {
                    let found = Arc::new(found);
                    if let Some(key) = key {
                        wanted.engine.known().put(key, found.clone());
                    }
                    found
                }
                None => return Ok(()),
            },
        };
        let (stream, tls) = (self.wire.stream(), &wanted.settings.tls);
        let requiretls = self.session.capabilities().require_tls;
        if !requirement.satisfied_by(&Negotiated { stream, tls, requiretls }) {
            return Err(format!("it is not protected as it must be ({})", requirement.why.level));
        }
        self.requirement = requirement;
        Ok(())
    }

    /// How the connection must be protected for the destination; none where the DNS has no answer just now and the one
    /// that the connection was made by will do.
    async fn find_out(&self, wanted: &Wanted<'_>) -> Result<Option<Requirement>, String> {
        let target = match Target::of(wanted.destination, wanted.settings).await {
            Ok(target) => target,
            Err(error) if self.is_known(wanted) => {
                let is_temporary = error.outcome(false).disposition == mail::Disposition::Deferred;
                return if is_temporary { Ok(None) } else { Err(error.to_string()) };
            }
            Err(error) => return Err(error.to_string()),
        };
        let serves = match (&target, &self.host) {
            (Target::Exchangers { .. }, Some(host)) => target.has_exchanger(host),
            (Target::Exchangers { .. }, None) => false,
            (Target::SmartHost(_) | Target::Server { .. } | Target::Socket(_), _) => {
                self.served.destination == *wanted.destination
            }
        };
        if !serves {
            return Err(format!("{} is no host of {}", self.remote.name, wanted.destination));
        }
        Ok(Some(target.requirement(&self.remote.name, wanted).await))
    }

    /// Whether it serves this very destination already.
    fn is_known(&self, wanted: &Wanted<'_>) -> bool {
        self.served.destination == *wanted.destination && self.served.flags == wanted.flags()
    }

    /// Whether it may take one more message. `limit`: most messages over a connection, as the path says; 0 for no limit.
    pub(crate) fn has_room(&self, limit: u32) -> bool {
        let learned = self.learned.messages.unwrap_or(u32::MAX);
        let limit = if limit == 0 { u32::MAX } else { limit };
        self.session.is_usable() && self.session.transactions() < limit.min(learned)
    }

    /// Whether it was in use until a moment ago.
    pub(crate) fn was_busy(&self, now: Mono) -> bool {
        self.session.transactions() > 0 && now.since(self.used) < BUSY
    }
}
