//! What goes on by itself at a moment, and the one call that time makes.

use mail::Mono;

use crate::clock::Now;
use crate::effect::Effect;
use crate::scheduler::Scheduler;

/// A wake-up is never further away than this: the wall clock may be set meanwhile.
const WAKE_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Timers that are looked at in one call; the rest follows in the next one, at once.
const TIMERS_MAX: usize = 500;

/// Whose time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A path may be used again.
    Path(usize),
    /// An organisation may send more.
    Org(usize),
    /// A credential may send more.
    Credential(usize),
    /// A destination has to be located again, or may be sent more.
    Dest(usize),
    /// A loan runs out.
    Share(usize),
}

impl Scheduler {
    /// Time has passed. To be called when an [`Effect::Wake`] says, whenever the wall clock may have been set (twice a minute
    /// will do), and once after the start.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.armed = None;
        self.seen = self.seen.max(now.mono);
        self.look_at_stops(now, out);
        while let Some(&(due, ix)) = self.dues.first() {
            if due > now.wall {
                break;
            }
            self.dues.pop_first();
            self.queues[ix].due = None;
            self.is_due(ix, due);
        }
        for _ in 0..TIMERS_MAX {
            let Some(&(at, timer)) = self.timers.first() else { break };
            if at > now.mono {
                break;
            }
            self.timers.pop_first();
            self.ring(timer, now, out);
        }
        if self.page_again.is_some_and(|at| at <= now.mono) {
            self.page_again = None;
        }
        if self.ask_again.is_some_and(|at| at <= now.mono) {
            self.ask_again = None;
        }
        self.feed(now, out);
        self.evict(now.mono);
        self.ask(now, out);
        self.arm(now, out);
    }

    fn ring(&mut self, timer: Timer, now: Now, out: &mut Vec<Effect>) {
        match timer {
            Timer::Path(ix) => {
                self.paths[ix].timer = None;
                self.dispatch(self.paths[ix].site, now, out);
            }
            Timer::Org(ix) => {
                self.orgs[ix].timer = None;
                self.org_opened(ix, now, out);
            }
            Timer::Credential(ix) => {
                self.credentials[ix].timer = None;
                self.credential_opened(ix, now, out);
            }
            Timer::Dest(ix) => {
                self.dests[ix].timer = None;
                self.dest_rings(ix, now, out);
            }
            Timer::Share(ix) => {
                self.shares.all[ix].timer = None;
                self.loan_rings(ix, now, out);
            }
        }
    }

    /// Asks to be woken for what comes next, if that is sooner than what was asked for.
    pub(crate) fn arm(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.seen = self.seen.max(now.mono);
        self.ask_for_loans(now, out);
        let due = self.dues.first().map(|&(due, _)| now.mono_at(due));
        let timer = self.timers.first().map(|&(at, _)| at);
        let stop = self.next_end_of_stop().map(|until| now.mono_at(until));
        let loans = Some(self.shares.next).filter(|_| self.shares.may_ask());
        let all = [
            due,
            timer,
            stop,
            self.next_eviction(),
            self.page_again,
            self.ask_again,
            self.next_ask(now),
            loans,
        ];
        let Some(at) = all.into_iter().flatten().min() else { return };
        let at: Mono = at.min(now.mono.plus(WAKE_MAX)).max(now.mono);
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            out.push(Effect::Wake { at });
        }
    }
}
