//! AUTH (RFC 4954).

use bytes::{Buf, BytesMut};

use super::{AUTH_LINE_MAX, Line, Next, Question, Session, State};
use crate::sasl::{self, Exchange, ExchangeError, Mechanism};

impl Session {
    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> Option<Next> {
        let offer = self.config.offer(&self.connection, self.authenticated);
        let known = Mechanism::from_name(mechanism).filter(|&m| offer.mechanisms.has(m));
        if self.authenticated {
            self.error(503, 5, 1, "You are authenticated already");
        } else if !self.config.settings.auth {
            self.error(502, 5, 1, "AUTH is not offered here");
        } else if self.helo.is_none() {
            self.error(503, 5, 1, "Say EHLO first");
        } else if self.transaction.is_some() {
            self.error(503, 5, 1, "Not during a mail transaction; send RSET first");
        } else if !self.connection.tls && !self.connection.auth_in_clear {
            self.error(538, 7, 11, "A password must not cross the network in the clear; use STARTTLS first");
        } else if let Some(mechanism) = known {
            let begun = Exchange::begin(mechanism, offer.mechanisms, &self.connection.bindings, initial);
            return self.exchange(begun);
        } else {
            self.error(504, 5, 4, "This mechanism is not offered; EHLO lists those that are");
        }
        None
    }

    /// A line that answers a challenge.
    pub(super) fn response_line(&mut self, buffer: &mut BytesMut) -> Option<Next> {
        let length = match self.line(buffer, AUTH_LINE_MAX) {
            Line::Complete(length) => length,
            Line::Partial => return Some(Next::Read),
            Line::TooLong => {
                self.state = State::LongLine { response: true };
                return None;
            }
        };
        let State::Auth(exchange) = std::mem::replace(&mut self.state, State::Command) else { return None };
        let line = self.without_line_end(&buffer[..length]).and_then(|l| std::str::from_utf8(l).ok());
        let next = match line {
            Some("*") => {
                self.error(501, 7, 0, "Authentication was cancelled");
                None
            }
            Some(response) => {
                let begun = exchange.respond(response);
                self.exchange(begun)
            }
            None => self.exchange(Err(ExchangeError::Malformed)),
        };
        buffer.advance(length);
        next
    }

    pub(super) fn exchange(&mut self, step: Result<sasl::Begun, ExchangeError>) -> Option<Next> {
        match step {
            Ok((exchange, sasl::Next::Challenge(text))) => {
                self.out.extend_from_slice(b"334 ");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
                self.state = State::Auth(exchange);
                None
            }
            Ok((_, sasl::Next::Check { login, password })) => {
                self.state = State::Asked(Question::Login);
                Some(Next::Password(login, password))
            }
            Ok((exchange, sasl::Next::Verifier { login })) => {
                self.state = State::Asked(Question::Verifier(exchange));
                Some(Next::Verifier(login))
            }
            Ok((_, sasl::Next::Scram { login, proven })) => {
                self.state = State::Asked(Question::Login);
                Some(Next::Scram(login, proven))
            }
            Err(error) => {
                self.state = State::Command;
                match error {
                    ExchangeError::Malformed => {
                        self.error(501, 5, 2, "The response is not valid for this mechanism");
                    }
                    ExchangeError::Authzid => {
                        self.error(535, 7, 8, "Acting for another user is not supported")
                    }
                    ExchangeError::Binding => self.error(
                        535,
                        7,
                        8,
                        "The channel binding does not fit: somebody may be between the client and us",
                    ),
                    ExchangeError::Random => {
                        self.error(454, 3, 0, "Cannot authenticate now; try again later")
                    }
                }
                None
            }
        }
    }
}
