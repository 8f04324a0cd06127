//! What the driver answers, and what it does to a session from outside.

use std::fmt::{Display, Write};
use std::time::Duration;

use mail::{EnhancedStatus, Reply};

use super::envelope::{Content, Transaction};
use super::{Connection, Question, Session, State, shutting_down};
use crate::sasl::ScramVerifier;

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthVerdict {
    /// It is who it says.
    Ok,
    /// Unknown login or wrong password.
    Failed,
    /// Too many failures; not before this time has passed.
    TryLater(Duration),
    /// It cannot be checked now.
    Unavailable,
    /// The password is right, and still no: why, and what to do.
    Refused(Reply),
}

impl Session {
    /// Yes to [`super::Step::Mail`], [`super::Step::Rcpt`] or [`super::Step::Begin`].
    pub fn allow(&mut self) {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Asked(Question::Mail(envelope)) => {
                self.transaction = Some(Transaction::new(envelope));
                self.say("250 2.1.0 Sender OK\r\n");
            }
            State::Asked(Question::Rcpt(recipient)) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.envelope.recipients.push(recipient);
                }
                self.say("250 2.1.5 Recipient OK\r\n");
            }
            State::Asked(Question::Data) => {
                self.say("354 Send the message; end it with a line that has only a dot\r\n");
                self.state = State::Data(Content::new(self.decoder(false)));
            }
            State::Asked(Question::Chunk(chunk)) => {
                self.state = State::Chunk(chunk, Content::new(self.decoder(true)));
            }
            other => self.state = other,
        }
    }

    /// No to [`super::Step::Mail`], [`super::Step::Rcpt`], [`super::Step::Begin`] or [`super::Step::End`].
    pub fn refuse(&mut self, reply: &Reply) {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Asked(Question::Mail(_) | Question::End) => self.fail(reply),
            State::Asked(Question::Rcpt(_)) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.refused += 1;
                }
                // One who is known may have a list with many dead addresses; a stranger who guesses may not go on.
                if self.authenticated || reply.is_transient() { self.write(reply) } else { self.fail(reply) }
            }
            State::Asked(Question::Data) => {
                self.fail(reply);
                self.data_refused = true;
            }
            State::Asked(Question::Chunk(chunk)) => {
                self.state = State::Chunk(chunk, Content::thrown_away(reply.clone()));
            }
            other => self.state = other,
        }
    }

    /// The content cannot be taken any more: the rest is thrown away, and `reply` is said at its end.
    pub fn abandon(&mut self, reply: Reply) {
        if let State::Data(content) | State::Chunk(_, content) = &mut self.state {
            content.refuse(reply);
            content.told = true;
        }
    }

    /// The message of [`super::Step::End`] is on stable storage under this name.
    pub fn accepted(&mut self, id: impl Display) {
        if matches!(self.state, State::Asked(Question::End)) {
            self.state = State::Command;
            self.messages += 1;
            (self.idle_commands, self.errors) = (0, 0);
            // Writing into memory cannot fail.
            let _ = write!(self.out, "250 2.0.0 OK, queued as {id}\r\n");
        }
    }

    /// Answers [`super::Step::Password`] and [`super::Step::Scram`].
    pub fn authenticated(&mut self, verdict: AuthVerdict) {
        if !matches!(self.state, State::Asked(Question::Login)) {
            return;
        }
        self.state = State::Command;
        match verdict {
            AuthVerdict::Ok => {
                self.authenticated = true;
                self.say("235 2.7.0 Authenticated\r\n");
            }
            AuthVerdict::Failed => self.error(535, 7, 8, "The login or the password is wrong"),
            AuthVerdict::TryLater(wait) => {
                let text = format!("Too many failed logins; try again in {} seconds", wait.as_secs().max(1));
                self.error(454, 7, 0, &text);
            }
            AuthVerdict::Unavailable => {
                self.error(454, 7, 0, "Logins cannot be checked right now; try again later");
            }
            AuthVerdict::Refused(reply) => self.fail(&reply),
        }
    }

    /// Answers [`super::Step::Verifier`]. The exchange may go on inside.
    pub fn verifier(&mut self, verifier: ScramVerifier) {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Asked(Question::Verifier(exchange)) => {
                // A verifier leads to a challenge or to an error, never to another question.
                self.exchange(exchange.verifier(verifier));
            }
            other => self.state = other,
        }
    }

    /// The TLS handshake is done; everything said before is forgotten (RFC 3207 section 4.2).
    pub fn tls_started(&mut self, connection: Connection) {
        self.forget(connection);
    }

    /// Answers [`super::Step::XClient`]: everything begins anew, with a greeting.
    pub fn client_changed(&mut self, connection: Connection) {
        self.forget(connection);
        self.out.extend_from_slice(self.config.greeting.as_bytes());
    }

    fn forget(&mut self, connection: Connection) {
        self.connection = connection;
        self.state = State::Command;
        (self.consumed, self.scanned) = (0, 0);
        self.helo = None;
        self.esmtp = false;
        self.authenticated = false;
        self.transaction = None;
    }

    /// Says `reply` and ends the session.
    pub fn hang_up(&mut self, reply: &Reply) {
        self.write(reply);
        self.state = State::Closed;
    }

    /// The service stops: a transaction that is open may be finished, then the session ends with 421.
    pub fn shut_down(&mut self) {
        self.stopping = true;
        if self.transaction.is_none() && matches!(self.state, State::Command | State::Auth(_)) {
            self.hang_up(&shutting_down());
        }
    }

    /// The client said nothing for too long.
    pub fn time_out(&mut self, text: &str) {
        self.hang_up(&Reply::new(421, EnhancedStatus::new(4, 4, 2), text));
    }
}
