//! What is learned about smart hosts while mail goes out by them: health, and access tokens.

use std::collections::HashMap;
use std::sync::Arc;

use mail::{Address, Clock, HostPort};
use parking_lot::Mutex;
use smtp::client::Login;

use super::health::{Group, SmartHostHealth};
use super::token::{TokenCache, TokenError};
use super::{HostOrder, LoginSource, SmartHost};
use crate::settings::Settings;

/// Messages that a connection takes before the next host has its turn, where hosts have weights.
const TURN: u32 = 50;

/// What is known of all smart hosts. It belongs to the engine and outlives a reload.
#[derive(Debug)]
pub struct SmartHosts {
    clock: Clock,
    groups: Mutex<HashMap<Arc<str>, Group>>,
    tokens: TokenCache,
}

impl SmartHosts {
    /// Nothing is known yet.
    pub fn new(clock: Clock) -> Self {
        Self { tokens: TokenCache::new(clock.clone()), clock, groups: Mutex::default() }
    }

    /// The hosts in the order in which they are to be tried for a message from `sender` (none is the null sender). All of
    /// them: who did not work lately comes last. Call it once for each attempt, when a connection is to be made.
    pub fn plan(&self, smarthost: &SmartHost, sender: Option<&Address>) -> Vec<HostPort> {
        let now = self.clock.mono();
        self.with(smarthost, |group| {
            let places = group.plan(smarthost, sender, now);
            places.into_iter().map(|place| group.host(place).clone()).collect()
        })
    }

    /// Whether a connection to `at` that has taken `messages` may take another from this sender.
    pub fn keeps(
        &self,
        smarthost: &SmartHost,
        at: &HostPort,
        sender: Option<&Address>,
        messages: u32,
    ) -> bool {
        match smarthost.order {
            _ if smarthost.hosts.len() == 1 => true,
            HostOrder::Weighted => messages < TURN,
            HostOrder::Ordered | HostOrder::Sticky => {
                let now = self.clock.mono();
                let keeps = |group: &mut Group| {
                    group.home(smarthost.order, sender, now).is_none_or(|home| home == at)
                };
                self.with(smarthost, keeps)
            }
        }
    }

    /// A host let us in.
    pub fn worked(&self, smarthost: &SmartHost, at: &HostPort) {
        let is_news = self.with(smarthost, |group| group.worked(at, &self.clock));
        self.show(smarthost, at, true);
        if is_news {
            tracing::info!(smarthost = %smarthost.name, host = %at, "the host works again");
        }
    }

    /// A host did not let us in, or has trouble of its own ([`super::is_trouble_of_the_host`]).
    pub fn failed(&self, smarthost: &SmartHost, at: &HostPort, error: &str) {
        let rests = self.with(smarthost, |group| group.failed(at, error, &self.clock));
        self.show(smarthost, at, false);
        metrics::counter!("posthouse_smarthost_failures_total", labels(smarthost, at)).increment(1);
        if let Some(rests) = rests
            && smarthost.hosts.len() > 1
        {
            let seconds = rests.as_secs();
            tracing::warn!(
                smarthost = %smarthost.name, host = %at, error, seconds,
                "the host does not work; the others are tried first"
            );
        }
    }

    fn show(&self, smarthost: &SmartHost, at: &HostPort, up: bool) {
        metrics::gauge!("posthouse_smarthost_up", labels(smarthost, at)).set(if up { 1.0 } else { 0.0 });
    }

    /// The name and secret to log in with. Asks the token server where a token is needed and none is at hand; however
    /// many ask at a time, one question goes out.
    ///
    /// # Errors
    /// [`TokenError`]: there is no token to be had now. It is no fault of the message.
    pub async fn login(&self, source: &LoginSource, settings: &Settings) -> Result<Arc<Login>, TokenError> {
        match source {
            LoginSource::Password(login) => Ok(login.clone()),
            LoginSource::OAuth(oauth) => self.tokens.get(oauth, settings).await,
        }
    }

    /// After the host refused `login`: another one, where there is reason to hope. None for passwords, and when a token
    /// was renewed for the same reason a moment ago. Try with it once more, and only once.
    ///
    /// # Errors
    /// As [`SmartHosts::login`].
    pub async fn renewed(
        &self,
        source: &LoginSource,
        refused: &Login,
        settings: &Settings,
    ) -> Result<Option<Arc<Login>>, TokenError> {
        match source {
            LoginSource::Password(_) => Ok(None),
            LoginSource::OAuth(oauth) => self.tokens.renew(oauth, refused, settings).await,
        }
    }

    /// How the smart hosts of `settings` do.
    pub fn health(&self, settings: &Settings) -> Vec<SmartHostHealth> {
        let now = self.clock.mono();
        let view = |smarthost: &Arc<SmartHost>| SmartHostHealth {
            name: smarthost.name.clone(),
            order: smarthost.order.as_str(),
            hosts: self.with(smarthost, |group| group.health(now)),
            tokens: self.tokens.health(smarthost.all_logins()),
        };
        let mut all: Vec<SmartHostHealth> = settings.smarthosts.values().map(view).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Forgets what the new settings do not have any more.
    pub(crate) fn follow(&self, settings: &Settings) {
        self.groups.lock().retain(|name, _| settings.smarthosts.contains_key(name));
        self.tokens.keep(|oauth| {
            let is_it = |source: &LoginSource| matches!(source, LoginSource::OAuth(of) if **of == *oauth);
            settings.smarthosts.values().any(|host| host.all_logins().any(is_it))
        });
    }

    fn with<T>(&self, smarthost: &SmartHost, look: impl FnOnce(&mut Group) -> T) -> T {
        let mut groups = self.groups.lock();
        let group = match groups.get_mut(&smarthost.name) {
            Some(group) => group,
            None => groups.entry(smarthost.name.clone()).or_default(),
        };
        group.follow(&smarthost.hosts);
        look(group)
    }
}

fn labels(smarthost: &SmartHost, at: &HostPort) -> Vec<metrics::Label> {
    vec![
        metrics::Label::new("smarthost", smarthost.name.to_string()),
        metrics::Label::new("host", at.to_string()),
    ]
}
