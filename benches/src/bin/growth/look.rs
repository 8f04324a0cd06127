//! One look at a queue of some length.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mail::{Clock, DeliveryId, Destination, OrgId, QueueKey, Stream, Timestamp};
use nix::sys::resource::{UsageWho, getrusage};
use posthouse_tests::fill::{self, Fill};
use store::{Admitted, NewState, Next, Settlement, Store};

/// Messages that come and go while it is measured, and how many clients bring them.
const WORK: u64 = 20_000;
const CLIENTS: u64 = 20;
/// Queues asked for in a horizon, deliveries in a page: what the scheduler asks for.
const HORIZON: usize = 1000;
const PAGE: usize = 100;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) waiting: u64,
    /// From the call to the store being open, after a clean stop and after a kill.
    pub(crate) start_ms: f64,
    pub(crate) start_unclean_ms: f64,
    pub(crate) horizon_ms: f64,
    pub(crate) page_ms: f64,
    pub(crate) queues_ms: f64,
    /// Of a message that comes and goes: CPU of the whole process, and messages a second.
    pub(crate) cpu_us: f64,
    pub(crate) rate: f64,
    /// Memory of the process that is not a file's.
    pub(crate) memory_mb: f64,
    /// Bytes on disk, of rows and of content, and what is live: content and envelope as they came.
    pub(crate) rows: u64,
    pub(crate) content: u64,
    pub(crate) live: u64,
}

/// Sizes after most of what waited has gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct After {
    pub(crate) settled: u64,
    pub(crate) settle_us: f64,
    pub(crate) rate: f64,
    pub(crate) disk: u64,
    pub(crate) live: u64,
}

pub(crate) fn look(dir: &Path, fill: &Fill, waiting: u64) -> Look {
    let mut look = Look { waiting, live: waiting * live_of(fill), ..Look::default() };
    let runtime = fill::runtime();
    runtime.block_on(async {
        (look.rows, look.content) = on_disk(dir);
        let (store, ms) = open(dir);
        look.start_ms = ms;
        leave_active(&store).await;
        // Dropped without being closed, it is as after a kill.
        drop(store);
        let (store, ms) = open(dir);
        look.start_unclean_ms = ms;
        look.horizon_ms =
            timed(async || drop(store.horizon(Timestamp(i64::MIN), HORIZON).await.unwrap())).await;
        let queue = queue("d0.fill.example");
        let late = Timestamp(i64::MAX);
        look.page_ms = timed(async || drop(store.page(&queue, late, PAGE).await.unwrap())).await;
        look.queues_ms = timed(async || drop(store.queues().await.unwrap())).await;
        (look.cpu_us, look.rate) = work(&store).await;
        look.memory_mb = memory_mb();
        drop_active(&store).await;
        store.close().await.unwrap();
    });
    look
}

/// Settles nine of ten messages in no order, and waits until the disk has followed.
pub(crate) fn settle_most(dir: &Path) -> After {
    fill::runtime().block_on(async {
        let (store, _) = open(dir);
        let mut ids = Vec::new();
        let mut size = 0;
        let mut after = None;
        loop {
            let part = store.search(store::QueueFilter::default(), after, 10_000).await.unwrap();
            let Some(last) = part.last() else { break };
            after = Some(last.id);
            size = part[0].message.size + 70;
            ids.extend(part.iter().map(|entry| entry.id));
        }
        // Nine of ten, scattered: a multiplicative walk through the list.
        let n = ids.len() as u64;
        let gone: Vec<DeliveryId> =
            (0..n * 9 / 10).map(|i| ids[usize::try_from(i * 7_368_787 % n.max(1)).unwrap()]).collect();
        let (clock, before) = (Clock::system(), cpu());
        let left = Arc::new(AtomicU64::new(0));
        for id in &gone {
            left.fetch_add(1, Ordering::Relaxed);
            let left_too = left.clone();
            store.settle(done(*id), move |settled| {
                assert!(settled.unwrap().found);
                left_too.fetch_sub(1, Ordering::Relaxed);
            });
            while left.load(Ordering::Relaxed) > 4000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        while left.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (took, used) = (clock.mono().0, cpu() - before);
        let live = store.stats().deliveries * size;
        let mut disk = u64::MAX;
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (rows, content) = on_disk(dir);
            // Twice the same: it has come to rest.
            if rows + content == disk {
                break;
            }
            disk = rows + content;
        }
        store.close().await.unwrap();
        let (rows, content) = on_disk(dir);
        let settled = gone.len() as u64;
        After {
            settled,
            settle_us: used.as_secs_f64() * 1e6 / settled.max(1) as f64,
            rate: settled as f64 / took.as_secs_f64(),
            disk: rows + content,
            live,
        }
    })
}

