//! Where queues belong: their destination, its site, and their place in the turns there.

use std::collections::VecDeque;
use std::time::Duration;

use mail::{Destination, Mono, QueueKey, Site as SiteKey};

use crate::clock::Now;
use crate::effect::{Effect, Path};
use crate::horizon::before;
use crate::limits::jittered;
use crate::meter::Meter;
use crate::path::{PathIx, PathState};
use crate::queue::{NONE, Queue, QueueIx};
use crate::scheduler::Scheduler;
use crate::site::{Dest, DestIx, Group, GroupIx, Member, Org, Site, SiteIx, Turn, TurnIx, lane_of};
use crate::timer::Timer;

/// An answer about a site that does not come is asked for again after this.
const LOCATE_AGAIN: Duration = Duration::from_secs(60);

/// However short or long an answer of DNS may be valid, it is asked again after a time within these.
const VALID: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(86_400);

impl Scheduler {
    /// A destination is at this site, for so long. Asked for by [`Effect::Locate`]; said unasked when a worker learned better. When
    /// the site is another one than before, the mail moves; what is under way ends where it is.
    pub fn located(
        &mut self,
        destination: &Destination,
        site: SiteKey,
        valid: Duration,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(&ix) = self.dest_by_key.get(destination) else { return };
        self.dests[ix].asked = false;
        if matches!(destination, Destination::Mx(_)) && !self.policy.is_apart(destination) {
            let valid = valid.clamp(*VALID.start(), *VALID.end());
            self.restart_timer(ix, now.mono.plus(jittered(valid, 0.1, self.seed ^ ix as u64)));
            self.move_dest(ix, site, now, out);
        }
        self.arm(now, out);
    }

    /// The site of a destination, as far as it is known.
    pub fn site_of(&self, destination: &Destination) -> Option<SiteKey> {
        let site = self.dest_by_key.get(destination).and_then(|&ix| self.dests[ix].site);
        match site {
            Some(site) => Some(self.sites[site].key.clone()),
            None if matches!(destination, Destination::Mx(_)) && !self.policy.is_apart(destination) => None,
            None => Some(SiteKey::Alone(destination.clone())),
        }
    }

    /// The queue of this key is new.
    pub(crate) fn insert_queue(&mut self, key: &QueueKey) -> QueueIx {
        let org = match self.org_by_id.get(&key.org) {
            Some(&ix) => ix,
            None => {
                let kept = self.org_clocks.remove(&key.org);
                let meter = kept.unwrap_or_else(|| Meter::new(self.policy.orgs.get(&key.org)));
                let blocked = VecDeque::new();
                let org = Org { id: key.org, queues: 0, held: 0, meter, timer: None, blocked };
                let ix = self.orgs.insert(org);
                self.org_by_id.insert(key.org, ix);
                self.share_org(ix, self.seen);
                ix
            }
        };
        self.orgs[org].queues += 1;
        let ix = self.queues.insert(Queue::new(key.clone(), org));
        self.queue_by_key.insert(key.clone(), ix);
        ix
    }

    /// Something of the queue is in memory: it belongs somewhere from now on.
    pub(crate) fn attach(&mut self, ix: QueueIx, now: Now, out: &mut Vec<Effect>) {
        let key = self.queues[ix].key.destination.clone();
        let dest = match self.dest_by_key.get(&key) {
            Some(&dest) => dest,
            None => self.insert_dest(key, now, out),
        };
        let queues = &mut self.dests[dest].queues;
        let q = &mut self.queues[ix];
        (q.dest, q.dest_at) = (dest, queues.len());
        queues.push(ix);
        self.place(ix);
    }

