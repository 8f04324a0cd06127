//! What a message's whole way through the scheduler costs: reserve, admitted, deliver, attempted, next, finished; and what the
//! state of a queue weighs. `cargo run --release -p schedule --example cost`

use std::sync::Arc;
use std::time::Duration;

use mail::{Clock, DeliveryId, MessageId, Mono, OrgId, QueueKey, Site, Stream, Timestamp};
use schedule::{Effect, Item, Limits, Link, Next, Now, Path, Policy, Report, Scheduler};

struct World {
    scheduler: Scheduler,
    now: Now,
    out: Vec<Effect>,
    next: u64,
}

impl World {
    fn new(policy: Policy) -> Self {
        let now = Now { wall: Timestamp(1_795_500_000_000), mono: Mono(Duration::from_secs(1)) };
        let mut world =
            Self { scheduler: Scheduler::new(Arc::new(policy), 1), now, out: Vec::new(), next: 0 };
        world.scheduler.tick(now, &mut world.out);
        world.out.clear();
        world.scheduler.horizon(Vec::new(), Timestamp(i64::MAX), now, &mut world.out);
        world.out.clear();
        world
    }

    /// One message, from reservation to its settlement.
    fn message(&mut self, queue: &QueueKey, credential: Option<&Arc<str>>) {
        self.next += 1;
        let id = DeliveryId { message: MessageId(self.next), index: 0 };
        self.now.mono = self.now.mono.plus(Duration::from_micros(20));
        let now = self.now;
        self.scheduler.reserve(queue, credential, now);
        let item = Item { id, credential: credential.cloned(), recipients: 1 };
        self.scheduler.admitted(queue, item, now, &mut self.out);
        let mut started: Option<(DeliveryId, Path)> = None;
        let effects: Vec<Effect> = self.out.drain(..).collect();
        for effect in effects {
            match effect {
                Effect::Deliver { id, path, .. } => started = Some((id, path)),
                Effect::Locate { destination } => {
                    let site = Site::of_hosts([destination.to_string().trim_start_matches("mx:")]);
                    let valid = Duration::from_secs(86_400);
                    self.scheduler.located(&destination, site, valid, now, &mut self.out);
                    for effect in self.out.drain(..) {
                        if let Effect::Deliver { id, path, .. } = effect {
                            started = Some((id, path));
                        }
                    }
                }
                _ => {}
            }
        }
        let Some((id, path)) = started else { return };
        let report =
            Report { link: Link::Kept, latency: Some(Duration::from_millis(3)), signals: Vec::new() };
        self.scheduler.attempted(id, report, now, &mut self.out);
        let next = self.scheduler.next_for(&path, now, &mut self.out);
        assert!(matches!(next, Next::Wait | Next::Close), "one at a time");
        self.scheduler.finished(id, None, now, &mut self.out);
        self.out.clear();
    }
}

fn queues(n: usize) -> Vec<QueueKey> {
    (0..n)
        .map(|n| QueueKey {
            org: OrgId(i64::try_from(n % 50).unwrap_or(0)),
            stream: if n.is_multiple_of(3) { Stream::Bulk } else { Stream::Transactional },
            destination: mail::Destination::Mx(format!("domain{n}.example").into()),
        })
        .collect()
}

fn measure(name: &str, policy: Policy, queues: &[QueueKey], credential: Option<Arc<str>>) {
    let clock = Clock::system();
    let mut world = World::new(policy);
    let rounds = 1_000_000 / queues.len().max(1);
    queues.iter().for_each(|queue| world.message(queue, credential.as_ref()));
    let start = clock.mono();
    for _ in 0..rounds {
        queues.iter().for_each(|queue| world.message(queue, credential.as_ref()));
    }
    let took = clock.mono().since(start).as_nanos();
    println!("{name}: {} ns a message", took / (rounds * queues.len()) as u128);
}

fn main() {
    let limits = || Limits { connections_total: 5_000, ..Limits::default() };
    let policy = || Policy { limits: limits(), ..Policy::default() };
    // Before anything else has been allocated and freed.
    weigh(20_000);
    measure("1 site", policy(), &queues(1), None);
    measure("1,000 sites", policy(), &queues(1_000), None);
    measure("20,000 queues", policy(), &queues(20_000), None);
    let mut held = policy();
    let rate = "1000000/1s".parse().ok();
    let ceiling = schedule::Ceiling { connections: Some(1000), rate };
    held.credentials.insert("app".into(), ceiling);
    held.orgs.extend((0..50).map(|org| (OrgId(org), ceiling)));
    measure("1,000 sites, with ceilings", held, &queues(1_000), Some("app".into()));
}

/// What queues weigh that wait for their time, and those that have been used.
fn weigh(n: usize) {
    let queues = queues(n);
    let mut world = World::new(Policy::default());
    let before = resident();
    let due = world.now.wall.plus(Duration::from_secs(3600));
    for queue in &queues {
        world.scheduler.parked(queue, due, world.now, &mut world.out);
        world.out.clear();
    }
    let waiting = resident().saturating_sub(before);
    println!("a queue that waits: {} bytes ({} MB for {n})", waiting / n, waiting / 1_000_000);
    for queue in &queues {
        world.message(queue, None);
    }
    let used = resident().saturating_sub(before);
    println!("a queue, its site and path in use: {} bytes ({} MB for {n})", used / n, used / 1_000_000);
}

/// Resident memory in bytes; 0 where the system does not tell.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) * 1024
}
