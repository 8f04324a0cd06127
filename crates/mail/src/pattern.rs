//! Patterns for domains and addresses in routes, limits and logins: `example.com`, `*.example.com`, `*@example.com`,
//! `user@example.com`, `*`, and `<>` for the null sender.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{Address, domain_to_ascii};

/// What an address or a domain is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// `*`: every address, but not the null sender.
    Any,
    /// `example.com` or `*@example.com`: this very domain.
    Domain(Box<str>),
    /// `*.example.com` or `*@*.example.com`: its subdomains, not the domain itself.
    Subdomains(Box<str>),
    /// `user@example.com`: this address; the local part in any case.
    Address(Box<str>),
    /// `<>`: the null sender.
    Null,
}

/// The text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no pattern: example.com, *.example.com, *@example.com, user@example.com or *")]
pub struct PatternError(String);

impl Pattern {
    /// Whether an address matches; none is the null sender.
    pub fn matches(&self, address: Option<&Address>) -> bool {
        match (self, address) {
            (Pattern::Null, address) => address.is_none(),
            (_, None) => false,
            (Pattern::Address(wanted), Some(address)) => {
                wanted.split_once('\n').is_some_and(|(local, domain)| {
                    domain == address.domain() && local.eq_ignore_ascii_case(address.local())
                })
            }
            (_, Some(address)) => self.matches_domain(address.domain()),
        }
    }

    /// Whether a whole domain (lower case, A-labels) matches.
    pub fn matches_domain(&self, domain: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Domain(wanted) => domain == &**wanted,
            Pattern::Subdomains(parent) => {
                domain.strip_suffix(&**parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Pattern::Address(_) | Pattern::Null => false,
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let bad = || PatternError(text.chars().take(80).collect());
        match text {
            "*" | "*@*" => return Ok(Pattern::Any),
            "<>" => return Ok(Pattern::Null),
            _ => {}
        }
        let domain = text.strip_prefix("*@").unwrap_or(text);
        if domain.contains('@') {
            let address = Address::parse(domain).map_err(|_| bad())?;
            if address.local().contains('*') {
                return Err(bad());
            }
            return Ok(Pattern::Address(format!("{}\n{}", address.local(), address.domain()).into()));
        }
        match domain.strip_prefix("*.") {
            Some(parent) => Ok(Pattern::Subdomains(domain_to_ascii(parent).ok_or_else(bad)?.into())),
            None => Ok(Pattern::Domain(domain_to_ascii(domain).ok_or_else(bad)?.into())),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Any => f.write_str("*"),
            Pattern::Domain(domain) => f.write_str(domain),
            Pattern::Subdomains(parent) => write!(f, "*.{parent}"),
            Pattern::Address(address) => f.write_str(&address.replace('\n', "@")),
            Pattern::Null => f.write_str("<>"),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, address: &str) -> bool {
        let address = (!address.is_empty()).then(|| Address::parse(address).unwrap());
        pattern.parse::<Pattern>().unwrap().matches(address.as_ref())
    }

    #[test]
    fn what_matches_what() {
        for (pattern, address, wanted) in [
            ("example.com", "a@example.com", true),
            ("EXAMPLE.com", "a@Example.COM", true),
            ("example.com", "a@sub.example.com", false),
            ("example.com", "a@notexample.com", false),
            ("*@example.com", "a@example.com", true),
            ("*.example.com", "a@sub.example.com", true),
            ("*.example.com", "a@deep.sub.example.com", true),
            ("*.example.com", "a@example.com", false),
            ("*.example.com", "a@notexample.com", false),
            ("*@*.example.com", "a@sub.example.com", true),
            ("Bob@example.com", "bob@example.com", true),
            ("bob@example.com", "alice@example.com", false),
            ("bob@example.com", "bob@sub.example.com", false),
            ("bücher.example", "a@xn--bcher-kva.example", true),
            ("xn--bcher-kva.example", "a@bücher.example", true),
            ("*", "a@example.com", true),
            ("*", "", false),
            ("<>", "", true),
            ("<>", "a@example.com", false),
        ] {
            assert_eq!(matches(pattern, address), wanted, "{pattern} {address}");
        }
    }

    #[test]
    fn text_and_back() {
        for text in ["*", "<>", "example.com", "*.example.com", "user@example.com"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        for bad in
            ["", "*.", "*@", "exa*mple.com", "u*@example.com", "a@b@c", "*.*.com", "example..com", "a b"]
        {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
