//! Smart hosts: other people's relays that take our mail further.
//!
//! ```text
//!  SmartHost (settings)                       SmartHosts (what we learned; outlives a reload)
//!    hosts, order ──────────────────────────►   plan(host, sender)        which host first, which last
//!    login rules  ──by_login(sender, ..)────►   login(source)             a password, or a fresh access token
//!                                               worked / failed           health: rests, probes
//! ```
//!
//! How a delivery uses them:
//! 1. [`SmartHost::by_login`] splits the recipients into groups of one login each; a group is a transaction of its own,
//!    and a connection that was opened with one login is never used with another.
//! 2. [`SmartHosts::keeps`] says whether an open connection may be used for this sender at all.
//! 3. [`SmartHosts::plan`] gives the hosts in the order in which they are to be tried.
//! 4. [`SmartHosts::login`] gives the name and the secret; after a refusal [`SmartHosts::renewed`] may give a new one.
//! 5. [`SmartHosts::worked`] and [`SmartHosts::failed`] say how it went with a host.
//! 6. [`next_host_may_take_it`] says whether a reply allows another host to be tried with the same message.

mod ask;
mod health;
mod oauth;
mod order;
mod refresh_file;
mod state;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use mail::{Address, Disposition, HostPort, Outcome, Pattern};
use net::ClientIdentity;
use smtp::client::Login;
use store::PendingRecipient;

pub use health::{HostHealth, SmartHostHealth, TokenHealth};
pub use mail::{HostOrder, SmartHostTls, SmartHostTlsError};
pub use oauth::{Grant, OAuth, OAuthError, RefreshToken};
pub use state::SmartHosts;
pub use token::TokenError;

/// A smart host: other people's relay that takes our mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmartHost {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it listens.
    pub hosts: Vec<WeightedHost>,
    /// Which host is tried first.
    pub order: HostOrder,
    /// Whether the connection is under TLS.
    pub tls: SmartHostTls,
    /// Who we are there for some senders and domains; the first rule that matches counts.
    pub logins: Vec<LoginRule>,
    /// Who we are there for everybody else.
    pub login: Option<LoginSource>,
    /// The certificate that we show where we are asked for one.
    pub identity: Option<ClientIdentity>,
}

/// One host of a smart host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedHost {
    /// Where it listens.
    pub at: HostPort,
    /// Its share, for [`HostOrder::Weighted`] and [`HostOrder::Sticky`]; at least 1.
    pub weight: u32,
}

impl From<HostPort> for WeightedHost {
    fn from(at: HostPort) -> Self {
        Self { at, weight: 1 }
    }
}

/// Who we are for some of the mail. All that is given must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRule {
    /// Envelope senders that it is for; empty: all, the null sender too.
    pub senders: Vec<Pattern>,
    /// Recipients that it is for; empty: all.
    pub domains: Vec<Pattern>,
    /// Who we are then.
    pub login: LoginSource,
}

impl LoginRule {
    fn matches(&self, sender: Option<&Address>, recipient: &Address) -> bool {
        (self.senders.is_empty() || self.senders.iter().any(|p| p.matches(sender)))
            && (self.domains.is_empty() || self.domains.iter().any(|p| p.matches(Some(recipient))))
    }
}

/// Where the name and the secret of a login come from. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginSource {
    /// A password that does not change.
    Password(Arc<Login>),
    /// An access token that is asked for when it is needed.
    OAuth(Arc<OAuth>),
}

impl LoginSource {
    /// A user name with its password. `in_the_clear`: the password may be sent without TLS.
    pub fn password(username: impl Into<String>, password: impl Into<String>, in_the_clear: bool) -> Self {
        let secret = smtp::sasl::Password(password.into());
        Self::Password(Arc::new(Login { username: username.into(), secret, is_token: false, in_the_clear }))
    }

    /// Who we are.
    pub fn username(&self) -> &str {
        match self {
            Self::Password(login) => &login.username,
            Self::OAuth(oauth) => &oauth.username,
        }
    }
}

impl SmartHost {
    /// A smart host with one user name and password, if there are any, and its hosts in order. Without TLS by the
    /// operator's word, the password goes in the clear; with opportunistic TLS it is not sent when there is no TLS.
    pub fn new(
        name: impl Into<Arc<str>>,
        hosts: Vec<HostPort>,
        tls: SmartHostTls,
        login: Option<(String, String)>,
    ) -> Self {
        let in_the_clear = tls == SmartHostTls::None;
        let login = login.map(|(username, password)| LoginSource::password(username, password, in_the_clear));
        let hosts = hosts.into_iter().map(WeightedHost::from).collect();
        Self {
            name: name.into(),
            hosts,
            order: HostOrder::Ordered,
            tls,
            logins: Vec::new(),
            login,
            identity: None,
        }
    }

    /// Who we are for mail from this sender (none is the null sender) to this recipient.
    pub fn login_for(&self, sender: Option<&Address>, recipient: &Address) -> Option<&LoginSource> {
        let rule = self.logins.iter().find(|rule| rule.matches(sender, recipient));
        rule.map(|rule| &rule.login).or(self.login.as_ref())
    }

    /// Splits the recipients at `places` in `all` into groups with one login each, in the order in which the logins come
    /// up. There is one group where there are no rules.
    pub fn by_login(
        &self,
        sender: Option<&Address>,
        all: &[PendingRecipient],
        places: Vec<usize>,
    ) -> Vec<(Option<LoginSource>, Vec<usize>)> {
        if self.logins.is_empty() {
            return vec![(self.login.clone(), places)];
        }
        let mut groups: Vec<(Option<&LoginSource>, Vec<usize>)> = Vec::new();
        for place in places {
            let login = self.login_for(sender, &all[place].recipient.address);
            match groups.iter_mut().find(|(of, _)| *of == login) {
                Some((_, group)) => group.push(place),
                None => groups.push((login, vec![place])),
            }
        }
        groups.into_iter().map(|(login, group)| (login.cloned(), group)).collect()
    }

    /// All logins, that of everybody else last.
    pub fn all_logins(&self) -> impl Iterator<Item = &LoginSource> {
        self.logins.iter().map(|rule| &rule.login).chain(&self.login)
    }
}

/// Whether another host may be tried with the same message: the host said in a reply of its own that it does not take it
/// now. Where its reply did not come, the message may be there already, and a second try would make two of it.
pub(crate) fn next_host_may_take_it(outcome: &Outcome) -> bool {
    outcome.disposition == Disposition::Deferred && outcome.code.is_some_and(|code| code / 100 == 4)
}

/// Whether a reply speaks of the host as a whole and not of this message: it closes (421), or has trouble of its own
/// (enhanced status x.3.x).
pub(crate) fn is_trouble_of_the_host(outcome: &Outcome) -> bool {
    next_host_may_take_it(outcome) && (outcome.code == Some(421) || outcome.status.subject == 3)
}
