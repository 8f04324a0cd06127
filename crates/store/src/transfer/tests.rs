//! Rows of every kind from files to PostgreSQL and into other files, with content that is damaged among it.

use std::time::Duration;

use mail::{
    Body, DeliveryId, Destination, Disposition, EnhancedStatus, ManualClock, Message, MessageId, OrgId,
    Origin, Outcome, Protocol, QueueKey, Recipient, RecipientStatus, Stream, Timestamp,
};
use postgres::Pool;
use postgres::test::Server;

use super::{Last, Mark, Side};
use crate::config::{Config, Fence, PostgresConfig};
use crate::model::{Admission, Admitted, Dedupe, NewDelivery, NewState, Next, Settlement};
use crate::store::Store;

const START: Timestamp = Timestamp(1_795_500_000_000);

fn queue(name: &str) -> QueueKey {
    QueueKey { org: OrgId(3), stream: Stream::Bulk, destination: Destination::Mx(name.into()) }
}

fn delivery(domain: &str, recipients: &[u16], state: NewState) -> NewDelivery {
    let recipient = |n: &u16| (*n, Recipient::new(format!("user{n}@{domain}").parse().unwrap()));
    NewDelivery { queue: queue(domain), recipients: recipients.iter().map(recipient).collect(), state }
}

async fn admit(store: &Store, size: usize, deliveries: Vec<NewDelivery>, key: Option<&str>) -> MessageId {
    let id = store.ids().next();
    let mut sink = store.sink(id);
    let octets: Vec<u8> = (0..size).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    sink.write(&octets).await.unwrap();
    let message = Message {
        id,
        org: OrgId(3),
        stream: Stream::Bulk,
        received_at: START,
        reverse_path: Some("sender@client.example".parse().unwrap()),
        ret: None,
        envid: Some("envelope".into()),
        body: Body::SevenBit,
        smtputf8: false,
        size: size as u64,
        header_message_id: None,
        origin: Origin {
            protocol: Protocol::Smtp,
            client: "192.0.2.1".parse().ok(),
            helo: Some("client.example".into()),
            credential: None,
            tls: None,
            listener: None,
        },
        require_tls: false,
        tls_optional: false,
    };
    let dedupe = key.map(|key| Dedupe {
        org: OrgId(3),
        key: key.as_bytes().to_vec(),
        expires: START.plus(Duration::from_secs(3600)),
    });
    let content = sink.finish().await.unwrap();
    let admitted =
        store.admit(Admission { message, content, deliveries, dedupe, events: Vec::new() }).await.unwrap();
    assert!(matches!(admitted, Admitted::New(_)));
    id
}

/// A queue with something of everything; returns the message whose content is then damaged.
async fn fill(store: &Store) -> MessageId {
    let due = NewState::Waiting { due: START.plus(Duration::from_secs(60)) };
    for n in 0..40_usize {
        let domain = format!("d{}.example", n % 7);
        admit(store, n * 1000, vec![delivery(&domain, &[0], due.clone())], Some(&format!("key {n}"))).await;
    }
    admit(store, 700_000, vec![delivery("large.example", &[0, 1, 2], NewState::Active)], None).await;
    let held = NewState::Held { reason: "a look\0 first".into() };
    admit(
        store,
        10,
        vec![delivery("a.example", &[0], held), delivery("b.example", &[1, 2], due.clone())],
        None,
    )
    .await;
    admit(store, 0, vec![delivery("box.example", &[0], NewState::Sandboxed)], None).await;
    // Some recipients have had an answer.
    let tried = admit(store, 500, vec![delivery("tried.example", &[0, 1, 2], NewState::Active)], None).await;
    let outcome = Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 2, 1), "come back later");
    let settled = store.settled(Settlement {
        delivery: DeliveryId { message: tried, index: 0 },
        recipients: vec![
            (0, RecipientStatus::Delivered(outcome.clone())),
            (1, RecipientStatus::Pending(Some(outcome))),
        ],
        next: Next::Deferred { due: START.plus(Duration::from_secs(900)), attempts: 1 },
        warned: true,
        reports: Vec::new(),
        events: Vec::new(),
    });
    settled.await.unwrap();
    store.set_note("what was learned", b"much".to_vec()).unwrap();
    admit(store, 5000, vec![delivery("broken.example", &[0], due)], None).await
}

/// All messages, and their content.
async fn all(side: &Side) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = side.messages(after, 7).await.unwrap();
        let Some(last) = page.last() else { return found };
        after = Some(last.id);
        for message in page {
            found.push((message.octets(), side.content(&message).await.unwrap()));
        }
    }
}

