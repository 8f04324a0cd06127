//! Queues and destinations: where a delivery waits and where it goes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attempt::Outcome;
use crate::id::OrgId;

/// What kind of mail it is; `transactional` passes `bulk`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Somebody waits for it.
    #[default]
    Transactional,
    /// Nobody waits for it.
    Bulk,
}

impl Stream {
    /// Its name as users type it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Transactional => "transactional",
            Stream::Bulk => "bulk",
        }
    }
}

impl FromStr for Stream {
    type Err = DestinationError;
    fn from_str(text: &str) -> Result<Self, DestinationError> {
        match text {
            "transactional" => Ok(Stream::Transactional),
            "bulk" => Ok(Stream::Bulk),
            other => Err(DestinationError(format!("{other:?} is no stream: transactional or bulk"))),
        }
    }
}

/// A queue: (organisation, stream, destination). Deliveries in one queue go to the same place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueueKey {
    /// Whose mail.
    pub org: OrgId,
    /// What kind.
    pub stream: Stream,
    /// Where to.
    pub destination: Destination,
}

/// A host and port as the operator wrote them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// A name, an IPv4 address or an IPv6 address without brackets.
    pub host: Arc<str>,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = DestinationError;
    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let bad = || DestinationError(format!("{text:?} is not host:port"));
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if bare.is_none() && host.contains([':', '[', ']']) {
            return Err(bad());
        }
        let host = bare.unwrap_or(host);
        let port = port.parse().map_err(|_| bad())?;
        if host.is_empty() || port == 0 || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(bad());
        }
        Ok(Self { host: host.into(), port })
    }
}

/// Where a delivery goes. As text it is what a route's `to` says, except that MX carries its domain (`mx:example.com`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// The mail exchangers of this domain (A-label form).
    Mx(Arc<str>),
    /// A `[smarthost.NAME]`.
    SmartHost(Arc<str>),
    /// One SMTP server, TLS when offered.
    Smtp(HostPort),
    /// An LMTP server over TCP.
    Lmtp(HostPort),
    /// An LMTP server on a Unix socket: `lmtp:/run/dovecot/lmtp`.
    LmtpUnix(Arc<str>),
    /// A Maildir; the path may hold `{domain}` and `{user}`.
    Maildir(Arc<str>),
    /// Caught and kept to be looked at; never leaves the machine.
    Sandbox,
    /// Accepted and thrown away, on record.
    Discard,
    /// Reports that came back to our own signed return paths: read here, and told to who sent the mail.
    Bounces,
}

/// The text is no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DestinationError(pub String);

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Mx(domain) => write!(f, "mx:{domain}"),
            Destination::SmartHost(name) => write!(f, "smarthost:{name}"),
            Destination::Smtp(at) => write!(f, "smtp://{at}"),
            Destination::Lmtp(at) => write!(f, "lmtp://{at}"),
            Destination::LmtpUnix(path) => write!(f, "lmtp:{path}"),
            Destination::Maildir(path) => write!(f, "maildir:{path}"),
            Destination::Sandbox => f.write_str("sandbox"),
            Destination::Discard => f.write_str("discard"),
            Destination::Bounces => f.write_str("bounces"),
        }
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let parsed = match text {
            "discard" => Destination::Discard,
            "sandbox" => Destination::Sandbox,
            "bounces" => Destination::Bounces,
            _ => {
                if let Some(at) = text.strip_prefix("smtp://") {
                    Destination::Smtp(at.parse()?)
                } else if let Some(at) = text.strip_prefix("lmtp://") {
                    Destination::Lmtp(at.parse()?)
                } else if let Some(path) = text.strip_prefix("lmtp:").filter(|p| p.starts_with('/')) {
                    Destination::LmtpUnix(path.into())
                } else if let Some(path) = text.strip_prefix("maildir:").filter(|p| p.starts_with('/')) {
                    Destination::Maildir(path.into())
                } else if let Some(name) = text.strip_prefix("smarthost:").filter(|n| !n.is_empty()) {
                    Destination::SmartHost(name.into())
                } else if let Some(domain) = text.strip_prefix("mx:").filter(|d| !d.is_empty()) {
                    Destination::Mx(domain.into())
                } else {
                    return Err(DestinationError(format!(
                        "{text:?} is no destination: smtp://host:port, lmtp://host:port, lmtp:/socket, \
                         maildir:/path/{{domain}}/{{user}}, smarthost:NAME, mx or discard"
                    )));
                }
            }
        };
        Ok(parsed)
    }
}

impl Serialize for Destination {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In memory, to be delivered as soon as its turn comes; `due` is not set.
    Active,
    /// Waiting on disk for its time or for room; `due` is set.
    Waiting,
    /// Held by an operator, a policy or after repeated crashes. Nothing happens until it is released.
    Held,
    /// Caught by the sandbox; kept to be looked at.
    Sandboxed,
    /// Its stored content is damaged; kept for a person to look at.
    Quarantined,
}

/// What has become of one recipient so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientStatus {
    /// Not settled; with the last outcome after the first failed attempt.
    Pending(Option<Outcome>),
    /// Taken over by the next hop or written to the mailbox.
    Delivered(Outcome),
    /// Refused for good, or given up after `queue.lifetime`.
    Failed(Outcome),
    /// Removed by an operator.
    Removed,
}

impl RecipientStatus {
    /// Whether nothing more will be tried.
    pub fn is_final(&self) -> bool {
        !matches!(self, RecipientStatus::Pending(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_round_trip() {
        for text in [
            "mx:example.com",
            "smarthost:upstream",
            "smtp://mail.example:25",
            "smtp://[2001:db8::1]:25",
            "lmtp://127.0.0.1:24",
            "lmtp:/run/dovecot/lmtp",
            "maildir:/var/mail/{domain}/{user}",
            "sandbox",
            "discard",
            "bounces",
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "mx:",
            "smtp://host",
            "smtp://host:0",
            "smtp://2001:db8::1:25",
            "maildir:relative",
            "lmtp://:24",
            "nonsense",
        ] {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
    }
}
