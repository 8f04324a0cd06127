//! What the scheduler looks like from outside: for listings, metrics, and the question why a delivery waits.

use std::sync::Arc;
use std::time::Duration;

use mail::{Outcome, QueueKey, Site, Timestamp};

use crate::effect::Path;
use crate::traffic::Traffic;
use crate::why::Why;

/// Everything, in order of the keys.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Queues that have something in them, or had it lately.
    pub queues: Vec<QueueView>,
    /// Sites that deliveries go to.
    pub sites: Vec<SiteView>,
    /// Sources at sites.
    pub paths: Vec<PathView>,
    /// Sums.
    pub totals: Totals,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// Its key.
    pub key: QueueKey,
    /// The site its mail goes to, if it is known.
    pub site: Option<Site>,
    /// The pool its mail leaves by.
    pub pool: Arc<str>,
    /// In memory, waiting for a slot.
    pub ready: usize,
    /// Being attempted or settled.
    pub in_flight: usize,
    /// Rows that are due wait on disk.
    pub backlog: bool,
    /// When the earliest row that waits for its time is due.
    pub next_due: Option<Timestamp>,
    /// Why what is in it waits.
    pub why: Why,
}

/// One site.
#[derive(Clone, Debug)]
pub struct SiteView {
    /// Its key.
    pub key: Site,
    /// Queues with something in memory that go there.
    pub queues: usize,
    /// Deliveries that wait for a slot.
    pub ready: usize,
    /// Connections from all sources, idle ones among them.
    pub connections: usize,
    /// Connections with nothing to do.
    pub idle: usize,
    /// It waits for a connection because all of the relay's are taken.
    pub starved: bool,
}

/// One path.
#[derive(Clone, Debug)]
pub struct PathView {
    /// Which.
    pub path: Path,
    /// Connections, idle ones among them.
    pub connections: usize,
    /// Connections with nothing to do.
    pub idle: usize,
    /// Connections that it may have at the moment: what the site's answers allow.
    pub window: usize,
    /// Connections that it may have at best.
    pub limit: usize,
    /// The bounds that it is held to.
    pub traffic: Traffic,
    /// Failures to connect, or slow-downs at one connection, in a row.
    pub failures: u32,
    /// Until when it is closed.
    pub closed_until: Option<Timestamp>,
    /// The last failure, until a message goes through again.
    pub failure: Option<Arc<Outcome>>,
    /// When its rate lets the next message go, if that is later.
    pub next_message: Option<Timestamp>,
    /// How long the site takes to answer, smoothed.
    pub latency: Option<Duration>,
    /// Where it stands in the warm-up plan of its source.
    pub warmup: Option<WarmupView>,
}

/// A path's place in a warm-up plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmupView {
    /// Messages sent today (UTC).
    pub sent: u32,
    /// Messages that may be sent today.
    pub limit: u32,
}

/// Sums, cheap enough for every scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Places taken in windows.
    pub active: usize,
    /// Connections to all sites.
    pub connections: usize,
    /// Queues whose state is in memory.
    pub queues: usize,
    /// Sites whose state is in memory.
    pub sites: usize,
    /// Paths whose state is in memory.
    pub paths: usize,
    /// Sites that wait for a connection because all are taken.
    pub starved_sites: usize,
    /// Pages being read.
    pub pages: usize,
}
