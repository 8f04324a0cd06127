//! Saving what was learned, and taking it up again.

use std::sync::Arc;
use std::time::Duration;

use mail::{Destination, Mono, Timestamp};

use crate::clock::Now;
use crate::effect::Path;
use crate::flow::Flow;
use crate::health::{Cause, Health};
use crate::meter::Meter;
use crate::pace::Pace;
use crate::path::Learned;
use crate::policy::Ceiling;
use crate::queue::NONE;
use crate::saved::{SavedCause, SavedClock, SavedPath, SavedState};
use crate::scheduler::Scheduler;

impl Scheduler {
    /// What is to outlive the process. Small: of a path that is as a new one would be, nothing is said.
    pub fn state(&self, now: Now) -> SavedState {
        let fresh = |learned: &Learned| {
            let ahead = |at: Option<Mono>| at.is_some_and(|at| at > now.mono);
            learned.health.is_fresh()
                && learned.flow.is_fresh(self.policy.limits.connections_first)
                && !ahead(learned.messages)
                && !ahead(learned.connections)
        };
        let used = self.paths.iter().map(|(_, path)| (path.name.clone(), path.learned()));
        let unused = self.restored.iter().map(|(name, learned)| (name.clone(), learned.clone()));
        let mut paths: Vec<SavedPath> = used
            .chain(unused)
            .filter(|(_, learned)| !fresh(learned))
            .map(|(name, learned)| saved_path(name, &learned, now))
            .collect();
        paths.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut warmup: Vec<_> = self.warmups.counts.iter().filter(|count| *count.1 > 0).collect();
        warmup.sort_unstable();
        let clocks = |meter: &Meter| saved_clock(meter, now);
        let mut routes: Vec<(String, SavedClock)> = self
            .dests
            .iter()
            .map(|(_, dest)| (&dest.key, &dest.meter))
            .chain(&self.routes_kept)
            .filter_map(|(key, meter)| Some((key.to_string(), clocks(meter)?)))
            .collect();
        routes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut orgs: Vec<_> =
            self.orgs.iter().filter_map(|(_, org)| Some((org.id, clocks(&org.meter)?))).collect();
        orgs.sort_unstable_by_key(|org| org.0);
        SavedState {
            paths,
            warmup_day: self.warmups.day,
            warmup: warmup
                .into_iter()
                .map(|(key, n)| (self.sources[key.0].name.clone(), key.1, *n))
                .collect(),
            orgs,
            credentials: self
                .credentials
                .iter()
                .filter_map(|credential| Some((credential.name.clone(), clocks(&credential.meter)?)))
                .collect(),
            routes,
        }
    }

    /// Takes up what an earlier process saved. To be said once, before anything else.
    pub fn restore(&mut self, saved: SavedState, now: Now) {
        self.seen = self.seen.max(now.mono);
        self.restored_at = now.mono;
        for path in saved.paths {
            // What is remembered at most, whatever the file says.
            if self.restored.len() >= self.policy.limits.sites {
                break;
            }
            let learned = learned(&path, now);
            self.restored.insert(path.path, learned);
        }
        self.warmups.day = saved.warmup_day;
        for (source, site, count) in saved.warmup {
            if let Some(ix) = self.sources.iter().position(|known| known.name == source) {
                self.warmups.counts.insert((ix, site), count);
            }
        }
        let policy = self.policy.clone();
        for (id, clock) in saved.orgs {
            if let Some(ceiling) = policy.orgs.get(&id) {
                self.org_clocks.insert(id, meter(ceiling, clock, now));
            }
        }
        for (name, clock) in saved.credentials {
            let ix = self.credential(Some(&name));
            if ix != NONE {
                let ceiling = self.credentials[ix].meter.ceiling;
                self.credentials[ix].meter = meter(&ceiling, clock, now);
            }
        }
        for (text, clock) in saved.routes {
            let Ok(key) = text.parse::<Destination>() else { continue };
            if let Some(ceiling) = policy.routes.get(&key) {
                self.routes_kept.insert(key, meter(ceiling, clock, now));
            }
        }
        self.share_all(now.mono);
    }

    /// A number that grows whenever [`Scheduler::state`] would say something new.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

fn saved_path(path: Path, learned: &Learned, now: Now) -> SavedPath {
    let later = |at: Option<Mono>| at.filter(|&at| at > now.mono).map(|at| rounded_up(at, now));
    let (window, calm) = learned.flow.saved();
    SavedPath {
        path,
        window,
        calm,
        failures: learned.health.failures,
        closed_until: later(learned.health.closed_until),
        cause: match learned.health.cause {
            Cause::Unreachable => SavedCause::Unreachable,
            Cause::Slowed => SavedCause::Slowed,
            Cause::Unwanted => SavedCause::Unwanted,
        },
        failure: learned.health.failure.as_deref().cloned(),
        next_message: later(learned.messages),
        next_connection: later(learned.connections),
    }
}

/// Nothing is closed for longer. What seems to be was saved when the wall clock showed something else.
const CLOSED_MAX: Duration = Duration::from_secs(24 * 3600);

fn learned(saved: &SavedPath, now: Now) -> Learned {
    let believed = |time: &mail::Timestamp| time.since(now.wall) <= CLOSED_MAX;
    let at = |time: Option<Timestamp>| time.filter(believed).map(|time| now.mono_at(time));
    Learned {
        flow: Flow::restored(saved.window, saved.calm),
        health: Health {
            failures: saved.failures,
            closed_until: at(saved.closed_until),
            cause: match saved.cause {
                SavedCause::Unreachable => Cause::Unreachable,
                SavedCause::Slowed => Cause::Slowed,
                SavedCause::Unwanted => Cause::Unwanted,
            },
            probing: false,
            failure: saved.failure.clone().map(Arc::new),
        },
        messages: at(saved.next_message),
        connections: at(saved.next_connection),
    }
}

/// A moment on the wall clock, never too early: both the moment and the wall clock lose what is less than a millisecond.
fn rounded_up(at: Mono, now: Now) -> Timestamp {
    now.wall_at(at).plus(Duration::from_millis(2))
}

/// The clocks of somebody who has a rate and has made use of it.
fn saved_clock(meter: &Meter, now: Now) -> Option<SavedClock> {
    let next = meter.ceiling.rate.map_or(now.mono, |_| meter.pace.stands_at());
    let is_ahead = next > now.mono || meter.is_booked(now.mono);
    is_ahead.then(|| SavedClock { next: rounded_up(next, now), booked: rounded_up(meter.booked, now) })
}

fn meter(ceiling: &Ceiling, saved: SavedClock, now: Now) -> Meter {
    let mut meter = Meter::new(Some(ceiling));
    if let Some(rate) = ceiling.rate {
        meter.pace = Pace::from(now.mono_at(saved.next), rate, now.mono);
    }
    meter.booked = now.mono_at(saved.booked);
    meter
}
