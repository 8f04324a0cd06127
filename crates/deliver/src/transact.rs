//! One transaction on an open connection: the envelope, the content, the outcomes.

use mail::{Clock, Disposition, EnhancedStatus, Outcome, RecipientOutcome};
use smtp::client::{Lost, Results, Sending, Step};
use smtp::stuffing::encode::{DotEncoder, Forbidden};
use store::{Content, PendingRecipient};

use crate::link::Job;
use crate::open::Connection;
use crate::settings::Timeouts;
use crate::wire::{Patience, Wire};

/// Content up to this size is encoded as a whole before the transaction begins and written at once; what is larger goes
/// in pieces of this size.
const PIECE: usize = 64 << 10;

/// Content ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The encoded content with its dot, where the content is small.
    encoded: Option<Vec<u8>>,
    /// Memory to be used again.
    spare: Vec<u8>,
}

impl Prepared {
    /// Encodes small content. What cannot be sent by SMTP is found out before anything is said to the peer.
    pub(crate) async fn prepare(&mut self, content: &Content) -> Result<(), Outcome> {
        self.spare.clear();
        if content.len() > PIECE as u64 {
            return Ok(());
        }
        let octets = content.read_all_up_to(PIECE).await.map_err(|error| unreadable(&error))?;
        let mut out = std::mem::take(&mut self.spare);
        let mut encoder = DotEncoder::default();
        encoder
            .encode(&octets, &mut out)
            .and_then(|()| encoder.finish(&mut out))
            .map_err(|forbidden| unsendable(&forbidden))?;
        self.encoded = Some(out);
        Ok(())
    }
}

/// A link that waits for its next message keeps no more memory than this.
const KEPT: usize = 16 << 10;

impl Prepared {
    /// Gives memory back after a large message.
    pub(crate) fn trim(&mut self) {
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
        clock: &Clock,
    ) -> Option<Lost> {
        let Job { waiting, content, .. } = job;
        let all = &waiting.recipients;
        let asked = left.iter().map(|&place| (all[place].number, &all[place].recipient));
        let sending = Sending { limit: self.settings.recipients_max, require_tls: false, chunk: None };
        let taken = match self.session.begin(&waiting.message, asked, sending) {
            Ok(taken) => taken,
            Err(outcome) => {
                settle(all, left, outcomes, &outcome);
                return None;
            }
        };
        let lost = self.drive(content, prepared, clock).await;
        let mut results = Results::default();
        self.session.results(&mut results);
        outcomes.append(&mut results.outcomes);
        let mut place = 0;
        left.retain(|&at| {
            place += 1;
            place > taken || results.postponed.contains(&all[at].number)
        });
        lost
    }

    async fn drive(&mut self, content: &Content, prepared: &mut Prepared, clock: &Clock) -> Option<Lost> {
        let Self { wire, session, settings, .. } = self;
        let mut patience = Patience::new(clock, &settings.timeouts);
        loop {
            let lost = match session.input(&mut wire.input) {
                Ok(Step::Finished) => return None,
                Ok(Step::Read(wait)) => match patience.left(wait, session.replies()) {
                    Ok(limit) => wire.exchange(session.output(), limit).await,
                    Err(lost) => Err(lost),
                },
                Ok(Step::Content) => match send(wire, content, prepared, &settings.timeouts).await {
                    Ok(()) => {
                        session.content_sent(content.len());
                        Ok(())
                    }
                    Err(Unsent::Content(outcome)) => {
                        session.withdraw(&outcome);
                        return None;
                    }
                    Err(Unsent::Lost(lost)) => {
                        session.content_broken(&mut wire.input, &lost);
                        return Some(lost);
                    }
                },
                Err(fault) => Err(Lost::Fault(fault)),
            };
            if let Err(lost) = lost {
                session.lost(&lost);
                return Some(lost);
            }
        }
    }

    /// Asks whether the peer would take mail for a recipient.
    pub(crate) async fn ask(&mut self, recipient: &mail::Recipient, clock: &Clock) -> Option<Outcome> {
        self.session.ask(recipient);
        let nothing = Content::Memory(bytes::Bytes::new());
        let lost = self.drive(&nothing, &mut Prepared::default(), clock).await;
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
    /// It is the content's fault, or our disk's.
    Content(Outcome),
    /// It is the connection's.
    Lost(Lost),
}

async fn send(
    wire: &mut Wire,
    content: &Content,
    prepared: &mut Prepared,
    timeouts: &Timeouts,
) -> Result<(), Unsent> {
    if let Some(encoded) = &prepared.encoded {
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
