//! An open session: transactions one after the other on one connection.
//!
//! A transaction's commands are written into a script at once. With PIPELINING (RFC 2920) all of it goes out in one
//! write, DATA included; without, line by line as the replies come. What is expected of the peer stands in a queue.
//! Content that is given along with the envelope goes by BDAT (RFC 3030) at the script's end, so that with PIPELINING
//! the whole transaction is one write and one round trip.

mod outcome;
mod replies;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use mail::{Message, Outcome, Recipient, RecipientOutcome};

use super::{Capabilities, Fault, ReplyParser, Transcript, Wait, command};

/// What the driver has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the output, then read.
    Read(Wait),
    /// Write the content, dot-stuffed, with the dot behind it; then call [`Session::content_sent`].
    Content,
    /// The transaction is over: [`Session::results`].
    Finished,
}

/// How the connection got lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The peer closed it.
    Closed,
    /// The peer was silent for this long.
    TimedOut(Duration),
    /// The system said so.
    Broken(String),
    /// The peer broke the protocol.
    Fault(Fault),
}

/// What became of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Recipients that have an outcome.
    pub outcomes: Vec<RecipientOutcome>,
    /// Recipients for the next transaction: the peer takes no more in one.
    pub postponed: Vec<u16>,
}

/// How a transaction is sent.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// Most recipients in it.
    pub limit: usize,
    /// Whether the peer must promise to require TLS of the next hop in its turn (RFC 8689).
    pub require_tls: bool,
    /// The whole content, to go along with the envelope by BDAT. It must be such as
    /// [`check`](crate::stuffing::encode::check) lets through, the peer must offer CHUNKING, and it is no LMTP server.
    /// None: the content goes by DATA, when the peer asks for it.
    pub chunk: Option<&'a [u8]>,
}

/// What a session keeps of its buffers between transactions, in octets.
const KEPT: usize = 16 << 10;

/// An open session.
#[derive(Debug)]
pub struct Session {
    lmtp: bool,
    capabilities: Capabilities,
    parser: ReplyParser,
    output: BytesMut,
    transcript: Transcript,
    usable: bool,
    /// The last transaction was not completed: RSET comes before the next MAIL.
    needs_reset: bool,
    /// Transactions begun on this connection.
    transactions: u32,
    phase: Phase,
    /// Commands that were not released yet.
    script: BytesMut,
    expected: VecDeque<Expected>,
    slots: Vec<Slot>,
    /// Whether a RCPT was accepted in this transaction.
    any_accepted: bool,
    /// The outcome for everybody, from the reply to MAIL.
    mail_refused: Option<Outcome>,
    /// Replies seen in this transaction.
    replies: u32,
    said_goodbye: bool,
    /// Recipients accepted in this transaction.
    accepted: u32,
    /// The peer said that it takes no more recipients in this transaction.
    is_full: bool,
    /// How many octets at the end of the script are content.
    chunk: usize,
    /// Whether content went out in this transaction, or part of it.
    content_is_out: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Talking,
    Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Reset,
    Mail,
    /// Of the slot with this index.
    Rcpt(usize),
    Data,
    /// To the whole content as one chunk.
    Chunk,
    /// To a dot that was sent only because DATA was let through without recipients.
    EmptyDot,
    Final,
    /// LMTP: of the slot with this index.
    FinalOf(usize),
}

#[derive(Debug)]
struct Slot {
    number: u16,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Asked,
    Accepted,
    TooMany(Outcome),
    Done(Outcome),
}

impl Session {
    pub(super) fn new(
        lmtp: bool,
        capabilities: Capabilities,
        output: BytesMut,
        transcript: Transcript,
    ) -> Self {
        Self {
            lmtp,
            capabilities,
            parser: ReplyParser::default(),
            output,
            transcript,
            usable: true,
            needs_reset: false,
            transactions: 0,
            phase: Phase::Idle,
            script: BytesMut::new(),
            expected: VecDeque::new(),
            slots: Vec::new(),
            any_accepted: false,
            mail_refused: None,
            replies: 0,
            said_goodbye: false,
            accepted: 0,
            is_full: false,
            chunk: 0,
            content_is_out: false,
        }
    }

