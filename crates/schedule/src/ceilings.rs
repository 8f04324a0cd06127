//! Mail that is over a rate before it comes to memory: it gets a time of its own on disk.

use std::sync::Arc;

use mail::Timestamp;

use crate::clock::Now;
use crate::meter::{Gate, Meter};
use crate::queue::{NONE, QueueIx};
use crate::scheduler::Scheduler;
use crate::share::Shares;

/// So many wait in memory for a rate before others get their time on disk.
const WAIT_IN_MEMORY: usize = 50;

impl Scheduler {
    /// The time of a message whose credential has mail waiting already.
    pub(crate) fn book_credential(&mut self, name: Option<&Arc<str>>, now: Now) -> Option<Timestamp> {
        let ix = self.credential(name);
        let credential = self.credentials.get_mut(ix)?;
        let waiting = credential.aside.len();
        if !credential.meter.is_booked(now.mono) && waiting < WAIT_IN_MEMORY / 3 {
            return None;
        }
        let (took, meter) = (credential.took, &mut credential.meter);
        if meter.ceiling.rate.is_none() && meter.ceiling.connections.is_none() {
            return None;
        }
        self.revision += 1;
        Some(now.wall_at(meter.book(&self.shares, waiting, took, now.mono)))
    }

    /// The time of a message whose organisation or route has mail waiting for its rate already.
    pub(crate) fn book_ceilings(&mut self, ix: QueueIx, now: Now) -> Option<Timestamp> {
        let q = &self.queues[ix];
        let (org, dest, held) = (q.org, q.dest, q.held());
        let org = &mut self.orgs[org];
        let mut booked = book(&mut org.meter, &self.shares, org.held, now);
        if dest != NONE {
            booked = booked.max(book(&mut self.dests[dest].meter, &self.shares, held, now));
        }
        self.revision += u64::from(booked.is_some());
        booked
    }
}

fn book(meter: &mut Meter, shares: &Shares, held: usize, now: Now) -> Option<Timestamp> {
    meter.ceiling.rate?;
    let waits = matches!(meter.gate(shares, now.mono), Gate::Until(_)) && held >= WAIT_IN_MEMORY;
    if !waits && !meter.is_booked(now.mono) {
        return None;
    }
    Some(now.wall_at(meter.book(shares, held, std::time::Duration::ZERO, now.mono)))
}
