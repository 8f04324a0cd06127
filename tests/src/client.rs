//! A raw SMTP client: says exactly what a test tells it to, octet for octet, and keeps the whole dialogue.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::{ClientConnection, StreamOwned};

use crate::tls;

/// A reply of one or more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The texts after code and separator, one a line.
    pub lines: Vec<String>,
}

impl Reply {
    /// Panics unless the code is `code`.
    #[track_caller]
    pub fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "wanted {code}, got: {self}");
        self
    }

    /// Whether some line of it has `word` in it, whatever the case.
    pub fn mentions(&self, word: &str) -> bool {
        self.lines.iter().any(|l| l.to_ascii_lowercase().contains(&word.to_ascii_lowercase()))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" / "))
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Gone,
}

/// One connection.
pub struct Smtp {
    wire: Wire,
    unread: Vec<u8>,
    /// What was said by both sides, for messages of failed assertions.
    pub transcript: String,
}

impl Smtp {
    /// Connects and reads the greeting, which must be a 220.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        let mut this = Self::dial(addr);
        this.reply().expect(220);
        this
    }

    /// Connects without reading anything.
    #[track_caller]
    pub fn dial(addr: SocketAddr) -> Self {
        Self::try_dial(addr).unwrap_or_else(|e| panic!("cannot connect to {addr}: {e}"))
    }

    /// Connects without reading anything, if somebody listens.
    pub fn try_dial(addr: SocketAddr) -> io::Result<Self> {
        Self::try_dial_within(addr, Duration::from_secs(10))
    }

    /// The same, if it answers within this time.
    pub fn try_dial_within(addr: SocketAddr, within: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, within)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { wire: Wire::Plain(stream), unread: Vec::new(), transcript: String::new() })
    }

    /// Waits so long for what the server says, instead of half a minute.
    pub fn be_patient(&self, patience: Duration) {
        let stream = match &self.wire {
            Wire::Plain(s) => s,
            Wire::Tls(s) => &s.sock,
            Wire::Gone => return,
        };
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.set_write_timeout(Some(patience)).unwrap();
    }

    /// Sends a command line and reads the reply, if the connection still stands.
    pub fn try_cmd(&mut self, line: &str) -> io::Result<Reply> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.try_reply()
    }

    /// Connects with implicit TLS and reads the greeting.
    pub fn connect_tls(addr: SocketAddr) -> Self {
        let mut this = Self::dial(addr);
        this.tls();
        this.reply().expect(220);
        this
    }

    /// Says STARTTLS, which must be agreed to, and goes on inside TLS.
    pub fn starttls(&mut self) {
        self.cmd("STARTTLS").expect(220);
        assert!(self.unread.is_empty(), "octets after the reply to STARTTLS");
        self.tls();
    }

    fn tls(&mut self) {
        let Wire::Plain(stream) = std::mem::replace(&mut self.wire, Wire::Gone) else {
            panic!("already in TLS")
        };
        self.wire = Wire::Tls(Box::new(tls::connect(tls::credulous(), stream)));
    }

    /// Sends octets as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.transcript.len() > 64 * 1024 {
            self.transcript = "…\n".to_owned();
        }
        for line in bytes.split_inclusive(|b| *b == b'\n').take(40) {
            self.transcript.push_str(&format!("C: {}\n", line[..line.len().min(200)].escape_ascii()));
        }
        match &mut self.wire {
            Wire::Plain(s) => s.write_all(bytes),
            Wire::Tls(s) => s.write_all(bytes).and_then(|()| s.flush()),
            Wire::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let n = match &mut self.wire {
            Wire::Plain(s) => s.read(&mut buffer)?,
            Wire::Tls(s) => s.read(&mut buffer)?,
            Wire::Gone => 0,
        };
        self.unread.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.unread.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=at).collect();
                assert!(line.ends_with(b"\r\n"), "a reply line without CRLF: {}", line.escape_ascii());
                let line = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
                self.transcript.push_str(&format!("S: {line}\n"));
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads one reply; an error when the connection ends or stays silent for 30 s.
    pub fn try_reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let code = line.get(..3).and_then(|c| c.parse().ok());
            let code = code.unwrap_or_else(|| panic!("not a reply: {line:?}\n{}", self.transcript));
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Reads one reply.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        match self.try_reply() {
            Ok(reply) => reply,
            Err(e) => panic!("no reply: {e}\n{}", self.transcript),
        }
    }

    /// Sends a command line and reads the reply.
    #[track_caller]
    pub fn cmd(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes()).unwrap();
        self.reply()
    }

    /// EHLO, which must be answered by 250.
    #[track_caller]
    pub fn ehlo(&mut self) -> Reply {
        self.cmd("EHLO client.example").expect(250)
    }

    /// AUTH PLAIN with an initial response.
    #[track_caller]
    pub fn auth_plain(&mut self, login: &str, password: &str) -> Reply {
        self.cmd(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0{login}\0{password}"))))
    }

    /// AUTH LOGIN, each part asked for.
    #[track_caller]
    pub fn auth_login(&mut self, login: &str, password: &str) -> Reply {
        self.cmd("AUTH LOGIN").expect(334);
        self.cmd(&BASE64.encode(login)).expect(334);
        self.cmd(&BASE64.encode(password))
    }

    /// MAIL and RCPT, which must be taken, then DATA with `content`; the reply to the final dot.
    #[track_caller]
    pub fn transact(&mut self, from: &str, to: &[&str], content: &[u8]) -> Reply {
        self.cmd(&format!("MAIL FROM:<{from}>")).expect(250);
        for to in to {
            self.cmd(&format!("RCPT TO:<{to}>")).expect(250);
        }
        self.data(content)
    }

    /// DATA with `content` dot-stuffed; the reply to the final dot.
    #[track_caller]
    pub fn data(&mut self, content: &[u8]) -> Reply {
        self.cmd("DATA").expect(354);
        self.send(&stuffed(content)).unwrap();
        self.reply()
    }

    /// The certificate that the server showed, in DER.
    #[track_caller]
    pub fn certificate(&self) -> Vec<u8> {
        let Wire::Tls(tls) = &self.wire else { panic!("not in TLS") };
        tls.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }

    /// Whether the server closes the connection now without saying anything more.
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && matches!(self.fill(), Ok(0) | Err(_)) && self.unread.is_empty()
    }

    /// All that the server still says until it closes or stays silent for `silence`.
    pub fn drain(&mut self, silence: Duration) -> String {
        let stream = match &self.wire {
            Wire::Plain(s) => s,
            Wire::Tls(s) => &s.sock,
            Wire::Gone => return String::new(),
        };
        stream.set_read_timeout(Some(silence)).unwrap();
        while matches!(self.fill(), Ok(n) if n > 0) {}
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned();
        self.transcript.push_str(&text);
        text
    }

    /// QUIT, politely.
    pub fn quit(mut self) {
        self.cmd("QUIT").expect(221);
    }
}

/// `content` with dots doubled at line starts and the final dot behind it.
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// One connection, one message from `from` to `to` in the clear and without AUTH; the reply to the final dot.
#[track_caller]
pub fn send_one(addr: SocketAddr, from: &str, to: &[&str], content: &[u8]) -> Reply {
    let mut smtp = Smtp::connect(addr);
    smtp.ehlo();
    let reply = smtp.transact(from, to, content);
    smtp.quit();
    reply
}

/// The same to one recipient, with whatever reply ends it; an error when the connection breaks.
pub fn try_send(addr: SocketAddr, from: &str, to: &str, content: &[u8]) -> io::Result<Reply> {
    let mut smtp = Smtp::try_dial(addr)?;
    let greeting = smtp.try_reply()?;
    if greeting.code != 220 {
        return Ok(greeting);
    }
    for line in ["EHLO client.example", &format!("MAIL FROM:<{from}>"), &format!("RCPT TO:<{to}>"), "DATA"] {
        let reply = smtp.try_cmd(line)?;
        if reply.code >= 400 {
            return Ok(reply);
        }
    }
    smtp.send(&stuffed(content))?;
    smtp.try_reply()
}
