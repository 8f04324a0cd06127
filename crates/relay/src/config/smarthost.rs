//! Smart hosts: servers that take mail for delivery elsewhere.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use mail::{HostOrder, HostPort, Pattern, SmartHostTls};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::values::{Secret, Text};

/// A server that takes mail for delivery elsewhere.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SmartHost {
    /// Its hosts; the next one is tried when one does not answer or does not take mail now. For `order = "weighted"` and
    /// `"sticky"` they may have weights: `{ "a.example:587" = 3, "b.example:587" = 1 }`.
    pub hosts: Hosts,
    /// Which host is tried first. Hosts that did not work lately come last in every order.
    #[schemars(schema_with = "order_words")]
    pub order: HostOrder,
    /// How connections are protected.
    #[schemars(schema_with = "tls_words")]
    pub tls: SmartHostTls,
    /// The login, if it wants one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password. Better in a file of its own: `password_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A file that holds the password; a line end at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A certificate with its chain to show to the hosts when they ask for one, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// Access tokens instead of a password (XOAUTH2), as Microsoft 365 and Gmail want them. They are for `username`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuth>,
    /// Logins for some senders and domains: `[[smarthost.NAME.login]]`. The first that matches is used instead of `username`.
    pub login: Vec<LoginRule>,
}

/// Where access tokens come from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth {
    /// The token endpoint: `"https://login.microsoftonline.com/TENANT/oauth2/v2.0/token"`,
    /// `"https://oauth2.googleapis.com/token"`.
    pub token_url: String,
    /// The id of the application as the provider knows it.
    pub client_id: String,
    /// The application's secret, if it has one. Better in a file of its own: `client_secret_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// A file that holds the application's secret; a line end at its end does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    /// A refresh token. A new one that the provider hands out is kept in memory alone; better `refresh_token_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// A file that holds a refresh token. A new one that the provider hands out is written into it, so the relay's user must
    /// be able to write the file and its directory. With neither, the application's own id and secret are used (client
    /// credentials).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_file: Option<PathBuf>,
    /// What the token is to be good for: `"https://outlook.office365.com/.default"`, `"https://mail.google.com/"`. Empty: what
    /// the refresh token was given for.
    #[serde(default)]
    pub scope: String,
}

/// A login for some of the mail. All keys given must match.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRule {
    /// Envelope senders that it is for, as in `[[route]]`. Empty: any, the null sender too.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub senders: Vec<Pattern>,
    /// Recipient domains that it is for. Empty: any.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub domains: Vec<Pattern>,
    /// The login.
    pub username: String,
    /// The password. Better in a file of its own: `password_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A file that holds the password; a line end at its end does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Access tokens for this login instead of a password (XOAUTH2), with the keys of the smart host's own `oauth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuth>,
}

fn order_words(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "default": "ordered", "oneOf": [
        { "const": "ordered", "type": "string",
          "description": "The first that works, in the order in which they are written." },
        { "const": "weighted", "type": "string",
          "description": "Each host gets connections in proportion to its weight." },
        { "const": "sticky", "type": "string", "description": "A sender always goes by the same host. \
          A host that is added or taken away moves no more senders than its share." },
    ]})
}

fn tls_words(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "default": "required", "oneOf": [
        { "const": "required", "type": "string",
          "description": "STARTTLS with a certificate that verifies, or nothing is sent." },
        { "const": "opportunistic", "type": "string", "description":
          "STARTTLS when offered; the certificate is not verified. A password is sent only over TLS." },
        { "const": "implicit", "type": "string",
          "description": "TLS from the first byte (port 465) with a certificate that verifies." },
        { "const": "none", "type": "string", "description": "Plain text." },
    ]})
}

/// The hosts of a smart host: a list, or a table with weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Where they listen.
    pub at: Vec<HostPort>,
    /// A weight for each; empty when none was given.
    pub weights: Vec<u32>,
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Hosts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("hosts such as [\"smtp.example.com:587\"], or with weights { \"smtp.example.com:587\" = 3 }")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Hosts, A::Error> {
                let mut hosts = Hosts::default();
                while let Some(text) = seq.next_element::<String>()? {
                    hosts.at.push(HostPort::read(&text).map_err(A::Error::custom)?);
                }
                Ok(hosts)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hosts, A::Error> {
                let mut hosts = Hosts::default();
                while let Some((text, weight)) = map.next_entry::<String, u32>()? {
                    hosts.at.push(HostPort::read(&text).map_err(A::Error::custom)?);
                    hosts.weights.push(weight);
                }
                Ok(hosts)
            }
        }
        d.deserialize_any(V)
    }
}

impl Serialize for Hosts {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let texts = self.at.iter().map(ToString::to_string);
        if self.weights.is_empty() {
            return s.collect_seq(texts);
        }
        texts.zip(&self.weights).collect::<BTreeMap<_, _>>().serialize(s)
    }
}

impl JsonSchema for Hosts {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "hosts".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "array", "items": { "type": "string", "format": "host:port" } },
            { "type": "object", "additionalProperties": { "type": "integer", "minimum": 1, "maximum": 10000 } },
        ]})
    }
}
