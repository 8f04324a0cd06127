//! A mail server that does as it is told, however odd.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smtp::sasl::{BindingKind, ChannelBinding, Exchange, Mechanism, Next, ScramVerifier, ServerMechanisms};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What the peer does instead of what a good server would.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Says this, line end and all.
    Say(String),
    /// Says this and hangs up.
    Bye(String),
    /// Hangs up.
    Close,
    /// Says nothing more and does not hang up.
    Hang,
    /// Says this octet by octet, with this pause between.
    Drip(String, Duration),
    /// Says this and does not wait for the client's handshake, or breaks it.
    BreakTls(String),
}

pub(crate) fn say(line: &str) -> Act {
    Act::Say(format!("{line}\r\n"))
}

pub(crate) fn bye(line: &str) -> Act {
    Act::Bye(format!("{line}\r\n"))
}

/// How the peer behaves on one connection. Where nothing is said, as a good server.
#[derive(Clone)]
pub(crate) struct Behaviour {
    offers: Vec<String>,
    acts: HashMap<String, VecDeque<Act>>,
    lmtp: bool,
    tls: Option<TlsAcceptor>,
    implicit: bool,
    scram: Option<ScramVerifier>,
    tokens: Option<Arc<Mutex<crate::token_server::State>>>,
}

impl Behaviour {
    /// A good server that offers `offers`.
    pub(crate) fn offering(offers: &[&str]) -> Self {
        let offers = offers.iter().map(|o| (*o).to_owned()).collect();
        Self {
            offers,
            acts: HashMap::new(),
            lmtp: false,
            tls: None,
            implicit: false,
            scram: None,
            tokens: None,
        }
    }

    /// With PIPELINING, 8BITMIME, SMTPUTF8, SIZE and DSN.
    pub(crate) fn good() -> Self {
        Self::offering(&["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 0", "DSN"])
    }

    /// What it does at `when`: `connect`, a verb, or `.`; the first act at the first time, and so on; then as a good
    /// server again.
    pub(crate) fn on(mut self, when: &str, acts: impl IntoIterator<Item = Act>) -> Self {
        self.acts.entry(when.to_owned()).or_default().extend(acts);
        self
    }

    pub(crate) fn lmtp(mut self) -> Self {
        self.lmtp = true;
        self
    }

    /// Offers STARTTLS.
    pub(crate) fn starttls(mut self, tls: &TlsAcceptor) -> Self {
        self.offers.push("STARTTLS".into());
        self.tls = Some(tls.clone());
        self
    }

    /// Knows the verifier of this password.
    pub(crate) fn scram(mut self, password: &str) -> Self {
        self.scram = ScramVerifier::new(password).ok();
        self
    }

    /// Takes the access tokens of this server.
    pub(crate) fn tokens(mut self, server: &crate::token_server::TokenServer) -> Self {
        self.tokens = Some(server.shared());
        self
    }

    /// TLS from the first octet.
    pub(crate) fn implicit_tls(mut self, tls: &TlsAcceptor) -> Self {
        self.tls = Some(tls.clone());
        self.implicit = true;
        self
    }
}

/// What the peer saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    /// Where they came from.
    pub(crate) from: Vec<IpAddr>,
    /// Commands in order, over all connections.
    pub(crate) lines: Vec<String>,
    /// What each read gave.
    pub(crate) reads: Vec<Vec<u8>>,
    /// Content of completed messages, dots removed.
    pub(crate) messages: Vec<Vec<u8>>,
    /// Connections over which TLS was established.
    pub(crate) handshakes: usize,
    pub(crate) closed: usize,
    /// Access tokens that were not good.
    pub(crate) refused_tokens: usize,
    /// No token is good enough for this one, as where an administrator has turned SMTP off for a mailbox.
    pub(crate) refuses_all_tokens: bool,
}

impl Seen {
    /// How many commands begin with this.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.lines.iter().filter(|l| l.starts_with(start)).count()
    }
}

/// A peer. Stops when dropped.
pub(crate) struct Peer {
    pub(crate) at: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Peer {
    /// A peer that behaves so on every connection.
    pub(crate) async fn new(behaviour: Behaviour) -> Self {
        Self::by_turns(vec![behaviour]).await
    }

    /// A peer that behaves so on the first connection, so on the second, and on all further ones as on the last.
    pub(crate) async fn by_turns(behaviours: Vec<Behaviour>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), behaviours)
    }

    /// The same on a listener of the caller's.
    pub(crate) fn on(listener: TcpListener, behaviours: Vec<Behaviour>) -> Self {
        let at = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            for turn in 0.. {
                let (stream, from) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                {
                    let mut seen = shared.lock();
                    seen.connections += 1;
                    seen.from.push(from.ip());
                }
                let behaviour = behaviours[turn.min(behaviours.len() - 1)].clone();
                let seen = shared.clone();
                tokio::spawn(async move {
                    let _ = Talk {
                        input: Vec::new(),
                        accepted: 0,
                        in_tls: false,
                        bindings: Vec::new(),
                        behaviour,
                        seen: seen.clone(),
                    }
                    .run(Box::new(stream))
                    .await;
                    seen.lock().closed += 1;
                });
            }
        });
        Self { at, seen, task }
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock())
    }

    pub(crate) fn seen_mut(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock());
    }

    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        self.seen(|s| s.messages.clone())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}
