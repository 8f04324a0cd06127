//! The client's side of SMTP and LMTP, without I/O.
//!
//! ```text
//!  connect ─► Opening (greeting, EHLO, STARTTLS, AUTH) ─► Session ─┬─► begin ─► content ─► results ─┐
//!                                                                  └──────────────◄─────────────────┘
//! ```
//!
//! The driver writes what [`Opening::output`] or [`Session::output`] holds, reads, and hands what it read to
//! `input`, which says what to do next. What a peer says is foreign: replies are bounded, checked and cleaned of
//! control characters before anything else sees them.

mod capability;
mod command;
mod opening;
mod reply;
mod session;
mod transcript;

pub use capability::{AuthOffer, Capabilities, Limits};
pub use opening::{Login, OpenFailure, OpenStep, Opening, OpeningConfig, TlsPolicy};
pub use reply::ReplyParser;
pub use session::{Lost, Results, Sending, Session, Step};
pub use transcript::Transcript;

/// What the peer did that no SMTP server may do. The connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line that is no reply.
    #[error("the peer sent something that is not an SMTP reply: {0:?}")]
    Garbage(String),
    /// A line, or a reply of many lines, over our bounds.
    #[error("the peer sent an endless reply")]
    TooLong,
    /// The lines of one reply do not agree.
    #[error("the peer sent one reply with two codes, {0} and {1}")]
    MixedCodes(u16, u16),
    /// Octets behind the 220 to STARTTLS: somebody in the middle may have put them there (RFC 3207 section 6).
    #[error("the peer sent data between its answer to STARTTLS and the TLS handshake; this may be an attack")]
    BytesBeforeTls,
    /// A reply that no command asked for.
    #[error("the peer sent a reply that nothing asked for: {0:?}")]
    Unasked(String),
    /// A reply that has no meaning where it came.
    #[error("the peer sent a reply that makes no sense there: {0:?}")]
    Senseless(String),
}

/// What the driver waits for; each has its time-out in RFC 5321 section 4.5.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The greeting after connect.
    Greeting,
    /// The reply to EHLO, LHLO, HELO, STARTTLS or a line of AUTH.
    Hello,
    /// The reply to MAIL (or to the RSET before it).
    Mail,
    /// The reply to RCPT.
    Rcpt,
    /// The reply to DATA.
    Data,
    /// The reply to the final dot, or to the last chunk.
    Final,
    /// The reply to QUIT.
    Quit,
}

impl Wait {
    /// What it waits for, in words: `the reply to MAIL`.
    pub fn words(self) -> &'static str {
        match self {
            Wait::Greeting => "the greeting",
            Wait::Hello => "the reply to EHLO, STARTTLS or AUTH",
            Wait::Mail => "the reply to MAIL",
            Wait::Rcpt => "the reply to RCPT",
            Wait::Data => "the reply to DATA",
            Wait::Final => "the reply to the message",
            Wait::Quit => "the reply to QUIT",
        }
    }
}