    /// Sends no commands ahead, whatever the peer offers.
    pub fn without_pipelining(&mut self) {
        self.capabilities.pipelining = false;
    }

    /// What the peer offers.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What is to be written. The driver takes what it wrote out of it.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// The record of the dialogue.
    pub fn transcript(&mut self) -> &mut Transcript {
        &mut self.transcript
    }

    /// How many replies came in this transaction.
    pub fn replies(&self) -> u32 {
        self.replies
    }

    /// Whether another transaction may be begun on this connection.
    pub fn is_usable(&self) -> bool {
        let spent = self.capabilities.limits.mail_max.is_some_and(|max| self.transactions >= max);
        self.usable && self.phase == Phase::Idle && !spent
    }

    /// Whether the peer had closed the session before it heard of this transaction: it said nothing at all, or goodbye
    /// (421) at once. On a connection that was open for a while this says nothing about the message.
    pub fn was_stale(&self) -> bool {
        self.replies == 0 || (self.replies == 1 && self.said_goodbye)
    }

    /// Transactions that the peer has taken on this connection.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// How many recipients the peer took in the last transaction before it said that it takes no more in one; none if
    /// it did not say so.
    pub fn full_after(&self) -> Option<u32> {
        (self.is_full && self.accepted > 0).then_some(self.accepted)
    }

    /// Whether content went out in the last transaction, or a part of it: then the peer may have the message, whatever
    /// became of the connection.
    pub fn content_is_out(&self) -> bool {
        self.content_is_out
    }

    /// Begins a transaction for the first of `recipients` (number and recipient), at most [`Sending::limit`] and no more
    /// than the peer takes. Returns how many were taken.
    ///
    /// # Errors
    /// The outcome for every recipient: the peer cannot take this message as it is.
    pub fn begin<'a>(
        &mut self,
        message: &Message,
        recipients: impl Iterator<Item = (u16, &'a Recipient)>,
        sending: Sending<'_>,
    ) -> Result<usize, Outcome> {
        let Sending { limit, require_tls, chunk } = sending;
        debug_assert!(chunk.is_none() || self.capabilities.chunking && !self.lmtp, "nobody offered CHUNKING");
        self.can_take(message, require_tls)?;
        self.open_script();
        self.script_line(Expected::Mail, |script, caps| command::mail(script, message, caps, require_tls));
        let limits = self.capabilities.limits;
        let limit = limit.min(limits.rcpt_max.map_or(usize::MAX, |n| n as usize)).max(1);
        let mut domains: Vec<&str> = Vec::new();
        let mut asked = 0;
        for (number, recipient) in recipients.take(limit) {
            if let Some(max) = limits.rcpt_domain_max
                && !domains.contains(&recipient.address.domain())
            {
                if domains.len() >= max as usize {
                    break;
                }
                domains.push(recipient.address.domain());
            }
            if !recipient.address.is_ascii() && !self.capabilities.smtputf8 {
                self.slots.push(Slot { number, state: SlotState::Done(outcome::no_utf8()) });
                continue;
            }
            let slot = self.slots.len();
            self.slots.push(Slot { number, state: SlotState::Asked });
            self.script_line(Expected::Rcpt(slot), |script, caps| command::rcpt(script, recipient, caps));
            asked += 1;
        }
        if asked == 0 {
            self.expected.clear();
            self.phase = Phase::Idle;
            return Ok(self.slots.len());
        }
        match chunk {
            Some(content) => {
                self.script_line(Expected::Chunk, |script, _| command::chunk(script, content));
                self.chunk = content.len() + if content.ends_with(b"\r\n") { 0 } else { 2 };
            }
            None => self.script_line(Expected::Data, |script, _| script.extend_from_slice(b"DATA\r\n")),
        }
        self.release();
        Ok(self.slots.len())
    }

    /// Asks whether the peer would take mail for `recipient` from the null sender, and sends none. The result carries
    /// the number 0.
    pub fn ask(&mut self, recipient: &Recipient) {
        self.open_script();
        self.script_line(Expected::Mail, |script, _| script.extend_from_slice(b"MAIL FROM:<>\r\n"));
        if recipient.address.is_ascii() || self.capabilities.smtputf8 {
            self.slots.push(Slot { number: 0, state: SlotState::Asked });
            let bare = Recipient::new(recipient.address.clone());
            self.script_line(Expected::Rcpt(0), |script, caps| command::rcpt(script, &bare, caps));
            self.release();
        } else {
            self.slots.push(Slot { number: 0, state: SlotState::Done(outcome::no_utf8()) });
            self.expected.clear();
            self.phase = Phase::Idle;
        }
    }

