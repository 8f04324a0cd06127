//! A message as accepted: everything known about it but its content.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{Address, ReversePath};
use crate::clock::Timestamp;
use crate::id::{MessageId, OrgId};
use crate::queue::Stream;

/// The BODY parameter (RFC 6152).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Only US-ASCII in the content.
    #[default]
    SevenBit,
    /// Octets over 127 in the content, or the client said so.
    EightBitMime,
}

/// RET (RFC 3461 section 4.3): what a failure report shall bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its headers alone.
    Headers,
}

/// NOTIFY (RFC 3461 section 4.1): which reports the sender wants about a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Notify {
    /// Nothing was asked: failures, and one delay warning.
    Unset,
    /// NEVER.
    Never,
    /// A list of SUCCESS, FAILURE, DELAY.
    On {
        /// SUCCESS
        success: bool,
        /// FAILURE
        failure: bool,
        /// DELAY
        delay: bool,
    },
}

impl Notify {
    /// The parameter's value, or none when it was not given.
    pub fn to_param(self) -> Option<String> {
        match self {
            Notify::Unset => None,
            Notify::Never => Some("NEVER".into()),
            Notify::On { success, failure, delay } => {
                let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
                Some(words.iter().filter(|w| w.0).map(|w| w.1).collect::<Vec<_>>().join(","))
            }
        }
    }

    /// Whether to report that the recipient was delivered (or handed to a host that does not report).
    pub fn wants_success(self) -> bool {
        matches!(self, Notify::On { success: true, .. })
    }

    /// Whether to report that it failed.
    pub fn wants_failure(self) -> bool {
        matches!(self, Notify::Unset | Notify::On { failure: true, .. })
    }

    /// Whether to report once that it is late.
    pub fn wants_delay(self) -> bool {
        matches!(self, Notify::Unset | Notify::On { delay: true, .. })
    }
}

impl FromStr for Notify {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Ok(Notify::Never);
        }
        let (mut success, mut failure, mut delay) = (false, false, false);
        for word in text.split(',') {
            let seen = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut success,
                "FAILURE" => &mut failure,
                "DELAY" => &mut delay,
                _ => return Err(()),
            };
            *seen = true;
        }
        Ok(Notify::On { success, failure, delay })
    }
}

/// A recipient as named in the envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Where the mail shall go.
    pub address: Address,
    /// Which reports are wanted.
    pub notify: Notify,
    /// ORCPT as given, `rfc822;xtext` (RFC 3461 section 4.2).
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient without parameters.
    pub fn new(address: Address) -> Self {
        Self { address, notify: Notify::Unset, orcpt: None }
    }
}

/// What was negotiated on a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsInfo {
    /// `TLSv1.3`
    pub version: String,
    /// `TLS_AES_256_GCM_SHA384`
    pub cipher: String,
    /// How far the peer's certificate was checked, in a word: `verified`, `unverified`; empty where we are the server.
    pub verified: String,
}

/// The protocol a message came by; `Received: … with` (RFC 3848, RFC 6531).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A `smtp` listener.
    Smtp,
    /// A `submission` or `submissions` listener.
    Submission,
    /// `posthouse sendmail`.
    Sendmail,
    /// The HTTP API.
    Http,
    /// A report that we wrote.
    Report,
}

/// Who sent a message, from where and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// How it came.
    pub protocol: Protocol,
    /// The client's address; none for mail made on this machine without a network.
    pub client: Option<IpAddr>,
    /// The name the client gave in EHLO.
    pub helo: Option<String>,
    /// The login it authenticated as.
    pub credential: Option<String>,
    /// How the connection was protected.
    pub tls: Option<TlsInfo>,
    /// The name of the listener.
    pub listener: Option<String>,
}

impl Origin {
    /// Of a report that we write.
    pub fn report() -> Self {
        Self {
            protocol: Protocol::Report,
            client: None,
            helo: None,
            credential: None,
            tls: None,
            listener: None,
        }
    }
}

/// A message as accepted: everything known about it but its content and recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its name for ever.
    pub id: MessageId,
    /// Whose mail it is.
    pub org: OrgId,
    /// What kind of mail.
    pub stream: Stream,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// The envelope's sender; none is the null sender.
    pub reverse_path: ReversePath,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID as given, xtext.
    pub envid: Option<String>,
    /// BODY, as declared or as found in the content.
    pub body: Body,
    /// Whether the envelope or the headers need SMTPUTF8 at the next hop (RFC 6531).
    pub smtputf8: bool,
    /// The content's size in octets, our own header fields included.
    pub size: u64,
    /// The Message-ID header field, without angle brackets.
    pub header_message_id: Option<String>,
    /// Who sent it.
    pub origin: Origin,
    /// REQUIRETLS was asked for (RFC 8689 section 2): never over a connection without verified TLS.
    pub require_tls: bool,
    /// `TLS-Required: No` stands in the header (RFC 8689 section 5): delivery counts for more than TLS.
    pub tls_optional: bool,
}

impl Message {
    /// The reverse path as text; empty for the null sender.
    pub fn sender(&self) -> &str {
        self.reverse_path.as_ref().map_or("", Address::as_str)
    }
}
