//! Reports to senders: composed, written into the store, and given a place, all before the settlement that they are
//! part of.

use mail::{
    Accepted, Attempt, Disposition, EnhancedStatus, Event, EventKind, Message, MessageId, Origin, Outcome,
    Recipient, ReportKind, Stream, Timestamp,
};
use report::{Dsn, DsnRequest, Ending, Original, Reported, Returned};
use schedule::{Decision, Fate};
use store::{Admission, Admitted, Content, NewDelivery, Sealed, Waiting};

use super::settle::outcome_of;
use super::{Driver, Reserved, Settings};
use crate::pipeline::begin_as;
use crate::plan::{Planned, Planning, plan};
use crate::service::{Applied, Opened};

/// What a report speaks of.
pub(super) struct Subject<'a> {
    pub(super) waiting: &'a Waiting,
    pub(super) attempt: &'a Attempt,
    pub(super) decision: &'a Decision,
    pub(super) now: Timestamp,
}

/// A report that is ready to be committed.
pub(super) struct Prepared {
    pub(super) admission: Admission,
    pub(super) reserved: Reserved,
    /// What is told of the message that it is about.
    pub(super) event: Option<EventKind>,
}

impl Driver {
    /// Composes a report and gives it a place. None when it turns out that nobody is to be told.
    pub(super) async fn prepare_report(
        &self,
        settings: &Settings,
        kind: ReportKind,
        recipients: &[u16],
        subject: &Subject<'_>,
        content: Option<&Content>,
    ) -> Option<Prepared> {
        let store = &self.0.store;
        let whole = report::returned(kind, &subject.waiting.message) == Returned::Full;
        let original = self.original(subject.waiting, content, whole).await;
        let id = store.ids().next();
        let dsn = report::dsn(&DsnRequest {
            kind,
            hostname: &settings.hostname,
            report: id,
            now: subject.now,
            message: &subject.waiting.message,
            original: match &original {
                None => Original::Lost,
                Some(bytes) if whole => Original::Full(bytes),
                Some(bytes) => Original::Start(bytes),
            },
            recipients: &reported(kind, recipients, subject),
        })?;
        let (admission, reserved) =
            self.report_letter(settings, dsn, id, &subject.waiting.message, subject.now)?;
        let event = EventKind::Reported { kind, report: id, recipients: recipients.to_vec() };
        Some(Prepared { admission, reserved, event: Some(event) })
    }

    /// Tells a sender who asked to hear of success that aliases were opened, and that nothing more is heard of a success
    /// behind them (RFC 3461 section 5.2.7). Their message is accepted by then. This is a commit of its own: a crash between
    /// the two costs the sender this notice, never the word of a failure.
    pub(crate) async fn tell_opened(&self, message: &Message, opened: &[Opened], content: &Content) {
        let (settings, store, now) = (self.0.settings.load_full(), &self.0.store, self.0.clock.now());
        let outcomes: Vec<Outcome> = opened.iter().map(expanded).collect();
        let recipients: Vec<Reported<'_>> = opened
            .iter()
            .zip(&outcomes)
            .map(|(opened, outcome)| Reported {
                recipient: &opened.alias,
                ending: Ending::Expanded,
                outcome,
                remote: None,
                attempted_at: now,
            })
            .collect();
        let start = content.read_all_up_to(report::HEADERS_MAX).await.ok();
        let (kind, report) = (ReportKind::Success, store.ids().next());
        let dsn = report::dsn(&DsnRequest {
            kind,
            hostname: &settings.hostname,
            report,
            now,
            message,
            original: start.as_deref().map_or(Original::Lost, Original::Start),
            recipients: &recipients,
        });
        let letter = dsn.and_then(|dsn| self.report_letter(&settings, dsn, report, message, now));
        let Some((mut admission, reserved)) = letter else { return };
        let numbers = opened.iter().flat_map(|opened| opened.numbers.iter().copied()).collect();
        let kind = EventKind::Reported { kind, report, recipients: numbers };
        admission.events.push(Event { at: now, message: message.id, kind });
        match store.admit(admission).await {
            Ok(Admitted::New(deliveries)) => reserved.admitted(deliveries),
            Ok(Admitted::Duplicate(_)) => {}
            Err(error) => {
                tracing::warn!(id = %message.id, %error, "nobody could be told that aliases were opened")
            }
        }
    }

