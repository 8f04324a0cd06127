//! A driver without a network: feeds a session, answers its questions by fixed rules, keeps what it accepts.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mail::{EnhancedStatus, Reply};
use smtp::sasl::ScramVerifier;
use smtp::server::{AuthVerdict, Config, Connection, Envelope, Session, Settings, Step};

/// An accepted message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) envelope: Envelope,
    pub(crate) content: Vec<u8>,
}

/// What a session's last step left the driver with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Now {
    Reading,
    StartTls,
    Closed,
}

pub(crate) struct Driver {
    pub(crate) session: Session,
    pub(crate) buffer: BytesMut,
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) now: Now,
    content: Vec<u8>,
    abandoned: bool,
}

pub(crate) fn settings() -> Settings {
    Settings {
        hostname: "relay.example".into(),
        tls: true,
        auth: true,
        scram: true,
        message_size_max: 1000,
        recipients_max: 3,
        messages_max: 3,
        errors_max: 5,
        idle_commands_max: 8,
        bare_newline: smtp::server::BareNewline::Refuse,
    }
}

fn no(code: u16, class: u8, subject: u16, detail: u16, text: &str) -> Reply {
    Reply::new(code, EnhancedStatus::new(class, subject, detail), text)
}

impl Driver {
    pub(crate) fn new(settings: Settings, connection: Connection) -> Self {
        let session = Session::new(Arc::new(Config::new(settings)), connection);
        Self {
            session,
            buffer: BytesMut::new(),
            accepted: Vec::new(),
            now: Now::Reading,
            content: Vec::new(),
            abandoned: false,
        }
    }

    /// Gives `octets` to the session and runs it until it wants more.
    pub(crate) fn feed(&mut self, octets: &[u8]) {
        if self.now != Now::Reading {
            return;
        }
        self.buffer.extend_from_slice(octets);
        while self.step() {}
    }

    /// What the session said since the last time.
    pub(crate) fn said(&mut self) -> String {
        let text = String::from_utf8(self.session.output().to_vec()).expect("replies are text");
        self.session.output().clear();
        text
    }

    fn step(&mut self) -> bool {
        let mut answer: Option<Result<(), Reply>> = None;
        match self.session.input(&mut self.buffer) {
            Step::Read => return false,
            Step::StartTls => self.now = Now::StartTls,
            Step::Close => self.now = Now::Closed,
            Step::Content(octets) => {
                assert!(!octets.is_empty() && !self.abandoned);
                self.content.extend_from_slice(octets);
            }
            Step::Abandoned(_) => self.abandoned = true,
            Step::Password { login, password } => {
                let verdict = match (login.as_str(), password.0.as_str()) {
                    ("user", "secret") => AuthVerdict::Ok,
                    ("busy", _) => AuthVerdict::TryLater(Duration::from_secs(30)),
                    ("down", _) => AuthVerdict::Unavailable,
                    ("away", _) => {
                        AuthVerdict::Refused(no(535, 5, 7, 8, "This login may not be used from your network"))
                    }
                    _ => AuthVerdict::Failed,
                };
                self.session.authenticated(verdict);
            }
            Step::Verifier { login } => {
                let salt = b"0123456789abcdef".to_vec();
                let verifier = match login.as_str() {
                    "user" => ScramVerifier::derive("secret", salt, 4096),
                    _ => ScramVerifier::decoy(&login, b"key"),
                };
                self.session.verifier(verifier);
            }
            Step::Scram { proven, .. } => {
                self.session.authenticated(if proven { AuthVerdict::Ok } else { AuthVerdict::Failed });
            }
            Step::Mail { envelope, .. } => {
                answer = Some(match &envelope.reverse_path {
                    Some(a) if a.local() == "spoof" => Err(no(550, 5, 7, 1, "Not your address")),
                    _ => Ok(()),
                });
            }
            Step::Rcpt { recipient, .. } => {
                answer = Some(match recipient.address.local() {
                    "nobody" => Err(no(550, 5, 1, 1, "No such user")),
                    "later" => Err(no(450, 4, 2, 1, "Try later")),
                    _ => Ok(()),
                });
            }
            Step::Begin { envelope, .. } => {
                self.content.clear();
                self.abandoned = false;
                answer = Some(match &envelope.reverse_path {
                    Some(a) if a.local() == "full" => Err(no(452, 4, 3, 1, "No room; try later")),
                    _ => Ok(()),
                });
            }
            Step::End(envelope) => {
                assert!(!self.abandoned);
                self.accepted.push(Accepted { envelope, content: std::mem::take(&mut self.content) });
                let id = format!("ID{}", self.accepted.len());
                self.session.accepted(id);
            }
            Step::XClient(_) => {
                self.session.client_changed(Connection { tls: true, ..Connection::default() })
            }
        }
        match answer {
            Some(Ok(())) => self.session.allow(),
            Some(Err(reply)) => self.session.refuse(&reply),
            None => {}
        }
        self.now == Now::Reading
    }
}
