//! The sections about this relay itself: listeners, certificates, queue, limits, stores, API and log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use net::Network;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{self, AsText};

/// What kind of clients a listener is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Mail from other servers (port 25): mail for `relay.local_domains` from anyone, anything from those who may relay.
    #[default]
    Smtp,
    /// Mail from people and programs with a login (port 587), TLS by STARTTLS. Missing `Date` and `Message-ID` are
    /// added, `Bcc` is removed.
    Submission,
    /// The same with TLS from the first byte (port 465).
    Submissions,
}

/// What to do with a message whose lines end in a bare LF or CR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BareNewline {
    /// Refuse it: two servers could read such a message differently (SMTP smuggling).
    #[default]
    Refuse,
    /// Make every line end CRLF before anything else sees the bytes. For old devices; only on `submission` and
    /// `submissions` listeners.
    Normalise,
}

/// One listener.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Its name in logs, traces and for socket activation. Empty: the mode.
    pub name: String,
    /// The addresses it listens on: `"0.0.0.0:25"`, `"[::]:25"`.
    #[serde(with = "values::texts")]
    #[schemars(with = "Vec<AsText<SocketAddr>>")]
    pub address: Vec<SocketAddr>,
    /// What kind of clients it is for.
    pub mode: Mode,
    /// Whether AUTH is offered, after TLS. Submission always needs it.
    pub auth: bool,
    /// Client networks that may use AUTH without TLS.
    #[serde(with = "values::texts")]
    #[schemars(with = "Vec<AsText<Network>>")]
    pub auth_without_tls: Vec<Network>,
    /// What to do with a message whose lines end in a bare LF or CR.
    pub bare_newline: BareNewline,
    /// Networks of load balancers whose PROXY protocol header (version 1 or 2) is believed; they have to send one.
    #[serde(with = "values::texts")]
    #[schemars(with = "Vec<AsText<Network>>")]
    pub proxy_protocol: Vec<Network>,
    /// Networks that may use XCLIENT to speak for another client.
    #[serde(with = "values::texts")]
    #[schemars(with = "Vec<AsText<Network>>")]
    pub xclient: Vec<Network>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            name: String::new(),
            address: Vec::new(),
            mode: Mode::Smtp,
            auth: true,
            auth_without_tls: loopback(),
            bare_newline: BareNewline::Refuse,
            proxy_protocol: Vec::new(),
            xclient: Vec::new(),
        }
    }
}

impl Mode {
    /// Its name as it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Smtp => "smtp",
            Mode::Submission => "submission",
            Mode::Submissions => "submissions",
        }
    }
}

/// The loopback networks.
pub(crate) fn loopback() -> Vec<Network> {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|n| n.parse().ok()).collect()
}

/// Certificates.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate with its chain, PEM. Read at start and on reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Roots to trust beside the system's when we connect to others, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// How an ACME server is shown that a name is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Challenge {
    /// Over TLS on port 443 (RFC 8737).
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// Over HTTP on port 80 (RFC 8555 section 8.3).
    #[serde(rename = "http-01")]
    Http01,
}

/// An ACME server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// An address the ACME server may write to.
    pub contact: String,
    /// The names to put into the certificate. Empty: `hostname`.
    pub domains: Vec<String>,
    /// The server's directory.
    pub directory: String,
    /// The roots to trust for a private ACME server, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How to show that the names are ours.
    pub challenge: Challenge,
    /// Where the challenge is answered. Empty: port 443 on all addresses for `tls-alpn-01`, port 80 for `http-01`.
    #[serde(with = "values::texts")]
    #[schemars(with = "Vec<AsText<SocketAddr>>")]
    pub listen: Vec<SocketAddr>,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            contact: String::new(),
            domains: Vec::new(),
            directory: "https://acme-v02.api.letsencrypt.org/directory".into(),
            ca_file: None,
            challenge: Challenge::default(),
            listen: Vec::new(),
        }
    }
}

/// How long and how often delivery is tried.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// How long a message is tried before it goes back to its sender.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub lifetime: Duration,
    /// After how long the sender is told once that a message is late. "0": never.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub warn_after: Duration,
    /// How long to wait after the first failed attempt, the second, and so on; the last one repeats. Up to 10 % is
    /// added or taken away, so that retries do not come in waves.
    #[serde(with = "values::texts")]
    #[schemars(with = "Vec<AsText<Duration>>")]
    pub retry: Vec<Duration>,
    /// The largest message that is taken in, headers included.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<u64>")]
    pub max_message_size: u64,
    /// How many deliveries of one queue (organisation, stream, destination) are in memory at a time; the rest waits on
    /// disk.
    #[schemars(range(min = 1))]
    pub window: usize,
    /// How many deliveries are in memory at a time over all queues.
    #[schemars(range(min = 1))]
    pub active: usize,
    /// How often the program may crash while a message is in delivery before that message is held.
    #[schemars(range(min = 1))]
    pub crashes: u32,
}

