//! The policy, made ready to be asked: sources and pools by number, suspensions in force, and what follows for a queue.

use std::sync::Arc;

use mail::{QueueKey, SourceName, Timestamp, default_source};

use crate::clock::Now;
use crate::effect::{Effect, Path};
use crate::meter::Meter;
use crate::path::SourceState;
use crate::policy::{DEFAULT_POOL, Policy, Pool};
use crate::queue::QueueIx;
use crate::scheduler::Scheduler;
use crate::site::Credential;
use crate::timer::Timer;

/// Weighted sources. One for each pool, and one for what is left of it where a source is suspended for some mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolState {
    pub(crate) name: Arc<str>,
    /// By number, with their weights.
    pub(crate) sources: Vec<(usize, u32)>,
}

/// What the rules say about a queue at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The suspension that stops it.
    pub(crate) suspended: Option<u32>,
    pub(crate) pool: usize,
}

impl Scheduler {
    /// Takes a new policy. What is over a smaller limit runs out by itself; what was suspended and is not any more goes on at once.
    pub fn configure(&mut self, policy: Arc<Policy>, now: Now, out: &mut Vec<Effect>) {
        self.seen = self.seen.max(now.mono);
        let changed = policy.suspensions != self.policy.suspensions;
        self.policy = policy.clone();
        self.take_rules(&policy);
        self.stops = in_force(&policy, now.wall);
        for (_, path) in &mut self.paths {
            path.traffic = policy.traffic(&path.name.source, &path.name.site);
        }
        self.close_gone(out);
        self.set_ceilings(&policy);
        self.share_all(now.mono);
        // Nothing may start before everything is where the new rules want it.
        self.place_all(changed, now, out);
        self.open_all(now, out);
        self.evict(now.mono);
        self.ask(now, out);
        self.arm(now, out);
    }

    /// Suspensions end by themselves, and clocks are set. To be called now and then.
    pub(crate) fn look_at_stops(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.policy.suspensions.is_empty() {
            return;
        }
        let stops = in_force(&self.policy, now.wall);
        if stops != self.stops {
            self.stops = stops;
            self.place_all(true, now, out);
        }
    }

    /// When the first suspension in force ends by itself.
    pub(crate) fn next_end_of_stop(&self) -> Option<Timestamp> {
        self.stops.iter().filter_map(|&n| self.policy.suspensions.get(n as usize)?.until).min()
    }

    /// Numbers the sources and pools. Numbers once given stay, as paths and groups keep them.
    pub(crate) fn take_rules(&mut self, policy: &Policy) {
        self.sources.iter_mut().for_each(|source| source.is_there = false);
        self.source(&default_source(), true);
        for source in &policy.sources {
            let ix = self.source(&source.name, true);
            self.sources[ix].warmup = source.warmup.clone();
        }
        let default = Pool::default_pool();
        let named = policy.pools.iter().any(|pool| *pool.name == *DEFAULT_POOL);
        for pool in policy.pools.iter().chain((!named).then_some(&default)) {
            let sources =
                pool.sources.iter().map(|(name, weight)| (self.source(name, false), *weight)).collect();
            self.pool(PoolState { name: pool.name.clone(), sources });
        }
    }

    fn source(&mut self, name: &SourceName, is_there: bool) -> usize {
        if let Some(ix) = self.sources.iter().position(|source| source.name == *name) {
            let source = &mut self.sources[ix];
            if is_there {
                (source.is_there, source.warmup) = (true, None);
            }
            return ix;
        }
        self.sources.push(SourceState { name: name.clone(), warmup: None, is_there });
        self.sources.len() - 1
    }

    fn pool(&mut self, pool: PoolState) -> usize {
        self.pools.iter().position(|known| *known == pool).unwrap_or_else(|| {
            self.pools.push(pool);
            self.pools.len() - 1
        })
    }

    /// What the rules say about mail of this queue at this site.
    pub(crate) fn placement(&mut self, key: &QueueKey, site: Option<&mail::Site>) -> Placement {
        let policy = self.policy.clone();
        let name = policy.pool_of(key);
        let pool = policy.pools.iter().find(|pool| *pool.name == *name);
        let pool = pool.or_else(|| policy.pools.iter().find(|pool| *pool.name == *DEFAULT_POOL));
        let mut state = PoolState { name: DEFAULT_POOL.into(), sources: Vec::new() };
        if let Some(pool) = pool {
            state.name = pool.name.clone();
            state.sources =
                pool.sources.iter().map(|(name, weight)| (self.source(name, false), *weight)).collect();
            state.sources.retain(|&(ix, _)| self.sources[ix].is_there);
        }
        if state.sources.is_empty() {
            // A pool of sources that are gone: mail does not wait for them.
            state.sources.push((self.source(&default_source(), false), 1));
        }
        let mut suspended = None;
        for &stop in &self.stops {
            let Some(suspension) = policy.suspensions.get(stop as usize) else { continue };
            if !suspension.scope.covers(key, site) {
                continue;
            }
            let Some(source) = &suspension.scope.source else {
                suspended = suspended.or(Some(stop));
                continue;
            };
            let before = state.sources.len();
            state.sources.retain(|&(ix, _)| self.sources[ix].name != *source);
            if state.sources.is_empty() && before > 0 {
                suspended = suspended.or(Some(stop));
            }
        }
        Placement { suspended, pool: self.pool(state) }
    }

