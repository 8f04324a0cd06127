//! The server's side of a session, without I/O.
//!
//! The driver writes [`Session::output`], reads into a buffer, and calls [`Session::input`] until it says
//! [`Step::Read`]. Other steps are content to take, or questions: each question is answered by the method it names
//! before `input` is called again. Several commands in one read are answered by one write, as RFC 2920 wants it.

mod answers;
mod auth;
mod commands;
mod config;
mod content;
mod envelope;

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use mail::{EnhancedStatus, Recipient, Reply};
use memchr::memchr;

use crate::grammar::{AUTH_LINE_MAX, LINE_MAX, SyntaxError, XClient, parse};
use crate::reply;
use crate::sasl::{Exchange, Password};

pub use answers::AuthVerdict;
pub use config::{BareNewline, Config, Connection, Settings};
pub use envelope::Envelope;
use envelope::{Content, Transaction};

/// What the driver is to do next.
#[derive(Debug)]
pub enum Step<'s> {
    /// Write the output, then read more into the buffer.
    Read,
    /// Octets of the content, dots taken off.
    Content(&'s [u8]),
    /// The content so far is not wanted any more: it is refused with this reply, what still comes is thrown away.
    Abandoned(Reply),
    /// Write the output, do the TLS handshake, call [`Session::tls_started`]. Nothing that was read before belongs
    /// to TLS.
    StartTls,
    /// Write the output and close the connection.
    Close,
    /// Check a password; answer by [`Session::authenticated`].
    Password {
        /// Who it says it is.
        login: String,
        /// With which password.
        password: Password,
    },
    /// Find a SCRAM verifier; answer by [`Session::verifier`].
    Verifier {
        /// Who it says it is.
        login: String,
    },
    /// SCRAM is over; answer by [`Session::authenticated`].
    Scram {
        /// Who it says it is.
        login: String,
        /// Whether it proved it.
        proven: bool,
    },
    /// May this sender be used? Answer by [`Session::allow`] or [`Session::refuse`].
    Mail {
        /// The client's name in EHLO or HELO.
        helo: &'s str,
        /// The envelope, without recipients yet.
        envelope: &'s Envelope,
    },
    /// May this recipient be sent to? Answer by [`Session::allow`] or [`Session::refuse`].
    Rcpt {
        /// The envelope so far.
        envelope: &'s Envelope,
        /// The recipient in question.
        recipient: &'s Recipient,
    },
    /// May content come now? Answer by [`Session::allow`] or [`Session::refuse`].
    Begin {
        /// Whether the client said EHLO.
        esmtp: bool,
        /// The envelope.
        envelope: &'s Envelope,
    },
    /// The content is complete; answer by [`Session::accepted`] or [`Session::refuse`].
    End(Envelope),
    /// A trusted client tells who the real one is; answer by [`Session::client_changed`].
    XClient(XClient),
}

/// [`Step`] without what it borrows.
enum Next {
    Read,
    Content(Range<usize>),
    NewLine,
    Abandoned(Reply),
    StartTls,
    Close,
    Password(String, Password),
    Verifier(String),
    Scram(String, bool),
    Mail,
    Rcpt,
    Begin,
    End(Envelope),
    XClient(XClient),
}

/// Where the session is.
#[derive(Debug)]
enum State {
    /// A command is expected.
    Command,
    /// A line that is too long is being thrown away.
    LongLine {
        /// Whether it was a response to a challenge.
        response: bool,
    },
    /// A response to a challenge is expected.
    Auth(Exchange),
    /// The driver was asked something.
    Asked(Question),
    /// Lines of content are expected.
    Data(Content),
    /// Octets of a chunk are expected.
    Chunk(Chunk, Content),
    /// TLS is about to start.
    Tls,
    /// Nothing more is expected.
    Closed,
}

/// What the driver was asked.
#[derive(Debug)]
enum Question {
    Login,
    Verifier(Exchange),
    Mail(Envelope),
    Rcpt(Recipient),
    Data,
    Chunk(Chunk),
    End,
    Client,
}

/// A chunk of BDAT.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    size: u64,
    left: u64,
    last: bool,
}

