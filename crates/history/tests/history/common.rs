//! Messages and events to tell of.

use std::time::Duration;

use history::{Config, History};
use mail::{
    Accepted, Address, Attempt, Body, DeliveryId, Destination, Disposition, EnhancedStatus, Event, EventKind,
    ManualClock, Message, MessageId, OrgId, Origin, Outcome, Protocol, Recipient, RecipientOutcome, Remote,
    Stream, Timestamp,
};

/// 2026-11-24T07:00:00Z
pub(crate) const START: Timestamp = Timestamp(1_795_503_600_000);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn open(dir: &tempfile::TempDir, clock: &ManualClock) -> History {
    open_with(dir, clock, Config::default())
}

pub(crate) fn open_with(dir: &tempfile::TempDir, clock: &ManualClock, config: Config) -> History {
    History::open(dir.path(), config, clock.clock()).unwrap()
}

/// An id made at this time; `n` tells apart those of one millisecond.
pub(crate) fn id(at: Timestamp, n: u64) -> MessageId {
    MessageId(MessageId::first_at(at).0 + n)
}

/// A sender is empty for the null sender.
pub(crate) fn message(id: MessageId, at: Timestamp, sender: &str, message_id: Option<&str>) -> Message {
    Message {
        id,
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: at,
        reverse_path: (!sender.is_empty()).then(|| Address::parse(sender).unwrap()),
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size: 4096,
        header_message_id: message_id.map(str::to_owned),
        require_tls: false,
        tls_optional: false,
        origin: Origin {
            protocol: Protocol::Submission,
            client: Some("192.0.2.7".parse().unwrap()),
            helo: Some("client.example".into()),
            credential: Some("shop".into()),
            tls: None,
            listener: Some("submission".into()),
        },
    }
}

pub(crate) fn accepted(message: Message, recipients: &[&str]) -> Event {
    let recipients = recipients.iter().map(|r| Recipient::new(Address::parse(r).unwrap())).collect();
    let (at, id) = (message.received_at, message.id);
    Event {
        at,
        message: id,
        kind: EventKind::Accepted(Box::new(Accepted { message, recipients, report_on: None })),
    }
}

pub(crate) fn outcome(disposition: Disposition) -> Outcome {
    let (class, code, text) = match disposition {
        Disposition::Delivered => (2, 250, "Ok"),
        Disposition::Deferred => (4, 450, "try later"),
        Disposition::Refused => (5, 550, "no such user"),
    };
    Outcome { disposition, status: EnhancedStatus::new(class, 1, 1), code: Some(code), text: text.into() }
}

/// An attempt with one outcome for each of these recipients; failures have a transcript.
pub(crate) fn attempt(id: MessageId, at: Timestamp, outcomes: &[(u16, Disposition)]) -> Event {
    let failed = outcomes.iter().any(|(_, d)| *d != Disposition::Delivered);
    let attempt = Attempt {
        delivery: DeliveryId { message: id, index: 0 },
        destination: Destination::Mx("example.org".into()),
        started: at,
        duration_ms: 35,
        remote: Some(Remote {
            name: "mx.example.org".into(),
            address: Some("198.51.100.1:25".parse().unwrap()),
        }),
        tls: None,
        outcomes: outcomes
            .iter()
            .map(|(recipient, disposition)| RecipientOutcome::new(*recipient, outcome(*disposition)))
            .collect(),
        dsn: false,
        transcript: failed.then(|| "C: RCPT TO:<bob@example.org>\r\nS: 450 4.1.1 try later\r\n".to_owned()),
        source: None,
        security: None,
    };
    Event { at, message: id, kind: EventKind::Attempt(Box::new(attempt)) }
}

/// Rows of a table over all files.
pub(crate) fn count(dir: &tempfile::TempDir, table: &str) -> i64 {
    files(dir)
        .iter()
        .map(|path| {
            let db = rusqlite::Connection::open(path).unwrap();
            db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap()
        })
        .sum()
}

pub(crate) fn files(dir: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir.path().join("history")).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "db")).collect();
    files.sort();
    files
}