    /// A report as a message, planned and with its places kept.
    fn report_letter(
        &self,
        settings: &Settings,
        dsn: Dsn,
        id: MessageId,
        about: &Message,
        now: Timestamp,
    ) -> Option<(Admission, Reserved)> {
        let sealed = self.0.store.sealed(id, dsn.content);
        let size = sealed.len();
        let message = Message {
            id,
            org: about.org,
            stream: Stream::Transactional,
            received_at: now,
            reverse_path: None,
            ret: None,
            envid: None,
            body: dsn.body,
            smtputf8: dsn.smtputf8,
            size,
            header_message_id: Some(dsn.header_message_id),
            // A report tells what the message said: it is not to travel with less protection (RFC 8689 section 5).
            require_tls: about.require_tls,
            tls_optional: false,
            origin: Origin::report(),
        };
        let recipient = Recipient { address: dsn.to, notify: mail::Notify::Never, orcpt: None };
        self.letter(settings, message, recipient, sealed, Some(about.id))
    }

    /// A message of our own, planned like any other and with its places kept, to be committed with what it is about. None when
    /// it leads nowhere.
    pub(super) fn letter(
        &self,
        settings: &Settings,
        mut message: Message,
        recipient: Recipient,
        content: Sealed,
        report_on: Option<MessageId>,
    ) -> Option<(Admission, Reserved)> {
        let snapshot = self.0.directory.snapshot();
        let (id, now) = (message.id, message.received_at);
        let applied = settings.forwarding.apply(&snapshot, &mut message, vec![recipient], true, now);
        let Applied { recipients, told, .. } =
            applied.inspect_err(|reply| tracing::warn!(%id, %reply, "a report has nowhere to go")).ok()?;
        let ask = Planning {
            org: message.org,
            stream: message.stream,
            sender: message.reverse_path.as_ref(),
            forwarding: &settings.forwarding,
        };
        let planned = plan(&snapshot, ask, &recipients);
        let reserved = self.reserve(None, planned.iter().map(|part| part.queue.clone()));
        let accepted = Accepted { message: message.clone(), recipients, report_on };
        let mut events = vec![Event { at: now, message: id, kind: EventKind::Accepted(Box::new(accepted)) }];
        events.extend(told);
        let deliveries = planned
            .into_iter()
            .enumerate()
            .map(|(index, Planned { queue, recipients })| {
                let state = begin_as(&queue.destination, reserved.place(index), now);
                NewDelivery { queue, recipients, state }
            })
            .collect();
        Some((Admission { message, content, deliveries, dedupe: None, events }, reserved))
    }

    /// The original, or the beginning of it with the header section; none when it can't be read. Without it a report
    /// still says what happened.
    async fn original(&self, waiting: &Waiting, content: Option<&Content>, whole: bool) -> Option<Vec<u8>> {
        let max = if whole { usize::MAX } else { report::HEADERS_MAX };
        let read = async {
            let content = match content {
                Some(content) => content.clone(),
                None => self.0.store.content(&waiting.content).await.map_err(|e| e.to_string())?,
            };
            content.read_all_up_to(max).await.map_err(|e| e.to_string())
        };
        match read.await {
            Ok(bytes) => Some(bytes.to_vec()),
            Err(error) => {
                tracing::warn!(id = %waiting.message.id, %error, "the original can't be read for its report");
                None
            }
        }
    }
}

fn expanded(opened: &Opened) -> Outcome {
    let text = format!("an alias for {} addresses; the message is on its way to them", opened.numbers.len());
    Outcome::own(Disposition::Delivered, EnhancedStatus::new(2, 1, 5), text)
}

/// The recipients that the report speaks of.
fn reported<'a>(kind: ReportKind, recipients: &[u16], subject: &Subject<'a>) -> Vec<report::Reported<'a>> {
    let (waiting, attempt, decision) = (subject.waiting, subject.attempt, subject.decision);
    let ending = |fate: &Fate| match (kind, fate) {
        (ReportKind::Success, _) => Ending::of_success(&attempt.destination, attempt.dsn),
        (ReportKind::Delay, _) => Some(Ending::Delayed { retry_until: decision.expires_at }),
        (ReportKind::Failure, Fate::Expired(_)) => Some(Ending::Expired),
        (ReportKind::Failure, _) => Some(Ending::Failed),
    };
    waiting
        .recipients
        .iter()
        .zip(&decision.recipients)
        .filter(|(_, (number, _))| recipients.contains(number))
        .filter_map(|(pending, (_, fate))| {
            Some(Reported {
                recipient: &pending.recipient,
                ending: ending(fate)?,
                outcome: outcome_of(fate),
                remote: attempt.remote.as_ref(),
                attempted_at: attempt.started,
            })
        })
        .collect()
}
