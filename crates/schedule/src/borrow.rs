//! Borrowing: which limits are shared, what this node would like of each, and what follows from the answers.

use std::time::Duration;

use mail::{Destination, Mono, Site};

use crate::clock::Now;
use crate::effect::{Effect, Path};
use crate::meter::Meter;
use crate::path::{Held, PathIx, PathShares, Room};
use crate::policy::{Ceiling, day_of, midnight_after};
use crate::queue::{NONE, Stage};
use crate::scheduler::Scheduler;
use crate::share::{Borrowed, Granted, Kind, NEVER, Of, RENEW, Share, ShareIx, Shares, Wish};
use crate::site::DestIx;
use crate::timer::Timer;

/// Wishes in one go; the rest follows at once.
const WISHES_MAX: usize = 1000;

/// What is due this soon is asked for as well.
const TOGETHER: Duration = Duration::from_millis(500);

/// A path may grow by so many connections before it has to ask again.
const HEADROOM: usize = 2;

/// The day of a warm-up plan is over everywhere so long after midnight.
const CLOCKS_APART: Duration = Duration::from_secs(60);

impl Scheduler {
    /// Whether the limits hold for all nodes of a cluster together. To be said before anything else; from then on nothing
    /// goes that was not granted.
    pub fn set_sharing(&mut self, on: bool, now: Now, out: &mut Vec<Effect>) {
        self.seen = self.seen.max(now.mono);
        if self.shares.on != on {
            self.shares.on = on;
            self.share_all(now.mono);
        }
        self.arm(now, out);
    }

    /// What this node would like of the limits whose time has come. Until [`Scheduler::granted`] brings the answer, nothing is
    /// taken beyond what the wishes name as in use. To be asked for at [`Effect::Borrow`], and not again before the
    /// answer was told.
    pub fn wishes(&mut self, now: Now) -> Vec<Wish> {
        self.seen = self.seen.max(now.mono);
        self.shares.told = false;
        self.turn_days(now);
        let soon = now.mono.plus(TOGETHER);
        let due = |share: &Share| !share.asking && share.due <= soon;
        let all = self.shares.all.iter().filter(|(_, share)| due(share)).map(|(ix, _)| ix);
        let mut all: Vec<ShareIx> = all.collect();
        if all.len() > WISHES_MAX {
            all.sort_by_key(|&ix| self.shares.all[ix].due);
            all.truncate(WISHES_MAX);
        }
        let wishes = all.into_iter().filter_map(|ix| self.wish(ix, now)).collect();
        self.shares.set_next();
        wishes
    }

    /// The answer to the last wishes; what is not in it was not answered. Without any answer it is to be said as well.
    pub fn granted(&mut self, granted: &[Granted], now: Now, out: &mut Vec<Effect>) {
        self.seen = self.seen.max(now.mono);
        let mut opened = Vec::with_capacity(granted.len());
        for grant in granted {
            let Some(ix) = self.shares.by_key(&grant.key).filter(|&ix| self.shares.all[ix].asking) else {
                continue;
            };
            let share = &mut self.shares.all[ix];
            (share.amount, share.fair, share.until) = (grant.amount, grant.fair, grant.until);
            share.answered(now.mono);
            self.repace(ix, now.mono);
            opened.push(ix);
        }
        for ix in std::mem::take(&mut self.shares.asked) {
            if let Some(share) = self.shares.all.get_mut(ix).filter(|share| share.asking) {
                share.unanswered(now.mono);
            }
        }
        for ix in opened {
            self.lent(ix, now, out);
        }
        self.shares.set_next();
        self.arm(now, out);
    }

