//! Late bounces: mail leaves with a return path that we signed, and what comes back to one is read here, put on the record of
//! the message that it is about, and told to who sent that.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use deliver::Job;
use forward::ReturnPath;
use history::{Timeline, TraceQuery};
use mail::{
    Address, Attempt, BounceClass, Destination, Disposition, EnhancedStatus, Event, EventKind, Message,
    MessageId, OrgId, Outcome, Protocol, Recipient, RecipientOutcome, Stream,
};
use store::{Content, Waiting};

use super::reports::Prepared;
use super::settle::Ended;
use super::{Driver, Settings, Suppress};

/// How much of a returned message is read.
const READ_MAX: usize = 1 << 20;
/// A message that is younger and not in the history may still come into it.
const HISTORY_BEHIND_MAX: Duration = Duration::from_secs(10 * 60);

/// Whose mail leaves with return paths of our own.
#[derive(Clone, Debug, Default)]
pub(crate) enum SignedReturns {
    /// Nobody's.
    #[default]
    Nobody,
    /// That of these organisations.
    Of(HashSet<OrgId>),
    /// Everyone's.
    Everyone,
}

impl SignedReturns {
    fn of(&self, org: OrgId) -> bool {
        match self {
            SignedReturns::Nobody => false,
            SignedReturns::Of(orgs) => orgs.contains(&org),
            SignedReturns::Everyone => true,
        }
    }
}

/// A recipient that a returned message tells of.
struct Late {
    original: MessageId,
    recipient: u16,
    outcome: Outcome,
    class: BounceClass,
}

impl Driver {
    /// A delivery as the engine takes it, and the message as it was where its return path is another one on the way.
    pub(super) fn job(&self, waiting: Waiting, content: Content) -> (Job, Option<Arc<Message>>) {
        let settings = self.0.settings.load();
        let mut waiting = waiting;
        let mut was = None;
        if let Some(signed) = return_path(&settings, &waiting) {
            let message = Message { reverse_path: Some(signed), ..Message::clone(&waiting.message) };
            was = Some(std::mem::replace(&mut waiting.message, Arc::new(message)));
        }
        (Job { waiting, content, full_transcript: false }, was)
    }

    /// Reads a message that came to return paths of ours.
    pub(super) async fn take_bounce(&self, waiting: Waiting, content: Content) -> Ended {
        let settings = self.0.settings.load_full();
        let read = content.read_all_up_to(READ_MAX).await;
        let mut ended = Ended::new(waiting, Some(content), blank());
        let mut outcomes = Vec::new();
        for pending in ended.waiting.recipients.clone() {
            let outcome = match &read {
                Err(error) => deferred(format!("the stored message could not be read: {error}")),
                Ok(octets) => {
                    self.read_bounce(&settings, &pending.recipient.address, octets, &mut ended).await
                }
            };
            outcomes.push(RecipientOutcome::new(pending.number, outcome));
        }
        ended.attempt = Attempt {
            delivery: ended.waiting.id,
            destination: Destination::Bounces,
            started: self.0.clock.now(),
            outcomes,
            ..blank()
        };
        ended
    }

    /// What a message to this return path tells, and what is done about it.
    async fn read_bounce(
        &self,
        settings: &Settings,
        to: &Address,
        octets: &[u8],
        ended: &mut Ended,
    ) -> Outcome {
        let now = self.0.clock.now();
        let Some(path) = settings.forwarding.returns.as_ref().and_then(|r| r.verify(to, now).ok()) else {
            return done("a return path that is no longer good: nothing is done about it");
        };
        let Some(reports) = report::dsn::read(octets) else {
            return done("no report of failure in a form that is understood: nothing is done about it");
        };
        let query =
            TraceQuery { id: Some(path.message.to_string()), limit: Some(1), ..TraceQuery::default() };
        let original = match self.0.history.trace(query).await {
            Ok(found) => found.into_iter().next(),
            Err(error) => return deferred(format!("the history could not be read: {error}")),
        };
        let Some(original) = original else {
            // History is written behind the commits: a report can be there first.
            return if now.since(path.message.accepted_at()) < HISTORY_BEHIND_MAX {
                deferred("the message that it is about is not in the history yet".to_owned())
            } else {
                done("about a message that is no longer in the history")
            };
        };
        let late = late(settings, &path, &original, &reports);
        if late.is_empty() {
            return done("tells of no failure of a recipient of ours");
        }
        let words = format!("about {}: {} recipients failed", path.message, late.len());
        self.suppress_late(settings, &original, &late);
        ended.letters.extend(self.tell_sender(settings, &original, &ended.waiting, octets));
        ended.events.extend(late.into_iter().map(|late| Event {
            at: now,
            message: late.original,
            kind: EventKind::Bounced {
                recipient: late.recipient,
                outcome: late.outcome,
                class: late.class,
                report: Some(ended.waiting.message.id),
            },
        }));
        done(&words)
    }

