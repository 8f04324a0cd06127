//! Slots: which delivery goes on which path, on an open connection or a new one.

use std::time::Duration;

use mail::DeliveryId;

use crate::clock::Now;
use crate::effect::Effect;
use crate::path::{Held, PathIx, Room};
use crate::queue::{NONE, QueueIx, Stage};
use crate::scheduler::Scheduler;
use crate::site::{ANSWERS_MAX, GroupIx, SiteIx};
use crate::timer::Timer;
use crate::turns::Head;

/// A plan that goes by days is looked at again after this at the latest: the wall clock may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// How the next delivery of a group can go.
enum Way {
    Open(PathIx),
    New(PathIx),
    Answer(PathIx),
    No,
}

/// What came of trying to start one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    No,
    /// On another path than that of the worker who asks.
    Yes,
    /// For the worker who asks.
    Asker(DeliveryId),
}

impl Scheduler {
    /// Starts what can be started at the queue's site.
    pub(crate) fn dispatch_queue(&mut self, ix: QueueIx, now: Now, out: &mut Vec<Effect>) {
        let turn = self.queues[ix].turn;
        if turn != NONE {
            self.dispatch(self.groups[self.turns[turn].group].site, now, out);
        }
    }

    /// Starts what can be started at a site.
    pub(crate) fn dispatch(&mut self, site: SiteIx, now: Now, out: &mut Vec<Effect>) {
        while self.start_one(site, None, now, out) != Started::No {}
    }

