//! What the scheduler looks like from outside: for listings, metrics, and the question why a delivery waits.

use std::sync::Arc;

use mail::{Destination, Mono, Outcome, QueueKey, Timestamp};

use crate::clock::Now;
use crate::queue::Queue;
use crate::scheduler::Scheduler;
use crate::site::{Connect, Site, site_of};

/// Everything, in order of the keys.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Queues that have something in them, or had it lately.
    pub queues: Vec<QueueView>,
    /// Sites that deliveries go to.
    pub sites: Vec<SiteView>,
    /// Sums.
    pub totals: Totals,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// Its key.
    pub key: QueueKey,
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
    pub key: Destination,
    /// Deliveries that wait for a slot.
    pub ready: usize,
    /// Connections, idle ones among them.
    pub connections: usize,
    /// Connections with nothing to do.
    pub idle: usize,
    /// Failures to connect in a row.
    pub failures: u32,
    /// Until when no new connection is made.
    pub closed_until: Option<Mono>,
    /// The last failure to connect, until a connection is made again.
    pub failure: Option<Arc<Outcome>>,
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
    /// Sites that wait for a connection because all are taken.
    pub starved_sites: usize,
    /// Pages being read.
    pub pages: usize,
}

/// Why the deliveries of a queue wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing waits.
    Empty,
    /// They are being delivered, or read from disk to be.
    Working,
    /// All connections to the site are taken.
    SiteFull,
    /// All connections of the relay are taken.
    RelayFull,
    /// No connection to the site could be made; it is tried again then. `None`: it is being tried now.
    SiteDown {
        /// When.
        again: Option<Mono>,
        /// The last failure.
        failure: Option<Arc<Outcome>>,
    },
    /// More waits on disk than the window has room for.
    WindowFull,
    /// Their next attempt is due then.
    NotDue(Timestamp),
}

impl Scheduler {
    /// Everything, sorted. Takes time in proportion to the number of queues in memory.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut queues: Vec<QueueView> = self.queues.iter().map(|(_, q)| self.view(q, now)).collect();
        queues.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let mut sites: Vec<SiteView> = self.sites.iter().map(|(_, s)| site_view(s)).collect();
        sites.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Snapshot { queues, sites, totals: self.totals() }
    }

    /// The sums alone.
    pub fn totals(&self) -> Totals {
        Totals {
            active: self.held,
            connections: self.slots,
            queues: self.queues.len(),
            sites: self.sites.len(),
            starved_sites: self.starved.len(),
            pages: self.pages,
        }
    }

    /// Why the deliveries of this queue wait.
    pub fn why(&self, queue: &QueueKey, now: Now) -> Why {
        self.queue_by_key.get(queue).map_or(Why::Empty, |&ix| self.why_of(&self.queues[ix], now))
    }

    /// The state of the site that this queue's mail goes to.
    pub fn site(&self, queue: &QueueKey) -> Option<SiteView> {
        self.site_by_key.get(site_of(queue)).map(|&ix| site_view(&self.sites[ix]))
    }

    fn view(&self, q: &Queue, now: Now) -> QueueView {
        QueueView {
            key: q.key.clone(),
            ready: q.ready.len(),
            in_flight: q.flying,
            backlog: q.backlog || q.page.is_some(),
            next_due: q.due,
            why: self.why_of(q, now),
        }
    }

    fn why_of(&self, q: &Queue, now: Now) -> Why {
        let site = &self.sites[q.site];
        if !q.ready.is_empty() {
            return match site.connect(now.mono) {
                Connect::Wait if site.open == 0 => {
                    Why::SiteDown { again: None, failure: site.health.failure.clone() }
                }
                Connect::Suspended => {
                    Why::SiteDown { again: site.health.closed_until, failure: site.health.failure.clone() }
                }
                _ if site.starved => Why::RelayFull,
                _ => Why::SiteFull,
            };
        }
        match q.due {
            _ if q.flying > 0 || q.page.is_some() => Why::Working,
            _ if q.backlog => Why::WindowFull,
            Some(due) => Why::NotDue(due),
            None => Why::Empty,
        }
    }
}

fn site_view(site: &Site) -> SiteView {
    SiteView {
        key: site.key.clone(),
        ready: site.ready,
        connections: site.slots,
        idle: site.idle,
        failures: site.health.failures,
        closed_until: site.health.closed_until,
        failure: site.health.failure.clone(),
    }
}
