//! What is done beside the work, on a thread of its own: free space is asked for, dead segments are deleted, stragglers
//! moved, expired keys and idle queues dropped.

use std::sync::Arc;
use std::time::Duration;

use mail::Mono;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::inbox::{Answer, Op};
use super::write::Tidy;
use super::{Shared, compact};
use crate::error::StoreError;

/// How often, at least, unless something wakes it.
const EVERY: Duration = Duration::from_secs(1);
/// How often dedupe keys and idle queues are looked at.
const TIDY_EVERY: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    state: Mutex<Wake>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct Wake {
    woken: bool,
    stop: bool,
}

impl Upkeep {
    pub(crate) fn wake(&self) {
        self.state.lock().woken = true;
        self.woken.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.woken.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stop
    }

    /// The thread.
    pub(crate) fn run(shared: &Arc<Shared>) {
        let mut tidied = shared.clock.mono();
        loop {
            let mut state = shared.upkeep.state.lock();
            if !state.woken && !state.stop {
                shared.upkeep.woken.wait_for(&mut state, EVERY);
            }
            if state.stop {
                return;
            }
            state.woken = false;
            drop(state);
            if let Err(error) = round(shared, &mut tidied) {
                tracing::warn!(%error, "upkeep of the store");
            }
        }
    }
}

fn round(shared: &Arc<Shared>, tidied: &mut Mono) -> Result<(), StoreError> {
    shared.room.refresh(shared.written());
    // A backup reads the files: they stay until it is done.
    if let Some(_no_backup) = shared.keep_files.try_write() {
        shared.segments.remove_dead();
        compact::run(shared)?;
    }
    let now = shared.clock.mono();
    if now.since(*tidied) >= TIDY_EVERY {
        *tidied = now;
        tidy(shared)?;
    }
    Ok(())
}

fn tidy(shared: &Shared) -> Result<(), StoreError> {
    ask(shared, |answer| Op::Tidy { step: Tidy::Dedupe, answer })?;
    ask(shared, |answer| Op::Tidy { step: Tidy::Watch, answer })?;
    let idle = shared.read_now(|conn| {
        conn.prepare_cached("SELECT id FROM queue WHERE id NOT IN (SELECT queue FROM delivery) LIMIT 10000")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()
    })?;
    ask(shared, |answer| Op::Tidy { step: Tidy::Drop { idle }, answer })
}

/// Has the writer do something, and waits for it.
pub(crate) fn ask<T>(shared: &Shared, op: impl FnOnce(Answer<T>) -> Op) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    shared.hand_in(op(answer))?;
    answered.blocking_recv().unwrap_or(Err(StoreError::Closed))
}
