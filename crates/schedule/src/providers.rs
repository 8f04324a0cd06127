//! What is known of the big mail systems, as data: which hosts are theirs, how much they take, and what their replies ask
//! for. The data are in `providers.toml`, built in; an operator's file of the same form is laid over them.
//!
//! Nothing here remembers anything: a reply goes in, a [`Judgement`] comes out, and the scheduler keeps windows and
//! suspensions.

mod judge;
mod merge;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use mail::{Destination, Outcome, Site};
use pattern::{ReplyText, Table};

use crate::signal::Judgement;
use crate::traffic::Traffic;
use rule::Rule;

/// An operator's file of provider data is wrong: line, what, and what was meant.
pub use pattern::DataError as ProvidersError;

const BUILTIN: &str = include_str!("../providers.toml");

/// Provider data, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    /// Of sites that belong to no provider, and of what a provider's entry does not say.
    default: Traffic,
    /// By name.
    providers: HashMap<Arc<str>, Provider>,
    /// In the order in which they are asked: the first that matches decides.
    rules: Vec<Arc<Rule>>,
    /// Exact names of mail exchangers.
    hosts: HashMap<Box<str>, Arc<str>>,
    /// What stands behind `*.` in a pattern.
    suffixes: HashMap<Box<str>, Arc<str>>,
    /// Rules for every provider, and for none of them (`None`), in the order in which they are asked.
    asked: HashMap<Option<Arc<str>>, Vec<Arc<Rule>>>,
}

/// A provider as the data describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provider {
    /// What people call it.
    pub title: String,
    /// Its mail exchangers: exact names and `*.suffix`.
    pub mx: Vec<String>,
    /// How much it takes.
    pub traffic: Traffic,
    /// Where that is published.
    pub sources: Vec<String>,
    /// Why these values, where nothing is published.
    pub note: String,
    /// Whether an operator's file speaks of it.
    pub operators: bool,
}

/// What a provider's entry and the replies that it is known by look like in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderView {
    /// Its name in sites, shapes and rules.
    pub name: Arc<str>,
    /// What is known of it.
    pub provider: Provider,
    /// The replies that are known, in the order in which they are tried.
    pub replies: Vec<ReplyView>,
}

/// A reply that is known, in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyView {
    /// The rule's name.
    pub name: Arc<str>,
    /// What it looks like.
    pub pattern: String,
    /// What is done about it.
    pub action: String,
    /// Where the reply is documented or was seen.
    pub source: String,
    /// Whether it stands in an operator's file.
    pub operators: bool,
}

impl Providers {
    /// The data that are built in.
    ///
    /// # Panics
    /// Never: the tests read the same data.
    pub fn builtin() -> Arc<Self> {
        static READ: OnceLock<Arc<Providers>> = OnceLock::new();
        READ.get_or_init(|| {
            let mut providers = Self::default();
            providers.lay_over(BUILTIN, false).expect("the data built in are read by the tests");
            Arc::new(providers)
        })
        .clone()
    }

    /// These data with an operator's file laid over them: keys of a provider that it names replace those known, rules of
    /// the same name replace those known, and new ones are asked first.
    ///
    /// # Errors
    /// Something in the file is wrong; the first mistake is told with its line.
    pub fn with(&self, operators_toml: &str) -> Result<Self, ProvidersError> {
        let mut merged = self.clone();
        merged.lay_over(operators_toml, true)?;
        Ok(merged)
    }

    fn lay_over(&mut self, source: &str, operators: bool) -> Result<(), ProvidersError> {
        let mut root = Table::parse(source)?;
        merge::lay_over(self, &mut root, operators)?;
        root.finish()?;
        self.index(source)
    }

    /// The provider whose hosts these are: all of them have to be its own. A domain with a host of a provider and others
    /// is none of its sites, or a stranger's slow host could be counted against the provider.
    pub fn provider_of(&self, mx_hosts: &[&str]) -> Option<Arc<str>> {
        let mut found: Option<&Arc<str>> = None;
        for host in mx_hosts {
            let provider = self.provider_of_host(host)?;
            if found.is_some_and(|f| f != provider) {
                return None;
            }
            found = Some(provider);
        }
        found.cloned()
    }

    fn provider_of_host(&self, host: &str) -> Option<&Arc<str>> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Some(provider) = self.hosts.get(host.as_str()) {
            return Some(provider);
        }
        // The longest suffix counts.
        host.match_indices('.').find_map(|(at, _)| self.suffixes.get(&host[at + 1..]))
    }

    /// How much traffic a site takes: what its provider's entry says, and else the default. Of hosts that the operator
    /// named (smart hosts, servers, mailboxes) nothing is said.
    pub fn traffic(&self, site: &Site) -> Traffic {
        match site {
            Site::Provider(name) => {
                self.providers.get(name).map_or(self.default, |p| p.traffic.or(self.default))
            }
            Site::Hosts(_) | Site::Alone(Destination::Mx(_)) => self.default,
            Site::Alone(_) => Traffic::default(),
        }
    }

    /// What a failed outcome that came from a site says about the path and the recipient. Outcomes that no peer spoke of
    /// say nothing.
    pub fn judge(&self, site: &Site, outcome: &Outcome) -> Judgement {
        if outcome.disposition == mail::Disposition::Delivered || outcome.code.is_none() {
            return Judgement::default();
        }
        let name = match site {
            Site::Provider(name) => self.asked.get(&Some(name.clone())),
            Site::Hosts(_) | Site::Alone(_) => None,
        };
        let rules = name.or_else(|| self.asked.get(&None)).map_or(&[][..], Vec::as_slice);
        let reply = ReplyText::of(outcome);
        rules
            .iter()
            .find(|rule| rule.pattern.matches(&reply))
            .map_or_else(Judgement::default, |rule| judge::judgement(rule, outcome, &reply))
    }

    /// All providers by name, for listings. The default and what is known of every host's replies is the entry `default`.
    pub fn iter(&self) -> impl Iterator<Item = ProviderView> + '_ {
        let mut names: Vec<&Arc<str>> = self.providers.keys().collect();
        names.sort_unstable();
        let known = names.into_iter().map(|name| ProviderView {
            name: name.clone(),
            provider: self.providers[name].clone(),
            replies: self.rules.iter().filter(|r| r.providers.contains(name)).map(|r| r.view()).collect(),
        });
        let default = ProviderView {
            name: "default".into(),
            provider: Provider {
                title: "Every other host".to_owned(),
                traffic: self.default,
                ..Provider::default()
            },
            replies: self.rules.iter().filter(|r| r.providers.is_empty()).map(|r| r.view()).collect(),
        };
        known.chain(std::iter::once(default))
    }
}
