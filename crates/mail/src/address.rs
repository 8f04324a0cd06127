//! Mailbox addresses as SMTP knows them: RFC 5321 section 4.1.2 with RFC 6531. Strict: what two systems could read
//! differently is refused.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest local part in octets (RFC 5321 section 4.5.3.1.1).
const LOCAL_MAX: usize = 64;
/// Longest domain in octets (RFC 5321 section 4.5.3.1.2).
const DOMAIN_MAX: usize = 255;

/// The envelope's sender; none is the null sender `<>`.
pub type ReversePath = Option<Address>;

/// `local@domain`. The local part is kept as it was written, the domain in lower case.
///
/// Two addresses are equal when their local parts are the same to the letter and their domains are the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    text: Box<str>,
    at: u16,
    /// The A-label form, where the domain as written has U-labels.
    ascii_domain: Option<Box<str>>,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`.
    #[error("an address needs a domain: user@example.com")]
    NoDomain,
    /// More than one `@` outside quotes.
    #[error("an address has one @")]
    TwoAts,
    /// The part before the `@`.
    #[error("the part before the @ is not a valid mailbox name")]
    LocalPart,
    /// The part before the `@` is too long.
    #[error("the part before the @ is longer than 64 octets")]
    LocalTooLong,
    /// The part behind the `@`.
    #[error("the domain is not valid")]
    Domain,
    /// The domain is an address literal.
    #[error("address literals such as user@[192.0.2.1] are not accepted; use a domain name")]
    Literal,
    /// A source route or a percent hack.
    #[error("routing inside an address (source routes, %, !) is not accepted")]
    Route,
}

impl Address {
    /// Parses a mailbox without angle brackets. UTF-8 is allowed; whether the session allows it is the caller's
    /// question ([`Address::is_ascii`]).
    ///
    /// # Errors
    /// [`AddressError`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('@') {
            return Err(AddressError::Route);
        }
        let at = split_at(text)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        if local.len() > LOCAL_MAX {
            return Err(AddressError::LocalTooLong);
        }
        if !local_part_is_valid(local) {
            return Err(AddressError::LocalPart);
        }
        if domain.starts_with('[') {
            return Err(AddressError::Literal);
        }
        let ascii = domain_to_ascii(domain).ok_or(AddressError::Domain)?;
        let written = if domain.is_ascii() { ascii.clone() } else { domain.to_lowercase() };
        let ascii_domain = (written != ascii).then(|| ascii.into_boxed_str());
        let at = u16::try_from(at).map_err(|_| AddressError::LocalTooLong)?;
        Ok(Self { text: format!("{local}@{written}").into_boxed_str(), at, ascii_domain })
    }

    /// The address as it goes into an envelope.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as written, quotes and all.
    pub fn local(&self) -> &str {
        &self.text[..usize::from(self.at)]
    }

    /// The domain for routing: lower case, A-labels.
    pub fn domain(&self) -> &str {
        self.ascii_domain.as_deref().unwrap_or(&self.text[usize::from(self.at) + 1..])
    }

    /// Whether it can be sent without SMTPUTF8 as it is written.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// Whether another relay could take the local part for a route of its own: `user%host`, `host!user`, `a@b` in
    /// quotes, `@host:user`. Refused for recipients that we would relay.
    pub fn has_embedded_route(&self) -> bool {
        self.local().contains(['%', '!', '@', ':', '/', '\\']) && {
            let local = self.local();
            // A slash or backslash is harmless outside quotes but has no place in a quoted local part.
            local.contains(['%', '!', '@']) || (local.starts_with('"') && local.contains([':', '\\']))
        }
    }
}

/// A domain name in lower case and A-labels, or none when it is no valid domain name (RFC 5321 section 4.1.2;
/// RFC 5890). A trailing dot, address literals, empty labels and all-numeric names are refused.
pub fn domain_to_ascii(domain: &str) -> Option<String> {
    let ascii = if domain.is_ascii() {
        domain.to_ascii_lowercase()
    } else {
        // Full-width letters, ideographic full stops and the like would be mapped to ASCII: refuse what does not
        // come back as it was.
        let ascii = idna::domain_to_ascii_strict(domain).ok()?;
        let (back, errors) = idna::domain_to_unicode(&ascii);
        if errors.is_err() || back != domain.to_lowercase() {
            return None;
        }
        ascii
    };
    if ascii.is_empty() || ascii.len() > DOMAIN_MAX || ascii.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    let label_is_valid = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last_is_numeric = ascii.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    (ascii.split('.').all(label_is_valid) && !last_is_numeric).then_some(ascii)
}

fn split_at(text: &str) -> Result<usize, AddressError> {
    let start = if text.starts_with('"') { quoted_end(text).ok_or(AddressError::LocalPart)? } else { 0 };
    let at = text[start..].find('@').ok_or(AddressError::NoDomain)? + start;
    if text[at + 1..].contains('@') { Err(AddressError::TwoAts) } else { Ok(at) }
}

/// Where the quoted string at the start of `text` ends, behind its closing quote.
fn quoted_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut i = 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return Some(i + 1),
            _ => i += 1,
        }
    }
    None
}

fn local_part_is_valid(local: &str) -> bool {
    if let Some(inner) = local.strip_prefix('"') {
        let Some(inner) = inner.strip_suffix('"') else { return false };
        return quoted_end(local) == Some(local.len())
            && inner.chars().all(|c| !c.is_control() && !is_line_break(c));
    }
    !local.is_empty()
        && local.split('.').all(|atom| !atom.is_empty())
        && local.chars().all(|c| match c {
            '.' => true,
            c if c.is_ascii() => is_atext(c),
            c => !c.is_control() && !is_line_break(c) && !c.is_whitespace(),
        })
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

/// Line and paragraph separators that some systems take for line ends.
fn is_line_break(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}')
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
