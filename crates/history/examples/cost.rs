//! What history costs: processor time, octets and commits per message that is accepted and delivered at once, and how
//! long a trace takes afterwards.
//!
//! `cargo run --release -p history --example cost -- [messages] [directory | postgres] [messages under way]`; with
//! `postgres` in a server of its own, made for this and deleted again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use history::{Config, History, TraceQuery};
use mail::{
    Accepted, Address, Attempt, Body, Clock, DeliveryId, Destination, Disposition, EnhancedStatus, Event,
    EventKind, IdGenerator, Message, OrgId, Origin, Outcome, Protocol, Recipient, RecipientOutcome, Remote,
    Stream, TlsInfo,
};
use postgres::Pool;
use postgres::test::Server;

/// Events in one batch, as the drainer makes them.
const BATCH: usize = 1000;
/// Messages that are on their way while one is delivered; they decide how often the two halves of a message's story
/// come in different batches.
const UNDER_WAY: usize = 100;

type Outcomes<T> = Result<T, Box<dyn std::error::Error>>;

/// Where it is written.
enum Place {
    Dir(PathBuf),
    Server(Server, String),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcomes<()> {
    let mut args = std::env::args().skip(1);
    let messages: usize = args.next().map_or(Ok(200_000), |n| n.parse())?;
    let place = args.next();
    let under_way: usize = args.next().map_or(Ok(UNDER_WAY), |n| n.parse())?;
    let clock = Clock::system();
    let (place, history) = match place.as_deref() {
        Some("postgres") => in_postgres(&clock).await?,
        dir => {
            let own = || std::env::temp_dir().join(format!("history-cost-{}", std::process::id()));
            let dir = dir.map_or_else(own, PathBuf::from);
            std::fs::create_dir_all(&dir)?;
            let history = History::open(&dir, Config::default(), clock.clone())?;
            (Place::Dir(dir), history)
        }
    };
    write(&history, &clock, messages, under_way).await?;
    if let Place::Server(server, database) = &place {
        history.sweep().await?;
        sizes(server, database, messages);
    } else {
        println!("{} octets per message", history.stats().bytes / messages as u64);
    }
    ask(&history, &clock, messages).await?;
    history.close().await;
    if let Place::Dir(dir) = place {
        std::fs::remove_dir_all(dir.join("history"))?;
    }
    Ok(())
}

async fn in_postgres(clock: &Clock) -> Outcomes<(Place, History)> {
    let settings = [("shared_buffers", "256MB"), ("max_wal_size", "2GB"), ("autovacuum_naptime", "10s")];
    let server = Server::start(&settings);
    let config = server.database();
    let database = config.url.rsplit('/').next().unwrap_or_default().to_owned();
    let pool = Pool::connect(config).await?;
    let history =
        History::open_postgres(pool, 1, Config::default(), Arc::new(|| true), clock.clone()).await?;
    Ok((Place::Server(server, database), history))
}

async fn write(history: &History, clock: &Clock, messages: usize, under_way: usize) -> Outcomes<()> {
    let ids = IdGenerator::new(clock.clone(), 0);
    let mut spent = Duration::ZERO;
    let begin = clock.mono();
    let mut seq = 0;
    let mut accepted = std::collections::VecDeque::new();
    let mut batch = Vec::with_capacity(BATCH);
    for n in 0..messages + under_way {
        if n < messages {
            let id = ids.next();
            accepted.push_back(id);
            seq += 1;
            batch.push((seq, accept(id, n, clock)));
        }
        if n >= under_way
            && let Some(id) = accepted.pop_front()
        {
            seq += 1;
            batch.push((seq, deliver(id, n, clock)));
        }
        if batch.len() >= BATCH || n + 1 == messages + under_way {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            let before = writer_cpu();
            history.append(full).await?;
            spent += writer_cpu() - before;
        }
    }
    let wall = clock.mono().since(begin);
    println!(
        "{messages} messages in {wall:.1?}: {:.0} a second, {:.1} µs of the writer's processor time per message, {} commits",
        messages as f64 / wall.as_secs_f64(),
        spent.as_secs_f64() * 1e6 / messages as f64,
        (2 * messages).div_ceil(BATCH)
    );
    Ok(())
}

/// What the tables take, and the log.
fn sizes(server: &Server, database: &str, messages: usize) {
    let sizes = server.sql_in(
        database,
        &format!(
            "SELECT substring(c.relname FROM '^[a-z]+'), count(*), sum(pg_relation_size(c.oid)) / {messages},
               sum(pg_total_relation_size(c.oid) - pg_relation_size(c.oid)) / {messages}
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'history' AND c.relkind = 'r' GROUP BY 1 ORDER BY 3 DESC"
        ),
    );
    println!("table | partitions | octets of rows per message | of indices and the rest");
    println!("{sizes}");
    let runs = server
        .sql_in(database, "SELECT level, count(*), sum(entries) FROM history.run GROUP BY 1 ORDER BY 1");
    println!("level | runs | entries");
    println!("{runs}");
    let log =
        server.sql(&format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint / {messages}"));
    println!("{log} octets of log per message (a new server's own log is in it)");
}

async fn ask(history: &History, clock: &Clock, messages: usize) -> Outcomes<()> {
    let recipient = format!("user{}@dest17.example", messages / 4 * 2);
    let by_sender = TraceQuery { sender: Some("sender7@client.example".into()), ..Default::default() };
    for (what, query) in [
        ("by recipient", TraceQuery { recipient: Some(recipient), ..Default::default() }),
        (
            "by Message-ID",
            TraceQuery { message_id: Some(format!("{}@client.example", messages / 3)), ..Default::default() },
        ),
        ("newest fifty of a sender", by_sender),
        ("newest fifty", TraceQuery::default()),
    ] {
        let begin = clock.mono();
        let found = history.trace(query).await?.len();
        println!("trace {what}: {found} found in {:.1?}", clock.mono().since(begin));
    }
    Ok(())
}

/// Processor time of the writer's thread so far.
fn writer_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        (name.starts_with("posthouse-histo") || name.starts_with("cost"))
            .then(|| stat.split(' ').next()?.parse::<u64>().ok())
            .flatten()
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn tls(verified: &str) -> TlsInfo {
    TlsInfo { version: "TLSv1.3".into(), cipher: "TLS_AES_256_GCM_SHA384".into(), verified: verified.into() }
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn accept(id: mail::MessageId, n: usize, clock: &Clock) -> Event {
    let now = clock.now();
    let message = Message {
        id,
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: now,
        reverse_path: Some(address(&format!("sender{}@client.example", n % 1000))),
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size: 4096,
        header_message_id: Some(format!("{n}@client.example")),
        require_tls: false,
        tls_optional: false,
        origin: Origin {
            protocol: Protocol::Submission,
            client: Some([192, 0, 2, 7].into()),
            helo: Some("client.example".into()),
            credential: Some("shop".into()),
            tls: Some(tls("")),
            listener: Some("submission".into()),
        },
    };
    let to = if n.is_multiple_of(2) { 17 } else { n % 500 };
    let recipients = vec![Recipient::new(address(&format!("user{n}@dest{to}.example")))];
    Event {
        at: now,
        message: id,
        kind: EventKind::Accepted(Box::new(Accepted { message, recipients, report_on: None })),
    }
}

fn deliver(id: mail::MessageId, n: usize, clock: &Clock) -> Event {
    let now = clock.now();
    let outcome = Outcome {
        disposition: Disposition::Delivered,
        status: EnhancedStatus::new(2, 0, 0),
        code: Some(250),
        text: format!("Ok: queued as {n:012X}"),
    };
    let attempt = Attempt {
        delivery: DeliveryId { message: id, index: 0 },
        destination: Destination::Mx(format!("dest{}.example", n % 500).into()),
        started: now,
        duration_ms: 12,
        remote: Some(Remote {
            name: "mx1.dest.example".into(),
            address: Some(([198, 51, 100, 1], 25).into()),
        }),
        tls: Some(tls("verified")),
        outcomes: vec![RecipientOutcome::new(0, outcome)],
        dsn: false,
        transcript: None,
        source: None,
        security: None,
    };
    Event { at: now, message: id, kind: EventKind::Attempt(Box::new(attempt)) }
}
