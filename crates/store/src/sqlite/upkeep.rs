//! What is done beside the work, on a thread of its own: free space is asked for, dead segments are deleted, stragglers
//! moved, free pages given back, expired keys and idle queues dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::Mono;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::checkpoint::PAGE;
use super::inbox::{Answer, Op};
use super::write::Tidy;
use super::{Shared, compact};
use crate::error::StoreError;

/// How often, at least, unless something wakes it.
const EVERY: Duration = Duration::from_secs(1);
/// How often dedupe keys and idle queues are looked at.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// Idle queues are dropped so many at a time.
const IDLE_QUEUES: i64 = 10_000;
/// So many free pages of the database are kept (8 MiB), or one for so many that are used: what comes next needs them.
const FREE_PAGES: u64 = 2048;
const FREE_SHARE: u64 = 10;
/// Pages given back in one commit.
const GIVE_BACK: u64 = 256;

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
            match round(shared, &mut tidied) {
                // It closes down meanwhile.
                Ok(()) | Err(StoreError::Closed) => {}
                Err(error) => tracing::warn!(%error, "upkeep of the store"),
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
    give_back(shared)?;
    let now = shared.clock.mono();
    if now.since(*tidied) >= TIDY_EVERY {
        *tidied = now;
        tidy(shared)?;
    }
    Ok(())
}

fn tidy(shared: &Shared) -> Result<(), StoreError> {
    ask(shared, |answer| Op::Tidy { step: Tidy::Dedupe, answer })?;
    let mut after = i64::MIN;
    while !shared.upkeep.is_stopped() {
        ask(shared, |answer| Op::Tidy { step: Tidy::Watch, answer })?;
        let idle = shared.read_now(|conn| idle_queues(conn, after))?;
        let Some(last) = idle.last() else { return Ok(()) };
        after = *last;
        ask(shared, |answer| Op::Tidy { step: Tidy::Drop { idle }, answer })?;
    }
    Ok(())
}

/// Queues without a delivery, behind a number.
fn idle_queues(conn: &rusqlite::Connection, after: i64) -> rusqlite::Result<Vec<i64>> {
    conn.prepare_cached(
        "SELECT id FROM queue q WHERE id > ?1 AND due IS NULL
           AND NOT EXISTS (SELECT 1 FROM delivery d INDEXED BY delivery_active WHERE d.queue = q.id AND d.state = 0)
           AND NOT EXISTS (SELECT 1 FROM delivery d INDEXED BY delivery_kept_in WHERE d.queue = q.id AND d.state >= 2)
         ORDER BY id LIMIT ?2",
    )?
    .query_map((after, IDLE_QUEUES), |row| row.get(0))?
    .collect()
}

/// Gives back what the database does not use: some pages at a time, between the groups, until only a small part is free.
fn give_back(shared: &Shared) -> Result<(), StoreError> {
    let mut given = false;
    loop {
        let (pages, free, gives) = shared.read_now(|conn| {
            let of = |what: &str| {
                let value = conn.query_row(&format!("PRAGMA {what}"), [], |row| row.get::<_, i64>(0))?;
                Ok::<u64, rusqlite::Error>(value.cast_unsigned())
            };
            Ok((of("page_count")?, of("freelist_count")?, of("auto_vacuum")? == 2))
        })?;
        let counters = &shared.counters;
        counters.database_bytes.store(pages * PAGE, Ordering::Relaxed);
        counters.database_free.store(free * PAGE, Ordering::Relaxed);
        if !gives || shared.upkeep.is_stopped() || free <= FREE_PAGES.max((pages - free) / FREE_SHARE) {
            if given {
                // The file gets smaller when the log is written into it.
                shared.checkpoint.ask();
            }
            return Ok(());
        }
        ask(shared, |answer| Op::Tidy { step: Tidy::GiveBack { pages: GIVE_BACK }, answer })?;
        given = true;
    }
}

/// Has the writer do something, and waits for it.
pub(crate) fn ask<T>(shared: &Shared, op: impl FnOnce(Answer<T>) -> Op) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    shared.hand_in(op(answer))?;
    answered.blocking_recv().unwrap_or(Err(StoreError::Closed))
}
