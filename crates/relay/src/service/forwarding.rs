//! Whom mail goes to in the end: aliases, rewriting, SRS, and reports that come back to our own return paths.

use std::sync::Arc;

use directory::Snapshot;
use forward::{Expansion, Forwarding as Asked, ReturnPaths, Rewriter, SenderDecision, SrsPolicy};
use mail::{
    Address, Destination, EnhancedStatus, Event, EventKind, Message, OrgId, Recipient, Reply, Timestamp,
};

/// What is done to envelopes; made anew when configuration or directory change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forwarding {
    pub(crate) rewriter: Rewriter,
    /// None: senders of forwarded mail stay as they are.
    pub(crate) srs: Option<SrsPolicy>,
    /// None: no return paths of our own.
    pub(crate) returns: Option<Arc<ReturnPaths>>,
}

/// What it is about an address that others may write to it, though its domain is not local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    /// An alias or a pattern of ours leads on from it.
    Alias,
    /// It is a sender that we rewrote, or a return path that we signed.
    Signed,
}

/// An envelope after aliases and rewriting.
#[derive(Debug)]
pub(crate) struct Applied {
    /// Whom it goes to.
    pub(crate) recipients: Vec<Recipient>,
    /// What was changed.
    pub(crate) told: Option<Event>,
    /// Aliases whose sender asked to be told of success.
    pub(crate) opened: Vec<Opened>,
}

/// An alias with several addresses, whose sender is owed a report with the action `expanded`.
#[derive(Debug)]
pub(crate) struct Opened {
    /// As the sender wrote it.
    pub(crate) alias: Recipient,
    /// The numbers of those that it became.
    pub(crate) numbers: Vec<u16>,
}

impl Forwarding {
    /// Whether there is nothing to do for any envelope.
    pub(crate) fn is_empty(&self) -> bool {
        self.rewriter.is_empty() && self.srs.is_none() && self.returns.is_none()
    }

    /// What is special about a recipient.
    ///
    /// # Errors
    /// The reply for one that pretends to be signed here, or whose aliases lead nowhere.
    pub(crate) fn special(&self, org: OrgId, to: &Address, now: Timestamp) -> Result<Option<Special>, Reply> {
        let forged =
            |words: String| Reply::new(550, EnhancedStatus::new(5, 1, 1), format!("<{to}>: {words}"));
        if let Some(returns) = self.returns.as_ref().filter(|returns| returns.is_ours(to)) {
            return returns.verify(to, now).map(|_| Some(Special::Signed)).map_err(|e| forged(e.to_string()));
        }
        if let Some(srs) = self.srs.as_ref().map(SrsPolicy::srs).filter(|srs| srs.is_ours(to)) {
            return srs.reverse(to, now).map(|_| Some(Special::Signed)).map_err(|e| forged(e.to_string()));
        }
        if !self.rewriter.speaks_of(org, to) {
            return Ok(None);
        }
        let expansion = self.rewriter.expand(org, None, &[Recipient::new(to.clone())]);
        match expansion.refused.first() {
            None => Ok(Some(Special::Alias)),
            Some(refused) => Err(refusal(to, refused)),
        }
    }

    /// Opens aliases, rewrites addresses, turns rewritten senders back, and gives forwarded mail a sender of ours where that
    /// is asked for. What was changed is told by an event.
    ///
    /// # Errors
    /// The reply when a recipient can't be delivered to.
    pub(crate) fn apply(
        &self,
        directory: &Snapshot,
        message: &mut Message,
        recipients: Vec<Recipient>,
        sender_is_ours: bool,
        now: Timestamp,
    ) -> Result<Applied, Reply> {
        if self.rewriter.is_empty() && self.srs.is_none() {
            return Ok(Applied { recipients, told: None, opened: Vec::new() });
        }
        let was = message.reverse_path.clone();
        let turned = self.turn_back(&recipients, now)?;
        let expansion =
            self.rewriter.expand(message.org, was.as_ref(), turned.as_deref().unwrap_or(&recipients));
        if let Some(refused) = expansion.refused.first() {
            return Err(refusal(&recipients[usize::from(refused.from)].address, refused));
        }
        expansion.problems.iter().for_each(|problem| tracing::warn!(id = %message.id, %problem, "aliases"));
        message.reverse_path.clone_from(&expansion.sender);
        self.rewrite_sender(directory, message, &expansion, sender_is_ours, now);
        let told = told(message, &recipients, &expansion, &was);
        let opened = expansion.opened.iter().map(|opened| Opened {
            alias: opened.alias.clone(),
            numbers: numbers_of(opened.from, &expansion),
        });
        let opened = opened.collect();
        let recipients = expansion.recipients.into_iter().map(|expanded| expanded.recipient).collect();
        Ok(Applied { recipients, told, opened })
    }