type Wire = Box<dyn Duplex>;

struct Talk {
    input: Vec<u8>,
    accepted: usize,
    in_tls: bool,
    bindings: Vec<ChannelBinding>,
    behaviour: Behaviour,
    seen: Arc<Mutex<Seen>>,
}

impl Talk {
    async fn run(mut self, mut wire: Wire) -> io::Result<()> {
        if self.behaviour.implicit {
            wire = self.handshake(wire).await?;
        }
        self.act("connect", "220 peer.test ESMTP\r\n", &mut wire).await?;
        loop {
            let line = self.line(&mut wire).await?;
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            self.seen.lock().lines.push(line.clone());
            if verb == "AUTH" && self.behaviour.scram.is_some() {
                self.scram(&line, &mut wire).await?;
                continue;
            }
            if line.starts_with("AUTH XOAUTH2") || line.starts_with("AUTH OAUTHBEARER") {
                self.bearer(&line, &mut wire).await?;
                continue;
            }
            if verb == "BDAT" {
                self.chunk(&line, &mut wire).await?;
            }
            let good = self.good_answer(&verb);
            let said = self.act(&verb, &good, &mut wire).await?;
            match verb.as_str() {
                "MAIL" | "RSET" => self.accepted = 0,
                "RCPT" if said.starts_with('2') => self.accepted += 1,
                "DATA" if said.starts_with('3') => self.content(&mut wire).await?,
                "BDAT" if said.starts_with('2') => self.accepted = 0,
                "STARTTLS" if said.starts_with('2') => wire = self.handshake(wire).await?,
                "QUIT" => return Ok(()),
                _ => {}
            }
        }
    }

    fn good_answer(&self, verb: &str) -> String {
        match verb {
            "EHLO" | "LHLO" => {
                let offers = self.behaviour.offers.iter().filter(|o| !(self.in_tls && *o == "STARTTLS"));
                let mut lines: Vec<String> = vec!["peer.test".into()];
                lines.extend(offers.cloned());
                let last = lines.len() - 1;
                let code = |n| if n == last { "250 " } else { "250-" };
                lines.iter().enumerate().map(|(n, l)| format!("{}{l}\r\n", code(n))).collect()
            }
            "DATA" => "354 go ahead\r\n".into(),
            "BDAT" if self.accepted == 0 => "503 5.5.1 no recipients\r\n".into(),
            "QUIT" => "221 bye\r\n".into(),
            "STARTTLS" => "220 go ahead\r\n".into(),
            "AUTH" => "235 2.7.0 welcome\r\n".into(),
            _ => "250 2.0.0 ok\r\n".into(),
        }
    }