impl Default for Queue {
    fn default() -> Self {
        let minutes = |m: u64| Duration::from_secs(60 * m);
        Self {
            lifetime: minutes(5 * 24 * 60),
            warn_after: minutes(4 * 60),
            retry: [1, 5, 15, 30, 60, 120, 240].into_iter().map(minutes).collect(),
            max_message_size: 50_000_000,
            window: 200,
            active: 10_000,
            crashes: 3,
        }
    }
}

/// Bounds on what clients may use.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory for message buffers, windows and the content cache.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<u64>")]
    pub memory: u64,
    /// Client connections at a time.
    #[schemars(range(min = 1))]
    pub connections: usize,
    /// Client connections at a time from one address (IPv6: from one /64).
    #[schemars(range(min = 1))]
    pub connections_per_address: usize,
    /// Queues (organisation, stream, destination) whose state is in memory at a time. Those whose mail is due later than
    /// others' are left on disk first.
    #[schemars(range(min = 1000))]
    pub queues: usize,
    /// Recipients of one message; further ones are told to come in another transaction (452 4.5.3). RFC 5321 asks for
    /// 100 at least.
    #[schemars(range(min = 1))]
    pub recipients: usize,
    /// Disk space to keep free, and 1 % of the inodes; below it mail is refused for the moment (452) while deliveries
    /// go on.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<u64>")]
    pub disk_reserve: u64,
    /// How long a client may be silent.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub idle: Duration,
    /// How long a session may last. A message that is under way is finished.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub session: Duration,
    /// How long the content of one message may take to come in.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub content: Duration,
    /// Errors in one session before it is closed (421).
    #[schemars(range(min = 1))]
    pub errors: u32,
    /// Commands in a row that bring no mail forward before the session is closed (421).
    #[schemars(range(min = 1))]
    pub commands_without_mail: u32,
    /// Messages in one session; further ones are told to come in another session (452 4.5.3).
    #[schemars(range(min = 1))]
    pub messages_per_session: u32,
    /// Octets in the header section of one message.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<u64>")]
    pub header_size: u64,
    /// Header fields in one message.
    #[schemars(range(min = 1))]
    pub header_fields: usize,
    /// `Received` fields in a message before it is taken for a loop (5.4.6).
    #[schemars(range(min = 10))]
    pub hops: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 256_000_000,
            connections: 1000,
            connections_per_address: 50,
            queues: 20_000,
            recipients: 1000,
            disk_reserve: 256_000_000,
            idle: Duration::from_secs(300),
            session: Duration::from_secs(3600),
            content: Duration::from_secs(1800),
            errors: 20,
            commands_without_mail: 100,
            messages_per_session: 10_000,
            header_size: 524_288,
            header_fields: 5000,
            hops: 100,
        }
    }
}

/// The record of what became of every message.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// How long it is kept.
    #[serde(with = "values::text")]
    #[schemars(with = "AsText<Duration>")]
    pub keep: Duration,
    /// How many events may wait to be recorded. Beyond it mail is refused for the moment (451), until the record has
    /// caught up.
    #[schemars(range(min = 1000))]
    pub max_lag: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { keep: Duration::from_secs(30 * 86_400), max_lag: 500_000 }
    }
}

/// Health checks and metrics over HTTP. The management API itself is on the socket `posthouse.sock` in `data_dir`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Where `/healthz`, `/readyz` and `/metrics` are served. `[]`: nowhere.
    #[serde(with = "values::texts")]
    #[schemars(with = "Vec<AsText<SocketAddr>>")]
    pub listen: Vec<SocketAddr>,
    /// Networks that may read `/metrics`.
    #[serde(with = "values::texts")]
    #[schemars(with = "Vec<AsText<Network>>")]
    pub metrics_networks: Vec<Network>,
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))], metrics_networks: loopback() }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The program's own log, written to standard error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Its form.
    pub format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,deliver=debug`. The
    /// environment variable `POSTHOUSE_LOG` goes before it.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}
