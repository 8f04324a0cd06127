//! One transaction on an open connection: the envelope, the content, the outcomes.
//!
//! Small content goes by BDAT, in the same write as the envelope, to peers that offer CHUNKING: one round trip for a
//! message. All else goes by DATA: its 354 comes with the replies to the envelope, so that BDAT would save nothing there,
//! and no large content is on its way to a peer that wants none of it.

use std::time::Duration;

use bytes::Bytes;
use mail::{Clock, Disposition, EnhancedStatus, Outcome, RecipientOutcome};
use smtp::client::{Lost, Results, Sending, Step};
use smtp::stuffing::encode::{self, DotEncoder, Forbidden};
use store::{Content, PendingRecipient};

use crate::engine::Engine;
use crate::link::Job;
use crate::open::Connection;
use crate::permit::{Permit, withheld};
use crate::settings::Timeouts;
use crate::wire::{Patience, Wire};

/// Content up to this size is checked as a whole before the transaction begins and written at once; what is larger goes
/// in pieces of this size.
const PIECE: usize = 64 << 10;

/// Content ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The content itself, where it is small; it holds nothing that cannot be sent.
    whole: Option<Bytes>,
    /// The encoded content with its dot, once somebody wanted it so.
    encoded: Option<Vec<u8>>,
    /// Memory to be used again.
    spare: Vec<u8>,
}

impl Prepared {
    /// Reads and checks small content. What cannot be sent by SMTP is found out before anything is said to the peer.
    pub(crate) async fn prepare(&mut self, content: &Content) -> Result<(), Outcome> {
        self.trim();
        self.spare.clear();
        if content.len() <= PIECE as u64 {
            let octets = content.read_all_up_to(PIECE).await.map_err(|error| unreadable(&error))?;
            encode::check(&octets).map_err(|forbidden| unsendable(&forbidden))?;
            self.whole = Some(octets);
        }
        Ok(())
    }

    /// The content for BDAT. No octet at all is a chunk that servers differ about.
    fn chunk(&self) -> Option<&[u8]> {
        self.whole.as_deref().filter(|octets| !octets.is_empty())
    }

    /// The encoded content with its dot, where it is small.
    fn encoded(&mut self) -> Option<&[u8]> {
        if let (Some(octets), None) = (&self.whole, &self.encoded) {
            let mut out = std::mem::take(&mut self.spare);
            encode::encode_checked(octets, &mut out);
            self.encoded = Some(out);
        }
        self.encoded.as_deref()
    }
}

/// A link that waits for its next message keeps no more memory than this.
const KEPT: usize = 16 << 10;

impl Prepared {
    /// Gives memory back after a message.
    pub(crate) fn trim(&mut self) {
        self.whole = None;
        if let Some(used) = self.encoded.take() {
            self.spare = used;
        }
        if self.spare.capacity() > KEPT {
            self.spare = Vec::new();
        }
    }
}

impl Connection {
    /// Sends the message to the recipients whose places in `waiting.recipients` are in `left`, or to as many of them as
    /// the peer takes at once; what is over stays in `left`. Returns how the connection got lost, if it did.
    pub(crate) async fn transact(
        &mut self,
        job: &Job,
        prepared: &mut Prepared,
        left: &mut Vec<usize>,
        outcomes: &mut Vec<RecipientOutcome>,
        engine: &Engine,
    ) -> Option<Lost> {
        let Job { waiting, content, .. } = job;
        let all = &waiting.recipients;
        self.latency = None;
        let asked = left.iter().map(|&place| (all[place].number, &all[place].recipient));
        let learned = self.learned.recipients.map_or(usize::MAX, |n| n as usize);
        let by_chunk = self.settings.bdat && self.session.capabilities().chunking && !self.lmtp;
        let sending = Sending {
            limit: self.settings.recipients_max.min(learned),
            require_tls: self.requirement.requiretls_param,
            chunk: if by_chunk { prepared.chunk() } else { None },
        };
        let taken = match self.session.begin(&waiting.message, asked, sending) {
            Ok(taken) => taken,
            Err(outcome) => {
                settle(all, left, outcomes, &outcome);
                return None;
            }
        };
        let (lost, latency) = self.drive(content, prepared, engine.clock(), engine.permit()).await;
        self.latency = latency;
        let mut results = Results { outcomes: std::mem::take(outcomes), postponed: Vec::new() };
        self.session.results(&mut results);
        *outcomes = results.outcomes;
        let mut place = 0;
        left.retain(|&at| {
            place += 1;
            place > taken || results.postponed.contains(&all[at].number)
        });
        lost
    }