    fn suppress_late(&self, settings: &Settings, original: &Timeline, late: &[Late]) {
        let Some(accepted) = &original.accepted else { return };
        let wanted = match settings.suppress {
            Suppress::Never => false,
            Suppress::Bulk => accepted.stream == Stream::Bulk,
            Suppress::Always => true,
        };
        let gone = late.iter().filter(|late| wanted && late.class.suppresses());
        for late in gone {
            let found = original.recipients.iter().find(|r| r.number == late.recipient);
            if let Some(address) = found.and_then(|r| Address::parse(&r.address).ok()) {
                self.suppress_address(OrgId(accepted.org), &address, &late.outcome);
            }
        }
    }

    /// Sends a bounce on to who sent the message: the return path that it came to was ours, not theirs. Bounces of bulk mail
    /// are for the record alone.
    fn tell_sender(
        &self,
        settings: &Settings,
        original: &Timeline,
        bounce: &Waiting,
        octets: &[u8],
    ) -> Option<Prepared> {
        let accepted = original.accepted.as_ref().filter(|accepted| accepted.stream != Stream::Bulk)?;
        let address = Address::parse(&accepted.sender).ok()?;
        let id = self.0.store.ids().next();
        let content = self.0.store.sealed(id, octets.to_vec());
        let mut message = Message {
            id,
            org: OrgId(accepted.org),
            received_at: self.0.clock.now(),
            reverse_path: None,
            size: content.len(),
            ..Message::clone(&bounce.message)
        };
        message.origin.protocol = Protocol::Report;
        let recipient = Recipient { notify: mail::Notify::Never, ..Recipient::new(address) };
        let (admission, reserved) = self.letter(settings, message, recipient, content, Some(original.id))?;
        Some(Prepared { admission, reserved, event: None })
    }
}

/// The return path for mail that leaves for strangers' servers. A report keeps its null sender.
fn return_path(settings: &Settings, waiting: &Waiting) -> Option<Address> {
    let returns = settings.forwarding.returns.as_ref()?;
    let leaves = matches!(waiting.queue.destination, Destination::Mx(_) | Destination::SmartHost(_));
    if !leaves || waiting.message.reverse_path.is_none() || !settings.signed.of(waiting.message.org) {
        return None;
    }
    let only = match &*waiting.recipients {
        [one] => Some(one.number),
        _ => None,
    };
    let signed = returns.sign(waiting.message.id, only);
    signed.inspect_err(|error| tracing::error!(%error, "no return path could be made")).ok()
}

/// Failures that a report tells of, of recipients that the message had.
fn late(
    settings: &Settings,
    path: &ReturnPath,
    original: &Timeline,
    reports: &[report::dsn::InboundReport],
) -> Vec<Late> {
    let mut all: Vec<Late> = Vec::new();
    for report in reports.iter().filter(|report| report.action == report::dsn::ReportAction::Failed) {
        let named = |text: &Option<String>| {
            let text = text.as_deref()?;
            original.recipients.iter().find(|r| r.address.eq_ignore_ascii_case(text)).map(|r| r.number)
        };
        let recipient = path
            .recipient
            .or_else(|| named(&report.original_recipient))
            .or_else(|| named(&report.final_recipient));
        let Some(recipient) = recipient.filter(|n| !all.iter().any(|late| late.recipient == *n)) else {
            continue;
        };
        let outcome = report.outcome();
        let host = report.remote.as_deref();
        let provider = host.and_then(|host| settings.policy.providers.provider_of(&[host]));
        let class = settings.classifier.classify(&outcome, provider.as_deref());
        all.push(Late { original: path.message, recipient, outcome, class });
    }
    all
}

fn blank() -> Attempt {
    Attempt {
        delivery: mail::DeliveryId { message: MessageId(0), index: 0 },
        destination: Destination::Bounces,
        started: mail::Timestamp::default(),
        duration_ms: 0,
        remote: None,
        tls: None,
        outcomes: Vec::new(),
        dsn: false,
        transcript: None,
        source: None,
        security: None,
    }
}

fn done(text: &str) -> Outcome {
    Outcome::own(Disposition::Delivered, EnhancedStatus::new(2, 0, 0), text)
}

fn deferred(text: String) -> Outcome {
    Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 3, 0), text)
}
