//! What is remembered of hosts between connections: addresses that failed lately, and limits that hosts have shown.
//!
//! An address that failed rests: for some time others are taken in its place, so that a dead mail exchanger among several
//! costs one connection per interval and not a time-out per message. When it has rested, whoever asks first is told to
//! look whether it is back; all others go on passing it over until that is known.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::{HostPort, Mono, SourceName};
use moka::sync::Cache;
use parking_lot::Mutex;

/// Addresses and hosts remembered. What is over is forgotten, which costs a connection or a reply more, no mail.
const ENTRIES: u64 = 16_384;
/// What nobody asked for in this time is forgotten.
const FAILURES_KEPT: Duration = Duration::from_secs(3600);
/// Limits are learned anew after this time: they may have been raised.
const LIMITS_KEPT: Duration = Duration::from_secs(6 * 3600);
/// How long whoever looks whether an address is back is alone in doing so.
const PROBE_MAX: Duration = Duration::from_secs(120);
/// An address rests for at most this many intervals.
const INTERVALS_MAX: u32 = 16;

/// How an address stands, as seen from a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing is known against it.
    Good,
    /// It failed lately; others come first.
    Resting,
    /// It failed, and has rested: the one that is told so sees whether it is back.
    Due,
}

#[derive(Debug)]
struct Failure {
    in_a_row: u32,
    until: Mono,
    /// Somebody was told to look whether it is back.
    is_probed: bool,
}

/// Limits that a host has shown without naming them in EHLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Learned {
    /// Most recipients in a transaction.
    pub(crate) recipients: Option<u32>,
    /// Most messages over a connection.
    pub(crate) messages: Option<u32>,
    /// After how many messages it ended the last connection that it ended.
    ended_after: Option<u32>,
}

type FailureKey = (SourceName, SocketAddr);

/// The memory. It belongs to the engine and outlives a reload.
#[derive(Debug)]
pub(crate) struct Hosts {
    failures: Cache<FailureKey, Arc<Mutex<Failure>>>,
    limits: Cache<HostPort, Learned>,
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            failures: Cache::builder().max_capacity(ENTRIES).time_to_idle(FAILURES_KEPT).build(),
            limits: Cache::builder().max_capacity(ENTRIES).time_to_live(LIMITS_KEPT).build(),
        }
    }
}

impl Hosts {
    /// How `address` stands. Who hears [`Standing::Due`] must try it and say how it went.
    pub(crate) fn standing(&self, source: &SourceName, address: SocketAddr, now: Mono) -> Standing {
        let Some(failure) = self.failures.get(&(source.clone(), address)) else { return Standing::Good };
        let mut failure = failure.lock();
        if now < failure.until {
            return Standing::Resting;
        }
        (failure.until, failure.is_probed) = (now.plus(PROBE_MAX), true);
        Standing::Due
    }

    /// It did not work. Many attempts may be under way when a host goes; together they count as one failure.
    pub(crate) fn failed(&self, source: &SourceName, address: SocketAddr, now: Mono, interval: Duration) {
        let new = || Arc::new(Mutex::new(Failure { in_a_row: 0, until: now, is_probed: false }));
        let failure = self.failures.get_with((source.clone(), address), new);
        let mut failure = failure.lock();
        if now < failure.until && !failure.is_probed {
            return;
        }
        let intervals = 1_u32.checked_shl(failure.in_a_row).unwrap_or(INTERVALS_MAX).min(INTERVALS_MAX);
        failure.in_a_row = failure.in_a_row.saturating_add(1);
        failure.is_probed = false;
        failure.until = now.plus(interval.saturating_mul(intervals));
    }

    /// It works.
    pub(crate) fn worked(&self, source: &SourceName, address: SocketAddr) {
        self.failures.invalidate(&(source.clone(), address));
    }

    /// What the host has shown of its limits.
    pub(crate) fn learned(&self, host: &HostPort) -> Learned {
        self.limits.get(host).unwrap_or_default()
    }

    /// The host took so many recipients in a transaction and said that it takes no more.
    pub(crate) fn full_after(&self, host: &HostPort, recipients: u32) {
        let learned = self.learned(host);
        if recipients > 0 && learned.recipients.is_none_or(|known| recipients < known) {
            self.limits.insert(host.clone(), Learned { recipients: Some(recipients), ..learned });
        }
    }

    /// The host ended a busy connection in place of taking one more message. When it does so twice in a row after the same
    /// number, that is its limit: once may be chance.
    pub(crate) fn ended_after(&self, host: &HostPort, messages: u32) {
        let learned = self.learned(host);
        let is_limit = messages > 0 && learned.ended_after == Some(messages);
        let known = learned.messages.filter(|&known| known < messages);
        let messages_max = if is_limit { known.or(Some(messages)) } else { learned.messages };
        let learned = Learned { messages: messages_max, ended_after: Some(messages), ..learned };
        self.limits.insert(host.clone(), learned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[test]
    fn an_address_that_failed_rests_and_one_looks_whether_it_is_back() {
        let (hosts, source) = (Hosts::default(), mail::default_source());
        let address = "192.0.2.1:25".parse().unwrap();
        let standing = |seconds| hosts.standing(&source, address, at(seconds));
        let failed = |seconds| hosts.failed(&source, address, at(seconds), INTERVAL);
        assert_eq!(standing(0), Standing::Good);
        // Ten attempts that were under way count as one failure.
        (0..10).for_each(failed);
        assert_eq!(standing(59), Standing::Resting);
        assert_eq!(
            (standing(60), standing(61), standing(179)),
            (Standing::Due, Standing::Resting, Standing::Resting)
        );
        failed(90);
        assert_eq!((standing(209), standing(210)), (Standing::Resting, Standing::Due));
        // Whoever was told to look never says how it went: another one looks.
        assert_eq!((standing(329), standing(330)), (Standing::Resting, Standing::Due));
        // Another source may see it otherwise.
        assert_eq!(hosts.standing(&"other".into(), address, at(331)), Standing::Good);
        hosts.worked(&source, address);
        assert_eq!(standing(332), Standing::Good);
        failed(400);
        assert_eq!((standing(459), standing(460)), (Standing::Resting, Standing::Due), "it begins anew");
    }

    #[test]
    fn it_never_rests_for_longer_than_sixteen_intervals() {
        let (hosts, source) = (Hosts::default(), mail::default_source());
        let address = "192.0.2.1:25".parse().unwrap();
        let mut now = 0;
        for _ in 0..40 {
            hosts.failed(&source, address, at(now), INTERVAL);
            now += 16 * 60;
            assert_eq!(hosts.standing(&source, address, at(now)), Standing::Due);
        }
        hosts.failed(&source, address, at(now), INTERVAL);
        assert_eq!(hosts.standing(&source, address, at(now + 16 * 60 - 1)), Standing::Resting);
    }

    #[test]
    fn limits_are_learned() {
        let (hosts, host) = (Hosts::default(), "mx.example:25".parse().unwrap());
        hosts.full_after(&host, 0);
        assert_eq!(hosts.learned(&host), Learned::default());
        hosts.full_after(&host, 50);
        hosts.full_after(&host, 80);
        assert_eq!(hosts.learned(&host).recipients, Some(50));
        for (messages, known) in
            [(20, None), (7, None), (20, None), (20, Some(20)), (3, Some(20)), (3, Some(3)), (20, Some(3))]
        {
            hosts.ended_after(&host, messages);
            assert_eq!((hosts.learned(&host).messages, hosts.learned(&host).recipients), (known, Some(50)));
        }
    }
}