    /// Recipients that are senders which we rewrote: their mail goes to those. None when there is none.
    fn turn_back(&self, recipients: &[Recipient], now: Timestamp) -> Result<Option<Vec<Recipient>>, Reply> {
        let Some(srs) = self.srs.as_ref().map(SrsPolicy::srs) else { return Ok(None) };
        if !recipients.iter().any(|recipient| srs.is_ours(&recipient.address)) {
            return Ok(None);
        }
        let turned = recipients.iter().map(|recipient| {
            if !srs.is_ours(&recipient.address) {
                return Ok(recipient.clone());
            }
            let address = srs.reverse(&recipient.address, now).map_err(|error| {
                Reply::new(550, EnhancedStatus::new(5, 1, 1), format!("<{}>: {error}", recipient.address))
            })?;
            Ok(Recipient { address, ..recipient.clone() })
        });
        turned.collect::<Result<_, _>>().map(Some)
    }

    /// One message has one sender: if any of its recipients needs another one, all get it.
    fn rewrite_sender(
        &self,
        directory: &Snapshot,
        message: &mut Message,
        expansion: &Expansion,
        sender_is_ours: bool,
        now: Timestamp,
    ) {
        let Some(srs) = &self.srs else { return };
        for expanded in expansion.recipients.iter().filter(|expanded| expanded.forwarded) {
            let sender = message.reverse_path.as_ref();
            let (destination, _) = directory.route(sender, &expanded.recipient.address);
            let recipient_is_local = !matches!(destination, Destination::Mx(_));
            let asked = Asked { sender, sender_is_ours, forwarded: true, recipient_is_local };
            match srs.decide(asked, now) {
                SenderDecision::Keep => {}
                SenderDecision::KeepUnfit(error) => {
                    tracing::warn!(id = %message.id, %error, "the sender of forwarded mail stays as it is");
                }
                SenderDecision::Rewrite(rewritten) => {
                    message.reverse_path = Some(rewritten);
                    return;
                }
            }
        }
    }

    /// Whether reports to this address are read here.
    pub(crate) fn reads(&self, to: &Address) -> bool {
        self.returns.as_ref().is_some_and(|returns| returns.is_ours(to))
    }
}

fn refusal(to: &Address, refused: &forward::Refused) -> Reply {
    tracing::warn!(%to, why = %refused.words, "aliases lead nowhere");
    let text = format!("<{to}>: its aliases lead nowhere; its postmaster has to mend them");
    Reply::new(550, refused.status, text)
}

/// The numbers of the recipients that the one of this number became.
fn numbers_of(from: u16, expansion: &Expansion) -> Vec<u16> {
    let became = (0u16..).zip(&expansion.recipients);
    became.filter(|(_, to)| to.from == from || to.also.contains(&from)).map(|(number, _)| number).collect()
}

fn told(
    message: &Message,
    recipients: &[Recipient],
    expansion: &Expansion,
    was: &mail::ReversePath,
) -> Option<Event> {
    let mut changed = Vec::new();
    for (number, recipient) in (0u16..).zip(recipients) {
        let became = numbers_of(number, expansion);
        let is_same = |n: &u16| expansion.recipients[usize::from(*n)].recipient.address == recipient.address;
        if !became.iter().any(is_same) || became.len() > 1 {
            changed.push((recipient.address.clone(), became));
        }
    }
    let sender = (*was != message.reverse_path).then(|| was.clone());
    (!changed.is_empty() || sender.is_some()).then_some(Event {
        at: message.received_at,
        message: message.id,
        kind: EventKind::Forwarded { recipients: changed, sender },
    })
}
