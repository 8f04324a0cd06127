//! Whether a connection that is open may take a message, which may be for another domain of the site.

use std::time::Duration;

use mail::{Destination, Mono};

use crate::open::Connection;
use crate::security::{self, Flags, Negotiated, Observed};
use crate::target::{Target, Wanted};

/// What was found out about a destination is believed for this long on a connection that serves it.
const BELIEVED: Duration = Duration::from_secs(60);
/// A connection that waited for no longer than this was busy: a peer that ends it then has had enough of it.
const BUSY: Duration = Duration::from_secs(5);

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
        let target = match Target::of(wanted.destination, wanted.settings).await {
            Ok(target) => target,
            // The DNS has no answer just now; the one that the connection was made by will do.
            Err(error) if self.is_known(wanted) => {
                let is_temporary = error.outcome(false).disposition == mail::Disposition::Deferred;
                return if is_temporary { Ok(()) } else { Err(error.to_string()) };
            }
            Err(error) => return Err(error.to_string()),
        };
        let serves = match (&target, &self.host) {
            (Target::Exchangers { .. }, Some(host)) => target.has_exchanger(host),
            (Target::SmartHost(_) | Target::Server { .. } | Target::Socket(_), _) => {
                self.served.destination == *wanted.destination
            }
            (Target::Exchangers { .. }, None) => false,
        };
        if !serves {
            return Err(format!("{} is no host of {}", self.remote.name, wanted.destination));
        }
        let requirement = target.requirement(&self.remote.name, wanted).await;
        let (stream, tls) = (self.wire.stream(), &wanted.settings.tls);
        let requiretls = self.session.capabilities().require_tls;
        if !requirement.satisfied_by(&Negotiated { stream, tls, requiretls }) {
            return Err(format!("it is not protected as it must be ({})", requirement.why.level));
        }
        if self.served.destination != *wanted.destination {
            // Another domain's policy is kept to: that is a session under that one, too.
            let observed = if stream.is_tls() { Observed::Protected(stream) } else { Observed::NoStarttls };
            let session = security::Session {
                sending_ip: stream.local_addr().ok().map(|at| at.ip()),
                host: &self.remote.name,
                helo: None,
                receiving_ip: self.remote.address.map(|at| at.ip()),
            };
            requirement.observed(observed, &session, tls, &wanted.settings.tls_rules);
        }
        self.requirement = requirement;
        Ok(())
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
