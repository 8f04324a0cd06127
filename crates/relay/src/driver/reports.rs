//! Reports to senders: composed, written into the store, and given a place, all before the settlement that they are
//! part of.

use std::sync::Arc;

use mail::{
    Accepted, Attempt, Body, Event, EventKind, Message, Origin, Protocol, Recipient, ReportKind, Ret, Stream, Timestamp,
};
use schedule::Decision;
use store::{Admission, Content, NewDelivery, Waiting};

use super::settle::outcome_of;
use super::{Driver, Reserved, Settings};

/// The most of an original that a report brings back; a longer one comes back as its header section.
const ORIGINAL_MAX: u64 = 256 * 1024;

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
    /// Composes a report and gives it a place.
    pub(super) async fn prepare_report(
        &self,
        settings: &Settings,
        kind: ReportKind,
        recipients: &[u16],
        subject: &Subject<'_>,
        content: Option<&Content>,
    ) -> Prepared {
        let store = &self.0.store;
        let original = self.original(subject.waiting, content).await;
        let id = store.ids().next();
        let request = request(settings, kind, recipients, subject, &original, id);
        let dsn = report::dsn(&request);
        let is_ascii = dsn.content.is_ascii();
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
            body: if is_ascii { Body::SevenBit } else { Body::EightBitMime },
            smtputf8: !dsn.to.is_ascii() || dsn.smtputf8,
            size,
            header_message_id: Some(dsn.message_id),
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
        Prepared {
            admission: Admission { message, content: sealed, deliveries, dedupe: None, events: vec![event] },
            reserved,
            event: EventKind::Reported { kind, report: id, recipients: recipients.to_vec() },
        }
    }

    /// The original, or as much of it as a report may bring back. Without its content a report still says what
    /// happened.
    async fn original(&self, waiting: &Waiting, content: Option<&Content>) -> Vec<u8> {
        let read = match content {
            Some(content) => content.clone(),
            None => match self.0.store.content(&waiting.content).await {
                Ok(content) => content,
                Err(error) => {
                    tracing::warn!(message = %waiting.message.id, %error, "the original can't be read for its report");
                    return Vec::new();
                }
            },
        };
        match read.read_all_up_to(usize::try_from(ORIGINAL_MAX).unwrap_or(usize::MAX)).await {
            Ok(bytes) => bytes.to_vec(),
            Err(error) => {
                tracing::warn!(message = %waiting.message.id, %error, "the original can't be read for its report");
                Vec::new()
            }
        }
    }
}

/// What the report has to say.
fn request<'a>(
    settings: &Settings,
    kind: ReportKind,
    recipients: &[u16],
    subject: &Subject<'a>,
    original: &'a [u8],
    id: mail::MessageId,
) -> report::DsnRequest<'a> {
    let waiting = subject.waiting;
    let reported = waiting
        .recipients
        .iter()
        .zip(&subject.decision.recipients)
        .filter(|(_, (number, _))| recipients.contains(number))
        .map(|(pending, (_, fate))| report::Reported {
            recipient: &pending.recipient,
            outcome: outcome_of(fate).clone(),
            expired: matches!(fate, schedule::Fate::Expired(_)),
        })
        .collect();
    let whole = waiting.message.size <= ORIGINAL_MAX;
    report::DsnRequest {
        id,
        hostname: Arc::clone(&settings.hostname),
        kind,
        now: subject.now,
        message: &waiting.message,
        recipients: reported,
        remote: subject.attempt.remote.as_ref(),
        retry_until: Some(subject.decision.expires_at),
        original,
        full: whole && waiting.message.ret != Some(Ret::Headers),
    }
}