    /// Whether a queue is suspended, be its state in memory or not.
    pub(crate) fn is_suspended(&mut self, key: &QueueKey, known: Option<QueueIx>) -> bool {
        if let Some(ix) = known.filter(|&ix| self.queues[ix].dest != crate::queue::NONE) {
            return self.queues[ix].suspended.is_some();
        }
        let site = self.site_of(&key.destination);
        self.placement(key, site.as_ref()).suspended.is_some()
    }

    /// Whether a queue that belongs nowhere yet is suspended now.
    pub(crate) fn look_at_unattached(&mut self, ix: QueueIx) {
        if self.stops.is_empty() {
            self.queues[ix].suspended = None;
            return;
        }
        let key = self.queues[ix].key.clone();
        let site = self.site_of(&key.destination);
        self.queues[ix].suspended = self.placement(&key, site.as_ref()).suspended;
    }

    /// The number of a credential that has a ceiling.
    pub(crate) fn credential(&self, name: Option<&Arc<str>>) -> usize {
        match name {
            Some(name) if !self.credential_by_name.is_empty() => {
                self.credential_by_name.get(name).copied().unwrap_or(crate::queue::NONE)
            }
            _ => crate::queue::NONE,
        }
    }

    /// Gives everybody the new ceiling.
    fn set_ceilings(&mut self, policy: &Policy) {
        for (_, org) in &mut self.orgs {
            org.meter.ceiling = policy.orgs.get(&org.id).copied().unwrap_or_default();
        }
        for (_, dest) in &mut self.dests {
            dest.meter.ceiling = policy.routes.get(&dest.key).copied().unwrap_or_default();
        }
        for credential in &mut self.credentials {
            credential.meter.ceiling = policy.credentials.get(&credential.name).copied().unwrap_or_default();
        }
        self.take_credentials(policy);
    }

    /// Lets go who waited for an old ceiling.
    fn open_all(&mut self, now: Now, out: &mut Vec<Effect>) {
        let orgs: Vec<usize> = self.orgs.iter().map(|(ix, _)| ix).collect();
        orgs.into_iter().for_each(|ix| self.org_opened(ix, now, out));
        let dests: Vec<usize> = self.dests.iter().map(|(ix, _)| ix).collect();
        dests.into_iter().for_each(|ix| self.dest_opened(ix, now, out));
        (0..self.credentials.len()).for_each(|ix| self.credential_opened(ix, now, out));
    }

    /// Numbers the credentials that have a ceiling.
    pub(crate) fn take_credentials(&mut self, policy: &Policy) {
        for (name, ceiling) in &policy.credentials {
            if !self.credential_by_name.contains_key(name) {
                self.credential_by_name.insert(name.clone(), self.credentials.len());
                self.credentials.push(Credential {
                    name: name.clone(),
                    meter: Meter::new(Some(ceiling)),
                    timer: None,
                    aside: std::collections::VecDeque::new(),
                    took: std::time::Duration::from_secs(1),
                });
            }
        }
    }

    /// Closes idle connections of sources that are not configured any more; busy ones are closed when they ask for more.
    fn close_gone(&mut self, out: &mut Vec<Effect>) {
        let gone: Vec<usize> = self
            .paths
            .iter()
            .filter(|(_, path)| path.idle > 0 && !self.sources[path.source].is_there)
            .map(|(ix, _)| ix)
            .collect();
        for ix in gone {
            while self.paths[ix].idle > 0 {
                self.paths[ix].idle -= 1;
                out.push(Effect::CloseIdle { path: self.paths[ix].name.clone() });
                self.take_slot_away(ix, true);
            }
            self.let_go(self.paths[ix].site);
        }
    }

    /// The path by its name.
    pub(crate) fn path_ix(&self, path: &Path) -> Option<usize> {
        let site = &self.sites[*self.site_by_key.get(&path.site)?];
        site.paths.iter().copied().find(|&ix| self.paths[ix].name.source == path.source)
    }

    /// Something goes on by itself at this moment.
    pub(crate) fn set_timer(&mut self, timer: Timer, at: mail::Mono) {
        let slot = match timer {
            Timer::Path(ix) => &mut self.paths[ix].timer,
            Timer::Org(ix) => &mut self.orgs[ix].timer,
            Timer::Credential(ix) => &mut self.credentials[ix].timer,
            Timer::Dest(ix) => &mut self.dests[ix].timer,
            Timer::Share(ix) => &mut self.shares.all[ix].timer,
        };
        match *slot {
            Some(before) if before <= at => return,
            Some(before) => drop(self.timers.remove(&(before, timer))),
            None => {}
        }
        *slot = Some(at);
        self.timers.insert((at, timer));
    }
}

/// Suspensions that are in force, by number.
fn in_force(policy: &Policy, now: Timestamp) -> Vec<u32> {
    let numbers = (0u32..).zip(&policy.suspensions);
    numbers
        .filter(|(_, suspension)| suspension.until.is_none_or(|until| until > now))
        .map(|(n, _)| n)
        .collect()
}
