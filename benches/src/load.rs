//! Load: Postfix's smtp-source, and a client of ours that keeps the times and can do AUTH and TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mail::Clock;
use posthouse_tests::letter::Letter;
use posthouse_tests::neighbours::program;
use posthouse_tests::{client, process, tls};

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

/// Sends `messages` of `size` octets over `sessions` sessions at a time; returns when the last one has its 250.
pub(crate) fn run(
    generator: Generator,
    to: SocketAddr,
    sessions: usize,
    messages: u64,
    size: usize,
    login: Option<&Login>,
) -> Times {
    match generator {
        Generator::NewConnections | Generator::ReusedConnections => {
            let mut command = Command::new(program("smtp-source").unwrap());
            if generator == Generator::ReusedConnections {
                command.arg("-d");
            }
            command.args(["-s", &sessions.to_string(), "-m", &messages.to_string(), "-l", &size.to_string()]);
            command.args(["-f", "sender@client.example", "-t", "someone@dest.example", &to.to_string()]);
            process::run("smtp-source", command, Duration::from_secs(600));
            Times::default()
        }
        Generator::Timed => timed(to, sessions, messages, size, None),
        Generator::TlsAndAuth => timed(to, sessions, messages, size, login),
    }
}

fn timed(to: SocketAddr, sessions: usize, messages: u64, size: usize, login: Option<&Login>) -> Times {
    let left = Arc::new(AtomicI64::new(i64::try_from(messages).unwrap()));
    let content = Arc::new(client::stuffed(&Letter::new("load", size).bytes));
    let threads: Vec<_> = (0..sessions)
        .map(|_| {
            let (left, content, login) = (Arc::clone(&left), Arc::clone(&content), login.cloned());
            std::thread::spawn(move || {
                let mut times = Vec::new();
                let config = tls::credulous();
                while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                    times.push(one_message(to, &content, login.as_ref().map(|l| (l, &config))));
                }
                times
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
fn one_message(to: SocketAddr, content: &[u8], secure: Option<(&Login, &Arc<rustls::ClientConfig>)>) -> u64 {
    let mut tcp = TcpStream::connect(to).unwrap();
    tcp.set_nodelay(true).unwrap();
    expect(&mut tcp, "220");
    say(&mut tcp, b"EHLO client.example\r\n", "250");
    let Some((login, config)) = secure else { return transaction(&mut tcp, content) };
    say(&mut tcp, b"STARTTLS\r\n", "220");
    let mut inside = tls::connect(Arc::clone(config), tcp);
    say(&mut inside, b"EHLO client.example\r\n", "250");
    let plain = BASE64.encode(format!("\0{}\0{}", login.user, login.password));
    say(&mut inside, format!("AUTH PLAIN {plain}\r\n").as_bytes(), "235");
    transaction(&mut inside, content)
}

fn transaction(wire: &mut dyn Wire, content: &[u8]) -> u64 {
    say(wire, b"MAIL FROM:<sender@client.example>\r\n", "250");
    say(wire, b"RCPT TO:<someone@dest.example>\r\n", "250");
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
