//! What each command does.

use mail::{EnhancedStatus, Reply};

use super::envelope::Transaction;
use super::{Chunk, Next, Question, Session, State};
use crate::grammar::{self, Command, Mail, Rcpt};
use crate::server::Envelope;

impl Session {
    /// `more` is whether the client has sent something behind this command already.
    pub(super) fn command(&mut self, command: Command<'_>, more: bool) -> Option<Next> {
        match command {
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(rcpt) => self.rcpt(rcpt),
            Command::Data => self.data_command(),
            Command::Bdat { size, last } => self.bdat(Chunk { size, left: size, last }),
            Command::Ehlo(name) => self.hello(name, true),
            Command::Helo(name) => self.hello(name, false),
            Command::StartTls => self.start_tls(more),
            Command::Auth { mechanism, initial } => self.auth(mechanism, initial),
            Command::Quit => {
                self.say("221 2.0.0 Bye\r\n");
                self.quit = true;
                self.state = State::Closed;
                None
            }
            Command::Rset => {
                if self.transaction.take().is_none() {
                    return self.idle("250 2.0.0 OK\r\n");
                }
                // The transaction that it ends was counted when it began.
                self.say("250 2.0.0 OK\r\n");
                None
            }
            Command::Noop => self.idle("250 2.0.0 OK\r\n"),
            Command::Vrfy => self.idle("252 2.5.2 Cannot say; send mail to the address and see\r\n"),
            Command::Help => self.idle(
                "214-2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH\r\n\
                 214 2.0.0 Questions: write to postmaster here\r\n",
            ),
            Command::Expn => {
                self.error(502, 7, 0, "Lists are not shown");
                None
            }
            Command::XClient(client) => {
                if !self.connection.xclient {
                    self.error(
                        550,
                        7,
                        1,
                        "XCLIENT is not for this network; the operator names those in xclient",
                    );
                } else if self.transaction.is_some() {
                    self.error(503, 5, 1, "Not during a mail transaction; send RSET first");
                } else {
                    self.state = State::Asked(Question::Client);
                    return Some(Next::XClient(client));
                }
                None
            }
        }
    }

    /// Answers a command that brings no message nearer, and counts it.
    fn idle(&mut self, reply: &'static str) -> Option<Next> {
        self.say(reply);
        self.count_idle();
        None
    }

    fn count_idle(&mut self) {
        self.idle_commands += 1;
        if self.idle_commands > self.config.settings.idle_commands_max {
            self.hang_up_with("Too many commands without a message; closing");
        }
    }

    fn hello(&mut self, name: &str, esmtp: bool) -> Option<Next> {
        self.transaction = None;
        if self.helo.as_deref() != Some(name) {
            self.helo = Some(name.into());
        }
        self.esmtp = esmtp;
        let reply = if esmtp {
            self.config.ehlo(self.config.offer(&self.connection, self.authenticated))
        } else {
            &self.config.helo
        };
        self.out.extend_from_slice(reply.as_bytes());
        self.count_idle();
        None
    }

    fn mail(&mut self, mail: Mail) -> Option<Next> {
        let settings = &self.config.settings;
        let max = settings.message_size_max;
        if self.helo.is_none() {
            self.error(503, 5, 1, "Say EHLO first");
        } else if self.transaction.is_some() {
            self.error(503, 5, 1, "A mail transaction is open already; finish it or send RSET");
        } else if self.messages >= settings.messages_max {
            self.error(452, 5, 3, "That is all the mail one session may bring; QUIT and connect again");
        } else if mail.size.is_some_and(|size| size > max) {
            self.error(552, 3, 4, &format!("The message is too big; at most {max} octets are accepted"));
        } else if mail.require_tls && !self.connection.tls {
            self.require_tls_in_clear();
        } else if !mail.smtputf8 && mail.reverse_path.as_ref().is_some_and(|a| !a.is_ascii()) {
            self.error(553, 6, 7, "A sender address outside ASCII needs the SMTPUTF8 parameter");
        } else {
            self.idle_commands += 1;
            self.state = State::Asked(Question::Mail(Envelope::from(mail)));
            return Some(Next::Mail);
        }
        None
    }

    /// REQUIRETLS is offered under TLS alone (RFC 8689 section 3): the message has crossed a network in the clear else.
    fn require_tls_in_clear(&mut self) {
        if self.config.settings.tls {
            self.error(530, 7, 10, "REQUIRETLS needs TLS on this hop too; use STARTTLS first");
        } else {
            self.error(555, 5, 4, "REQUIRETLS is not offered here");
        }
    }

    fn rcpt(&mut self, rcpt: Rcpt) -> Option<Next> {
        let max = self.config.settings.recipients_max;
        let recipient = match grammar::recipient(rcpt, &self.config.settings.hostname) {
            Ok(recipient) => recipient,
            Err(error) => {
                self.fail(&error.reply());
                return None;
            }
        };
        match &self.transaction {
            None => self.error(503, 5, 1, "Say MAIL first"),
            Some(Transaction { chunks: Some(_), .. }) => {
                self.error(503, 5, 1, "The message is coming in already; no more recipients");
            }
            Some(t) if t.envelope.recipients.len() >= max => {
                let text = format!("Too many recipients; send this message to at most {max} at a time");
                self.write(&Reply::new(452, EnhancedStatus::new(4, 5, 3), text));
            }
            Some(t)
                if !t.envelope.smtputf8
                    && (!recipient.address.is_ascii()
                        || recipient.orcpt.as_ref().is_some_and(|o| !o.is_ascii())) =>
            {
                self.error(553, 6, 7, "An address outside ASCII needs the SMTPUTF8 parameter in MAIL");
            }
            Some(_) => {
                self.state = State::Asked(Question::Rcpt(recipient));
                return Some(Next::Rcpt);
            }
        }
        None
    }

    fn data_command(&mut self) -> Option<Next> {
        match &self.transaction {
            None => self.error(503, 5, 1, "Say MAIL and RCPT first"),
            Some(Transaction { chunks: Some(_), .. }) => {
                self.error(
                    503,
                    5,
                    1,
                    "This message comes in by BDAT; finish it with BDAT 0 LAST or send RSET",
                );
            }
            Some(t) if t.envelope.recipients.is_empty() && t.refused > 0 => {
                self.error(554, 5, 1, "No recipient was accepted, so there is nobody to send this to");
            }
            Some(t) if t.envelope.recipients.is_empty() => self.error(503, 5, 1, "Say RCPT first"),
            Some(_) => {
                self.state = State::Asked(Question::Data);
                return Some(Next::Begin);
            }
        }
        self.data_refused = true;
        None
    }

    fn start_tls(&mut self, more: bool) -> Option<Next> {
        if self.connection.tls {
            self.error(503, 5, 1, "TLS is on already");
        } else if !self.config.settings.tls {
            self.error(502, 5, 1, "STARTTLS is not offered here");
        } else if more {
            // Whoever can put bytes behind STARTTLS wants them to be taken for ones that came inside TLS.
            self.hang_up_with("Nothing may follow STARTTLS before the handshake; closing");
        } else {
            self.say("220 2.0.0 Start TLS now\r\n");
            self.state = State::Tls;
            return Some(Next::StartTls);
        }
        None
    }
}
