//! XCLIENT: a trusted proxy or test tells who the client really is.

use std::net::IpAddr;

use super::{SyntaxError, xtext};

/// The attributes of an XCLIENT command; what was not given stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XClient {
    /// ADDR; none when not given or `[UNAVAILABLE]`.
    pub address: Option<IpAddr>,
    /// PORT
    pub port: Option<u16>,
    /// HELO
    pub helo: Option<String>,
    /// NAME: the client's host name as the proxy resolved it.
    pub name: Option<String>,
}

const EXPECTED: &str = "XCLIENT takes ADDR, PORT, NAME, HELO, PROTO, DESTADDR and DESTPORT";

pub(super) fn parse(rest: &str) -> Result<XClient, SyntaxError> {
    let mut client = XClient::default();
    let mut any = false;
    for word in rest.split(' ').filter(|w| !w.is_empty()) {
        any = true;
        let (keyword, value) = word.split_once('=').ok_or(SyntaxError::Arguments(EXPECTED))?;
        let value = xtext::decode(value).and_then(|v| String::from_utf8(v).ok());
        let value = value.filter(|v| v.bytes().all(|b| b.is_ascii_graphic()));
        let value = value.ok_or(SyntaxError::Arguments(EXPECTED))?;
        let known = !matches!(value.as_str(), "[UNAVAILABLE]" | "[TEMPUNAVAIL]");
        match keyword.to_ascii_uppercase().as_str() {
            "ADDR" if known => client.address = Some(address(&value)?),
            "PORT" if known => {
                let port = value.parse().map_err(|_| SyntaxError::Arguments(EXPECTED))?;
                client.port = Some(port);
            }
            "NAME" if known => client.name = Some(value),
            "HELO" if known => client.helo = Some(value),
            "ADDR" | "PORT" | "NAME" | "HELO" | "PROTO" | "DESTADDR" | "DESTPORT" => {}
            // LOGIN would make anybody in the network anybody: not taken.
            _ => return Err(SyntaxError::Arguments(EXPECTED)),
        }
    }
    if any { Ok(client) } else { Err(SyntaxError::Arguments(EXPECTED)) }
}

fn address(text: &str) -> Result<IpAddr, SyntaxError> {
    let bare = match text.split_at_checked(5) {
        Some((head, tail)) if head.eq_ignore_ascii_case("IPV6:") => tail,
        _ => text,
    };
    bare.parse().map_err(|_| SyntaxError::Arguments("XCLIENT ADDR is 192.0.2.1 or IPV6:2001:db8::1"))
}
