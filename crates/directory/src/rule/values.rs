//! Values within rules that people write as texts: rates, days, proxies.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use mail::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret::Secret;

/// The text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(pub(crate) String);

/// What someone wrote, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Implements serde and schemars for a type by its text.
macro_rules! by_text {
    ($($type:ty = $format:literal),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $format.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    )*};
}
by_text!(Day = "day", Proxy = "proxy");

/// A day in UTC: `2026-11-24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(jiff::civil::Date);

impl Day {
    /// Its first moment.
    pub fn begins(self) -> Timestamp {
        let midnight = jiff::tz::TimeZone::UTC.to_timestamp(self.0.at(0, 0, 0, 0));
        Timestamp(midnight.map_or(0, jiff::Timestamp::as_millisecond))
    }
}

impl FromStr for Day {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        let plain = text.len() == 10;
        text.parse()
            .ok()
            .filter(|_| plain)
            .map(Self)
            .ok_or_else(|| TextError(format!("{:?} is no day, such as \"2026-11-24\"", shown(text))))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of proxy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// SOCKS5 (RFC 1928), with a login (RFC 1929) where it wants one.
    Socks5,
    /// One that reads a PROXY protocol header (version 2) with the source and destination to use.
    Proxy,
}

/// A proxy that connections leave through: `socks5://user@127.0.0.1:1080`, `proxy://127.0.0.1:4000`. A password in it is
/// taken out and never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// What kind.
    pub kind: ProxyKind,
    /// Where it listens.
    pub at: SocketAddr,
    /// The user, for SOCKS5.
    pub user: Option<String>,
    /// The password that stood in the text.
    pub(crate) password: Option<Secret>,
}

impl FromStr for Proxy {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        // What was written may hold a password: it is not repeated.
        let bad = || {
            TextError(
                "a proxy is socks5://address:port, socks5://user@address:port or proxy://address:port, such as \
                 \"socks5://127.0.0.1:1080\""
                    .into(),
            )
        };
        let (kind, rest) = text.split_once("://").ok_or_else(bad)?;
        let kind = match kind {
            "socks5" => ProxyKind::Socks5,
            "proxy" => ProxyKind::Proxy,
            _ => return Err(bad()),
        };
        let (login, at) = rest.rsplit_once('@').map_or((None, rest), |(login, at)| (Some(login), at));
        let at = at.parse().map_err(|_| bad())?;
        let (user, password) = match login {
            None => (None, None),
            Some(_) if kind == ProxyKind::Proxy => return Err(bad()),
            Some(login) => {
                let (user, password) = login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)));
                // RFC 1929 section 2: one octet says how long each is.
                let fits = |t: &str| !t.is_empty() && t.len() <= 255 && !t.chars().any(char::is_control);
                if !fits(user) || password.is_some_and(|p| !fits(p)) {
                    return Err(bad());
                }
                (Some(user.to_owned()), password.map(Secret::new))
            }
        };
        Ok(Self { kind, at, user, password })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == ProxyKind::Socks5 { "socks5" } else { "proxy" };
        match &self.user {
            Some(user) => write!(f, "{kind}://{user}@{}", self.at),
            None => write!(f, "{kind}://{}", self.at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_read_and_write() {
        let day: Day = "2026-11-24".parse().unwrap();
        assert_eq!(
            (day.to_string(), day.begins().to_string()),
            ("2026-11-24".into(), "2026-11-24T00:00:00.000Z".into())
        );
        for bad in ["", "2026-13-01", "2026-11-24T00:00:00Z", "24.11.2026"] {
            assert!(bad.parse::<Day>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxys_password_is_never_shown() {
        let proxy: Proxy = "socks5://me:hunter2@127.0.0.1:1080".parse().unwrap();
        assert_eq!(proxy.password.as_ref().unwrap().expose(), "hunter2");
        for shown in [proxy.to_string(), format!("{proxy:?}"), serde_json::to_string(&proxy).unwrap()] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!("proxy://[::1]:4000".parse::<Proxy>().unwrap().to_string(), "proxy://[::1]:4000");
        for bad in [
            "",
            "http://127.0.0.1:80",
            "socks5://host:1080",
            "socks5://127.0.0.1",
            "proxy://me@127.0.0.1:4000",
        ] {
            assert!(bad.parse::<Proxy>().is_err(), "{bad}");
        }
    }
}