    fn insert_dest(&mut self, key: Destination, now: Now, out: &mut Vec<Effect>) -> DestIx {
        let meter = match self.routes_kept.remove(&key) {
            Some(meter) => meter,
            None => Meter::new(self.policy.routes.get(&key)),
        };
        let dest = Dest {
            key: key.clone(),
            queues: Vec::new(),
            site: None,
            asked: false,
            to_be_lifted: self.lifts.remove(&key),
            timer: None,
            expires: now.mono,
            meter,
            blocked: VecDeque::new(),
        };
        let ix = self.dests.insert(dest);
        self.dest_by_key.insert(key.clone(), ix);
        self.share_dest(ix, now.mono);
        if matches!(key, Destination::Mx(_)) && !self.policy.is_apart(&key) {
            self.locate(ix, now, out);
        } else {
            let site = self.site(&SiteKey::Alone(key));
            self.dests[ix].site = Some(site);
            if std::mem::take(&mut self.dests[ix].to_be_lifted) {
                self.lift_site(site, now);
            }
        }
        ix
    }

    fn locate(&mut self, ix: DestIx, now: Now, out: &mut Vec<Effect>) {
        self.dests[ix].asked = true;
        out.push(Effect::Locate { destination: self.dests[ix].key.clone() });
        self.restart_timer(ix, now.mono.plus(LOCATE_AGAIN));
    }

    fn restart_timer(&mut self, ix: DestIx, at: Mono) {
        self.dests[ix].expires = at;
        if let Some(before) = self.dests[ix].timer.take() {
            self.timers.remove(&(before, Timer::Dest(ix)));
        }
        self.set_timer(Timer::Dest(ix), at);
    }

    /// What was known of the site has lapsed, or the ceiling lets more go.
    pub(crate) fn dest_rings(&mut self, ix: DestIx, now: Now, out: &mut Vec<Effect>) {
        if !self.dests[ix].blocked.is_empty() {
            self.dest_opened(ix, now, out);
        }
        let Some(dest) = self.dests.get(ix) else { return };
        if !matches!(dest.key, Destination::Mx(_)) || self.policy.is_apart(&dest.key) {
            return;
        }
        let expires = dest.expires;
        if expires <= now.mono {
            self.locate(ix, now, out);
        } else {
            self.set_timer(Timer::Dest(ix), expires);
        }
    }

    /// A destination moves to a site.
    pub(crate) fn move_dest(&mut self, ix: DestIx, site: SiteKey, now: Now, out: &mut Vec<Effect>) {
        let old = self.dests[ix].site;
        if old.is_some_and(|old| self.sites[old].key == site) {
            return;
        }
        let new = self.site(&site);
        self.dests[ix].site = Some(new);
        let queues = self.dests[ix].queues.clone();
        self.unplace(&queues);
        queues.iter().for_each(|&queue| self.place(queue));
        if let Some(old) = old {
            self.sites[old].dests -= 1;
            self.let_go(old);
        }
        if std::mem::take(&mut self.dests[ix].to_be_lifted) {
            self.lift_site(new, now);
        }
        self.dispatch(new, now, out);
    }

    /// Finds the place of every queue again: the rules are others. Goes on with what may go on now.
    pub(crate) fn place_all(&mut self, suspensions: bool, now: Now, out: &mut Vec<Effect>) {
        let all: Vec<QueueIx> =
            self.queues.iter().filter(|(_, q)| q.dest != NONE).map(|(ix, _)| ix).collect();
        self.unplace(&all);
        all.iter().for_each(|&ix| self.place(ix));
        if suspensions {
            self.resume_pages();
        }
        let apart: Vec<(DestIx, bool)> = self
            .dests
            .iter()
            .filter(|(_, dest)| matches!(dest.key, Destination::Mx(_)))
            .map(|(ix, dest)| (ix, self.policy.is_apart(&dest.key)))
            .collect();
        for (ix, is_apart) in apart {
            let key = self.dests[ix].key.clone();
            let alone = self.dests[ix].site.is_some_and(|s| self.sites[s].key == SiteKey::Alone(key.clone()));
            if is_apart {
                self.move_dest(ix, SiteKey::Alone(key), now, out);
            } else if alone && !self.dests[ix].asked {
                self.locate(ix, now, out);
            }
        }
        let sites: Vec<SiteIx> = self.sites.iter().map(|(ix, _)| ix).collect();
        sites.into_iter().for_each(|ix| self.dispatch(ix, now, out));
        self.feed(now, out);
    }