    /// Starts one delivery at a site: of the group whose turn it is, or else of the next one that can. A group's turn is as
    /// long as there are organisations in its line.
    pub(crate) fn start_one(
        &mut self,
        site: SiteIx,
        asker: Option<PathIx>,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Started {
        let Some(state) = self.sites.get(site) else { return Started::No };
        let (first, count) = (state.group_now, state.groups.len());
        for n in 0..count {
            let at = (first + n) % count;
            let group = self.sites[site].groups[at];
            let in_line = self.groups[group].in_line();
            let started = self.start_in(group, asker, now, out);
            if started == Started::No {
                continue;
            }
            let state = &mut self.sites[site];
            if n > 0 || state.group_left == 0 {
                (state.group_now, state.group_left) = (at, in_line);
            }
            state.group_left = state.group_left.saturating_sub(1);
            if state.group_left == 0 {
                state.group_now = (at + 1) % count;
            }
            return started;
        }
        Started::No
    }

    fn start_in(
        &mut self,
        group: GroupIx,
        asker: Option<PathIx>,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Started {
        let Some(head) = self.head(group, now, out) else { return Started::No };
        match self.way(group, asker, now) {
            Way::Open(path) if asker == Some(path) => {
                self.begin(head, path, Stage::OnOpen, now);
                Started::Asker(head.id)
            }
            Way::Open(path) => {
                self.paths[path].idle -= 1;
                self.begin(head, path, Stage::OnOpen, now);
                self.deliver(head.id, path, true, out);
                Started::Yes
            }
            Way::New(path) => {
                if !self.find_slot(self.groups[group].site, out) {
                    return Started::No;
                }
                self.begin_new(path, now);
                self.begin(head, path, Stage::OnNew, now);
                self.deliver(head.id, path, false, out);
                Started::Yes
            }
            Way::Answer(path) => self.answer(head, path, now, out),
            Way::No => Started::No,
        }
    }

    /// How the next delivery of a group can go. Paths that are held until some moment are looked at again then.
    fn way(&mut self, group: GroupIx, asker: Option<PathIx>, now: Now) -> Way {
        let mut could = std::mem::take(&mut self.could);
        could.clear();
        let mut answers: Option<PathIx> = None;
        let mut waits = false;
        for n in 0..self.groups[group].members.len() {
            let path = self.groups[group].members[n].path;
            match self.room(path, asker == Some(path), now) {
                Room::Open | Room::New => could.push(n),
                Room::Busy => waits = true,
                Room::Until(at, held) => {
                    waits = true;
                    let look =
                        if matches!(held, Held::Warmup(_)) { at.min(now.mono.plus(LOOK_AGAIN)) } else { at };
                    self.set_timer(Timer::Path(path), look);
                    self.want_more(path, held, now);
                }
                Room::Lent(share) => {
                    waits = true;
                    self.shares.want(share, now.mono);
                }
                Room::Answers(at) => {
                    self.set_timer(Timer::Path(path), at);
                    answers = answers.or(Some(path));
                }
                Room::Gone => {}
            }
        }
        let picked = self.groups[group].pick(&could);
        self.could = could;
        if let Some(member) = picked {
            let path = self.groups[group].members[member].path;
            let is_open = asker == Some(path) || self.paths[path].idle > 0;
            return if is_open { Way::Open(path) } else { Way::New(path) };
        }
        match answers {
            Some(path) if !waits => Way::Answer(path),
            _ => Way::No,
        }
    }

    /// Whether a path can take a delivery.
    pub(crate) fn room(&self, path: PathIx, asks: bool, now: Now) -> Room {
        let path = &self.paths[path];
        let bounds = (&self.policy.limits, &self.shares);
        path.room(asks, &self.sources[path.source], &self.warmups, bounds, now)
    }

    /// A delivery begins on a connection.
    fn begin(&mut self, head: Head, path: PathIx, stage: Stage, now: Now) {
        self.take(head, path, stage, now);
        let entry = self.entries[&head.id];
        self.meters_start(entry, now);
        let path = &mut self.paths[path];
        if let Some(rate) = path.traffic.rate {
            let share = path.shares.messages;
            path.messages.take(self.shares.paced(share, rate), now.mono);
            self.shares.sent(share, now.mono);
            self.revision += 1;
        }
        if self.sources[path.source].warmup.as_ref().is_some_and(|plan| plan.limit_at(now.wall).is_some()) {
            self.warmups.count(path, false, now.wall);
            self.revision += 1;
        }
    }

    /// A connection begins.
    fn begin_new(&mut self, path: PathIx, now: Now) {
        let path = &mut self.paths[path];
        path.health.probing = path.health.failures > 0;
        path.slots += 1;
        self.shares.touch(path.shares.connections);
        if let Some(rate) = path.traffic.connection_rate {
            let share = path.shares.new_connections;
            path.connections.take(self.shares.paced(share, rate), now.mono);
            self.shares.sent(share, now.mono);
        }
        let site = &mut self.sites[path.site];
        self.busy_sites += usize::from(site.slots == 0);
        site.slots += 1;
        self.slots += 1;
    }

    fn deliver(&self, id: DeliveryId, path: PathIx, on_open: bool, out: &mut Vec<Effect>) {
        let queue = self.queues[self.entries[&id].queue].key.clone();
        out.push(Effect::Deliver { id, queue, path: self.paths[path].name.clone(), on_open });
    }

    fn answer(&mut self, head: Head, path: PathIx, now: Now, out: &mut Vec<Effect>) -> Started {
        let site = self.paths[path].site;
        let Some(outcome) = self.paths[path].health.failure.clone() else { return Started::No };
        if self.sites[site].answering >= ANSWERS_MAX {
            return Started::No;
        }
        self.sites[site].answering += 1;
        self.take(head, path, Stage::Answered, now);
        let queue = self.queues[self.entries[&head.id].queue].key.clone();
        out.push(Effect::Answer {
            id: head.id,
            queue,
            outcome,
            source: self.paths[path].name.source.clone(),
        });
        Started::Yes
    }

    /// Whether there is a connection left for this site; if not, an idle one elsewhere is closed for it, or it stands in
    /// line.
    fn find_slot(&mut self, ix: SiteIx, out: &mut Vec<Effect>) -> bool {
        if self.slots < self.policy.limits.connections_total.max(1) {
            return true;
        }
        while let Some(other) = self.idle_paths.pop_front() {
            let Some(path) = self.paths.get_mut(other).filter(|path| path.idle_listed) else { continue };
            path.idle_listed = false;
            if path.idle == 0 {
                continue;
            }
            path.idle -= 1;
            if path.idle > 0 {
                path.idle_listed = true;
                self.idle_paths.push_back(other);
            }
            let site = path.site;
            out.push(Effect::CloseIdle { path: path.name.clone() });
            self.take_slot_away(other, true);
            self.let_go(site);
            return true;
        }
        let site = &mut self.sites[ix];
        if !site.starved {
            site.starved = true;
            self.starved.push_back(ix);
        }
        false
    }
}
