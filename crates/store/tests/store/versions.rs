//! What an earlier version left is read by this one.

use std::path::Path;

use mail::{
    Accepted, Address, Body, Event, EventKind, MessageId, OrgId, Origin, Protocol, Recipient, State, Stream,
    Timestamp,
};
use serde::Serialize;
use store::{Counts, Next, QueueFilter};

use crate::common::*;

/// A message as version 1 stored it.
#[derive(Serialize)]
struct OldMessage {
    id: MessageId,
    org: OrgId,
    stream: Stream,
    received_at: Timestamp,
    reverse_path: Option<Address>,
    ret: Option<mail::Ret>,
    envid: Option<String>,
    body: Body,
    smtputf8: bool,
    size: u64,
    header_message_id: Option<String>,
    origin: Origin,
}

/// The event that told of its acceptance.
#[derive(Serialize)]
struct OldEvent<'a> {
    at: Timestamp,
    message: MessageId,
    kind: OldKind<'a>,
}

#[derive(Serialize)]
enum OldKind<'a> {
    Accepted(OldAccepted<'a>),
}

#[derive(Serialize)]
struct OldAccepted<'a> {
    message: &'a OldMessage,
    recipients: Vec<Recipient>,
    report_on: Option<MessageId>,
}

fn old_message(id: MessageId, size: u64) -> OldMessage {
    let message = message(id, size);
    OldMessage {
        id,
        org: message.org,
        stream: message.stream,
        received_at: message.received_at,
        reverse_path: message.reverse_path,
        ret: None,
        envid: Some("env".into()),
        body: Body::EightBitMime,
        smtputf8: false,
        size,
        header_message_id: message.header_message_id,
        origin: Origin { protocol: Protocol::Submission, ..message.origin },
    }
}

fn form_1(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![1]).unwrap()
}

/// A database of version 1 with a message in each of two queues: one was active, one waits. Their content is `octets`.
fn version_1(dir: &Path) -> [MessageId; 2] {
    std::fs::create_dir_all(dir.join("content")).unwrap();
    let conn = rusqlite::Connection::open(dir.join("queue.db")).unwrap();
    conn.execute_batch(include_str!("../../migrations/0001.sql")).unwrap();
    conn.execute_batch(
        "CREATE TABLE schema_version (version INTEGER NOT NULL); INSERT INTO schema_version VALUES (1);
         INSERT INTO meta VALUES ('run', 4), ('clean', 0);
         INSERT INTO queue VALUES (1, 1, 0, 'mx:one.example'), (2, 1, 0, 'mx:two.example');",
    )
    .unwrap();
    let ids = [MessageId::first_at(START), MessageId(MessageId::first_at(START).0 + 1)];
    let mut file = Vec::new();
    for (n, id) in (0..).zip(ids) {
        let content = octets(n, 500);
        let tail: Vec<u8> = [500u64.to_le_bytes(), id.0.to_le_bytes()].concat();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&content), &tail);
        file.extend_from_slice(b"PHc1");
        file.extend_from_slice(&crc.to_le_bytes());
        file.extend_from_slice(&tail);
        let offset = i64::try_from(file.len()).unwrap();
        file.extend_from_slice(&content);
        let old = old_message(id, 500);
        conn.execute(
            "INSERT INTO message VALUES (?1, ?2, 'sender@origin.example', 1, ?3, 500, ?4, ?5)",
            (id.0.cast_signed(), START.0, offset, crc, form_1(&old)),
        )
        .unwrap();
        let (state, due) = if n == 0 { (0, None) } else { (1, Some(START.0 + 5000)) };
        conn.execute(
            "INSERT INTO delivery (message, idx, queue, state, due) VALUES (?1, 0, ?2, ?3, ?4)",
            (id.0.cast_signed(), n.cast_signed() + 1, state, due),
        )
        .unwrap();
        conn.execute(
            "INSERT INTO recipient (message, delivery, n, address) VALUES (?1, 0, 0, 'user0@one.example')",
            [id.0.cast_signed()],
        )
        .unwrap();
        let recipients = vec![Recipient::new(address("user0@one.example"))];
        let accepted = OldAccepted { message: &old, recipients, report_on: None };
        let event = OldEvent { at: START, message: id, kind: OldKind::Accepted(accepted) };
        conn.execute("INSERT INTO outbox (event) VALUES (?1)", [form_1(&event)]).unwrap();
    }
    std::fs::write(dir.join("content").join(format!("{:016x}.seg", 1)), file).unwrap();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_version_1_goes_on() {
    let rig = Rig::new();
    let ids = version_1(&rig.path());
    let (store, recovery) = rig.recover();
    assert!(!recovery.clean && recovery.quarantined.is_empty() && recovery.held.is_empty());
    assert_eq!((recovery.deliveries, recovery.requeued), (2, 1));
    assert_eq!(store.counts().await.unwrap(), Counts { waiting: 2, ..Counts::default() });
    assert!(store.verify().await.unwrap().is_sound());

    let entries = store.search(QueueFilter::default(), None, 10).await.unwrap();
    assert_eq!(entries.iter().map(|e| e.id.message).collect::<Vec<_>>(), ids);
    for (n, entry) in (0..).zip(&entries) {
        let expected = old_message(entry.id.message, 500);
        let found = &entry.message;
        assert_eq!((found.id, found.size, &found.envid), (expected.id, 500, &expected.envid));
        assert_eq!((&found.origin, found.body), (&expected.origin, expected.body));
        assert!(!found.require_tls && !found.tls_optional);
        let waiting = store.load(entry.id).await.unwrap().unwrap();
        assert_eq!(waiting.recipients[0].recipient.address.as_str(), "user0@one.example");
        assert_eq!((waiting.state, stored(&store, &waiting).await), (State::Waiting, octets(n, 500)));
    }
    let told = events(&store).await;
    assert_eq!(told.len(), 2);
    let Event { kind: EventKind::Accepted(accepted), .. } = &told[0] else { panic!("{told:?}") };
    let Accepted { message, recipients, .. } = &**accepted;
    assert_eq!((message.id, recipients.len()), (ids[0], 1));

    for id in entries.iter().map(|e| e.id) {
        assert!(store.settled(settlement(id, Next::Done)).await.unwrap().found);
    }
    assert_eq!(store.stats().deliveries, 0);
    assert!(store.verify().await.unwrap().is_sound());
    store.close().await.unwrap();
}
