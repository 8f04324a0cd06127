//! Measures the store: N writers admit and settle messages of one size, every answer durable, the outbox drained as the
//! history does it.
//!
//! ```text
//! cargo run --release -p store --example admit -- [WRITERS] [MESSAGES] [SIZE] [DIR | postgres://…]
//! ```
//!
//! With the URL of a database the engine for clusters is measured; its durability is not looked at.
#![allow(clippy::unwrap_used, reason = "a measurement may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mail::{
    Accepted, Attempt, Body, Clock, DeliveryId, Destination, Disposition, EnhancedStatus, Event, EventKind,
    Message, OrgId, Origin, Outcome, Protocol, QueueKey, Recipient, RecipientOutcome, Remote, Stream,
    Timestamp,
};
use nix::sys::resource::{UsageWho, getrusage};
use postgres::{Durability, Pool};
use store::{
    Admission, Admitted, Config, Fence, NewDelivery, NewState, Next, PostgresConfig, Settlement, Store,
};

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(default, |a| a.parse().unwrap());
    let (writers, messages, size) = (number(20), number(50_000), number(4096));
    let place = std::env::args().nth(4);
    let url = place.clone().filter(|place| place.starts_with("postgres"));
    let dir = match (&url, place) {
        (None, Some(dir)) => dir.into(),
        _ => std::env::temp_dir(),
    };
    let dir = dir.join("posthouse-admit");
    let _ = std::fs::remove_dir_all(&dir);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Clock::system();
        let store = match url {
            None => Store::open(Config::new(&dir), clock.clone()).unwrap().0,
            Some(url) => open_postgres(url, &dir, clock.clone()).await,
        };
        measure(store, clock, writers, messages, size).await;
    });
    std::fs::remove_dir_all(&dir).unwrap();
}

async fn open_postgres(url: String, spool: &std::path::Path, clock: Clock) -> Store {
    let mut config = postgres::Config::new(url);
    config.durability = Durability::Provider;
    let pool = Pool::connect(config).await.unwrap();
    let fence = Fence { node: 1, epoch: clock.now().millis() };
    Store::open_postgres(PostgresConfig::new(pool, fence, spool), clock).await.unwrap().0
}

async fn measure(store: Store, clock: Clock, writers: u64, messages: u64, size: u64) {
    let drained = std::thread::spawn({
        let store = store.clone();
        move || drain(&store, 2 * messages)
    });
    let content: Arc<[u8]> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
    let latencies = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let next = Arc::new(AtomicU64::new(0));
    let (cpu, written, start) = (cpu(), written(), clock.mono());
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, content, next) = (store.clone(), content.clone(), next.clone());
            let (clock, latencies) = (clock.clone(), latencies.clone());
            tokio::spawn(async move {
                while next.fetch_add(1, Ordering::Relaxed) < messages {
                    let begin = clock.mono();
                    let id = admit(&store, &content, clock.now()).await;
                    latencies.lock().push(clock.mono().since(begin));
                    store.settle(done(id, clock.now()), |settled| drop(settled.unwrap()));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    while store.stats().deliveries > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (took, stats) = (clock.mono().since(start), store.stats());
    let per = |total: u64| total as f64 / messages as f64;
    let mut all = std::mem::take(&mut *latencies.lock());
    all.sort();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{writers} writers, {messages} messages of {size} octets");
    println!("  messages/s     {:.0}", messages as f64 / took.as_secs_f64());
    println!(
        "  CPU us/message {:.1}  (callers and outbox reader included)",
        per((self::cpu() - cpu).as_micros() as u64)
    );
    println!(
        "  fsyncs/message {:.3}  ({} groups, {} checkpoints)",
        per(stats.fsyncs),
        stats.groups,
        stats.checkpoints
    );
    println!("  written/octet  {:.2}", per(self::written() - written) / size as f64);
    println!("  admit ms       p50 {:.2}  p99 {:.2}  max {:.2}", at(0.5), at(0.99), at(1.0));
    let (read, from_disk) = drained.join().unwrap();
    println!("  outbox         {read} events read in {from_disk} batches");
    store.close().await.unwrap();
}

async fn admit(store: &Store, content: &[u8], now: Timestamp) -> DeliveryId {
    let id = store.ids().next();
    let mut sink = store.sink(id);
    sink.write(content).await.unwrap();
    let content = sink.finish().await.unwrap();
    let recipient = Recipient::new("someone@destination.example".parse().unwrap());
    let message = Message {
        id,
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: now,
        reverse_path: Some("sender@origin.example".parse().unwrap()),
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size: content.len(),
        header_message_id: Some(format!("{id}@origin.example")),
        require_tls: false,
        tls_optional: false,
        origin: Origin {
            protocol: Protocol::Smtp,
            client: Some("127.0.0.1".parse().unwrap()),
            helo: Some("client.origin.example".into()),
            credential: None,
            tls: None,
            listener: Some("smtp".into()),
        },
    };
    let accepted =
        Accepted { message: message.clone(), recipients: vec![recipient.clone()], report_on: None };
    let queue = QueueKey {
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        destination: Destination::Mx("destination.example".into()),
    };
    let admission = Admission {
        message,
        content,
        deliveries: vec![NewDelivery { queue, recipients: vec![(0, recipient)], state: NewState::Active }],
        dedupe: None,
        events: vec![Event { at: now, message: id, kind: EventKind::Accepted(Box::new(accepted)) }],
    };
    match store.admit(admission).await.unwrap() {
        Admitted::New(waiting) => waiting[0].id,
        Admitted::Duplicate(_) => unreachable!(),
    }
}

fn done(delivery: DeliveryId, now: Timestamp) -> Settlement {
    let outcome = Outcome {
        disposition: Disposition::Delivered,
        status: EnhancedStatus::new(2, 0, 0),
        code: Some(250),
        text: "2.0.0 Ok: queued as 4bXyZ0123456789".into(),
    };
    let attempt = Attempt {
        delivery,
        destination: Destination::Mx("destination.example".into()),
        started: now,
        duration_ms: 12,
        remote: Some(Remote {
            name: "mx1.destination.example".into(),
            address: Some("127.0.0.1:25".parse().unwrap()),
        }),
        tls: None,
        outcomes: vec![RecipientOutcome::new(0, outcome)],
        transcript: None,
        source: None,
        security: None,
        dsn: false,
    };
    let event = Event { at: now, message: delivery.message, kind: EventKind::Attempt(Box::new(attempt)) };
    Settlement {
        delivery,
        recipients: Vec::new(),
        next: Next::Done,
        warned: false,
        reports: Vec::new(),
        events: vec![event],
    }
}

/// Takes all events over, as the history does. Returns how many, and in how many batches.
fn drain(store: &Store, expected: u64) -> (u64, u64) {
    let (mut after, mut batches) = (0, 0);
    while after < expected {
        std::thread::sleep(Duration::from_millis(5));
        let events = store.outbox_blocking(after, 1000).unwrap();
        if let Some((last, _)) = events.last() {
            after = *last;
            batches += 1;
            store.outbox_done_blocking(after).unwrap();
        }
    }
    (after, batches)
}

/// CPU time of this process.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let of =
        |t: nix::sys::time::TimeVal| Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()) as u64);
    of(usage.user_time()) + of(usage.system_time())
}

/// Octets that this process had written to disk.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}
