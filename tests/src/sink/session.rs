//! One session of the recording server.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ServerConnection, StreamOwned};

use super::{Act, Received, Shared, Stage};

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

struct Session<'a> {
    wire: Wire,
    unread: Vec<u8>,
    shared: &'a Arc<Shared>,
    lmtp: bool,
    in_mail: bool,
    now: Received,
    chunks: Vec<u8>,
}

/// The client went away or was sent away: the ordinary end of a session.
type Step = io::Result<()>;

pub(super) fn serve(stream: TcpStream, number: u64, shared: &Arc<Shared>) -> Step {
    stream.set_nodelay(true)?;
    let client = stream.peer_addr().ok();
    let options = shared.options.lock().unwrap().clone();
    let (wire, tls) = match options.certificate {
        Some(c) if options.implicit_tls => (Wire::Tls(Box::new(c.accept(stream))), true),
        _ => (Wire::Plain(stream), false),
    };
    let now = Received { connection: number, client, tls, ..Received::default() };
    let mut session = Session {
        wire,
        unread: Vec::new(),
        shared,
        lmtp: options.lmtp,
        now,
        chunks: Vec::new(),
        in_mail: false,
    };
    if session.act(&Stage::Connect, "220 sink.test ESMTP")? {
        while session.command()? {}
    }
    Ok(())
}

