//! What the config file says about relaying, as the decisions need it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use mail::{Address, domain_to_ascii};
use net::Network;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `smtp`: mail from other relays, and from those who may relay.
    Smtp,
    /// `submission` and `submissions`: mail from people and programs that log in.
    Submission,
}

/// A network whose clients may relay without AUTH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayNetwork {
    /// The clients.
    pub network: Network,
    /// The name of the organisation whose mail it is.
    pub org: Arc<str>,
}

/// `[relay]` of the config file.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `networks`. Where several match, the narrowest counts.
    pub networks: Vec<RelayNetwork>,
    /// `local_domains`, lower case, A-labels: domains whose mail is taken in from anyone.
    pub local_domains: HashSet<Box<str>>,
    /// `recipients`: how a local recipient is verified.
    pub recipients: LocalRecipients,
}

/// How a recipient in a local domain is verified.
#[derive(Clone, Debug, Default)]
pub enum LocalRecipients {
    /// By asking where its mail goes.
    #[default]
    Callout,
    /// Not at all.
    Any,
    /// By a list.
    File(Arc<RecipientList>),
}

impl Policy {
    /// The network of `relay.networks` that a client belongs to.
    pub fn network_of(&self, client: IpAddr) -> Option<&RelayNetwork> {
        let matching = self.networks.iter().filter(|n| n.network.contains(client));
        // From behind, as `max_by_key` gives the last of equals and the first shall count.
        matching.rev().max_by_key(|n| n.network.prefix())
    }

    /// Whether mail for this domain (lower case, A-labels) is taken in from anyone.
    pub fn is_local(&self, domain: &str) -> bool {
        self.local_domains.contains(domain)
    }
}

/// The recipients of local domains, from a file: an address or `@domain` a line, `#` begins a comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientList {
    /// `local@domain` in lower case, A-labels.
    addresses: HashSet<Box<str>>,
    domains: HashSet<Box<str>>,
}

/// A line of the list that is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text:?} is neither an address nor @domain")]
pub struct ListError {
    /// Counted from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

impl RecipientList {
    /// Reads the list.
    ///
    /// # Errors
    /// The first line that is neither an address nor `@domain`.
    pub fn parse(text: &str) -> Result<Self, ListError> {
        let mut list = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let error = || ListError { line: number, text: entry.chars().take(80).collect() };
            if let Some(domain) = entry.strip_prefix('@') {
                list.domains.insert(domain_to_ascii(domain).ok_or_else(error)?.into());
            } else {
                list.addresses.insert(key(&Address::parse(entry).map_err(|_| error())?).into());
            }
        }
        Ok(list)
    }

    /// Whether mail for this address is taken. Local parts are compared whatever the case.
    pub fn contains(&self, address: &Address) -> bool {
        self.domains.contains(address.domain()) || self.addresses.contains(key(address).as_str())
    }
}

/// How addresses are compared here: whatever the case, A-labels.
pub(crate) fn key(address: &Address) -> String {
    format!("{}@{}", address.local().to_lowercase(), address.domain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_network_counts() {
        let network =
            |text: &str, org: &str| RelayNetwork { network: text.parse().unwrap(), org: org.into() };
        let policy = Policy {
            networks: vec![
                network("10.0.0.0/8", "wide"),
                network("10.1.0.0/16", "narrow"),
                network("10.1.0.0/16", "second"),
                network("2001:db8::/32", "six"),
            ],
            ..Policy::default()
        };
        let org = |ip: &str| policy.network_of(ip.parse().unwrap()).map(|n| n.org.to_string());
        assert_eq!(org("10.1.2.3").as_deref(), Some("narrow"));
        assert_eq!(org("10.2.2.3").as_deref(), Some("wide"));
        assert_eq!(org("::ffff:10.2.2.3").as_deref(), Some("wide"));
        assert_eq!(org("2001:db8::1").as_deref(), Some("six"));
        assert_eq!(org("192.0.2.1"), None);
    }

    #[test]
    fn the_recipient_list() {
        let list =
            RecipientList::parse("# people\nAnn@Example.com # boss\r\n\n@lists.example.com\n").unwrap();
        let has = |text: &str| list.contains(&Address::parse(text).unwrap());
        assert!(has("ann@example.com") && has("ANN@example.com") && has("any@lists.example.com"));
        assert!(!has("bob@example.com") && !has("ann@sub.example.com") && !has("ann@example.org"));
        assert_eq!(
            RecipientList::parse("a@example.com\nnot an address\n"),
            Err(ListError { line: 2, text: "not an address".into() })
        );
    }
}
