//! From the greeting to the point where mail can be sent: EHLO or HELO, STARTTLS, AUTH.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::BytesMut;
use mail::Reply;

use super::capability::AuthOffer;
use super::{Capabilities, Fault, ReplyParser, Session, Transcript, Wait};
use crate::sasl::{self, ChannelBinding, Mechanism, Password};

/// Longest line with an initial response; what is longer is sent after the 334.
const INITIAL_MAX: usize = 500;
/// Longest domain (RFC 5321 section 4.5.3.1.2).
const NAME_MAX: usize = 255;
/// Most questions in one AUTH exchange.
const QUESTIONS_MAX: u8 = 6;

/// Whether to ask for STARTTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Don't. Also when TLS is already there.
    Never,
    /// When it is offered.
    WhenOffered,
    /// Go no further without.
    Required,
}

/// Who we are to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub username: String,
    /// The password, or the token.
    pub secret: Password,
    /// The secret is a bearer token for OAUTHBEARER or XOAUTH2 instead of a password.
    pub is_token: bool,
    /// The password may be sent without TLS.
    pub in_the_clear: bool,
}

/// How to open a session.
#[derive(Clone, Debug)]
pub struct OpeningConfig {
    /// Our name for EHLO.
    pub hostname: Arc<str>,
    /// LMTP instead of SMTP (RFC 2033).
    pub lmtp: bool,
    /// Whether to ask for STARTTLS.
    pub tls: TlsPolicy,
    /// TLS is already there (port 465).
    pub tls_active: bool,
    /// What TLS that is already there gives for SCRAM-SHA-256-PLUS.
    pub binding: Option<ChannelBinding>,
    /// Who we are, where the peer wants to know.
    pub login: Option<Arc<Login>>,
}

/// What the driver has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenStep {
    /// Write the output, then read. The time-out is that of [`Wait`].
    Read(Wait),
    /// Do the TLS handshake, then call [`Opening::tls_started`].
    StartTls,
    /// Mail can be sent: [`Opening::into_session`].
    Ready,
}

/// Why no session came about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenFailure {
    /// The peer does not want to talk to us.
    #[error("its {what} was {reply}")]
    Refused {
        /// What it said: `greeting`, `answer to EHLO`.
        what: &'static str,
        /// What it said.
        reply: Reply,
    },
    /// TLS is required and there is none to be had.
    #[error("it does not offer TLS, which is required{}", .0.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    NoTls(Option<Reply>),
    /// The peer did not let us log in.
    #[error("it did not accept the login of {username:?} by {mechanism}: {reply}")]
    LoginRefused {
        /// The user name.
        username: String,
        /// The mechanism.
        mechanism: &'static str,
        /// What it said.
        reply: Reply,
    },
    /// We cannot log in there.
    #[error("cannot log in as {username:?}: {reason}")]
    NoLogin {
        /// The user name.
        username: String,
        /// Why.
        reason: String,
    },
    /// The peer broke the protocol.
    #[error(transparent)]
    Peer(#[from] Fault),
}

/// Opens a session.
#[derive(Debug)]
pub struct Opening {
    config: OpeningConfig,
    state: State,
    parser: ReplyParser,
    output: BytesMut,
    capabilities: Capabilities,
    transcript: Transcript,
    replies: u32,
    /// What the peer calls itself.
    name: Option<Box<str>>,
}

#[derive(Debug)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Auth(Box<Exchange>),
    Ready,
}

/// An AUTH exchange under way.
#[derive(Debug)]
struct Exchange {
    client: sasl::Client,
    /// The initial response, where it was too long for the line of the command.
    late_initial: Option<String>,
    /// Questions answered.
    questions: u8,
    /// Mechanisms tried, this one included.
    tried: Vec<Mechanism>,
}

impl Opening {
    /// Right after the connect; the peer speaks first.
    pub fn new(config: OpeningConfig, transcript: Transcript) -> Self {
        Self {
            config,
            state: State::Greeting,
            parser: ReplyParser::default(),
            output: BytesMut::new(),
            capabilities: Capabilities::default(),
            transcript,
            replies: 0,
            name: None,
        }
    }

    /// What is to be written. The driver takes what it wrote out of it.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// The record of the dialogue.
    pub fn transcript(&mut self) -> &mut Transcript {
        &mut self.transcript
    }

    /// What the peer offers, once it said so.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What the peer calls itself: in its answer to EHLO or HELO, else in its greeting (RFC 5321 section 4.2). Nothing
    /// vouches for it.
    pub fn peer_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// How many replies came so far.
    pub fn replies(&self) -> u32 {
        self.replies
    }

    /// Ends the attempt and gives the record back.
    pub fn into_transcript(self) -> Transcript {
        self.transcript
    }

    /// The session, once it is ready.
    pub fn into_session(self) -> Session {
        debug_assert!(matches!(self.state, State::Ready));
        Session::new(self.config.lmtp, self.capabilities, self.output, self.transcript)
    }

