//! The sections about where mail goes: who may relay, and routes.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use mail::Destination;
use net::Network;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::values::{self, AsText, Text};

/// Who may relay without a password, and which domains are ours.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// Clients that may relay without AUTH on `smtp` listeners: `"192.0.2.0/24"`, or `{ network = "192.0.2.0/24",
    /// org = "NAME" }` to count their mail to an organisation other than `default`.
    pub networks: Vec<RelayNetwork>,
    /// Domains whose mail is taken in from anyone. Each needs a route.
    pub local_domains: Vec<String>,
    /// How a recipient in a local domain is verified before it is accepted: `"callout"` asks the route's server,
    /// `"any"` takes all, `"file:PATH"` takes the addresses in a file, one a line.
    pub recipients: Recipients,
}

/// A network that may relay, and the organisation its mail belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayNetwork {
    /// The clients.
    pub network: Network,
    /// The organisation; none is `default`.
    pub org: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RelayNetworkTable {
    /// The clients.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Network>")]
    network: Network,
    /// The organisation that their mail belongs to.
    org: Option<String>,
}

impl<'de> Deserialize<'de> for RelayNetwork {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = RelayNetwork;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a network such as \"192.0.2.0/24\", or { network = …, org = … }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<RelayNetwork, E> {
                Network::read(text).map(|network| RelayNetwork { network, org: None }).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RelayNetwork, A::Error> {
                let table = RelayNetworkTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RelayNetwork { network: table.network, org: table.org })
            }
        }
        d.deserialize_any(V)
    }
}

impl Serialize for RelayNetwork {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let Some(org) = &self.org else { return s.serialize_str(&self.network.to_string()) };
        let mut map = s.serialize_map(Some(2))?;
        map.serialize_entry("network", &self.network.to_string())?;
        map.serialize_entry("org", org)?;
        map.end()
    }
}

impl JsonSchema for RelayNetwork {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "network".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = RelayNetworkTable::json_schema(generator);
        json_schema!({ "anyOf": [{ "type": "string", "format": "network" }, table] })
    }
}

/// How a local recipient is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Recipients {
    /// The server that the route names is asked.
    #[default]
    Callout,
    /// All are taken.
    Any,
    /// Those in a file are taken.
    File(PathBuf),
}

impl Text for Recipients {
    const WHAT: &'static str = "\"callout\", \"any\" or \"file:PATH\"";
    const FORMAT: &'static str = "callout | any | file:PATH";
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "callout" => Ok(Self::Callout),
            "any" => Ok(Self::Any),
            _ => match text.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Ok(Self::File(path.into())),
                _ => Err(format!("{text:?} is no way to verify recipients: {}", Self::WHAT)),
            },
        }
    }
    fn write(&self) -> String {
        match self {
            Self::Callout => "callout".into(),
            Self::Any => "any".into(),
            Self::File(path) => format!("file:{}", path.display()),
        }
    }
}

/// Where a route sends mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTo {
    /// To the mail exchangers of the recipient's domain.
    Mx,
    /// To this place.
    To(Destination),
}

impl FromStr for RouteTo {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "mx" {
            return Ok(Self::Mx);
        }
        text.parse().map(Self::To).map_err(|e: mail::DestinationError| e.0)
    }
}

impl fmt::Display for RouteTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx => f.write_str("mx"),
            Self::To(to) => to.fmt(f),
        }
    }
}

impl Text for RouteTo {
    const WHAT: &'static str = "a destination such as \"smtp://host:25\", \"smarthost:NAME\" or \"mx\"";
    const FORMAT: &'static str = "destination";
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

/// Implements serde and schemars for a type by its text.
macro_rules! by_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                values::text::deserialize(d)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                values::text::serialize(self, s)
            }
        }
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                Self::FORMAT.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": Self::FORMAT })
            }
        }
    )*};
}
by_text!(Recipients, RouteTo);

/// One route.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Recipient domains: `"example.net"`, or `"*.example.net"` for everything below it. Empty: any.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Envelope senders: `"ann@example.net"`, `"*@example.net"`, `"*@*.example.net"`, or `"<>"` for the null sender.
    /// Empty: any, the null sender too.
    #[serde(default)]
    pub senders: Vec<String>,
    /// Where to: `smtp://host:port` (TLS when offered), `lmtp://host:port`, `lmtp:/socket`,
    /// `maildir:/path/{domain}/{user}`, `smarthost:NAME`, `mx`, `sandbox` (caught and shown instead of sent) or `discard`.
    pub to: RouteTo,
}
