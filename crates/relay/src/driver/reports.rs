//! Reports to senders: composed, written into the store, and given a place, all before the settlement that they are
//! part of.

use mail::{
    Accepted, Attempt, Event, EventKind, Message, Origin, Protocol, Recipient, ReportKind, Stream, Timestamp,
};
use report::{DsnRequest, Ending, Original, Reported, Returned};
use schedule::{Decision, Fate};
use store::{Admission, Content, NewDelivery, Waiting};

use super::settle::outcome_of;
use super::{Driver, Reserved, Settings};

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
    pub(super) event: EventKind,
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
        let sealed = store.sealed(id, dsn.content);
        let size = sealed.len();
        let message = Message {
            id,
            org: subject.waiting.message.org,
            stream: Stream::Transactional,
            received_at: subject.now,
            reverse_path: None,
            ret: None,
            envid: None,
            body: dsn.body,
            smtputf8: dsn.smtputf8,
            size,
            header_message_id: Some(dsn.header_message_id),
            require_tls: false,
            tls_optional: false,
            origin: Origin {
                protocol: Protocol::Report,
                client: None,
                helo: None,
                credential: None,
                tls: None,
                listener: None,
            },
        };
        let recipient = Recipient { address: dsn.to, notify: mail::Notify::Never, orcpt: None };
        let destination = crate::plan::way(&self.0.directory.snapshot(), None, &recipient.address).0;
        let queue = mail::QueueKey { org: message.org, stream: message.stream, destination };
        let reserved = self.reserve(std::iter::once(queue.clone()));
        let state = crate::pipeline::begin_as(&queue.destination, reserved.is_active(0), subject.now);
        let accepted = Accepted {
            message: message.clone(),
            recipients: vec![recipient.clone()],
            report_on: Some(subject.waiting.message.id),
        };
        let event = Event { at: subject.now, message: id, kind: EventKind::Accepted(Box::new(accepted)) };
        let deliveries = vec![NewDelivery { queue, recipients: vec![(0, recipient)], state }];
        Some(Prepared {
            admission: Admission { message, content: sealed, deliveries, dedupe: None, events: vec![event] },
            reserved,
            event: EventKind::Reported { kind, report: id, recipients: recipients.to_vec() },
        })
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
