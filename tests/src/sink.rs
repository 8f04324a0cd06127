//! A recording SMTP or LMTP server: keeps every octet it was given, and answers as a test wants it to.
//!
//! It judges what the relay sends, so it is strict where a kind server would hide a fault: the octets of DATA are kept as
//! they came on the wire ([`Received::wire`]) beside the content they carry.

mod session;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mail::Clock;

use crate::tls::Certificate;
use crate::wait::loopback;

/// A message that was taken.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Number of the connection, from 1.
    pub connection: u64,
    /// Where the client connected from.
    pub client: Option<SocketAddr>,
    /// What the client called itself.
    pub hello: String,
    /// What followed `MAIL FROM:`, parameters included.
    pub mail: String,
    /// What followed `RCPT TO:`, for each recipient that was taken.
    pub rcpts: Vec<String>,
    /// The content with dot-stuffing undone.
    pub data: Vec<u8>,
    /// The octets between the reply to DATA and the end of the final dot; empty when BDAT was used.
    pub wire: Vec<u8>,
    /// Whether the transaction was inside TLS.
    pub tls: bool,
    /// The command that authenticated the client, mechanism and initial response.
    pub auth: Option<String>,
}

impl Received {
    /// The reverse path without its angle brackets; empty for the null sender.
    pub fn sender(&self) -> &str {
        path(&self.mail)
    }