impl Session<'_> {
    fn say(&mut self, line: &str) -> Step {
        let text = format!("{line}\r\n");
        match &mut self.wire {
            Wire::Plain(s) => s.write_all(text.as_bytes()),
            Wire::Tls(s) => s.write_all(text.as_bytes()).and_then(|()| s.flush()),
        }
    }

    fn fill(&mut self) -> Step {
        let mut buffer = [0; 16 * 1024];
        let n = match &mut self.wire {
            Wire::Plain(s) => s.read(&mut buffer)?,
            Wire::Tls(s) => s.read(&mut buffer)?,
        };
        self.unread.extend_from_slice(&buffer[..n]);
        if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn ask(&self, stage: &Stage<'_>) -> Act {
        let script = Arc::clone(&self.shared.options.lock().unwrap().script);
        script(stage)
    }

    /// Does what the script says; `Ok(true)` when the client was told yes.
    fn act(&mut self, stage: &Stage<'_>, usual: &str) -> io::Result<bool> {
        match self.ask(stage) {
            Act::Usual => self.say(usual).map(|()| true),
            Act::Reply(line) => self.say(&line).map(|()| line.starts_with(['2', '3'])),
            Act::Close | Act::LoseReply => Err(io::ErrorKind::ConnectionAborted.into()),
            Act::Wait(time) => {
                std::thread::sleep(time);
                self.say(usual).map(|()| true)
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.unread.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
            }
            self.fill()?;
        }
    }

    fn command(&mut self) -> io::Result<bool> {
        let line = self.line()?;
        self.shared.kept.lock().unwrap().commands.push(format!("{}: {line}", self.now.connection));
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "LHLO" | "HELO" => self.hello(verb, argument)?,
            "STARTTLS" => self.starttls()?,
            "AUTH" => self.auth(argument)?,
            "MAIL" => {
                let path = argument.split_once(':').map_or("", |(_, p)| p.trim_start()).to_owned();
                self.now.rcpts.clear();
                self.in_mail = self.act(&Stage::Mail(&path), "250 2.1.0 sender ok")?;
                self.now.mail = path;
            }
            "RCPT" if !self.in_mail => self.say("503 5.5.1 no sender")?,
            "RCPT" => {
                let path = argument.split_once(':').map_or("", |(_, p)| p.trim_start()).to_owned();
                if self.act(&Stage::Rcpt(&path), "250 2.1.5 recipient ok")? {
                    self.now.rcpts.push(path);
                }
            }
            "DATA" if self.now.rcpts.is_empty() => self.say("554 5.5.1 no valid recipients")?,
            "DATA" => self.data()?,
            "BDAT" => self.bdat(argument)?,
            "QUIT" => {
                self.say("221 2.0.0 bye")?;
                return Ok(false);
            }
            "RSET" => {
                self.now.rcpts.clear();
                self.chunks.clear();
                self.act(&Stage::Other(&line), "250 2.0.0 forgotten")?;
            }
            _ => {
                self.act(&Stage::Other(&line), "250 2.0.0 ok")?;
            }
        }
        Ok(true)
    }

    fn hello(&mut self, verb: &str, name: &str) -> Step {
        self.now.hello = name.to_owned();
        let options = self.shared.options.lock().unwrap().clone();
        let mut keywords = options.extensions;
        if options.certificate.is_some() && !self.now.tls {
            keywords.push("STARTTLS".to_owned());
        }
        if keywords.is_empty() || verb.eq_ignore_ascii_case("HELO") {
            return self.act(&Stage::Hello(name), "250 sink.test").map(|_| ());
        }
        let last = keywords.len() - 1;
        let mut text = String::from("250-sink.test");
        for (i, keyword) in keywords.iter().enumerate() {
            text.push_str(&format!("\r\n250{}{keyword}", if i == last { ' ' } else { '-' }));
        }
        self.act(&Stage::Hello(name), &text).map(|_| ())
    }

    fn starttls(&mut self) -> Step {
        let options = self.shared.options.lock().unwrap().clone();
        let Some(certificate) = options.certificate else {
            return self.act(&Stage::Other("STARTTLS"), "502 5.5.1 no TLS here").map(|_| ());
        };
        if let Wire::Plain(stream) = &mut self.wire {
            // In one segment, so that both are there when the client reads.
            stream.write_all(
                &[b"220 2.0.0 go ahead\r\n".as_slice(), &options.inject_after_starttls].concat(),
            )?;
            self.wire = Wire::Tls(Box::new(certificate.accept(stream.try_clone()?)));
            self.now.tls = true;
            self.unread.clear();
        }
        Ok(())
    }

    fn auth(&mut self, argument: &str) -> Step {
        let mut said = argument.to_owned();
        if argument.eq_ignore_ascii_case("LOGIN") {
            for prompt in ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"] {
                self.say(prompt)?;
                said = format!("{said} {}", self.line()?);
            }
        } else if !argument.contains(' ') {
            self.say("334 ")?;
            said = format!("{said} {}", self.line()?);
        }
        if self.act(&Stage::Auth(&said), "235 2.7.0 welcome")? {
            self.now.auth = Some(said);
        }
        Ok(())
    }

    fn data(&mut self) -> Step {
        let envelope = self.now.clone();
        if !self.act(&Stage::Data(&envelope), "354 go ahead")? {
            return Ok(());
        }
        let mut searched = 0usize;
        let end = loop {
            if self.unread.starts_with(b".\r\n") {
                break 3;
            }
            let from = searched.saturating_sub(4);
            if let Some(at) = self.unread[from..].windows(5).position(|w| w == b"\r\n.\r\n") {
                break from + at + 5;
            }
            searched = self.unread.len();
            self.fill()?;
        };
        let wire: Vec<u8> = self.unread.drain(..end).collect();
        let content = unstuffed(&wire[..wire.len() - 3]);
        self.message(content, wire)
    }

    fn bdat(&mut self, argument: &str) -> Step {
        let (size, last) = argument.split_once(' ').unwrap_or((argument, ""));
        let size: usize = size.parse().map_err(|_| io::Error::other("BDAT without a size"))?;
        while self.unread.len() < size {
            self.fill()?;
        }
        self.chunks.extend(self.unread.drain(..size));
        if last.eq_ignore_ascii_case("LAST") {
            let content = std::mem::take(&mut self.chunks);
            return self.message(content, Vec::new());
        }
        let envelope = self.now.clone();
        self.act(&Stage::Data(&envelope), "250 2.0.0 chunk taken").map(|_| ())
    }

    /// Replies to a whole message, once, or once for each recipient in LMTP, and keeps it for those who were told yes.
    fn message(&mut self, content: Vec<u8>, wire: Vec<u8>) -> Step {
        let whole = Received { data: content, wire, ..self.now.clone() };
        self.now.rcpts.clear();
        if !self.lmtp {
            return self.verdict(whole);
        }
        for rcpt in whole.rcpts.clone() {
            self.verdict(Received { rcpts: vec![rcpt], ..whole.clone() })?;
        }
        Ok(())
    }

    fn verdict(&mut self, message: Received) -> Step {
        match self.ask(&Stage::Message(&message)) {
            Act::Usual => {
                self.keep(message);
                self.say("250 2.0.0 kept")
            }
            Act::Reply(line) => {
                if line.starts_with('2') {
                    self.keep(message);
                }
                self.say(&line)
            }
            Act::Close => Err(io::ErrorKind::ConnectionAborted.into()),
            Act::LoseReply => {
                self.keep(message);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Act::Wait(time) => {
                std::thread::sleep(time);
                self.keep(message);
                self.say("250 2.0.0 kept")
            }
        }
    }

    fn keep(&self, mut message: Received) {
        if !self.shared.options.lock().unwrap().keep_content {
            message.data = Vec::new();
            message.wire = Vec::new();
        }
        self.shared.kept.lock().unwrap().messages.push(message);
        self.shared.changed.notify_all();
    }
}

/// Takes one dot from every line that begins with one.
fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(wire.len());
    for line in wire.split_inclusive(|b| *b == b'\n') {
        out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    out
}
