//! What the operator can set.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub use mail::{SmartHostTls, SmartHostTlsError};

use mail::HostPort;
use net::{ClientTls, Resolver};
use smtp::client::{Login, Wait};

/// What deliveries go by; replaced as a whole on reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name in EHLO.
    pub hostname: Arc<str>,
    /// Asks the DNS.
    pub resolver: Resolver,
    /// TLS as a client.
    pub tls: ClientTls,
    /// The smart hosts by name, those of the configuration and those of the directory.
    pub smarthosts: HashMap<Arc<str>, Arc<SmartHost>>,
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

/// A smart host: other people's relay that takes our mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmartHost {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it listens, in the order in which they are tried.
    pub hosts: Vec<HostPort>,
    /// Whether the connection is under TLS.
    pub tls: SmartHostTls,
    /// Who we are there.
    pub login: Option<Arc<Login>>,
}

impl SmartHost {
    /// A smart host with user name and password, if there are any. Without TLS by the operator's word, the password
    /// goes in the clear; with opportunistic TLS it is not sent when there is no TLS.
    pub fn new(
        name: impl Into<Arc<str>>,
        hosts: Vec<HostPort>,
        tls: SmartHostTls,
        login: Option<(String, String)>,
    ) -> Self {
        let login = login.map(|(username, password)| {
            let secret = smtp::sasl::Password(password);
            Arc::new(Login { username, secret, is_token: false, in_the_clear: tls == SmartHostTls::None })
        });
        Self { name: name.into(), hosts, tls, login }
    }
}