    /// Queues that wait on disk and are not suspended any more want their pages.
    fn resume_pages(&mut self) {
        let all: Vec<QueueIx> = self.queues.iter().map(|(ix, _)| ix).collect();
        for ix in all {
            if self.queues[ix].dest == NONE {
                self.look_at_unattached(ix);
            }
            self.want_page(ix);
            self.note_idle(ix);
        }
        if std::mem::take(&mut self.forgot_suspended) {
            self.lower_horizon(mail::Timestamp(i64::MIN));
        }
    }

    /// Gives a queue its place in the turns, if its site is known and nothing stops it.
    fn place(&mut self, ix: QueueIx) {
        let q = &self.queues[ix];
        let (key, dest, org) = (q.key.clone(), q.dest, q.org);
        let site = self.dests[dest].site;
        let site_key = site.map(|site| self.sites[site].key.clone());
        let placement = self.placement(&key, site_key.as_ref());
        self.queues[ix].suspended = placement.suspended;
        let Some(site) = site.filter(|_| placement.suspended.is_none()) else { return };
        let group = self.group(site, placement.pool);
        let turns = &mut self.turns;
        let turn = *self.turn_by_key.entry((group, key.org, key.stream)).or_insert_with(|| {
            let queues = VecDeque::new();
            self.groups[group].turns += 1;
            turns.insert(Turn {
                group,
                org,
                stream: key.stream,
                queues,
                members: 0,
                credit: 0,
                listed: false,
                blocked: false,
            })
        });
        self.turns[turn].members += 1;
        let q = &mut self.queues[ix];
        q.turn = turn;
        self.groups[group].ready += q.ready.len();
        self.list(ix);
    }

    /// Takes queues out of the turns.
    pub(crate) fn unplace(&mut self, queues: &[QueueIx]) {
        let mut turns: Vec<TurnIx> = Vec::new();
        for &ix in queues {
            let q = &mut self.queues[ix];
            if std::mem::take(&mut q.blocked) {
                self.dests[q.dest].blocked.retain(|&other| other != ix);
            }
            q.listed = false;
            let turn = std::mem::replace(&mut q.turn, NONE);
            if turn != NONE {
                self.groups[self.turns[turn].group].ready -= q.ready.len();
                self.turns[turn].members -= 1;
                turns.push(turn);
            }
        }
        turns.sort_unstable();
        turns.dedup();
        for turn in turns {
            let state = &mut self.turns[turn];
            let all = &self.queues;
            state.queues.retain(|&ix| all[ix].turn == turn);
            if state.members == 0 {
                self.drop_turn(turn);
            }
        }
    }

    fn drop_turn(&mut self, ix: TurnIx) {
        let turn = self.turns.remove(ix);
        let group = &mut self.groups[turn.group];
        if turn.listed {
            group.lanes[lane_of(turn.stream)].retain(|&other| other != ix);
        }
        if turn.blocked {
            self.orgs[turn.org].blocked.retain(|&other| other != ix);
        }
        self.turn_by_key.remove(&(turn.group, self.orgs[turn.org].id, turn.stream));
        group.turns -= 1;
        if group.turns == 0 {
            let site = &mut self.sites[group.site];
            site.groups.retain(|&other| other != turn.group);
            (site.group_now, site.group_left) = (0, 0);
            self.groups.remove(turn.group);
        }
    }

    /// The site of this key, to which one more destination belongs now.
    fn site(&mut self, key: &SiteKey) -> SiteIx {
        let ix = match self.site_by_key.get(key) {
            Some(&ix) => ix,
            None => {
                let ix = self.sites.insert(Site::new(key.clone()));
                self.site_by_key.insert(key.clone(), ix);
                ix
            }
        };
        self.sites[ix].dests += 1;
        self.sites[ix].unused_since = None;
        ix
    }

    fn group(&mut self, site: SiteIx, pool: usize) -> GroupIx {
        let known = self.sites[site].groups.iter().copied().find(|&ix| self.groups[ix].pool == pool);
        if let Some(ix) = known {
            return ix;
        }
        let sources = self.pools[pool].sources.clone();
        let members = sources
            .into_iter()
            .map(|(source, weight)| Member { path: self.path(source, site), weight, owed: 0 })
            .collect();
        let ix = self.groups.insert(Group::new(site, pool, members));
        self.sites[site].groups.push(ix);
        ix
    }

