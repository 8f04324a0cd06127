//! Bounds: how much traffic a site is given, and how much an organisation, a credential or a route may take.

use mail::{Destination, Site};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outgoing::domains_only;
use super::{Mention, Named, Rule, Wrong};
use mail::{Pattern, Rate};

/// How much traffic a site is given. It goes before what the provider data say, key by key; where several rules say the same
/// key, the first one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// Sites: a provider's name as `posthouse provider list` shows it, or a site as `posthouse queue sites` shows it:
    /// `"gmail"`, `"hosts:mx.example.net"`, `"smarthost:upstream"`. Empty, and no `domains` either: all sites.
    pub sites: Vec<String>,
    /// Recipient domains whose sites are meant: `"example.net"`, or `"*.example.net"` for everything below it.
    #[schemars(with = "Vec<String>")]
    pub domains: Vec<Pattern>,
    /// Sources that it counts for. Empty: all.
    pub sources: Vec<String>,
    /// Most connections at a time from one source.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// Most messages on one connection; then it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub messages_per_connection: Option<u32>,
    /// Most messages from one source: `"100/1m"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rate")]
    pub rate: Option<Rate>,
    /// Most new connections from one source: `"10/1m"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rate")]
    pub connection_rate: Option<Rate>,
}

/// A rate's schema: a text of that format.
fn rate(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["string", "null"], "format": "rate" })
}

impl Shape {
    /// The site that a text in `sites` means: a bare word is a provider.
    ///
    /// # Errors
    /// In words, when it is neither.
    pub fn site(text: &str) -> Result<Site, String> {
        let word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if word && !["sandbox", "discard"].contains(&text) {
            return Ok(Site::Provider(text.into()));
        }
        text.parse().map_err(|_| {
            format!(
                "{:?} is no site: a provider such as gmail, hosts:mx.example.net, smarthost:NAME or smtp://host:port",
                text.chars().take(80).collect::<String>()
            )
        })
    }
}

impl Rule for Shape {
    const KIND: &'static str = "shape";

    fn check(&self) -> Result<(), Wrong> {
        domains_only("domains", &self.domains)?;
        for (i, text) in self.sites.iter().enumerate() {
            Shape::site(text).map_err(|what| Wrong::new(format!("sites[{i}]"), what, ""))?;
        }
        let numbers =
            [("connections", self.connections), ("messages_per_connection", self.messages_per_connection)];
        if let Some((key, _)) = numbers.iter().find(|(_, n)| *n == Some(0)) {
            let help = "to send nothing for a while: posthouse queue suspend";
            return Err(Wrong::new(*key, format!("`{key}` has to be at least 1"), help));
        }
        if numbers.iter().all(|(_, n)| n.is_none()) && self.rate.is_none() && self.connection_rate.is_none() {
            return Err(Wrong::new(
                "",
                "a shape that says nothing",
                "connections = 10, or rate = \"100/1m\"",
            ));
        }
        Ok(())
    }

    fn mentions(&self) -> Vec<Mention> {
        let sources = self.sources.iter().enumerate();
        sources.map(|(i, name)| Mention::new(format!("sources[{i}]"), Named::Source, name)).collect()
    }
}

/// How much an organisation, a credential or a route may take: give exactly one of `org`, `credential` and `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ceiling {
    /// An organisation, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// A credential, by its login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// A destination, as a route's `to` says it: `"smarthost:upstream"`, `"lmtp://127.0.0.1:24"`, `"mx:example.net"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub to: Option<Destination>,
    /// Most connections at a time. Not for credentials, whose mail shares connections with others'.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// Most messages: `"10000/1h"`. What comes faster is accepted and waits its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rate")]
    pub rate: Option<Rate>,
}

/// Whom a ceiling is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CeilingOf<'a> {
    /// An organisation, by name.
    Org(&'a str),
    /// A credential, by its login.
    Credential(&'a str),
    /// A destination.
    To(&'a Destination),
}

impl Ceiling {
    /// Whom it is for; none when it says several, or nobody.
    pub fn of(&self) -> Option<CeilingOf<'_>> {
        match (&self.org, &self.credential, &self.to) {
            (Some(org), None, None) => Some(CeilingOf::Org(org)),
            (None, Some(login), None) => Some(CeilingOf::Credential(login)),
            (None, None, Some(to)) => Some(CeilingOf::To(to)),
            _ => None,
        }
    }
}

impl Rule for Ceiling {
    const KIND: &'static str = "ceiling";

    fn check(&self) -> Result<(), Wrong> {
        let Some(of) = self.of() else {
            return Err(Wrong::new("", "a ceiling is for exactly one of `org`, `credential` and `to`", ""));
        };
        if self.connections == Some(0) {
            let help = "to send nothing for a while: posthouse queue suspend";
            return Err(Wrong::new("connections", "`connections` has to be at least 1", help));
        }
        if matches!(of, CeilingOf::Credential(_)) && self.connections.is_some() {
            let what = "a credential has no connections of its own: its mail shares them with others'";
            return Err(Wrong::new("connections", what, "give a `rate`, or a ceiling for its `org`"));
        }
        if self.connections.is_none() && self.rate.is_none() {
            return Err(Wrong::new("", "a ceiling that says nothing", "rate = \"10000/1h\""));
        }
        Ok(())
    }

    fn mentions(&self) -> Vec<Mention> {
        match self.of() {
            Some(CeilingOf::Org(name)) => vec![Mention::new("org", Named::Org, name)],
            Some(CeilingOf::Credential(name)) => vec![Mention::new("credential", Named::Credential, name)],
            Some(CeilingOf::To(Destination::SmartHost(name))) => {
                vec![Mention::new("to", Named::SmartHost, &**name)]
            }
            _ => Vec::new(),
        }
    }

    fn clashes(&self, other: &Self) -> bool {
        match (self.of(), other.of()) {
            (Some(CeilingOf::Credential(a)), Some(CeilingOf::Credential(b)))
            | (Some(CeilingOf::Org(a)), Some(CeilingOf::Org(b))) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        }
    }
}
