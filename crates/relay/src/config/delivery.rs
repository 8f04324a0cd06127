//! Name resolving, outgoing connections, forwarding, and what becomes of addresses that do not exist.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::values::{self, AsText, Text};

/// Name resolving.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// The resolvers to ask, as `"127.0.0.1:53"`. Empty: the system's.
    #[serde(with = "values::texts")]
    #[schemars(with = "Vec<AsText<SocketAddr>>")]
    pub servers: Vec<SocketAddr>,
    /// Whose word on DNS signatures (DNSSEC) is taken. Without it there is no DANE.
    #[serde(with = "values::text")]
    #[schemars(schema_with = "dnssec_words")]
    pub dnssec: net::Dnssec,
    /// With `dnssec = "validate"`: a file of DNSKEY records to trust in place of the root's that are built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_anchors: Option<PathBuf>,
    /// Whether MX answers may point to private or loopback addresses. Hosts named in routes always may.
    pub allow_private_targets: bool,
}

impl Text for net::Dnssec {
    const WHAT: &'static str = "one of \"auto\", \"trust\", \"validate\", \"off\"";
    const FORMAT: &'static str = "dnssec";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is none of auto, trust, validate and off"))
    }
    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

fn dnssec_words(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "default": "auto", "oneOf": [
        { "const": "auto", "type": "string", "description": "That of the resolvers, if all of them are on loopback." },
        { "const": "trust", "type": "string",
          "description": "That of the resolvers wherever they are: you vouch for the network between." },
        { "const": "validate", "type": "string", "description": "Nobody's: signatures are verified here." },
        { "const": "off", "type": "string", "description": "Nobody's, and nothing counts as signed." },
    ]})
}

/// Connections to other hosts. The time-outs are the least that RFC 5321 section 4.5.3.2 asks for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Connections at a time from one source to one site, unless the provider data or a `[[shape]]` say otherwise.
    #[schemars(range(min = 1))]
    pub connections_per_destination: usize,
    /// Connections at a time over all destinations. One costs about 30 KB of memory, with TLS about 80 KB, and a file
    /// descriptor: the process may open so many files only as its limit (`LimitNOFILE`) allows.
    #[schemars(range(min = 1))]
    pub connections: usize,
    /// Messages on one connection, unless the provider data or a `[[shape]]` say otherwise. 0: no bound.
    pub messages_per_connection: u32,
    /// Recipients in one transaction, unless the peer announces fewer.
    #[schemars(range(min = 1))]
    pub recipients_per_transaction: usize,
    /// A file that is merged over what Posthouse knows of providers: who they are, what they take, what their replies mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub providers: Option<PathBuf>,
    /// A file that is merged over what Posthouse knows of the words of bounces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounces: Option<PathBuf>,
    /// Whether TLSA records are asked for and kept to (DANE, RFC 7672). Needs signed answers: see `dns.dnssec`.
    pub dane: bool,
    /// Whether MTA-STS policies (RFC 8461) are fetched and kept to.
    pub mta_sts: bool,
    /// Whether domains that ask for it are told daily how TLS to them went (RFC 8460).
    pub tls_reports: bool,
    /// The sender of those reports.
    #[schemars(extend("x-default" = "postmaster at `hostname`"))]
    pub tls_reports_from: String,
    /// Whether commands are sent ahead to peers that offer PIPELINING.
    pub pipelining: bool,
    /// Whether small content goes by BDAT to peers that offer CHUNKING.
    pub chunking: bool,
    /// Whether LMTP servers reached over TCP are asked for STARTTLS when they offer it. Their certificates are not verified.
    pub lmtp_starttls: bool,
    /// The port of mail exchangers. Other than 25 only makes sense in tests.
    #[schemars(range(min = 1))]
    pub mx_port: u16,
    /// How long a connection may wait for its next message.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub idle: Duration,
    /// How long a connection is used, however busy it is; whoever was the second choice when it was opened is not the second
    /// choice for ever.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub connection_age_max: Duration,
    /// How long an address that did not answer is passed over for others before it is tried again; doubles with each failure
    /// in a row, up to sixteen times this.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub probe_interval: Duration,
    /// Time-out for the connection to be made, per address.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub connect_timeout: Duration,
    /// Time-out for the greeting.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub greeting_timeout: Duration,
    /// Time-out for the reply to a command, MAIL and RCPT among them.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub command_timeout: Duration,
    /// Time-out for the reply to DATA.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub data_timeout: Duration,
    /// Time-out for a block of content to be taken.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub block_timeout: Duration,
    /// Time-out for the reply to the final dot. Too short a time makes duplicates (RFC 1047).
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub final_timeout: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections_per_destination: 20,
            connections: 2000,
            messages_per_connection: 0,
            recipients_per_transaction: 100,
            providers: None,
            bounces: None,
            dane: true,
            mta_sts: true,
            tls_reports: true,
            tls_reports_from: String::new(),
            pipelining: true,
            chunking: true,
            lmtp_starttls: false,
            mx_port: 25,
            idle: seconds(5),
            connection_age_max: seconds(300),
            probe_interval: seconds(60),
            connect_timeout: seconds(30),
            greeting_timeout: seconds(300),
            command_timeout: seconds(300),
            data_timeout: seconds(120),
            block_timeout: seconds(180),
            final_timeout: seconds(600),
        }
    }
}

/// Mail that goes on to other addresses, and reports that come back late.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Forward {
    /// The domain that senders of forwarded mail are rewritten to (SRS), so that SPF holds. Its MX has to be this relay.
    /// Empty: senders stay.
    pub srs_domain: String,
    /// The domain of signed return paths, by which late bounces are told from forged ones. Its MX has to be this relay. Empty:
    /// return paths stay.
    pub bounce_domain: String,
    /// Whose mail gets signed return paths, by name. Empty: everyone's.
    pub bounce_orgs: Vec<String>,
    /// How many aliases in a row are followed, from 1 to 100. What leads on further is refused.
    #[schemars(range(min = 1, max = 100))]
    pub alias_depth: usize,
    /// How many recipients aliases may make of one message, at most 10000. A recipient whose aliases make more is refused.
    #[schemars(range(min = 1, max = 10000))]
    pub alias_recipients: usize,
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            srs_domain: String::new(),
            bounce_domain: String::new(),
            bounce_orgs: Vec::new(),
            alias_depth: 10,
            alias_recipients: 1000,
        }
    }
}

/// Which bounces suppress an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Automatic {
    /// None.
    Never,
    /// Those of bulk mail.
    #[default]
    Bulk,
    /// All.
    Always,
}

/// Addresses that are written to no more. Only a next hop's word that there is no such mailbox ever suppresses one by itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Suppression {
    /// Whether an address is suppressed, for the organisation that wrote to it, when the next hop says that there is no such
    /// mailbox: `"bulk"` when it was bulk mail, `true` always, `false` never.
    pub automatic: Automatic,
}

impl<'de> Deserialize<'de> for Automatic {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Automatic;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"bulk\"")
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Automatic, E> {
                Ok(if value { Automatic::Always } else { Automatic::Never })
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Automatic, E> {
                if text == "bulk" {
                    Ok(Automatic::Bulk)
                } else {
                    Err(E::custom("it is true, false or \"bulk\""))
                }
            }
        }
        d.deserialize_any(V)
    }
}

impl Serialize for Automatic {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Automatic::Never => s.serialize_bool(false),
            Automatic::Bulk => s.serialize_str("bulk"),
            Automatic::Always => s.serialize_bool(true),
        }
    }
}

impl JsonSchema for Automatic {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "automatic".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "format": "\"bulk\"" }] })
    }
}
