//! Load: Postfix's smtp-source, and a client of ours that keeps the times and can do AUTH and TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mail::Clock;
use posthouse_tests::letter::Letter;
use posthouse_tests::neighbours::program;
use posthouse_tests::{client, process, tls};

use crate::scenario::Surroundings;

/// How a load is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generator {
    /// smtp-source, one connection for each message.
    NewConnections,
    /// smtp-source that keeps its connections.
    ReusedConnections,
    /// Our client, one connection for each message, which keeps the times.
    Timed,
    /// Our client with STARTTLS and AUTH PLAIN on every connection, no resumption.
    TlsAndAuth,
}

/// Login for [`Generator::TlsAndAuth`].
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Times that our client took, sorted; empty for smtp-source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// From the last octet of the message to its 250, µs.
    pub(crate) accept_us: Vec<u64>,
}

impl Times {
    /// The value below which a share of `of` lies, in milliseconds.
    pub(crate) fn quantile_ms(&self, of: f64) -> Option<f64> {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let at = ((self.accept_us.len() as f64 * of) as usize).min(self.accept_us.len().saturating_sub(1));
        #[allow(clippy::cast_precision_loss, reason = "microseconds")]
        self.accept_us.get(at).map(|us| *us as f64 / 1000.0)
    }
}

/// Sizes of messages, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Of(usize),
    /// 2 to 100 KiB, small ones as often as large ones on a logarithmic scale.
    Mixed,
}

/// The sizes of [`Size::Mixed`], in KiB.
const MIXED: [usize; 16] = [2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 28, 37, 48, 62, 80, 100];

impl Size {
    /// The size of the `n`th message.
    pub(crate) fn of(self, n: u64) -> usize {
        match self {
            Self::Of(size) => size,
            // An odd step, so that all come in turn and neighbours differ.
            Self::Mixed => MIXED[usize::try_from(n * 7 % 16).unwrap()] << 10,
        }
    }
}

/// Whom the messages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipients {
    One,
    /// One domain after the other, of so many.
    Domains(u64),
    /// Of ten, one at a slow host and one at a busy one.
    Bad,
}

impl From<Surroundings> for Recipients {
    fn from(surroundings: Surroundings) -> Self {
        match surroundings {
            Surroundings::Domains(n) => Self::Domains(n),
            Surroundings::Bad => Self::Bad,
            _ => Self::One,
        }
    }
}

impl Recipients {
    /// The recipient of the `n`th message.
    pub(crate) fn of(self, n: u64) -> String {
        match (self, n % 10) {
            (Self::Domains(of), _) => format!("someone@d{}.bench.example", n % of),
            (Self::Bad, 0) => "someone@slow.example".to_owned(),
            (Self::Bad, 9) => "someone@busy.example".to_owned(),
            _ => "someone@dest.example".to_owned(),
        }
    }
}

/// A load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) generator: Generator,
    pub(crate) sessions: usize,
    pub(crate) messages: u64,
    pub(crate) size: Size,
    pub(crate) recipients: Recipients,
}

/// Puts a load on; returns when the last message has its 250.
pub(crate) fn run(load: &Load, to: SocketAddr, login: Option<&Login>) -> Times {
    match load.generator {
        Generator::NewConnections | Generator::ReusedConnections => {
            let mut command = Command::new(program("smtp-source").unwrap());
            if load.generator == Generator::ReusedConnections {
                command.arg("-d");
            }
            let (sessions, messages) = (load.sessions.to_string(), load.messages.to_string());
            command.args(["-s", &sessions, "-m", &messages, "-l", &load.size.of(0).to_string()]);
            command.args(["-f", "sender@client.example", "-t", &load.recipients.of(1), &to.to_string()]);
            process::run("smtp-source", command, Duration::from_secs(600));
            Times::default()
        }
        Generator::Timed => timed(load, to, None),
        Generator::TlsAndAuth => timed(load, to, login),
    }
}

fn timed(load: &Load, to: SocketAddr, login: Option<&Login>) -> Times {
    let next = Arc::new(AtomicU64::new(0));
    let load = *load;
    let contents: Vec<Vec<u8>> =
        (0..16).map(|n| client::stuffed(&Letter::new("load", load.size.of(n)).bytes)).collect();
    let contents = Arc::new(contents);
    let threads: Vec<_> = (0..load.sessions)
        .map(|_| {
            let (next, contents, login) = (Arc::clone(&next), Arc::clone(&contents), login.cloned());
            std::thread::spawn(move || {
                let mut times = Vec::new();
                let config = tls::credulous();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= load.messages {
                        return times;
                    }
                    let content = &contents[usize::try_from(n % 16).unwrap()];
                    let secure = login.as_ref().map(|l| (l, &config));
                    times.push(one_message(to, &load.recipients.of(n), content, secure));
                }
            })
        })
        .collect();
    let mut accept_us: Vec<u64> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    accept_us.sort_unstable();
    Times { accept_us }
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// One connection with one message; the time from the end of the content to the reply, in µs.
fn one_message(
    to: SocketAddr,
    recipient: &str,
    content: &[u8],
    secure: Option<(&Login, &Arc<rustls::ClientConfig>)>,
) -> u64 {
    let mut tcp = TcpStream::connect(to).unwrap();
    tcp.set_nodelay(true).unwrap();
    expect(&mut tcp, "220");
    say(&mut tcp, b"EHLO client.example\r\n", "250");
    let Some((login, config)) = secure else { return transaction(&mut tcp, recipient, content) };
    say(&mut tcp, b"STARTTLS\r\n", "220");
    let mut inside = tls::connect(Arc::clone(config), tcp);
    say(&mut inside, b"EHLO client.example\r\n", "250");
    let plain = BASE64.encode(format!("\0{}\0{}", login.user, login.password));
    say(&mut inside, format!("AUTH PLAIN {plain}\r\n").as_bytes(), "235");
    transaction(&mut inside, recipient, content)
}

fn transaction(wire: &mut dyn Wire, recipient: &str, content: &[u8]) -> u64 {
    say(wire, b"MAIL FROM:<sender@client.example>\r\n", "250");
    say(wire, format!("RCPT TO:<{recipient}>\r\n").as_bytes(), "250");
    say(wire, b"DATA\r\n", "354");
    wire.write_all(content).unwrap();
    wire.flush().unwrap();
    let clock = Clock::system();
    expect(wire, "250");
    let took = clock.mono().0;
    say(wire, b"QUIT\r\n", "221");
    u64::try_from(took.as_micros()).unwrap()
}

fn say(wire: &mut dyn Wire, line: &[u8], want: &str) {
    wire.write_all(line).unwrap();
    wire.flush().unwrap();
    expect(wire, want);
}

fn expect(wire: &mut dyn Wire, want: &str) {
    let mut reply = Vec::new();
    let mut buffer = [0; 2048];
    while !is_whole(&reply) {
        let n = wire.read(&mut buffer).unwrap();
        assert!(n > 0, "closed while waiting for {want}, after {}", reply.escape_ascii());
        reply.extend_from_slice(&buffer[..n]);
    }
    assert!(reply.starts_with(want.as_bytes()), "wanted {want}, got {}", reply.escape_ascii());
}

/// Whether the last line of a reply has come: three digits and a space.
fn is_whole(reply: &[u8]) -> bool {
    let Some(before) = reply.strip_suffix(b"\r\n") else { return false };
    let last = before.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    last.get(3).is_none_or(|b| *b == b' ')
}
