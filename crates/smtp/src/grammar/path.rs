//! Paths in angle brackets (RFC 5321 section 4.1.2).

use mail::{Address, AddressError, ReversePath};

use super::SyntaxError;

/// Where a recipient is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// A mailbox.
    Mailbox(Address),
    /// `<Postmaster>` without a domain.
    Postmaster,
}

/// What stands in the angle brackets at the start of `text`, and what follows them.
pub(super) fn bracketed<'a>(
    text: &'a str,
    expected: &'static str,
) -> Result<(&'a str, &'a str), SyntaxError> {
    let inner = text.strip_prefix('<').ok_or(SyntaxError::Arguments(expected))?;
    let (mut quoted, mut escaped) = (false, false);
    for (at, octet) in inner.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => {
                let rest = &inner[at + 1..];
                return if rest.is_empty() || rest.starts_with(' ') {
                    Ok((&inner[..at], rest.trim_start_matches(' ')))
                } else {
                    Err(SyntaxError::Arguments(expected))
                };
            }
            b'<' if !quoted => break,
            _ => {}
        }
    }
    Err(SyntaxError::Arguments(expected))
}

pub(super) fn reverse_path(inner: &str) -> Result<ReversePath, AddressError> {
    if inner.is_empty() { Ok(None) } else { Address::parse(inner).map(Some) }
}

pub(super) fn forward_path(inner: &str) -> Result<ForwardPath, AddressError> {
    if inner.eq_ignore_ascii_case("postmaster") {
        return Ok(ForwardPath::Postmaster);
    }
    Address::parse(inner).map(ForwardPath::Mailbox)
}