    /// The recipients without angle brackets and parameters.
    pub fn recipients(&self) -> Vec<&str> {
        self.rcpts.iter().map(|r| path(r)).collect()
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

fn path(argument: &str) -> &str {
    argument.strip_prefix('<').and_then(|p| p.split('>').next()).unwrap_or(argument)
}

/// Where a session stands when its script is asked what to do.
#[derive(Debug)]
pub enum Stage<'a> {
    /// A client has connected.
    Connect,
    /// EHLO, HELO or LHLO with this name.
    Hello(&'a str),
    /// AUTH with this argument.
    Auth(&'a str),
    /// MAIL with this argument (`<…>` and parameters).
    Mail(&'a str),
    /// RCPT with this argument.
    Rcpt(&'a str),
    /// DATA or BDAT, with the envelope that was taken.
    Data(&'a Received),
    /// The whole message has come. In LMTP asked once for each recipient, who is the last of `rcpts`.
    Message(&'a Received),
    /// RSET, NOOP, VRFY or anything unknown.
    Other(&'a str),
}

/// What the sink does at a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// What a willing server does.
    Usual,
    /// Says this line (`550 5.1.1 no such user`); a message that gets anything but 2xx is not kept.
    Reply(String),
    /// Closes the connection without a word; a message is not kept.
    Close,
    /// Keeps the message but closes instead of replying: the lost final reply of RFC 1047.
    LoseReply,
    /// Says nothing for so long, then goes on as usual.
    Wait(Duration),
}

/// Shorthand for [`Act::Reply`].
pub fn reply(line: &str) -> Act {
    Act::Reply(line.to_owned())
}

/// Decides what a sink does at a stage.
pub type Script = dyn Fn(&Stage<'_>) -> Act + Send + Sync;

/// How a sink behaves.
#[derive(Clone)]
pub struct Options {
    /// Keywords of the EHLO reply beyond the first line.
    pub extensions: Vec<String>,
    /// Whether to speak LMTP: LHLO, and one reply for each recipient.
    pub lmtp: bool,
    /// Offers STARTTLS with this certificate.
    pub certificate: Option<Certificate>,
    /// TLS from the first octet.
    pub implicit_tls: bool,
    /// Octets sent in the clear straight behind the reply to STARTTLS, as a man in the middle would.
    pub inject_after_starttls: Vec<u8>,
    /// Whether content is kept; without it only the envelope is (for loads that would not fit).
    pub keep_content: bool,
    /// Asked at every stage; see [`Options::script`].
    pub script: Arc<Script>,
}

impl Default for Options {
    fn default() -> Self {
        let extensions =
            ["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "SIZE 104857600"];
        Self {
            extensions: extensions.map(str::to_owned).to_vec(),
            lmtp: false,
            certificate: None,
            implicit_tls: false,
            inject_after_starttls: Vec::new(),
            keep_content: true,
            script: Arc::new(|_| Act::Usual),
        }
    }
}

impl Options {
    /// Asks `script` at every stage.
    #[must_use]
    pub fn script(mut self, script: impl Fn(&Stage<'_>) -> Act + Send + Sync + 'static) -> Self {
        self.script = Arc::new(script);
        self
    }

    /// Offers exactly these EHLO keywords.
    #[must_use]
    pub fn extensions(mut self, keywords: &[&str]) -> Self {
        self.extensions = keywords.iter().map(|k| (*k).to_owned()).collect();
        self
    }
}

#[derive(Default)]
struct Kept {
    messages: Vec<Received>,
    /// Every command line of every connection, `1: EHLO x`.
    commands: Vec<String>,
}

struct Shared {
    options: Mutex<Options>,
    kept: Mutex<Kept>,
    changed: Condvar,
    connections: AtomicU64,
    open: AtomicU64,
    open_max: AtomicU64,
    stop: AtomicBool,
}

/// A running sink. Dropping it closes its port; open sessions end with their clients.
pub struct Sink {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Sink {
    /// A willing server on a port of its own.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// A server that behaves as `options` say.
    pub fn with(options: Options) -> Self {
        Self::on(loopback(0), options)
    }

    /// The same on a given address.
    pub fn on(addr: SocketAddr, options: Options) -> Self {
        let listener = TcpListener::bind(addr).unwrap_or_else(|e| panic!("cannot listen on {addr}: {e}"));
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            options: Mutex::new(options),
            kept: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            open_max: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { addr, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// As the target of a route: `smtp://127.0.0.1:PORT`, or `lmtp://…`.
    pub fn url(&self) -> String {
        let scheme = if self.shared.options.lock().unwrap().lmtp { "lmtp" } else { "smtp" };
        format!("{scheme}://{}", self.addr)
    }

    /// Behaves differently from the next stage on, also in open sessions.
    pub fn rescript(&self, script: impl Fn(&Stage<'_>) -> Act + Send + Sync + 'static) {
        self.shared.options.lock().unwrap().script = Arc::new(script);
    }

    /// All that was taken so far.
    pub fn messages(&self) -> Vec<Received> {
        self.shared.kept.lock().unwrap().messages.clone()
    }

    /// How many messages were taken.
    pub fn count(&self) -> usize {
        self.shared.kept.lock().unwrap().messages.len()
    }

    /// Every command line so far, each behind its connection's number.
    pub fn commands(&self) -> Vec<String> {
        self.shared.kept.lock().unwrap().commands.clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The most connections that were open at one time.
    pub fn connections_max(&self) -> u64 {
        self.shared.open_max.load(Ordering::Relaxed)
    }

    /// Waits until `n` messages were taken, and returns them all.
    #[track_caller]
    pub fn wait(&self, n: usize, within: Duration) -> Vec<Received> {
        self.wait_until(&format!("{n} messages"), within, |messages| messages.len() >= n)
    }

    /// Waits for one message and returns it.
    #[track_caller]
    pub fn wait_one(&self) -> Received {
        self.wait(1, Duration::from_secs(20)).swap_remove(0)
    }

    /// Waits until what was taken satisfies `enough`.
    #[track_caller]
    pub fn wait_until(
        &self,
        what: &str,
        within: Duration,
        enough: impl Fn(&[Received]) -> bool,
    ) -> Vec<Received> {
        let clock = Clock::system();
        let mut kept = self.shared.kept.lock().unwrap();
        while !enough(&kept.messages) {
            let left = within.saturating_sub(clock.mono().0);
            assert!(
                !left.is_zero(),
                "sink: {what} did not come within {within:?}; {} came; last commands:\n{}",
                kept.messages.len(),
                kept.commands[kept.commands.len().saturating_sub(30)..].join("\n")
            );
            kept = self.shared.changed.wait_timeout(kept, left).unwrap().0;
        }
        kept.messages.clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let open = shared.open.fetch_add(1, Ordering::Relaxed) + 1;
            shared.open_max.fetch_max(open, Ordering::Relaxed);
            // The client may leave at any time; that is its business.
            let _ = session::serve(stream, number, &shared);
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
mod tests;