/// Content and envelope as they came: sender, recipient, Message-ID, client.
fn live_of(fill: &Fill) -> u64 {
    let envelope = fill::sender().as_str().len() + "someone@d0.fill.example".len() + 30;
    (fill.size + envelope) as u64
}

fn open(dir: &Path) -> (Store, f64) {
    let clock = Clock::system();
    let (store, _) = Store::open(fill::config(dir), clock.clone()).unwrap();
    (store, ms(clock.mono().0))
}

/// Messages in memory, as many as a busy relay has when it is killed.
async fn leave_active(store: &Store) {
    for _ in 0..1000 {
        let one = fill::admission(store, b"x\r\n", to("active.example"), NewState::Active).await;
        store.admit(one).await.unwrap();
    }
}

async fn drop_active(store: &Store) {
    for waiting in store.page(&queue("active.example"), Timestamp(i64::MAX), 2000).await.unwrap() {
        store.settled(done(waiting.id)).await.unwrap();
    }
}

async fn work(store: &Store) -> (f64, f64) {
    let next = Arc::new(AtomicU64::new(0));
    let content: Arc<[u8]> = vec![b'x'; 4096].into();
    let (clock, before) = (Clock::system(), cpu());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (store, next, content) = (store.clone(), next.clone(), content.clone());
            tokio::spawn(async move {
                while next.fetch_add(1, Ordering::Relaxed) < WORK {
                    let one = fill::admission(&store, &content, to("busy.example"), NewState::Active).await;
                    let Admitted::New(waiting) = store.admit(one).await.unwrap() else {
                        panic!("a duplicate")
                    };
                    store.settle(done(waiting[0].id), |settled| assert!(settled.unwrap().found));
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let (took, used) = (clock.mono().0, cpu() - before);
    (used.as_secs_f64() * 1e6 / WORK as f64, WORK as f64 / took.as_secs_f64())
}

fn done(delivery: DeliveryId) -> Settlement {
    Settlement {
        delivery,
        recipients: Vec::new(),
        next: Next::Done,
        warned: false,
        reports: Vec::new(),
        events: Vec::new(),
    }
}

fn to(domain: &str) -> (String, Destination) {
    (domain.to_owned(), Destination::Mx(domain.into()))
}

fn queue(domain: &str) -> QueueKey {
    QueueKey {
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        destination: Destination::Mx(domain.into()),
    }
}

/// The time of the second call of two: the first one reads pages that the scheduler's next question finds read.
async fn timed(ask: impl AsyncFn()) -> f64 {
    ask().await;
    let clock = Clock::system();
    ask().await;
    ms(clock.mono().0)
}

/// Bytes on disk: of rows, and of content.
fn on_disk(dir: &Path) -> (u64, u64) {
    let size = |path: std::path::PathBuf| fs::metadata(path).map_or(0, |m| m.blocks() * 512);
    let rows = ["queue.db", "queue.db-wal"].into_iter().map(|name| size(dir.join(name))).sum();
    let content = fs::read_dir(dir.join("content")).unwrap().map(|e| size(e.unwrap().path())).sum();
    (rows, content)
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let of = |t: nix::sys::time::TimeVal| {
        Duration::new(t.tv_sec().try_into().unwrap(), u32::try_from(t.tv_usec()).unwrap() * 1000)
    };
    of(usage.user_time()) + of(usage.system_time())
}

fn memory_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
