//! The way out: directly, by SOCKS, or through a proxy that speaks the PROXY protocol.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::NetError;
use crate::tlsrpt::decoded;

/// Which way connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// From this machine.
    #[default]
    Direct,
    /// Through a SOCKS 5 proxy (RFC 1928), which is asked for addresses, never for names.
    Socks5 {
        /// Where it listens.
        at: SocketAddr,
        /// User name and password (RFC 1929), if it wants them.
        login: Option<SocksLogin>,
    },
    /// Through a proxy that reads a PROXY protocol header (version 2) and connects from the source to the destination
    /// that it names.
    Proxy {
        /// Where it listens.
        at: SocketAddr,
    },
}

/// User name and password for a SOCKS proxy, 1 to 255 octets each.
#[derive(Clone, PartialEq, Eq)]
pub struct SocksLogin {
    username: String,
    password: String,
}

impl SocksLogin {
    /// # Errors
    /// [`NetError::Configuration`] when either is empty or too long for SOCKS.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Result<Self, NetError> {
        let (username, password) = (username.into(), password.into());
        let fits = |text: &str| (1..=255).contains(&text.len());
        if fits(&username) && fits(&password) {
            return Ok(Self { username, password });
        }
        Err(NetError::Configuration(
            "user name and password of a SOCKS proxy take 1 to 255 octets each".into(),
        ))
    }

    /// The user name.
    pub fn username(&self) -> &str {
        &self.username
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for SocksLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocksLogin({})", self.username)
    }
}

impl Egress {
    /// The same with this password for a SOCKS proxy, as from a file.
    ///
    /// # Errors
    /// [`NetError::Configuration`] where there is no user name that it could belong to.
    pub fn with_password(self, password: &str) -> Result<Self, NetError> {
        match self {
            Self::Socks5 { at, login: Some(login) } => {
                Ok(Self::Socks5 { at, login: Some(SocksLogin::new(login.username, password)?) })
            }
            _ => Err(wrong("there is a password but no user name; write socks5://USER@ADDRESS:PORT")),
        }
    }
}

/// As in `proxy`: `socks5://127.0.0.1:1080`, `socks5://user:password@127.0.0.1:1080`, `socks5://user@[::1]:1080` (the
/// password is in a file), `proxy://127.0.0.1:4000`. Special characters of a login are written as `%40`.
impl FromStr for Egress {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| wrong("it has no socks5:// or proxy://"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, at) = match rest.rsplit_once('@') {
            Some((login, at)) => (Some(login), at),
            None => (None, rest),
        };
        let at = at
            .parse()
            .map_err(|_| wrong("what follows is no ADDRESS:PORT, as 127.0.0.1:1080 or [::1]:1080"))?;
        match (scheme, login) {
            ("socks5", None) => Ok(Self::Socks5 { at, login: None }),
            ("socks5", Some(login)) => {
                let (username, password) = login.split_once(':').unwrap_or((login, ""));
                let plain = |part| {
                    decoded(part).ok_or_else(|| wrong("the login has a % that is not followed by two digits"))
                };
                let (username, password) = (plain(username)?, plain(password)?);
                // Until the one from the file is there.
                let password = if password.is_empty() { "-".to_owned() } else { password };
                Ok(Self::Socks5 { at, login: Some(SocksLogin::new(username, password)?) })
            }
            ("proxy", None) => Ok(Self::Proxy { at }),
            ("proxy", Some(_)) => Err(wrong("the PROXY protocol knows no login")),
            _ => Err(wrong("it begins neither with socks5:// nor with proxy://")),
        }
    }
}

/// Without the password.
impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Socks5 { at, login: None } => write!(f, "socks5://{at}"),
            Self::Socks5 { at, login: Some(login) } => write!(f, "socks5://{}@{at}", login.username),
            Self::Proxy { at } => write!(f, "proxy://{at}"),
        }
    }
}

fn wrong(why: &str) -> NetError {
    NetError::Configuration(format!("the proxy of a source is not understood: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_parsed() {
        let at: SocketAddr = "127.0.0.1:1080".parse().unwrap();
        let login = |user, password| Some(SocksLogin::new(user, password).unwrap());
        for (text, wanted) in [
            ("socks5://127.0.0.1:1080", Egress::Socks5 { at, login: None }),
            ("socks5://u:p%40s@127.0.0.1:1080", Egress::Socks5 { at, login: login("u", "p@s") }),
            ("proxy://127.0.0.1:1080/", Egress::Proxy { at }),
        ] {
            assert_eq!(text.parse::<Egress>().unwrap(), wanted, "{text}");
        }
        let filed = "socks5://u@127.0.0.1:1080".parse::<Egress>().unwrap().with_password("secret").unwrap();
        assert_eq!(filed, Egress::Socks5 { at, login: login("u", "secret") });
        assert_eq!(filed.to_string(), "socks5://u@127.0.0.1:1080");
        assert!(!format!("{filed:?}").contains("secret"));
        for bad in [
            "",
            "127.0.0.1:1080",
            "http://127.0.0.1:1080",
            "socks5://proxy.example:1080",
            "socks5://127.0.0.1",
            "socks5://:p@127.0.0.1:1080",
            "socks5://u:%4@127.0.0.1:1080",
            "proxy://u@127.0.0.1:1080",
        ] {
            assert!(bad.parse::<Egress>().is_err(), "{bad}");
        }
        assert!("proxy://127.0.0.1:1".parse::<Egress>().unwrap().with_password("x").is_err());
    }
}