    fn path(&mut self, source: usize, site: SiteIx) -> PathIx {
        let known = self.sites[site].paths.iter().copied().find(|&ix| self.paths[ix].source == source);
        if let Some(ix) = known {
            return ix;
        }
        let name = Path { source: self.sources[source].name.clone(), site: self.sites[site].key.clone() };
        let traffic = self.policy.traffic(&name.source, &name.site);
        let learned = if self.restored.is_empty() { None } else { self.restored.remove(&name) };
        let mut path = PathState::new(name, source, site, traffic, &self.policy.limits);
        if let Some(learned) = learned {
            path.learn(learned, self.seen);
        }
        let ix = self.paths.insert(path);
        self.sites[site].paths.push(ix);
        self.share_path(ix, self.seen);
        ix
    }

    /// Forgets a queue that has nothing in memory.
    pub(crate) fn drop_queue(&mut self, ix: QueueIx) {
        if self.queues[ix].hungry {
            self.hungry.retain(|&other| other != ix);
        }
        if self.queues[ix].dest != NONE {
            self.unplace(&[ix]);
        }
        let q = self.queues.remove(ix);
        if q.idle_since.is_some() {
            self.idle -= 1;
        }
        if let Some(due) = q.due {
            self.dues.remove(&(due, ix));
            if self.asking {
                // The store may have been read before this row was written.
                self.missed = self.missed.min(before(due));
            }
        }
        self.forgot_suspended |= q.suspended.is_some() && (q.backlog || q.due.is_some());
        self.queue_by_key.remove(&q.key);
        let org = &mut self.orgs[q.org];
        org.queues -= 1;
        if org.queues == 0 && !org.meter.pace.is_ahead(self.seen) && !org.meter.is_booked(self.seen) {
            let org = self.orgs.remove(q.org);
            self.unshare_meter(&org.meter);
            self.org_by_id.remove(&org.id);
            if let Some(at) = org.timer {
                self.timers.remove(&(at, Timer::Org(q.org)));
            }
        }
        if q.dest != NONE {
            self.leave_dest(q.dest, q.dest_at);
        }
    }

    fn leave_dest(&mut self, ix: DestIx, at: usize) {
        let dest = &mut self.dests[ix];
        dest.queues.swap_remove(at);
        if let Some(&moved) = dest.queues.get(at) {
            self.queues[moved].dest_at = at;
        }
        if !dest.queues.is_empty() {
            return;
        }
        let dest = self.dests.remove(ix);
        self.unshare_meter(&dest.meter);
        self.dest_by_key.remove(&dest.key);
        if let Some(at) = dest.timer {
            self.timers.remove(&(at, Timer::Dest(ix)));
        }
        if dest.meter.ceiling.rate.is_some() {
            self.routes_kept.insert(dest.key, dest.meter);
        }
        if let Some(site) = dest.site {
            self.sites[site].dests -= 1;
            self.let_go(site);
        }
    }

    /// Nobody may refer to the site any more: what was learned there is kept for a while.
    pub(crate) fn let_go(&mut self, ix: SiteIx) {
        let Some(site) = self.sites.get(ix).filter(|site| site.is_unused()) else { return };
        let limits = &self.policy.limits;
        if site.paths.iter().all(|&path| self.paths[path].is_fresh(limits, self.seen)) {
            self.drop_site(ix);
        } else if site.unused_since.is_none() {
            self.sites[ix].unused_since = Some(self.seen);
            self.unused.push_back((self.seen, ix));
        }
    }

    /// Forgets a site that nobody refers to.
    pub(crate) fn drop_site(&mut self, ix: SiteIx) {
        let site = self.sites.remove(ix);
        self.site_by_key.remove(&site.key);
        if site.starved {
            self.starved.retain(|&other| other != ix);
        }
        for path in site.paths {
            let state = self.paths.remove(path);
            state.shares.all().for_each(|share| self.shares.detach(share, self.seen));
            if let Some(at) = state.timer {
                self.timers.remove(&(at, Timer::Path(path)));
            }
        }
    }
}