    /// Takes what was read. At first it is called with nothing.
    ///
    /// # Errors
    /// [`OpenFailure`]: close the connection.
    pub fn input(&mut self, input: &mut BytesMut) -> Result<OpenStep, OpenFailure> {
        loop {
            let wait = match self.state {
                State::Ready => return Ok(OpenStep::Ready),
                State::Handshake => return Ok(OpenStep::StartTls),
                State::Greeting => Wait::Greeting,
                _ => Wait::Hello,
            };
            let Some(reply) = self.parser.next(input)? else { return Ok(OpenStep::Read(wait)) };
            self.transcript.received(&reply);
            self.replies += 1;
            self.reply(reply)?;
            if matches!(self.state, State::Handshake) && !input.is_empty() {
                return Err(Fault::BytesBeforeTls.into());
            }
            if !input.is_empty() || self.parser.is_midway() {
                // We never have more than one command out here.
                return Err(Fault::Unasked(super::reply::excerpt(input)).into());
            }
        }
    }

    /// The TLS handshake is done. What was said before is forgotten (RFC 3207 section 4.2). `binding` is for
    /// SCRAM-SHA-256-PLUS.
    pub fn tls_started(&mut self, binding: Option<ChannelBinding>) {
        self.config.tls_active = true;
        self.config.binding = binding;
        self.config.tls = TlsPolicy::Never;
        self.capabilities = Capabilities::default();
        self.parser = ReplyParser::default();
        self.hello();
    }

