//! What the operator decided about listeners and limits, as a session sees it.

use std::sync::Arc;
use std::time::Duration;

use net::{Network, ServerTls};

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Mail from other servers, and from clients that may relay.
    Smtp,
    /// Mail from users and programs, which always authenticate (RFC 6409).
    Submission,
    /// The same inside TLS from the first octet (RFC 8314).
    Submissions,
}

impl Mode {
    /// Whether messages are completed and Bcc fields removed.
    pub fn is_submission(self) -> bool {
        self != Mode::Smtp
    }
}

pub use smtp::server::BareNewline;

/// One listener, as configured.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Its name in logs, traces and metrics.
    pub name: Arc<str>,
    /// What it is for.
    pub mode: Mode,
    /// Whether AUTH is offered (after TLS).
    pub auth: bool,
    /// Client networks that may use AUTH in the clear.
    pub auth_without_tls: Vec<Network>,
    /// What to do with a line feed that has no carriage return before it.
    pub bare_newline: BareNewline,
    /// Networks whose PROXY header is believed; connections from there must have one.
    pub proxy_protocol: Vec<Network>,
    /// Networks that may use XCLIENT.
    pub xclient: Vec<Network>,
}

/// The configuration that all listeners share.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our name in the greeting, in Received and in Message-ID.
    pub hostname: Arc<str>,
    /// Certificates; none turns STARTTLS off.
    pub tls: Option<ServerTls>,
    /// Whether SCRAM is offered: only where every credential can be used with it, since many clients try nothing else
    /// once they see it.
    pub scram: bool,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what one client can take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of all listeners together.
    pub connections: usize,
    /// Connections from one address (one /64 of IPv6).
    pub connections_per_address: usize,
    /// Recipients of a message.
    pub recipients: usize,
    /// Octets of a message.
    pub message_size: u64,
    /// Messages in a session.
    pub messages: u32,
    /// How long a session may say nothing.
    pub idle: Duration,
    /// How long a session may last. A message that is under way is finished.
    pub session: Duration,
    /// How long the content of one message may take.
    pub content: Duration,
    /// Errors in a session.
    pub errors: u32,
    /// Commands without a message.
    pub idle_commands: u32,
    /// Octets of a header section.
    pub header_size: usize,
    /// Fields of a header section.
    pub header_fields: usize,
    /// Received fields, over which it is a loop (RFC 5321 section 6.3).
    pub received: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1000,
            connections_per_address: 50,
            recipients: 1000,
            message_size: 50_000_000,
            messages: 10_000,
            idle: Duration::from_secs(300),
            session: Duration::from_secs(3600),
            content: Duration::from_secs(1800),
            errors: 20,
            idle_commands: 100,
            header_size: 512 * 1024,
            header_fields: 5_000,
            received: 100,
        }
    }
}