    /// Drives the transaction to its end. Says how the connection got lost, if it did, and how long the peer took to
    /// answer the content.
    async fn drive(
        &mut self,
        content: &Content,
        prepared: &mut Prepared,
        clock: &Clock,
        permit: &Permit,
    ) -> (Option<Lost>, Option<Duration>) {
        let Self { wire, session, settings, .. } = self;
        let mut patience = Patience::new(clock, &settings.timeouts);
        let mut content_out = None;
        loop {
            let step = session.input(&mut wire.input);
            // A chunk goes out with the next write, what goes by DATA is out when it comes to reading.
            if content_out.is_none() && session.content_is_out() && matches!(step, Ok(Step::Read(_))) {
                if !session.output().is_empty() && !permit.is_given() {
                    session.withdraw(&withheld());
                    return (None, None);
                }
                content_out = Some(clock.mono());
            }
            let lost = match step {
                Ok(Step::Finished) => return (None, content_out.map(|out| clock.mono().since(out))),
                Ok(Step::Read(wait)) => match patience.left(wait, session.replies()) {
                    Ok(limit) => wire.exchange(session.output(), limit).await,
                    Err(lost) => Err(lost),
                },
                Ok(Step::Content) => match send(wire, content, prepared, &settings.timeouts, permit).await {
                    Ok(()) => {
                        session.content_sent(content.len());
                        Ok(())
                    }
                    Err(Unsent::Content(outcome)) => {
                        session.withdraw(&outcome);
                        return (None, None);
                    }
                    Err(Unsent::Lost(lost)) => {
                        session.content_broken(&mut wire.input, &lost);
                        return (Some(lost), None);
                    }
                },
                Err(fault) => Err(Lost::Fault(fault)),
            };
            if let Err(lost) = lost {
                session.lost(&lost);
                return (Some(lost), None);
            }
        }
    }

    /// Asks whether the peer would take mail for a recipient.
    pub(crate) async fn ask(&mut self, recipient: &mail::Recipient, clock: &Clock) -> Option<Outcome> {
        self.session.ask(recipient);
        let nothing = Content::Memory(bytes::Bytes::new());
        let (lost, _) = self.drive(&nothing, &mut Prepared::default(), clock, &Permit::always()).await;
        tracing::trace!(?lost, "asked about a recipient");
        let mut results = Results::default();
        self.session.results(&mut results);
        results.outcomes.pop().map(|r| r.outcome)
    }

    /// Says QUIT and waits a moment for the answer.
    pub(crate) async fn quit(mut self) {
        let limit = self.settings.timeouts.quit;
        self.session.quit();
        let said = self.wire.exchange(self.session.output(), limit).await;
        tracing::trace!(?said, "QUIT");
        self.wire.shut(limit).await;
    }
}

/// Gives `outcome` to all that are left.
pub(crate) fn settle(
    all: &[PendingRecipient],
    left: &mut Vec<usize>,
    outcomes: &mut Vec<RecipientOutcome>,
    outcome: &Outcome,
) {
    outcomes.extend(left.drain(..).map(|place| RecipientOutcome::new(all[place].number, outcome.clone())));
}

/// Why content did not go out.
enum Unsent {
    /// It is the content's fault, our disk's, or this node may not complete it.
    Content(Outcome),
    /// It is the connection's.
    Lost(Lost),
}

async fn send(
    wire: &mut Wire,
    content: &Content,
    prepared: &mut Prepared,
    timeouts: &Timeouts,
    permit: &Permit,
) -> Result<(), Unsent> {
    let may_complete = || if permit.is_given() { Ok(()) } else { Err(Unsent::Content(withheld())) };
    if let Some(encoded) = prepared.encoded() {
        may_complete()?;
        return wire.write(encoded, timeouts.block).await.map_err(Unsent::Lost);
    }
    let out = &mut prepared.spare;
    let mut encoder = DotEncoder::default();
    let mut offset = 0;
    loop {
        out.clear();
        let piece = content.chunk(offset, PIECE).await.map_err(|e| Unsent::Content(unreadable(&e)))?;
        offset += piece.len() as u64;
        let unsendable = |forbidden| Unsent::Content(unsendable(&forbidden));
        encoder.encode(&piece, out).map_err(unsendable)?;
        let is_last = offset >= content.len();
        if is_last {
            encoder.clone().finish(out).map_err(unsendable)?;
            may_complete()?;
        }
        wire.write(out, timeouts.block).await.map_err(Unsent::Lost)?;
        if is_last {
            return Ok(());
        }
        if !wire.input.is_empty() {
            // The peer does not want the rest of it.
            return Err(Unsent::Lost(Lost::Closed));
        }
    }
}

fn unsendable(forbidden: &Forbidden) -> Outcome {
    Outcome::own(Disposition::Refused, EnhancedStatus::new(5, 6, 0), forbidden.to_string())
}

fn unreadable(error: &std::io::Error) -> Outcome {
    let text = format!("the stored content cannot be read: {error}");
    Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 3, 0), text)
}
