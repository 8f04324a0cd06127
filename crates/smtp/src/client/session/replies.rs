//! What the replies of a transaction mean, and what follows from them.

use mail::{Body, Message, Outcome, Reply};

use super::outcome::{self, Doing};
use super::{Expected, Phase, Session, SlotState};
use crate::client::{Capabilities, Fault, Wait, command, reply::excerpt};

impl Session {
    /// Whether the peer can take the message without a change to it.
    pub(super) fn can_take(&self, message: &Message, require_tls: bool) -> Result<(), Outcome> {
        let caps = &self.capabilities;
        if require_tls && !caps.require_tls {
            return Err(outcome::no_require_tls());
        }
        if command::needs_utf8(message) && !caps.smtputf8 {
            return Err(outcome::no_utf8());
        }
        if message.body == Body::EightBitMime && !caps.eight_bit_mime {
            return Err(outcome::no_eight_bit());
        }
        match caps.size {
            Some(limit) if limit > 0 && message.size > limit => Err(outcome::too_big(message.size, limit)),
            _ => Ok(()),
        }
    }

    pub(super) fn open_script(&mut self) {
        debug_assert!(self.is_usable(), "a transaction on a connection that is of no use");
        self.slots.clear();
        self.script.clear();
        self.expected.clear();
        self.mail_refused = None;
        self.any_accepted = false;
        self.replies = 0;
        self.said_goodbye = false;
        (self.accepted, self.is_full) = (0, false);
        (self.chunk, self.content_is_out) = (0, false);
        self.phase = Phase::Talking;
        if self.needs_reset {
            self.script_line(Expected::Reset, |script, _| script.extend_from_slice(b"RSET\r\n"));
        }
    }

    pub(super) fn script_line(
        &mut self,
        expected: Expected,
        write: impl FnOnce(&mut bytes::BytesMut, &Capabilities),
    ) {
        write(&mut self.script, &self.capabilities);
        self.expected.push_back(expected);
    }

    /// Moves commands from the script to the output: all of them with PIPELINING, else one, and the content along with
    /// its command.
    pub(super) fn release(&mut self) {
        let commands = self.script.len() - self.chunk;
        let length = if self.capabilities.pipelining {
            commands
        } else {
            memchr::memchr(b'\n', &self.script).map_or(commands, |end| end + 1)
        };
        self.transcript.sent(&self.script[..length]);
        if length < commands {
            self.output.extend_from_slice(&self.script[..length]);
            bytes::Buf::advance(&mut self.script, length);
            return;
        }
        if self.chunk > 0 {
            self.transcript.note(&format!("{} octets of content sent", self.chunk));
            (self.chunk, self.content_is_out) = (0, true);
        }
        if self.output.is_empty() {
            std::mem::swap(&mut self.output, &mut self.script);
        } else {
            self.output.extend_from_slice(&self.script);
        }
        self.script.clear();
    }

    pub(super) fn waits_for(&self) -> Wait {
        match self.expected.front() {
            Some(Expected::Reset | Expected::Mail) | None => Wait::Mail,
            Some(Expected::Rcpt(_)) => Wait::Rcpt,
            Some(Expected::Data) => Wait::Data,
            Some(Expected::Chunk | Expected::EmptyDot | Expected::Final | Expected::FinalOf(_)) => {
                Wait::Final
            }
        }
    }

    pub(super) fn doing(&self) -> Doing {
        match self.phase {
            Phase::Content => Doing::SendingContent,
            Phase::Talking | Phase::Idle => Doing::Waiting(self.waits_for()),
        }
    }

    /// Whether the peer may have the whole message, although it has not said so.
    pub(super) fn may_have_it(&self) -> bool {
        self.phase == Phase::Talking && self.content_is_out
    }

    pub(super) fn reply(&mut self, reply: &Reply) -> Result<(), Fault> {
        let Some(expected) = self.expected.pop_front() else {
            return Err(Fault::Unasked(excerpt(reply.text.as_bytes())));
        };
        if reply.code == 421 {
            self.goodbye(reply);
            return Ok(());
        }
        if reply.code / 100 == 3 && expected != Expected::Data {
            return Err(self.senseless(expected, reply));
        }
        match expected {
            Expected::Reset => self.needs_reset = false,
            Expected::Mail if reply.is_success() => {
                self.transactions += 1;
                self.needs_reset = true;
            }
            Expected::Mail => self.mail_refused = Some(Outcome::from_reply(reply)),
            Expected::Rcpt(slot) => self.rcpt_reply(slot, reply),
            Expected::Data => return self.data_reply(reply),
            Expected::Chunk => {
                let outcome = Outcome::from_reply(reply);
                self.settle_accepted(&outcome);
                // Refused, it leaves the transaction open (RFC 3030 section 2).
                self.needs_reset &= !reply.is_success();
                self.finish();
            }
            Expected::EmptyDot => return self.end_of_transaction(),
            Expected::Final => {
                let outcome = Outcome::from_reply(reply);
                self.settle_accepted(&outcome);
                return self.end_of_transaction();
            }
            Expected::FinalOf(slot) => {
                self.slots[slot].state = SlotState::Done(Outcome::from_reply(reply));
                if self.expected.is_empty() {
                    return self.end_of_transaction();
                }
            }
        }
        self.go_on();
        Ok(())
    }