    /// Takes what was read and says what to do next. After `begin` it is called with what there is, maybe nothing.
    ///
    /// # Errors
    /// The peer broke the protocol: call [`Session::lost`] with it.
    pub fn input(&mut self, input: &mut BytesMut) -> Result<Step, Fault> {
        loop {
            match self.phase {
                Phase::Idle => {
                    if !input.is_empty() || self.parser.is_midway() {
                        // Replies and commands may be out of step: nothing more goes over this connection.
                        self.usable = false;
                    }
                    return Ok(Step::Finished);
                }
                Phase::Content if input.is_empty() => {
                    self.content_is_out = true;
                    return Ok(Step::Content);
                }
                Phase::Content => {
                    self.verdict_before_content(input)?;
                    continue;
                }
                Phase::Talking => {}
            }
            let Some(reply) = self.parser.next(input)? else { return Ok(Step::Read(self.waits_for())) };
            self.transcript.received(&reply);
            self.replies += 1;
            self.reply(&reply)?;
        }
    }

    /// The content and its dot are out. `octets` is the length of the content.
    pub fn content_sent(&mut self, octets: u64) {
        debug_assert_eq!(self.phase, Phase::Content);
        self.transcript.note(&format!("{octets} octets of content sent"));
        self.transcript.sent(b".");
        self.phase = Phase::Talking;
        if self.lmtp {
            let accepted = self.slots.iter().enumerate().filter(|s| matches!(s.1.state, SlotState::Accepted));
            self.expected.extend(accepted.map(|(slot, _)| Expected::FinalOf(slot)));
        } else {
            self.expected.push_back(Expected::Final);
        }
    }

    /// The content cannot be sent, and part of it may be out: the recipients that would have got it have this outcome.
    /// Close the connection.
    pub fn withdraw(&mut self, outcome: &Outcome) {
        self.transcript.note(&outcome.text);
        self.settle_all(outcome);
        self.usable = false;
    }

    /// The connection broke while the content was being written; `input` is what had been read by then. A refusal
    /// that the peer sent before it hung up counts.
    pub fn content_broken(&mut self, input: &mut BytesMut, lost: &Lost) {
        match self.parser.next(input) {
            Ok(Some(reply)) => {
                self.transcript.received(&reply);
                if matches!(reply.code / 100, 4 | 5) {
                    self.goodbye(&reply);
                } else {
                    self.lost(&Lost::Fault(Fault::Unasked(reply.to_string())));
                }
            }
            Ok(None) => self.lost(lost),
            Err(fault) => self.lost(&Lost::Fault(fault)),
        }
    }

    /// The connection is lost. Whoever has no outcome yet gets one.
    pub fn lost(&mut self, lost: &Lost) {
        let outcome = outcome::lost(lost, self.doing(), self.may_have_it());
        self.transcript.note(&outcome.text);
        self.settle_all(&outcome);
        self.usable = false;
    }

    /// Moves the results of the transaction into `results`.
    pub fn results(&mut self, results: &mut Results) {
        for buffer in [&mut self.script, &mut self.output] {
            if buffer.capacity() > KEPT && buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
        for Slot { number, state } in self.slots.drain(..) {
            match state {
                SlotState::Done(outcome) => results.outcomes.push(RecipientOutcome::new(number, outcome)),
                SlotState::TooMany(_) if self.any_accepted => results.postponed.push(number),
                SlotState::TooMany(outcome) => {
                    results.outcomes.push(RecipientOutcome::new(number, outcome));
                }
                SlotState::Asked | SlotState::Accepted => {
                    debug_assert!(false, "a transaction that is not over was asked for its results");
                }
            }
        }
    }

    /// Says goodbye. What the peer answers matters to nobody.
    pub fn quit(&mut self) {
        self.output.extend_from_slice(b"QUIT\r\n");
        self.transcript.sent(b"QUIT");
        self.usable = false;
    }
}

#[cfg(test)]
mod tests;
