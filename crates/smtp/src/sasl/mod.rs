//! SASL (RFC 4422) as SMTP uses it (RFC 4954): PLAIN, LOGIN, SCRAM-SHA-256 with and without channel binding on both
//! sides, OAUTHBEARER and XOAUTH2 as a client.

mod client;
mod scram;
mod server;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use client::{Client, choose, choose_bearer};
pub use scram::{ITERATIONS, ScramVerifier, VerifierError};
pub use server::{Begun, Exchange, ExchangeError, Next, ServerMechanisms};

/// The mechanisms we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The obsolete two-question login that old clients and devices use.
    Login,
    /// RFC 7677.
    ScramSha256,
    /// RFC 7677 with channel binding.
    ScramSha256Plus,
    /// A bearer token as Google and Microsoft take it; client side only.
    XOauth2,
    /// A bearer token by the standard (RFC 7628); client side only.
    OauthBearer,
}

impl Mechanism {
    /// Its name as EHLO lists it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::XOauth2 => "XOAUTH2",
            Mechanism::OauthBearer => "OAUTHBEARER",
        }
    }

    /// The mechanism of this name, whatever the case.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Mechanism::Plain,
            Mechanism::Login,
            Mechanism::ScramSha256,
            Mechanism::ScramSha256Plus,
            Mechanism::XOauth2,
            Mechanism::OauthBearer,
        ]
        .into_iter()
        .find(|m| m.name().eq_ignore_ascii_case(name))
    }
}

/// How a channel binding was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindingKind {
    /// `tls-server-end-point` (RFC 5929): a hash of the server's certificate.
    ServerEndPoint,
    /// `tls-exporter` (RFC 9266): keying material of TLS 1.3.
    Exporter,
}

impl BindingKind {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            BindingKind::ServerEndPoint => "tls-server-end-point",
            BindingKind::Exporter => "tls-exporter",
        }
    }
}

/// What ties an exchange to the TLS connection it runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelBinding {
    /// How it was made.
    pub kind: BindingKind,
    /// The octets.
    pub data: Vec<u8>,
}

/// A secret that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// An exchange that went wrong on the client's side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The server's challenge makes no sense.
    #[error("the server's challenge is not valid: {0}")]
    Challenge(&'static str),
    /// The server refused within the exchange (SCRAM `e=`, the error object of a bearer token).
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server could not prove that it knows the password. It may be an impostor.
    #[error("the server did not prove that it knows the password")]
    Impostor,
    /// The mechanism needs something that is not there.
    #[error("{0}")]
    Unusable(&'static str),
}

/// Base 64 of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What strict base 64 stands for; none when it is not valid. `=` alone stands for nothing (RFC 4954 section 4).
pub fn decode(text: &str) -> Option<Vec<u8>> {
    if text == "=" {
        return Some(Vec::new());
    }
    STANDARD.decode(text).ok()
}