async fn carry(from: &Side, to: &Side) {
    assert!(to.is_empty().await.unwrap() && !from.is_empty().await.unwrap());
    let mut after = None;
    loop {
        let page = from.messages(after, 9).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        let mut batch = Vec::new();
        for message in page {
            let content = from.content(&message).await.unwrap();
            batch.push((message, content));
        }
        to.put(&batch, START).await.unwrap();
        assert_eq!(to.last().await.unwrap(), after);
    }
    let keys = from.keys(None, 1000).await.unwrap();
    to.put_keys(&keys).await.unwrap();
    to.put_notes(&from.notes().await.unwrap()).await.unwrap();
    to.finish(&Last { id: after, events: [(0, 7), (1, 9)].into() }, START).await.unwrap();
    assert_eq!(all(from).await, all(to).await);
    assert_eq!(to.keys(None, 1000).await.unwrap(), keys);
    assert_eq!((keys.len(), from.count().await.unwrap()), (40, 45));
    assert_eq!(to.notes().await.unwrap(), [("what was learned".to_owned(), b"much".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_the_same_on_each_side() {
    let clock = ManualClock::new(START);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = |n: usize| Config { disk_reserve: 0, segment_size: 100_000, ..Config::new(dirs[n].path()) };
    let (store, _) = Store::open(config(0), clock.clock()).unwrap();
    let broken = fill(&store).await;
    store.close().await.unwrap();
    let counts = store.counts().await.unwrap();
    drop(store);

    let source = Side::files(dirs[0].path(), None).unwrap();
    let page = source.messages(None, 1000).await.unwrap();
    let at = page.iter().find(|m| m.id == broken).unwrap().at;
    let file = dirs[0].path().join("content").join(crate::content::file_name(at.segment));
    let mut octets = std::fs::read(&file).unwrap();
    octets[usize::try_from(at.offset).unwrap() + 3] ^= 1;
    std::fs::write(&file, octets).unwrap();

    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    let tables = Side::tables(pool.clone(), START).await.unwrap();
    carry(&source, &tables).await;
    assert!(all(&source).await.iter().filter(|(_, content)| content.is_none()).count() == 1);
    let target = Side::files(dirs[1].path(), None).unwrap();
    carry(&tables, &target).await;
    drop((source, target));

    // Stores that open what has arrived count right and go on.
    let (store, recovery) = Store::open(config(1), clock.clock()).unwrap();
    assert!(recovery.clean);
    assert_eq!((recovery.segments_removed, store.counts().await.unwrap().all()), (0, counts.all()));
    // Numbers of events go on behind all that the history may know.
    let next = *store.outbox_wait().borrow();
    assert!(next > 7 + (1 << 32), "{next}");
    works(&store, &clock).await;
    let spool = tempfile::tempdir().unwrap();
    let mut kept = PostgresConfig::new(pool.clone(), Fence { node: 1, epoch: 1 }, spool.path());
    kept.disk_reserve = 0;
    let (store, _) = Store::open_postgres(kept, clock.clock()).await.unwrap();
    assert_eq!(store.counts().await.unwrap().all(), counts.all());
    works(&store, &clock).await;
}

/// What has arrived is due in its time, can be read, and what is broken is found out.
async fn works(store: &Store, clock: &ManualClock) {
    let later = clock.clock().now().plus(Duration::from_secs(3600));
    let horizon = store.horizon(Timestamp(i64::MIN), 100).await.unwrap();
    assert_eq!(horizon.queues.len(), 7 + 4, "{horizon:?}");
    let page = store.page(&queue("d3.example"), later, 100).await.unwrap();
    assert_eq!(page.len(), 6);
    for waiting in page {
        let content = store.content(&waiting.content).await.unwrap();
        assert_eq!(content.len(), waiting.message.size);
    }
    let broken = store.page(&queue("broken.example"), later, 100).await.unwrap();
    assert!(store.content(&broken[0].content).await.is_err());
    let tried = store.page(&queue("tried.example"), later, 100).await.unwrap();
    assert_eq!((tried[0].recipients.len(), tried[0].attempts, tried[0].warned), (2, 1, true));
    assert!(tried[0].recipients[0].last.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_opens_what_arrives_or_has_gone() {
    let clock = ManualClock::new(START);
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    let (files, tables) =
        (Side::files(dir.path(), None).unwrap(), Side::tables(pool.clone(), START).await.unwrap());
    let name = || "one".to_owned();
    for side in [&files, &tables] {
        assert_eq!(side.mark().await.unwrap(), None);
        side.set_mark(Some(&Mark::Arriving(name()))).await.unwrap();
        assert_eq!(side.mark().await.unwrap(), Some(Mark::Arriving(name())));
    }
    let spool = tempfile::tempdir().unwrap();
    let shared = |epoch| PostgresConfig {
        disk_reserve: 0,
        ..PostgresConfig::new(pool.clone(), Fence { node: 1, epoch }, spool.path())
    };
    let embedded = || Config { disk_reserve: 0, ..Config::new(dir.path()) };
    let refused = Store::open_postgres(shared(1), clock.clock()).await.unwrap_err();
    assert!(refused.to_string().contains("not finished"), "{refused}");
    tables.set_mark(Some(&Mark::Gone(name()))).await.unwrap();
    assert!(Store::open_postgres(shared(1), clock.clock()).await.is_err());
    tables.set_mark(Some(&Mark::Leaving(name()))).await.unwrap();
    Store::open_postgres(shared(1), clock.clock()).await.unwrap();
    assert_eq!(tables.mark().await.unwrap(), None);

    drop(files);
    assert!(Store::open(embedded(), clock.clock()).is_err());
    Side::files(dir.path(), None).unwrap().set_mark(Some(&Mark::Gone(name()))).await.unwrap();
    let refused = Store::open(embedded(), clock.clock()).unwrap_err();
    assert!(refused.to_string().contains("PostgreSQL"), "{refused}");
    // Set aside, there is nothing here any more.
    let side = Side::files(dir.path(), Some(("moved", &["directory.db"]))).unwrap();
    assert!(dir.path().join("moved/queue.db").exists() && side.is_empty().await.unwrap());
    side.set_mark(None).await.unwrap();
    drop(side);
    Store::open(embedded(), clock.clock()).unwrap();
}

/// A table or a column that somebody adds has to be carried, or to be left out for a reason: then it is named here.
#[tokio::test(flavor = "multi_thread")]
async fn no_table_and_no_column_is_forgotten() {
    const CARRIED: [(&str, &str); 6] = [
        ("dedupe", "expires key message org"),
        (
            "delivery",
            "address attempts crashes detail due idx message n outcome queue reason state status warned",
        ),
        ("message", "crc detail id length received_at sender"),
        ("note", "name value"),
        ("queue", "destination due id org stream waiting"),
        ("recipient", "address delivery detail message n outcome status"),
    ];
    // What belongs to an engine alone: who has a delivery in hand, where content is, sums, what was handed on already.
    const FILES: [&str; 7] = [
        "delivery.claimed",
        "message.offset",
        "message.segment",
        "meta",
        "outbox",
        "schema_version",
        "segment",
    ];
    const TABLES: [&str; 10] = [
        "content",
        "delivery.epoch",
        "delivery.node",
        "message.place",
        "node",
        "note.node",
        "outbox",
        "queue.used",
        "told",
        "turn",
    ];
    let judge = |columns: Vec<(String, String)>, own: &[&str]| {
        let mut seen = std::collections::BTreeSet::new();
        for (table, column) in columns {
            let name = format!("{table}.{column}");
            let carried = CARRIED.iter().any(|(t, all)| *t == table && all.split(' ').any(|c| c == column));
            let apart = own.iter().find(|own| **own == table || **own == name);
            assert!(carried || apart.is_some(), "{name} is neither carried nor left out");
            seen.insert(if carried { name } else { (*apart.unwrap()).to_owned() });
        }
        let all = CARRIED.iter().flat_map(|(t, all)| all.split(' ').map(move |c| format!("{t}.{c}")));
        let all: std::collections::BTreeSet<String> =
            all.chain(own.iter().map(|o| (*o).to_owned())).collect();
        assert_eq!(seen, all);
    };
    let dir = tempfile::tempdir().unwrap();
    let conn = crate::sqlite::open_writer(&dir.path().join("queue.db")).unwrap();
    let sql = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c \
        WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'";
    let mut select = conn.prepare(sql).unwrap();
    let found = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    judge(found.collect::<Result<_, _>>().unwrap(), &FILES);
    let pool = Pool::connect(Server::shared().database()).await.unwrap();
    Side::tables(pool.clone(), START).await.unwrap();
    let sql = "SELECT table_name::text, column_name::text FROM information_schema.columns \
        WHERE table_schema = 'store' AND table_name NOT LIKE 'content\\_%'";
    let found = pool.read(|s| async move { s.query(sql, &[]).await }).await.unwrap();
    judge(found.iter().map(|row| (row.get(0), row.get(1))).collect(), &TABLES);
}