    /// What this node has of the limits that are shared, in order of their names.
    pub fn borrowed(&self, now: Now) -> Vec<Borrowed> {
        let all = self.shares.all.iter().filter(|(_, share)| share.of.is_some());
        let mut all: Vec<Borrowed> = all
            .map(|(_, share)| Borrowed {
                key: share.key.clone(),
                capacity: share.capacity,
                amount: share.usable(now.mono),
                is_short: share.hungry,
            })
            .collect();
        all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// One wish; none when there is nothing to be said. What is named as in use may be used meanwhile, and nothing more.
    fn wish(&mut self, ix: ShareIx, now: Now) -> Option<Wish> {
        let (taken, wanted) = self.demand(ix, now);
        let share = &mut self.shares.all[ix];
        let usable = share.usable(now.mono);
        let was_lent = share.amount > 0;
        share.amount = taken.max(usable.min(wanted));
        share.touched = false;
        if wanted == 0 && share.amount == 0 && !was_lent {
            if share.of.is_some() {
                (share.due, share.was_filled) = (NEVER, true);
            } else if let Some(at) = self.shares.remove(ix) {
                self.timers.remove(&(at, Timer::Share(ix)));
            }
            return None;
        }
        (share.asking, share.asked) = (true, Some(now.mono));
        (share.wanted, share.kept) = (wanted.max(share.amount), taken);
        let lasts = match share.kind {
            Kind::Connections => Duration::ZERO,
            Kind::Messages | Kind::NewConnections => share.uses.as_ref().map_or(Duration::ZERO, |u| u.period),
            Kind::Warmup(_) => midnight_after(now.wall).since(now.wall) + CLOCKS_APART,
        };
        let (key, capacity) = (share.key.to_string(), share.capacity);
        let wish = Wish { key, capacity, wanted: share.wanted, in_use: share.amount, lasts };
        self.shares.asked.push(ix);
        Some(wish)
    }

    /// How many places are taken, and how many are wanted, those among them.
    fn demand(&self, ix: ShareIx, now: Now) -> (u64, u64) {
        let share = &self.shares.all[ix];
        let (kind, capacity, touched, used) =
            (share.kind, share.capacity, share.touched, share.used(now.mono));
        // A little more than is needed, or every message of a trickle would have to wait for a loan of its own.
        let trickle = if touched { (capacity / 10).max(1) } else { 0 };
        let places = |taken: usize, wants: usize| {
            let wants = (wants as u64).max(u64::from(touched)).min(capacity);
            (taken as u64, wants.max(taken as u64))
        };
        let rate =
            |waits: bool| (used, if waits { capacity } else { used + trickle }.min(capacity).max(used));
        match (share.of, kind) {
            (None, _) => (used, used),
            (Some(Of::Path(path)), Kind::Warmup(_)) => self.warmup_demand(ix, path, now),
            (Some(Of::Path(path)), kind) => {
                let ready = if self.is_held_up(path, now) { 0 } else { self.ready_for(path) };
                let state = &self.paths[path];
                let is_ill = state.health.failures > 0;
                if kind == Kind::Connections {
                    let busy = state.slots - state.idle;
                    let window = if is_ill { 1 } else { state.window(&self.policy.limits) + HEADROOM };
                    places(state.slots, (busy + ready).min(window))
                } else if is_ill && ready > 0 {
                    (used, (used + 1).min(capacity).max(used))
                } else {
                    rate(ready > 0)
                }
            }
            (Some(of), kind) => {
                let (taken, in_memory) = self.meter_demand(of);
                if kind == Kind::Connections { places(taken, in_memory) } else { rate(in_memory > taken) }
            }
        }
    }

    fn warmup_demand(&self, ix: ShareIx, path: PathIx, now: Now) -> (u64, u64) {
        let capacity = self.shares.all[ix].capacity;
        let sent = u64::from(self.warmups.sent(&self.paths[path], now.wall));
        // What a node leaves unused when it dies is lost to the others until midnight.
        let more = (self.ready_for(path) as u64).min((capacity / 10).max(10));
        (sent, (sent + more).min(capacity).max(sent))
    }

    /// Whether nothing will go by this path for longer than a loan is renewed, whatever is lent.
    fn is_held_up(&self, path: PathIx, now: Now) -> bool {
        let is_far = |at: Mono| at > now.mono.plus(RENEW);
        match self.room(path, false, now) {
            Room::Until(at, Held::Closed | Held::Warmup(_)) | Room::Answers(at) => is_far(at),
            Room::Lent(share) => share == self.paths[path].shares.warmup,
            Room::Gone => true,
            Room::Open | Room::New | Room::Busy | Room::Until(..) => false,
        }
    }

    /// Deliveries that wait for this path, among others.
    fn ready_for(&self, path: PathIx) -> usize {
        let groups = self.sites[self.paths[path].site].groups.iter().map(|&ix| &self.groups[ix]);
        let mine = groups.filter(|group| group.members.iter().any(|member| member.path == path));
        mine.map(|group| group.ready.div_ceil(group.members.len())).sum()
    }

    /// Deliveries under way, and all that are in memory.
    fn meter_demand(&self, of: Of) -> (usize, usize) {
        match of {
            Of::Org(ix) => (self.orgs[ix].meter.taken as usize, self.orgs[ix].held),
            Of::Dest(ix) => {
                let dest = &self.dests[ix];
                (dest.meter.taken as usize, dest.queues.iter().map(|&q| self.queues[q].held()).sum())
            }
            Of::Credential(ix) => {
                let credential = &self.credentials[ix];
                let taken = credential.meter.taken as usize;
                (taken, taken + credential.aside.len())
            }
            Of::Path(ix) => (self.paths[ix].slots, self.paths[ix].slots),
        }
    }

    /// Messages are spread by what was lent.
    fn repace(&mut self, ix: ShareIx, now: Mono) {
        let share = &mut self.shares.all[ix];
        let (from, to) = (share.paced, share.amount.min(share.fair));
        if to == 0 {
            return;
        }
        share.paced = to;
        let pace = match (share.of, share.kind) {
            (Some(Of::Path(ix)), Kind::Messages) => &mut self.paths[ix].messages,
            (Some(Of::Path(ix)), Kind::NewConnections) => &mut self.paths[ix].connections,
            (Some(Of::Org(ix)), Kind::Messages) => &mut self.orgs[ix].meter.pace,
            (Some(Of::Credential(ix)), Kind::Messages) => &mut self.credentials[ix].meter.pace,
            (Some(Of::Dest(ix)), Kind::Messages) => &mut self.dests[ix].meter.pace,
            _ => return,
        };
        pace.rescale(from, to, now);
    }

    /// Something was lent, or is to be given back.
    fn lent(&mut self, ix: ShareIx, now: Now, out: &mut Vec<Effect>) {
        let Some(share) = self.shares.all.get_mut(ix) else { return };
        let (of, kind, until, usable) = (share.of, share.kind, share.until, share.usable(now.mono));
        let was_hungry = std::mem::take(&mut share.hungry);
        let Some(of) = of else { return };
        if kind == Kind::Connections && share.amount > 0 {
            self.set_timer(Timer::Share(ix), until);
        }
        if let (Of::Path(path), Kind::Connections) = (of, kind) {
            self.close_idle_above(path, usize::try_from(usable).unwrap_or(usize::MAX), out);
        }
        if was_hungry {
            self.owner_opened(of, now, out);
        }
    }

    /// Others wait for what the path has above its part: connections with nothing to do are closed at once, the others when
    /// they ask for more.
    fn close_idle_above(&mut self, ix: PathIx, usable: usize, out: &mut Vec<Effect>) {
        let had = self.paths[ix].idle;
        while self.paths[ix].idle > 0 && self.paths[ix].slots > usable {
            self.paths[ix].idle -= 1;
            out.push(Effect::CloseIdle { path: self.paths[ix].name.clone() });
            self.take_slot_away(ix, true);
        }
        if self.paths[ix].idle < had {
            self.let_go(self.paths[ix].site);
        }
    }

    fn owner_opened(&mut self, of: Of, now: Now, out: &mut Vec<Effect>) {
        match of {
            Of::Path(ix) if self.paths.contains(ix) => self.dispatch(self.paths[ix].site, now, out),
            Of::Path(_) => {}
            Of::Org(ix) => self.org_opened(ix, now, out),
            Of::Credential(ix) => self.credential_opened(ix, now, out),
            Of::Dest(ix) => self.dest_opened(ix, now, out),
        }
    }

    /// A loan of connections runs out: what it was for ends with it.
    pub(crate) fn loan_rings(&mut self, ix: ShareIx, now: Now, out: &mut Vec<Effect>) {
        let share = &self.shares.all[ix];
        if share.until > now.mono {
            return self.set_timer(Timer::Share(ix), share.until);
        }
        let Some(of) = share.of else { return };
        for (&id, entry) in &self.entries {
            let is_its_own = match of {
                Of::Path(path) => entry.path == path,
                Of::Org(org) => self.queues[entry.queue].org == org,
                Of::Credential(credential) => entry.credential == credential,
                Of::Dest(dest) => self.queues[entry.queue].dest == dest,
            };
            if is_its_own && matches!(entry.stage, Stage::OnNew | Stage::OnOpen) {
                out.push(Effect::Cut { id });
            }
        }
        if let Of::Path(path) = of {
            self.close_idle_above(path, 0, out);
        }
    }

    /// Tells the driver when something is to be borrowed.
    pub(crate) fn ask_for_loans(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.shares.may_ask() && self.shares.next <= now.mono {
            self.shares.told = true;
            out.push(Effect::Borrow);
        }
    }

    /// A rate that holds a path up is one to borrow more of.
    pub(crate) fn want_more(&mut self, path: PathIx, held: Held, now: Now) {
        let shares = self.paths[path].shares;
        match held {
            Held::Rate => self.shares.want(shares.messages, now.mono),
            Held::ConnectionRate => self.shares.want(shares.new_connections, now.mono),
            Held::Closed | Held::Warmup(_) => {}
        }
    }

    /// Finds the shares of everything again: the policy is another one.
    pub(crate) fn share_all(&mut self, now: Mono) {
        let paths: Vec<PathIx> = self.paths.iter().map(|(ix, _)| ix).collect();
        paths.into_iter().for_each(|ix| self.share_path(ix, now));
        let orgs: Vec<usize> = self.orgs.iter().map(|(ix, _)| ix).collect();
        orgs.into_iter().for_each(|ix| self.share_org(ix, now));
        let dests: Vec<DestIx> = self.dests.iter().map(|(ix, _)| ix).collect();
        dests.into_iter().for_each(|ix| self.share_dest(ix, now));
        for ix in 0..self.credentials.len() {
            let credential = &mut self.credentials[ix];
            let whose = || format!("credential {}", credential.name);
            share_meter(&mut self.shares, &mut credential.meter, whose, Of::Credential(ix), now);
        }
    }

    pub(crate) fn share_path(&mut self, ix: PathIx, now: Mono) {
        let path = &self.paths[ix];
        let before = path.shares;
        if !self.shares.on || stays_here(&path.name.site) {
            self.paths[ix].shares = PathShares::OWN;
            return before.all().for_each(|share| self.shares.detach(share, now));
        }
        let name = name_of(&path.name);
        let (traffic, of) = (path.traffic, Of::Path(ix));
        let limit = path.limit(&self.policy.limits) as u64;
        let shares = &mut self.shares;
        let connections = shares.attach(format!("connections {name}"), of, Kind::Connections, limit);
        let messages = traffic.rate.map_or(NONE, |rate| {
            shares.attach_rate(format!("messages {name}"), of, Kind::Messages, rate, now)
        });
        let new_connections = traffic.connection_rate.map_or(NONE, |rate| {
            shares.attach_rate(format!("new-connections {name}"), of, Kind::NewConnections, rate, now)
        });
        // Which day it is shows when it is asked for.
        let warmup = match self.sources[path.source].warmup {
            Some(_) if before.warmup != NONE => before.warmup,
            Some(_) => shares.attach(format!("day-? {name}"), of, Kind::Warmup(i64::MIN), 1),
            None => NONE,
        };
        self.paths[ix].shares = PathShares { connections, messages, new_connections, warmup };
        let after: Vec<ShareIx> = self.paths[ix].shares.all().collect();
        before.all().filter(|share| !after.contains(share)).for_each(|share| self.shares.detach(share, now));
    }

    /// A warm-up plan has a limit for each day, and each is a share of its own.
    fn turn_days(&mut self, now: Now) {
        let today = day_of(now.wall);
        let is_old = |kind| matches!(kind, Kind::Warmup(day) if day != today);
        let old: Vec<ShareIx> =
            self.shares.all.iter().filter(|(_, share)| is_old(share.kind)).map(|(ix, _)| ix).collect();
        for ix in old {
            let Some(share) = self.shares.all.get(ix) else { continue };
            let Some(Of::Path(path)) = share.of else { continue };
            let plan = self.sources[self.paths[path].source].warmup.as_ref();
            let Some(limit) = plan.and_then(|plan| plan.limit_at(now.wall)) else { continue };
            let key = format!("day-{today} {}", name_of(&self.paths[path].name));
            self.shares.turn_into(ix, key, Kind::Warmup(today), u64::from(limit));
        }
    }

    pub(crate) fn share_org(&mut self, ix: usize, now: Mono) {
        let org = &mut self.orgs[ix];
        let whose = || format!("organisation {}", org.id.0);
        share_meter(&mut self.shares, &mut org.meter, whose, Of::Org(ix), now);
    }

    pub(crate) fn share_dest(&mut self, ix: DestIx, now: Mono) {
        let dest = &mut self.dests[ix];
        let whose = || format!("route {}", dest.key);
        share_meter(&mut self.shares, &mut dest.meter, whose, Of::Dest(ix), now);
    }

    pub(crate) fn unshare_meter(&mut self, meter: &Meter) {
        for share in [meter.places, meter.sending] {
            self.shares.detach(share, self.seen);
        }
    }
}

fn name_of(path: &Path) -> String {
    format!("{} {}", path.source, path.site)
}

/// Finds the shares of a ceiling.
fn share_meter(shares: &mut Shares, meter: &mut Meter, whose: impl Fn() -> String, of: Of, now: Mono) {
    let before = [meter.places, meter.sending];
    let Ceiling { connections, rate } = if shares.on { meter.ceiling } else { Ceiling::default() };
    meter.places = connections.map_or(NONE, |most| {
        shares.attach(format!("deliveries {}", whose()), of, Kind::Connections, u64::from(most.max(1)))
    });
    meter.sending = rate.map_or(NONE, |rate| {
        shares.attach_rate(format!("attempts {}", whose()), of, Kind::Messages, rate, now)
    });
    for share in before {
        if share != meter.places && share != meter.sending {
            shares.detach(share, now);
        }
    }
}

/// Whether mail to a site stays on this machine: no limit of others is used up by it.
fn stays_here(site: &Site) -> bool {
    let Site::Alone(destination) = site else { return false };
    matches!(
        destination,
        Destination::LmtpUnix(_)
            | Destination::Maildir(_)
            | Destination::Sandbox
            | Destination::Discard
            | Destination::Bounces
    )
}