    /// Reads the content and answers it: once, or by LMTP once for each recipient.
    async fn content(&mut self, wire: &mut Wire) -> io::Result<()> {
        let mut content = Vec::new();
        loop {
            let line = self.raw_line(wire).await?;
            if line == b".\r\n" {
                break;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        self.seen.lock().messages.push(content);
        for _ in 0..if self.behaviour.lmtp { self.accepted } else { 1 } {
            self.act(".", "250 2.0.0 queued\r\n", wire).await?;
        }
        Ok(())
    }

    /// Takes a chunk, whatever becomes of it (RFC 3030 section 2).
    async fn chunk(&mut self, line: &str, wire: &mut Wire) -> io::Result<()> {
        let octets: usize = line.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap();
        assert!(line.ends_with(" LAST"), "{line}");
        while self.input.len() < octets {
            self.more(wire).await?;
        }
        let content = self.input.drain(..octets).collect();
        if self.accepted > 0 {
            self.seen.lock().messages.push(content);
        }
        Ok(())
    }

    /// Does what it was told for `when`, or says `good`. Returns what was said.
    async fn act(&mut self, when: &str, good: &str, wire: &mut Wire) -> io::Result<String> {
        let told = self.behaviour.acts.get_mut(when).and_then(VecDeque::pop_front);
        match told.unwrap_or_else(|| Act::Say(good.to_owned())) {
            Act::Say(line) => {
                wire.write_all(line.as_bytes()).await?;
                wire.flush().await?;
                Ok(line)
            }
            Act::Bye(line) => {
                wire.write_all(line.as_bytes()).await?;
                wire.flush().await?;
                Err(io::ErrorKind::Other.into())
            }
            Act::Close => Err(io::ErrorKind::Other.into()),
            Act::Hang => std::future::pending().await,
            Act::Drip(line, pause) => {
                for octet in line.bytes() {
                    wire.write_all(&[octet]).await?;
                    wire.flush().await?;
                    tokio::time::sleep(pause).await;
                }
                Ok(line)
            }
            Act::BreakTls(line) => {
                wire.write_all(line.as_bytes()).await?;
                wire.flush().await?;
                let mut hello = [0; 1];
                wire.read_exact(&mut hello).await?;
                wire.write_all(b"this is no TLS\r\n").await?;
                wire.flush().await?;
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    async fn scram(&mut self, line: &str, wire: &mut Wire) -> io::Result<()> {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().and_then(Mechanism::from_name).unwrap();
        let offered = ServerMechanisms { plain: false, scram: true, scram_plus: !self.bindings.is_empty() };
        let mut step = Exchange::begin(mechanism, offered, &self.bindings, words.next());
        loop {
            step = match step.map_err(io::Error::other)? {
                (exchange, Next::Challenge(text)) => {
                    wire.write_all(format!("334 {text}\r\n").as_bytes()).await?;
                    wire.flush().await?;
                    let answer = self.line(wire).await?;
                    exchange.respond(&answer)
                }
                (exchange, Next::Verifier { .. }) => exchange.verifier(self.behaviour.scram.clone().unwrap()),
                (_, Next::Scram { proven, .. }) => {
                    let said: &[u8] = if proven { b"235 2.7.0 welcome\r\n" } else { b"535 5.7.8 no\r\n" };
                    wire.write_all(said).await?;
                    return wire.flush().await;
                }
                (_, Next::Check { .. }) => panic!("a password by SCRAM"),
            }
        }
    }

    /// A login by access token: what is wrong is told in a challenge first.
    async fn bearer(&mut self, line: &str, wire: &mut Wire) -> io::Result<()> {
        let initial = match line.split(' ').nth(2) {
            Some(initial) => initial.to_owned(),
            None => {
                self.tell(b"334 \r\n", wire).await?;
                self.line(wire).await?
            }
        };
        let said = String::from_utf8(smtp::sasl::decode(&initial).unwrap()).unwrap();
        assert!(said.contains("me@example.com"), "{said}");
        let token = said.split("auth=Bearer ").nth(1).unwrap().split('\x01').next().unwrap();
        let is_good = self.behaviour.tokens.as_ref().is_some_and(|state| state.lock().is_good(token));
        if is_good && !self.seen.lock().refuses_all_tokens {
            return self.tell(b"235 2.7.0 welcome\r\n", wire).await;
        }
        self.seen.lock().refused_tokens += 1;
        let why = smtp::sasl::encode(b"{\"status\":\"401\",\"schemes\":\"bearer\"}");
        self.tell(format!("334 {why}\r\n").as_bytes(), wire).await?;
        let expected = if said.starts_with("user=") { "" } else { "AQ==" };
        assert_eq!(self.line(wire).await?, expected);
        self.tell(b"535 5.7.3 Authentication unsuccessful\r\n", wire).await
    }

    async fn tell(&mut self, words: &[u8], wire: &mut Wire) -> io::Result<()> {
        wire.write_all(words).await?;
        wire.flush().await
    }

    async fn handshake(&mut self, wire: Wire) -> io::Result<Wire> {
        let Some(tls) = self.behaviour.tls.clone() else { return Ok(wire) };
        assert!(self.input.is_empty(), "the client said something between STARTTLS and the handshake");
        let stream = tls.accept(wire).await?;
        self.in_tls = true;
        let exported =
            stream.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""));
        let data = exported.unwrap().to_vec();
        self.bindings = vec![ChannelBinding { kind: BindingKind::Exporter, data }];
        self.seen.lock().handshakes += 1;
        Ok(Box::new(stream))
    }

    async fn line(&mut self, wire: &mut Wire) -> io::Result<String> {
        let line = self.raw_line(wire).await?;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    async fn raw_line(&mut self, wire: &mut Wire) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.input.windows(2).position(|w| w == b"\r\n") {
                return Ok(self.input.drain(..end + 2).collect());
            }
            self.more(wire).await?;
        }
    }

    async fn more(&mut self, wire: &mut Wire) -> io::Result<()> {
        let mut room = [0; 65536];
        let n = wire.read(&mut room).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.input.extend_from_slice(&room[..n]);
        self.seen.lock().reads.push(room[..n].to_vec());
        Ok(())
    }
}
