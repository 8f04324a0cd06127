//! What the tests build messages and stores with.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mail::{
    Accepted, Address, Body, DeliveryId, Destination, Disposition, EnhancedStatus, Event, EventKind,
    ManualClock, Message, MessageId, OrgId, Origin, Outcome, Protocol, QueueKey, Recipient, Stream,
    Timestamp,
};
use postgres::Pool;
use store::{
    Admission, Admitted, Config, Fence, NewDelivery, NewState, Next, PostgresConfig, Recovery, Settlement,
    Store, Waiting,
};
use tempfile::TempDir;

pub(crate) const START: Timestamp = Timestamp(1_795_500_000_000);

/// A data directory and a clock, for one store after another.
pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) clock: ManualClock,
    pub(crate) tune: fn(&mut Config),
    /// A database, for the engine in PostgreSQL.
    pub(crate) database: Option<Database>,
}

/// A database of its own, and the life of the one node that uses it.
pub(crate) struct Database {
    pub(crate) pool: Pool,
    epoch: AtomicI64,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::tuned(|_| {})
    }

    pub(crate) fn tuned(tune: fn(&mut Config)) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: ManualClock::new(START), tune, database: None }
    }

    /// With an empty database in PostgreSQL. Needs a runtime of several threads.
    pub(crate) fn postgres() -> Self {
        let config = postgres::test::Server::shared().database();
        let pool = wait(Pool::connect(config)).unwrap();
        Self { database: Some(Database { pool, epoch: AtomicI64::new(0) }), ..Self::new() }
    }

    /// Octets that are stored beside those of the content.
    pub(crate) fn overhead(&self) -> u64 {
        if self.database.is_some() { 0 } else { 24 }
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(self.path());
        config.disk_reserve = 0;
        (self.tune)(&mut config);
        config
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn open(&self) -> Store {
        self.recover().0
    }

    pub(crate) fn recover(&self) -> (Store, Recovery) {
        let Some(database) = &self.database else {
            return Store::open(self.config(), self.clock.clock()).unwrap();
        };
        let epoch = database.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let mut config = PostgresConfig::new(database.pool.clone(), Fence { node: 0, epoch }, self.path());
        config.disk_reserve = 0;
        wait(Store::open_postgres(config, self.clock.clock())).unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.clock().now()
    }

    pub(crate) fn pass(&self, d: Duration) {
        self.clock.advance(d);
    }

    /// The next start after a kill.
    pub(crate) fn crash(&self, store: Store) -> (Store, Recovery) {
        drop(store);
        self.recover()
    }
}

/// Waits in the middle of a test, on this thread.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub(crate) fn mx(domain: &str) -> QueueKey {
    let destination = Destination::Mx(domain.into());
    QueueKey { org: OrgId::DEFAULT, stream: Stream::Transactional, destination }
}

pub(crate) fn message(id: MessageId, size: u64) -> Message {
    Message {
        id,
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: START,
        reverse_path: Some(address("sender@origin.example")),
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size,
        header_message_id: Some(format!("{id}@origin.example")),
        require_tls: false,
        tls_optional: false,
        origin: Origin {
            protocol: Protocol::Smtp,
            client: Some("192.0.2.7".parse().unwrap()),
            helo: Some("client.example".into()),
            credential: None,
            tls: None,
            listener: Some("smtp".into()),
        },
    }
}

/// Recipients `user0@DOMAIN…` in one delivery to the domain's queue.
pub(crate) fn delivery(domain: &str, users: std::ops::Range<u16>, state: NewState) -> NewDelivery {
    let recipients = users.map(|n| (n, Recipient::new(address(&format!("user{n}@{domain}"))))).collect();
    NewDelivery { queue: mx(domain), recipients, state }
}

/// An admission with this content and these deliveries.
pub(crate) async fn admission(store: &Store, content: &[u8], deliveries: Vec<NewDelivery>) -> Admission {
    let id = store.ids().next();
    let mut sink = store.sink(id);
    for piece in content.chunks(10_000) {
        sink.write(piece).await.unwrap();
    }
    let content = sink.finish().await.unwrap();
    let message = message(id, content.len());
    let recipients = deliveries.iter().flat_map(|d| d.recipients.iter().map(|(_, r)| r.clone())).collect();
    let accepted = Accepted { message: message.clone(), recipients, report_on: None };
    let events = vec![Event { at: START, message: id, kind: EventKind::Accepted(Box::new(accepted)) }];
    Admission { message, content, deliveries, dedupe: None, events }
}

pub(crate) async fn admit(store: &Store, content: &[u8], deliveries: Vec<NewDelivery>) -> Vec<Waiting> {
    new(store.admit(admission(store, content, deliveries).await).await.unwrap())
}

/// One message with one active delivery to one recipient.
pub(crate) async fn admit_one(store: &Store, content: &[u8]) -> Waiting {
    admit(store, content, vec![delivery("dest.example", 0..1, NewState::Active)]).await.remove(0)
}

pub(crate) fn new(admitted: Admitted) -> Vec<Waiting> {
    match admitted {
        Admitted::New(waiting) => waiting,
        Admitted::Duplicate(of) => panic!("a duplicate of {of}"),
    }
}

pub(crate) fn settlement(delivery: DeliveryId, next: Next) -> Settlement {
    Settlement {
        delivery,
        recipients: Vec::new(),
        next,
        warned: false,
        reports: Vec::new(),
        events: Vec::new(),
    }
}

pub(crate) fn outcome(disposition: Disposition, text: &str) -> Outcome {
    let class = if disposition == Disposition::Delivered { 2 } else { 4 };
    Outcome {
        disposition,
        status: EnhancedStatus::new(class, 1, 5),
        code: Some(u16::from(class) * 100 + 50),
        text: text.into(),
    }
}

/// The content that a delivery has, read from disk.
pub(crate) async fn stored(store: &Store, waiting: &Waiting) -> Vec<u8> {
    let content = store.content(&waiting.content).await.unwrap();
    content.read_all_up_to(usize::MAX).await.unwrap().to_vec()
}

/// Content that differs with its seed, of a size.
pub(crate) fn octets(seed: u64, size: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

/// The segment files, by name.
pub(crate) fn segment_files(data: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(data.join("content")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// All events in the outbox, in order.
pub(crate) async fn events(store: &Store) -> Vec<Event> {
    store.outbox(0, 100_000).await.unwrap().into_iter().map(|(_, event)| event).collect()
}
