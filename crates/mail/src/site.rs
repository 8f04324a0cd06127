//! Where the connections to a destination really end: the unit at which peers limit us, and we ourselves.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::queue::{Destination, DestinationError};

/// A site: the hosts that serve a destination, and every other destination that shares them. As text
/// `provider:gmail`, `hosts:mx1.example.net,mx2.example.net`, or what a route's `to` says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// A provider that the provider data knows by its mail exchangers.
    Provider(Arc<str>),
    /// A set of mail exchangers: names in lower case, sorted, joined by commas.
    Hosts(Arc<str>),
    /// A destination that shares its site with nobody: a smart host, a named server, a mailbox, or a domain whose mail
    /// exchangers are not known (yet).
    Alone(Destination),
}

impl Site {
    /// The site of a set of mail exchangers, whatever their order and preferences.
    pub fn of_hosts<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<String> =
            hosts.into_iter().map(|h| h.trim_end_matches('.').to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        Site::Hosts(names.join(",").into())
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::Provider(name) => write!(f, "provider:{name}"),
            Site::Hosts(names) => write!(f, "hosts:{names}"),
            Site::Alone(destination) => destination.fmt(f),
        }
    }
}

impl FromStr for Site {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if let Some(name) = text.strip_prefix("provider:").filter(|n| !n.is_empty()) {
            Ok(Site::Provider(name.into()))
        } else if let Some(names) = text.strip_prefix("hosts:").filter(|n| !n.is_empty()) {
            Ok(Site::of_hosts(names.split(',')))
        } else {
            text.parse().map(Site::Alone)
        }
    }
}

impl Serialize for Site {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Site {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of a source, an outgoing address, in the configuration. [`default_source`] is the system's choice.
pub type SourceName = Arc<str>;

/// The source that is always there: the address that the system chooses, with the relay's own name.
pub fn default_source() -> SourceName {
    "default".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_round_trip() {
        for text in ["provider:gmail", "hosts:a.example,b.example", "mx:example.com", "smarthost:up"] {
            assert_eq!(text.parse::<Site>().unwrap().to_string(), text);
        }
        assert_eq!(
            Site::of_hosts(["B.example.", "a.example", "b.example"]).to_string(),
            "hosts:a.example,b.example"
        );
        assert!("provider:".parse::<Site>().is_err());
    }
}
