//! What waits on disk: read at the start, when its time has come, and when a window has room.

use std::time::Duration;

use mail::{QueueKey, State, Timestamp};
use schedule::Rest;
use store::{Action, Next, QueueFilter, Settlement, StoreError, Waiting};
use tokio::sync::mpsc;

use super::{Driver, memory};

/// How often the clocks are compared at least.
const WATCH_EVERY: Duration = Duration::from_secs(30);

/// Nothing that is due within this time is doubted, whatever the retry steps are: they may have been longer before.
const DUE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Queues that are looked at in one go for absurd due times.
const ABSURD_PAGE: usize = 1000;

impl Driver {
    /// Takes up where the last process stopped, and keeps time from then on.
    ///
    /// # Errors
    /// When the queues can't be read.
    pub(crate) async fn start(&self) -> Result<(), StoreError> {
        self.recall().await;
        self.make_absurd_due().await?;
        // The scheduler asks for what is due, and for what comes next, page by page.
        self.with_core(|core, now, out| core.scheduler.tick(now, out));
        self.spawn(keep_time(self.clone()));
        self.spawn(memory::keep(self.clone()));
        if let Some(orphans) = self.0.store.orphans() {
            self.spawn(adopt(self.clone(), orphans));
        }
        Ok(())
    }

    /// When the latest retry from now on could be.
    fn latest_due(&self) -> Timestamp {
        let longest = self.0.settings.load().retry.longest().max(DUE_MAX);
        self.0.clock.now().plus(longest)
    }

    /// Whether a row that is due then was written while the clock showed something else: no retry is that far away.
    fn is_absurd(&self, due: Timestamp) -> bool {
        due > self.latest_due()
    }

    /// Makes due what a clock that was set back would leave waiting.
    async fn make_absurd_due(&self) -> Result<(), StoreError> {
        loop {
            let found = self.0.store.horizon(self.latest_due(), ABSURD_PAGE).await?;
            for (queue, _) in &found.queues {
                self.make_due(queue).await?;
            }
            if found.queues.len() < ABSURD_PAGE {
                return Ok(());
            }
        }
    }

    /// Makes everything that waits in a queue due now.
    async fn make_due(&self, queue: &QueueKey) -> Result<(), StoreError> {
        tracing::warn!(destination = %queue.destination, "mail is due too far from now: the clock was set back; it is tried now");
        let filter = QueueFilter {
            org: Some(queue.org),
            stream: Some(queue.stream),
            destination: Some(queue.destination.clone()),
            states: vec![State::Waiting],
            ..QueueFilter::default()
        };
        let changed = self.0.store.change(filter, Action::Retry, "posthouse".into(), false).await?;
        self.apply(&changed.changed);
        Ok(())
    }

    /// Looks for queues that a clock that was set back would leave waiting.
    async fn after_setting_back(self) {
        if let Err(error) = self.make_absurd_due().await {
            tracing::error!(%error, "what waits could not be made due after the clock was set back; try `posthouse queue retry --all`");
        }
    }
}

/// Finds out which queues have something due next.
pub(super) async fn horizon(driver: Driver, after: Timestamp, n: usize) {
    match driver.0.store.horizon(after, n).await {
        Ok(found) => driver.with_core(|core, now, out| {
            core.scheduler.horizon(found.queues, found.complete_until, now, out);
        }),
        Err(error) => {
            tracing::error!(%error, "which queues are due next could not be read");
            driver.with_core(|core, now, out| core.scheduler.horizon_failed(now, out));
        }
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
        let set_back = driver.with_core(|core, now, out| {
            core.wake_at = None;
            core.look_at_clock(now);
            core.scheduler.tick(now, out);
            std::mem::take(&mut core.set_back)
        });
        if set_back {
            driver.spawn(driver.clone().after_setting_back());
        }
    }
}

/// Takes on what was stored for a session that had gone away by then: it waits in its queue like any other mail.
async fn adopt(driver: Driver, mut orphans: mpsc::UnboundedReceiver<Vec<Waiting>>) {
    loop {
        let found = tokio::select! {
            () = driver.0.stopping.cancelled() => return,
            found = orphans.recv() => found,
        };
        let Some(found) = found else { return };
        for Waiting { id, queue, .. } in found {
            let due = driver.0.clock.now();
            let settlement = Settlement {
                delivery: id,
                recipients: Vec::new(),
                next: Next::Parked { due },
                warned: false,
                reports: Vec::new(),
                events: Vec::new(),
            };
            let driver = driver.clone();
            driver.clone().0.store.settle(settlement, move |settled| match settled {
                Ok(_) => driver.with_core(|core, now, out| core.scheduler.parked(&queue, due, now, out)),
                // The store has stopped; the next start finds it.
                Err(error) => tracing::error!(%error, delivery = %id, "could not be put back"),
            });
        }
    }
}

/// Reads what is due in one queue.
pub(super) async fn page(driver: Driver, queue: QueueKey, n: usize) {
    let wall = driver.0.clock.now();
    let mut result = read(&driver, &queue, wall, n).await.map(|(rows, rest)| {
        driver.take(&queue, rows, rest);
        rest
    });
    if let Ok(Rest::Later(due)) = result
        && driver.is_absurd(due)
    {
        result = driver.make_due(&queue).await.map(|()| Rest::Nothing);
    } else if result.is_err() {
        driver.with_core(|core, now, out| core.scheduler.page_failed(&queue, now, out));
    }
    if let Err(error) = result {
        tracing::error!(%error, destination = %queue.destination, "what is due could not be read");
    }
}

impl Driver {
    fn take(&self, queue: &QueueKey, rows: Vec<Waiting>, rest: Rest) {
        self.with_core(|core, now, out| {
            let items = rows.iter().map(|row| self.item(row)).collect();
            let taken = core.scheduler.paged(queue, items, rest, now, out);
            // Both are in the order of the page.
            let mut taken = taken.into_iter().peekable();
            for row in rows {
                if taken.next_if_eq(&row.id).is_some() {
                    core.waiting.insert(row.id, row);
                }
            }
        });
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
