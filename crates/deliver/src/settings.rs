//! What the operator can set.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mail::SourceName;
use net::{ClientTls, Resolver};
use smtp::client::Wait;

use crate::security::TlsRules;
use crate::smarthost::SmartHost;
use crate::source::SourceAddress;

/// Finds the provider that a set of mail exchangers belongs to, if the provider data knows them.
pub type ProviderOf = Arc<dyn Fn(&[&str]) -> Option<Arc<str>> + Send + Sync>;

/// What deliveries go by; replaced as a whole on reload.
#[derive(Clone)]
pub struct Settings {
    /// Our name in EHLO, where a source has none of its own.
    pub hostname: Arc<str>,
    /// Asks the DNS.
    pub resolver: Resolver,
    /// TLS as a client.
    pub tls: ClientTls,
    /// The smart hosts by name, those of the configuration and those of the directory.
    pub smarthosts: HashMap<Arc<str>, Arc<SmartHost>>,
    /// The outgoing addresses by name. [`mail::default_source`] need not be among them.
    pub sources: HashMap<SourceName, Arc<SourceAddress>>,
    /// Names the provider of a set of mail exchangers; at first nobody's.
    pub provider_of: ProviderOf,
    /// How connections to mail exchangers are protected; at first as far as can be had.
    pub tls_rules: TlsRules,
    /// Whether MX answers may lead to private and loopback addresses.
    pub allow_private_targets: bool,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// The port that mail exchangers listen on: 25.
    pub mx_port: u16,
    /// Most addresses tried in one attempt.
    pub addresses_max: usize,
    /// Most recipients in one transaction. RFC 5321 section 4.5.3.1.8 has every server take 100.
    pub recipients_max: usize,
    /// How much of a dialogue is kept, in octets.
    pub transcript_max: usize,
    /// Whether commands are sent ahead to peers that offer PIPELINING.
    pub pipelining: bool,
    /// Whether small content goes by BDAT to peers that offer CHUNKING.
    pub bdat: bool,
    /// Most messages over one connection, where nobody says otherwise by [`crate::Link::set_limit`]; 0 for no limit.
    pub messages_per_connection: u32,
    /// A connection is used for no longer than this, however busy it is: whoever was the second choice when it was
    /// opened is not the second choice for ever.
    pub connection_age_max: Duration,
    /// Whether LMTP servers reached over TCP are asked for STARTTLS when they offer it.
    pub lmtp_starttls: bool,
    /// How long an address that failed is passed over for others before it is tried once more; doubles with each
    /// failure in a row, up to sixteen times this.
    pub probe_interval: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

impl Settings {
    /// The defaults.
    pub fn new(hostname: impl Into<Arc<str>>, resolver: Resolver, tls: ClientTls) -> Self {
        Self {
            hostname: hostname.into(),
            resolver,
            tls,
            smarthosts: HashMap::new(),
            allow_private_targets: false,
            timeouts: Timeouts::default(),
            mx_port: 25,
            addresses_max: 12,
            recipients_max: 100,
            transcript_max: 16 << 10,
            sources: HashMap::new(),
            provider_of: Arc::new(|_| None),
            tls_rules: TlsRules::default(),
            pipelining: true,
            bdat: true,
            messages_per_connection: 0,
            connection_age_max: Duration::from_secs(300),
            lmtp_starttls: false,
            probe_interval: Duration::from_secs(60),
        }
    }
}

/// How long to wait: RFC 5321 section 4.5.3.2, where it has a word on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to one address.
    pub connect: Duration,
    /// For the greeting.
    pub greeting: Duration,
    /// For the replies to EHLO, STARTTLS and AUTH.
    pub hello: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the reply to MAIL.
    pub mail: Duration,
    /// For the reply to RCPT.
    pub rcpt: Duration,
    /// For the reply to DATA.
    pub data: Duration,
    /// For the peer to take 64 KiB of content.
    pub block: Duration,
    /// For the reply to the final dot.
    pub message: Duration,
    /// For the reply to QUIT.
    pub quit: Duration,
    /// For all that comes before the content, however much the peer stretches each reply.
    pub envelope: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            greeting: Duration::from_secs(300),
            hello: Duration::from_secs(300),
            handshake: Duration::from_secs(60),
            mail: Duration::from_secs(300),
            rcpt: Duration::from_secs(300),
            data: Duration::from_secs(120),
            block: Duration::from_secs(180),
            message: Duration::from_secs(600),
            quit: Duration::from_secs(2),
            envelope: Duration::from_secs(1800),
        }
    }
}

impl Timeouts {
    pub(crate) fn of(&self, wait: Wait) -> Duration {
        match wait {
            Wait::Greeting => self.greeting,
            Wait::Hello => self.hello,
            Wait::Mail => self.mail,
            Wait::Rcpt => self.rcpt,
            Wait::Data => self.data,
            Wait::Final => self.message,
            Wait::Quit => self.quit,
        }
    }
}