    /// Whatever answer makes sense nowhere: the reply is put back as expected, so that what is told about the lost
    /// connection names the right command.
    fn senseless(&mut self, expected: Expected, reply: &Reply) -> Fault {
        self.expected.push_front(expected);
        Fault::Senseless(format!("{} {}", reply.code, excerpt(reply.text.as_bytes())))
    }

    fn rcpt_reply(&mut self, slot: usize, reply: &Reply) {
        let asking_only = !matches!(self.expected.back(), Some(Expected::Data | Expected::Chunk));
        let outcome = Outcome::from_reply(reply);
        self.slots[slot].state = if let Some(refused) = &self.mail_refused {
            // Whatever it says now, there is no sender.
            SlotState::Done(refused.clone())
        } else if reply.is_success() && !asking_only {
            self.any_accepted = true;
            self.accepted += 1;
            SlotState::Accepted
        } else if says_too_many(reply) && !asking_only {
            self.is_full = true;
            SlotState::TooMany(outcome)
        } else {
            SlotState::Done(outcome)
        };
    }

    fn data_reply(&mut self, reply: &Reply) -> Result<(), Fault> {
        match (reply.code / 100, self.any_accepted) {
            (3, true) => {
                self.phase = Phase::Content;
                Ok(())
            }
            // It let DATA through without recipients (RFC 2920 section 3.1): end the message that is none. An LMTP
            // server answers once for each recipient, here not at all: nothing tells where its reply ends.
            (3, false) if self.lmtp => {
                self.usable = false;
                self.finish();
                Ok(())
            }
            (3, false) => {
                self.output.extend_from_slice(b".\r\n");
                self.transcript.sent(b".");
                self.expected.push_back(Expected::EmptyDot);
                Ok(())
            }
            (2, _) => Err(self.senseless(Expected::Data, reply)),
            _ => {
                let outcome = Outcome::from_reply(reply);
                self.settle_accepted(&outcome);
                self.finish();
                Ok(())
            }
        }
    }

    /// It asked for the content and says more before it got any. A refusal can be believed, anything else cannot.
    pub(super) fn verdict_before_content(&mut self, input: &mut bytes::BytesMut) -> Result<(), Fault> {
        let seen = excerpt(input);
        match self.parser.next(input)? {
            Some(reply) if matches!(reply.code / 100, 4 | 5) => {
                self.transcript.received(&reply);
                self.goodbye(&reply);
                Ok(())
            }
            _ => Err(Fault::Unasked(seen)),
        }
    }

    /// Without PIPELINING: the next command, unless there is no point in it. With: nothing, until DATA is answered.
    fn go_on(&mut self) {
        let Some(next) = self.expected.front() else { return self.finish() };
        if self.script.is_empty() {
            return;
        }
        let pointless = match next {
            Expected::Rcpt(_) => self.mail_refused.is_some(),
            Expected::Data | Expected::Chunk => !self.any_accepted,
            _ => false,
        };
        if pointless {
            self.script.clear();
            self.chunk = 0;
            self.expected.clear();
            self.finish();
        } else {
            self.release();
        }
    }

    /// The peer takes part no more (421): whoever has no outcome gets this one.
    pub(super) fn goodbye(&mut self, reply: &Reply) {
        self.said_goodbye = true;
        self.usable = false;
        self.settle_all(&Outcome::from_reply(reply));
    }

    fn end_of_transaction(&mut self) -> Result<(), Fault> {
        self.needs_reset = false;
        self.finish();
        Ok(())
    }

    fn settle_accepted(&mut self, outcome: &Outcome) {
        for slot in &mut self.slots {
            if matches!(slot.state, SlotState::Accepted) {
                slot.state = SlotState::Done(outcome.clone());
            }
        }
    }

    /// Gives `outcome` to everyone who has none, and ends the transaction.
    pub(super) fn settle_all(&mut self, outcome: &Outcome) {
        let outcome = self.mail_refused.as_ref().unwrap_or(outcome).clone();
        for slot in &mut self.slots {
            match std::mem::replace(&mut slot.state, SlotState::Asked) {
                SlotState::Asked | SlotState::Accepted => slot.state = SlotState::Done(outcome.clone()),
                SlotState::TooMany(own) | SlotState::Done(own) => slot.state = SlotState::Done(own),
            }
        }
        self.output.clear();
        self.script.clear();
        self.chunk = 0;
        self.expected.clear();
        self.phase = Phase::Idle;
    }

    /// Ends a transaction. Who was not even asked for because MAIL was refused has that for an outcome.
    fn finish(&mut self) {
        if let Some(outcome) = self.mail_refused.take() {
            for slot in self.slots.iter_mut().filter(|s| matches!(s.state, SlotState::Asked)) {
                slot.state = SlotState::Done(outcome.clone());
            }
        }
        self.phase = Phase::Idle;
    }
}

/// Whether the peer takes no more recipients in this transaction: 452 4.5.3, and what older servers say for it (RFC
/// 5321 section 4.5.3.1.10).
fn says_too_many(reply: &Reply) -> bool {
    match (reply.code, reply.enhanced) {
        (452, None) => true,
        (452 | 552, Some(status)) => (status.subject, status.detail) == (5, 3),
        _ => false,
    }
}