/// A server session.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    connection: Connection,
    out: BytesMut,
    state: State,
    /// Octets at the start of the buffer that were handed out and are to be dropped.
    consumed: usize,
    /// Octets of the buffer that hold no line feed.
    scanned: usize,
    helo: Option<Box<str>>,
    esmtp: bool,
    authenticated: bool,
    transaction: Option<Transaction>,
    errors: u32,
    idle_commands: u32,
    messages: u32,
    /// DATA was just refused: what is in the buffer already must be content that was sent blindly.
    data_refused: bool,
    /// DATA was refused before this line: anything but a command is content that was sent blindly.
    wary: bool,
    stopping: bool,
    quit: bool,
}

impl Session {
    /// A session that greets.
    pub fn new(config: Arc<Config>, connection: Connection) -> Self {
        let mut out = BytesMut::with_capacity(512);
        out.extend_from_slice(config.greeting.as_bytes());
        Self {
            config,
            connection,
            out,
            state: State::Command,
            consumed: 0,
            scanned: 0,
            helo: None,
            esmtp: false,
            authenticated: false,
            transaction: None,
            errors: 0,
            idle_commands: 0,
            messages: 0,
            data_refused: false,
            wary: false,
            stopping: false,
            quit: false,
        }
    }

    /// What is to be written to the client; the driver clears what it wrote.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Whether a mail transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether content is coming in.
    pub fn in_content(&self) -> bool {
        matches!(self.state, State::Data(_) | State::Chunk(..))
    }

    /// Messages accepted so far.
    pub fn messages(&self) -> u32 {
        self.messages
    }

    /// Whether the client ended the session itself: nothing it sent is left unread.
    pub fn has_quit(&self) -> bool {
        self.quit
    }

    /// Goes on with what was read. Whatever is left in `buffer` must be in it at the next call, too.
    pub fn input<'s>(&'s mut self, buffer: &'s mut BytesMut) -> Step<'s> {
        buffer.advance(std::mem::take(&mut self.consumed));
        let next = self.next(buffer);
        match next {
            Next::Read => Step::Read,
            Next::Content(range) => Step::Content(&buffer[range]),
            Next::NewLine => Step::Content(b"\r\n"),
            Next::Abandoned(reply) => Step::Abandoned(reply),
            Next::StartTls => Step::StartTls,
            Next::Password(login, password) => Step::Password { login, password },
            Next::Verifier(login) => Step::Verifier { login },
            Next::Scram(login, proven) => Step::Scram { login, proven },
            Next::End(envelope) => Step::End(envelope),
            Next::XClient(client) => Step::XClient(client),
            Next::Mail | Next::Rcpt | Next::Begin => self.question().unwrap_or(Step::Close),
            Next::Close => Step::Close,
        }
    }

