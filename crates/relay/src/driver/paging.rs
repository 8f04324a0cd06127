//! What waits on disk: read at the start, when its time has come, and when a window has room.

use std::time::Duration;

use mail::{QueueKey, Timestamp};
use schedule::Rest;
use store::{StoreError, Waiting};

use super::Driver;

/// How often the clocks are compared at least.
const WATCH_EVERY: Duration = Duration::from_secs(30);

impl Driver {
    /// Takes up where the last process stopped, and keeps time from then on.
    ///
    /// # Errors
    /// When the queues can't be read.
    pub(crate) async fn start(&self) -> Result<(), StoreError> {
        let queues = self.0.store.queues().await?;
        for found in queues {
            self.with_core(|core, now, out| core.scheduler.parked(&found.queue, found.due, now, out));
        }
        self.spawn(keep_time(self.clone()));
        Ok(())
    }
}

/// Calls the scheduler when it wants to be called.
async fn keep_time(driver: Driver) {
    loop {
        let now = driver.0.clock.mono();
        let wake_at = driver.0.core.lock().wake_at;
        let wait = wake_at.map_or(WATCH_EVERY, |at| at.since(now).min(WATCH_EVERY));
        tokio::select! {
            () = driver.0.stopping.cancelled() => return,
            () = driver.0.rearmed.notified() => continue,
            () = tokio::time::sleep(wait) => {}
        }
        driver.with_core(|core, now, out| {
            core.wake_at = None;
            if let Some(jump) = core.watch.observe(now) {
                tracing::warn!(from = %jump.from, to = %jump.to, "the clock was set; ages of messages go on as before");
            }
            core.scheduler.tick(now, out);
        });
    }
}

/// Reads what is due in one queue.
pub(super) async fn page(driver: Driver, queue: QueueKey, n: usize) {
    let wall = driver.0.clock.now();
    match read(&driver, &queue, wall, n).await {
        Ok((rows, rest)) => driver.with_core(|core, now, out| {
            let ids = rows.iter().map(|row| row.id).collect();
            let taken = core.scheduler.paged(&queue, ids, rest, now, out);
            // Both are in the order of the page.
            let mut taken = taken.into_iter().peekable();
            for row in rows {
                if taken.next_if_eq(&row.id).is_some() {
                    core.waiting.insert(row.id, row);
                }
            }
        }),
        Err(error) => {
            tracing::error!(%error, destination = %queue.destination, "what is due could not be read");
            driver.with_core(|core, now, out| core.scheduler.page_failed(&queue, now, out));
        }
    }
}

async fn read(
    driver: &Driver,
    queue: &QueueKey,
    now: Timestamp,
    n: usize,
) -> Result<(Vec<Waiting>, Rest), StoreError> {
    let rows = driver.0.store.page(queue, now, n).await?;
    if rows.len() >= n {
        return Ok((rows, Rest::Due));
    }
    let later = driver.0.store.next_due(queue, now).await?;
    Ok((rows, later.map_or(Rest::Nothing, Rest::Later)))
}