    fn reply(&mut self, reply: Reply) -> Result<(), OpenFailure> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Greeting if reply.code == 220 => {
                self.name = name_in(&reply);
                self.hello();
            }
            State::Greeting => return refused("greeting", reply),
            State::Ehlo if reply.is_success() => {
                self.capabilities = Capabilities::parse(&reply);
                self.name = name_in(&reply).or(self.name.take());
                return self.after_hello();
            }
            State::Ehlo if reply.code / 100 == 5 && !self.config.lmtp => {
                // RFC 5321 section 3.2: a server that does not know EHLO.
                self.state = State::Helo;
                self.say(format_args!("HELO {}", self.config.hostname.clone()));
            }
            State::Ehlo => {
                return refused(if self.config.lmtp { "answer to LHLO" } else { "answer to EHLO" }, reply);
            }
            State::Helo if reply.is_success() => {
                self.name = name_in(&reply).or(self.name.take());
                return self.after_hello();
            }
            State::Helo => return refused("answer to HELO", reply),
            State::StartTls if reply.code == 220 => self.state = State::Handshake,
            State::StartTls if self.config.tls == TlsPolicy::Required || reply.code == 421 => {
                return Err(OpenFailure::NoTls(Some(reply)));
            }
            State::StartTls => {
                self.transcript.note("STARTTLS was offered and then refused; going on without TLS");
                return self.log_in(Vec::new());
            }
            State::Auth(exchange) => return self.auth_reply(reply, exchange),
            State::Handshake | State::Ready => {
                return Err(Fault::Unasked(super::reply::excerpt(reply.text.as_bytes())).into());
            }
        }
        Ok(())
    }

    fn hello(&mut self) {
        self.state = State::Ehlo;
        let verb = if self.config.lmtp { "LHLO" } else { "EHLO" };
        self.say(format_args!("{verb} {}", self.config.hostname.clone()));
    }

    fn after_hello(&mut self) -> Result<(), OpenFailure> {
        match self.config.tls {
            TlsPolicy::WhenOffered | TlsPolicy::Required if self.capabilities.starttls => {
                self.state = State::StartTls;
                self.say(format_args!("STARTTLS"));
                Ok(())
            }
            TlsPolicy::Required => Err(OpenFailure::NoTls(None)),
            TlsPolicy::Never | TlsPolicy::WhenOffered => self.log_in(Vec::new()),
        }
    }

    /// Logs in by the best mechanism that is not in `tried`.
    fn log_in(&mut self, mut tried: Vec<Mechanism>) -> Result<(), OpenFailure> {
        let Some(login) = self.config.login.clone() else {
            self.state = State::Ready;
            return Ok(());
        };
        let mechanism = self.choose(&login, &tried)?;
        tried.push(mechanism);
        let mut client = sasl::Client::new(
            mechanism,
            login.username.clone(),
            login.secret.clone(),
            self.config.binding.clone(),
        );
        let initial = client.initial().map_err(|error| no_login(&login, error.to_string()))?;
        let mut late_initial = None;
        match initial {
            Some(text) if text.len() <= INITIAL_MAX => {
                self.say_secret(&format!("AUTH {} ", mechanism.name()), &text);
            }
            other => {
                late_initial = other;
                self.say(format_args!("AUTH {}", mechanism.name()));
            }
        }
        self.state = State::Auth(Box::new(Exchange { client, late_initial, questions: 0, tried }));
        Ok(())
    }

    fn choose(&self, login: &Login, tried: &[Mechanism]) -> Result<Mechanism, OpenFailure> {
        let clear_is_fine = self.config.tls_active || login.in_the_clear;
        let auth = &self.capabilities.auth;
        let offered: Vec<Mechanism> = mechanisms(auth).filter(|m| !tried.contains(m)).collect();
        if login.is_token {
            return match (sasl::choose_bearer(&offered), clear_is_fine) {
                (Some(mechanism), true) => Ok(mechanism),
                (Some(_), false) => Err(no_login(login, CLEAR.into())),
                (None, _) => Err(no_login(login, "it offers neither XOAUTH2 nor OAUTHBEARER".into())),
            };
        }
        sasl::choose(&offered, self.config.binding.is_some(), clear_is_fine).ok_or_else(|| {
            let reason = if !auth.any {
                "it does not offer AUTH"
            } else if offered.is_empty() {
                "it offers no AUTH mechanism that we know (SCRAM-SHA-256, PLAIN, LOGIN)"
            } else if clear_is_fine {
                "it takes only access tokens (XOAUTH2, OAUTHBEARER), and no passwords"
            } else {
                CLEAR
            };
            no_login(login, reason.into())
        })
    }

    fn auth_reply(&mut self, reply: Reply, mut exchange: Box<Exchange>) -> Result<(), OpenFailure> {
        let Some(login) = self.config.login.clone() else { return Ok(()) };
        let mechanism = exchange.client.mechanism();
        if reply.is_success() {
            self.state = State::Ready;
            return exchange.client.finish().map_err(|error| no_login(&login, error.to_string()));
        }
        if reply.code != 334 {
            let another_may_do = match mechanism {
                Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => reply.code / 100 == 5,
                // It offers the mechanism, and does not know it.
                Mechanism::OauthBearer => reply.code == 504,
                _ => false,
            };
            let weaker_is_left = another_may_do && self.choose(&login, &exchange.tried).is_ok();
            if weaker_is_left {
                // Servers offer SCRAM for accounts that have no verifier for it. Nothing is lost: who could make
                // SCRAM fail could as well have left it out of EHLO.
                self.transcript.note("trying the next mechanism");
                return self.log_in(exchange.tried);
            }
            let username = login.username.clone();
            return Err(OpenFailure::LoginRefused { username, mechanism: mechanism.name(), reply });
        }
        if exchange.questions == QUESTIONS_MAX {
            return Err(no_login(&login, "it asks without end".into()));
        }
        exchange.questions += 1;
        let answer = match exchange.late_initial.take() {
            Some(text) => text,
            None => match exchange.client.respond(&reply.text) {
                Ok(text) => text,
                Err(error) => return Err(no_login(&login, error.to_string())),
            },
        };
        self.say_secret("", &answer);
        self.state = State::Auth(exchange);
        Ok(())
    }

    fn say(&mut self, line: std::fmt::Arguments<'_>) {
        let start = self.output.len();
        let written = self.output.write_fmt(line);
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
        self.output.extend_from_slice(b"\r\n");
        self.transcript.sent(&self.output[start..]);
    }

    /// Says `head` and `secret`; the record shows the head alone.
    fn say_secret(&mut self, head: &str, secret: &str) {
        for part in [head, secret, "\r\n"] {
            self.output.extend_from_slice(part.as_bytes());
        }
        self.transcript.sent(format!("{head}********").as_bytes());
    }
}

/// The domain or address literal that a greeting or the answer to EHLO begins with.
fn name_in(reply: &Reply) -> Option<Box<str>> {
    let word = reply.text.split_ascii_whitespace().next()?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
    let is_name = word.len() <= NAME_MAX && word.contains(['.', ':']) && word.bytes().all(fits);
    is_name.then(|| word.into())
}

const CLEAR: &str = "the connection has no TLS, and a password is not sent in the clear";

fn mechanisms(offer: &AuthOffer) -> impl Iterator<Item = Mechanism> {
    [
        (offer.scram_sha_256_plus, Mechanism::ScramSha256Plus),
        (offer.scram_sha_256, Mechanism::ScramSha256),
        (offer.plain, Mechanism::Plain),
        (offer.login, Mechanism::Login),
        (offer.xoauth2, Mechanism::XOauth2),
        (offer.oauth_bearer, Mechanism::OauthBearer),
    ]
    .into_iter()
    .filter(|m| m.0)
    .map(|m| m.1)
}

fn refused<T>(what: &'static str, reply: Reply) -> Result<T, OpenFailure> {
    Err(OpenFailure::Refused { what, reply })
}

fn no_login(login: &Login, reason: String) -> OpenFailure {
    OpenFailure::NoLogin { username: login.username.clone(), reason }
}

#[cfg(test)]
mod tests;