    /// The open question, with the envelope.
    fn question(&self) -> Option<Step<'_>> {
        let envelope = self.transaction.as_ref().map(|t| &t.envelope);
        match &self.state {
            State::Asked(Question::Mail(envelope)) => {
                Some(Step::Mail { helo: self.helo.as_deref()?, envelope })
            }
            State::Asked(Question::Rcpt(recipient)) => Some(Step::Rcpt { envelope: envelope?, recipient }),
            State::Asked(_) => Some(Step::Begin { esmtp: self.esmtp, envelope: envelope? }),
            _ => None,
        }
    }

    fn next(&mut self, buffer: &mut BytesMut) -> Next {
        loop {
            if std::mem::take(&mut self.data_refused) {
                if buffer.is_empty() {
                    self.wary = true;
                } else {
                    self.hang_up_with("No message was wanted here, but one came; closing");
                }
            }
            let next = match self.state {
                State::Command => self.command_line(buffer),
                State::LongLine { response } => self.long_line(buffer, response),
                State::Auth(_) => self.response_line(buffer),
                State::Data(_) => self.data(buffer),
                State::Chunk(..) => self.chunk(buffer),
                // The driver forgot to answer: rather close than guess.
                State::Asked(_) | State::Tls | State::Closed => return Next::Close,
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    fn command_line(&mut self, buffer: &mut BytesMut) -> Option<Next> {
        if self.stopping && self.transaction.is_none() {
            self.hang_up(&shutting_down());
            return None;
        }
        // A TLS record or an SSL 2 hello: no command begins with such an octet, no answer would be understood.
        if matches!(buffer.first(), Some(0x16 | 0x80)) {
            self.state = State::Closed;
            return None;
        }
        let length = match self.line(buffer, LINE_MAX) {
            Line::Complete(length) => length,
            Line::Partial => return Some(Next::Read),
            Line::TooLong => {
                self.state = State::LongLine { response: false };
                return None;
            }
        };
        let command = match self.without_line_end(&buffer[..length]) {
            None => {
                self.error(500, 5, 2, "A line must end with CR LF; this one ends with a bare LF");
                buffer.advance(length);
                return None;
            }
            Some(line) => parse(line),
        };
        let next = match command {
            Ok(command) => {
                self.wary = false;
                let more = buffer.len() > length;
                self.command(command, more)
            }
            Err(error) => {
                self.syntax_error(&error);
                None
            }
        };
        buffer.advance(length);
        next
    }

    fn syntax_error(&mut self, error: &SyntaxError) {
        let reply = error.reply();
        match error {
            SyntaxError::Http => self.hang_up(&reply),
            _ if self.wary => self.hang_up_with("No message was wanted here, but one came; closing"),
            SyntaxError::BdatSize => {
                self.write(&reply);
                self.state = State::Closed;
            }
            _ => self.fail(&reply),
        }
    }

    /// The length of the first line with its line end.
    fn line(&mut self, buffer: &BytesMut, max: usize) -> Line {
        match memchr(b'\n', &buffer[self.scanned..]) {
            Some(at) if self.scanned + at < max => {
                let length = self.scanned + at + 1;
                self.scanned = 0;
                Line::Complete(length)
            }
            None if buffer.len() < max => {
                self.scanned = buffer.len();
                Line::Partial
            }
            _ => {
                self.scanned = 0;
                Line::TooLong
            }
        }
    }

    /// A line without its line end; none when that is a bare LF which is not to be accepted.
    fn without_line_end<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match line.strip_suffix(b"\r") {
            Some(line) => Some(line),
            None if self.normalises() => Some(line),
            None => None,
        }
    }

    fn long_line(&mut self, buffer: &mut BytesMut, response: bool) -> Option<Next> {
        let Some(at) = memchr(b'\n', buffer) else {
            buffer.clear();
            return Some(Next::Read);
        };
        buffer.advance(at + 1);
        self.state = State::Command;
        if self.wary {
            self.hang_up_with("No message was wanted here, but one came; closing");
        } else if response {
            self.error(500, 5, 6, "The response is too long");
        } else {
            self.error(500, 5, 2, "The line is too long; a command has at most 2048 octets");
        }
        None
    }

    fn normalises(&self) -> bool {
        self.config.settings.bare_newline == BareNewline::Normalise
    }

    fn say(&mut self, line: &'static str) {
        self.out.extend_from_slice(line.as_bytes());
    }

    fn write(&mut self, reply: &Reply) {
        let utf8 = self.transaction.as_ref().is_some_and(|t| t.envelope.smtputf8);
        reply::write(&mut self.out, reply, utf8);
    }

    /// Says no and counts it.
    fn fail(&mut self, reply: &Reply) {
        self.write(reply);
        self.errors += 1;
        if self.errors >= self.config.settings.errors_max {
            self.hang_up_with("Too many errors in this session; closing");
        }
    }

    fn error(&mut self, code: u16, subject: u16, detail: u16, text: &str) {
        let class = if code / 100 == 4 { 4 } else { 5 };
        self.fail(&Reply::new(code, EnhancedStatus::new(class, subject, detail), text));
    }

    fn hang_up_with(&mut self, text: &str) {
        self.hang_up(&Reply::new(421, EnhancedStatus::new(4, 7, 0), text));
    }
}

fn shutting_down() -> Reply {
    Reply::new(421, EnhancedStatus::new(4, 3, 2), "The service is shutting down; try again in a moment")
}

enum Line {
    Complete(usize),
    Partial,
    TooLong,
}

#[cfg(test)]
mod tests;
