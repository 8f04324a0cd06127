//! Workers: each owns one connection to one site, or answers for a site that can't be reached.

use std::sync::Arc;

use deliver::{Job, Link};
use mail::{
    Attempt, DeliveryId, Destination, Disposition, EnhancedStatus, Event, EventKind, Outcome,
    RecipientOutcome,
};
use schedule::Next as Turn;
use store::{Content, Next, Settlement, StoreError, Waiting};
use tokio::sync::oneshot;

use super::{Driver, Order};

/// Delivers over one connection until there is nothing left for it.
pub(super) async fn work(driver: Driver, site: Destination, first: DeliveryId) {
    let path = (mail::default_source(), mail::Site::Alone(site.clone()));
    let mut link = driver.0.engine.link(path);
    let mut next = Some(first);
    while let Some(id) = next {
        let (state, done) = deliver_one(&driver, &site, &mut link, id).await;
        let stopping = driver.0.stopping.is_cancelled();
        // The scheduler hears of the connection before the settlement can be committed.
        let turn = driver.with_core(|core, now, out| {
            let kept = state == schedule::Link::Kept;
            core.scheduler.attempted(id, state, now, out);
            let turn = if kept && !stopping { core.scheduler.next_for(&site, now, out) } else { Turn::Close };
            // It is on the list before anybody can look for it: otherwise a new worker would come in its place.
            let told = (turn == Turn::Wait).then(|| core.wait_idle(&site));
            (turn, told)
        });
        match done {
            Done::Attempted(done) => {
                let (waiting, content, attempt) = *done;
                driver.settle(waiting, content, attempt).await;
            }
            Done::Damaged(waiting, reason) => quarantine(&driver, &waiting, reason),
            Done::Nothing => {}
        }
        next = match turn {
            (Turn::Deliver(id), _) => Some(id),
            (Turn::Wait, Some(told)) => idle(&driver, &site, &mut link, told).await,
            (Turn::Wait | Turn::Close, _) => None,
        };
    }
    link.close().await;
}

/// How a turn ended.
enum Done {
    Attempted(Box<(Waiting, Option<Content>, Attempt)>),
    Damaged(Box<Waiting>, String),
    Nothing,
}

/// Waits for something to do; none when the connection is to be closed.
async fn idle(
    driver: &Driver,
    site: &Destination,
    link: &mut Link,
    mut told: oneshot::Receiver<Order>,
) -> Option<DeliveryId> {
    let patience = driver.0.settings.load().idle;
    tokio::select! {
        biased;
        order = &mut told => return follow(order.ok()),
        () = tokio::time::sleep(patience) => {}
        () = link.closed_by_peer() => {}
        () = driver.0.stopping.cancelled() => {}
    }
    // Taken off the list by us, or by somebody who has given us something to do meanwhile.
    told.close();
    if let Ok(order) = told.try_recv() {
        return follow(Some(order));
    }
    driver.with_core(|core, now, out| {
        if let Some(idle) = core.idle.get_mut(site) {
            idle.retain(|worker| !worker.is_closed());
            if idle.is_empty() {
                core.idle.remove(site);
            }
        }
        core.scheduler.release_slot(site, now, out);
    });
    None
}

fn follow(order: Option<Order>) -> Option<DeliveryId> {
    match order {
        Some(Order::Deliver(id)) => Some(id),
        Some(Order::Close) | None => None,
    }
}

/// One attempt. What it says is what became of the connection, and what there is to settle.
async fn deliver_one(
    driver: &Driver,
    site: &Destination,
    link: &mut Link,
    id: DeliveryId,
) -> (schedule::Link, Done) {
    let waiting = driver.0.core.lock().waiting.remove(&id);
    // While stopping, it stays active on disk and waits there for the next start.
    let Some(waiting) = waiting.filter(|_| !driver.0.stopping.is_cancelled()) else {
        return (link_state(link), Done::Nothing);
    };
    let content = match &waiting.body {
        Some(body) => Ok(body.clone()),
        None => driver.0.store.content(&waiting.content).await,
    };
    let content = match content {
        Ok(content) => content,
        Err(StoreError::Damaged { reason, .. }) => {
            return (link_state(link), Done::Damaged(Box::new(waiting), reason));
        }
        Err(error) => {
            let text = format!("the stored message could not be read: {error}");
            let outcome = Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 3, 0), text);
            let attempt = without_peer(driver, &waiting, site, &outcome);
            return (link_state(link), Done::Attempted(Box::new((waiting, None, attempt))));
        }
    };
    let job = Job { waiting, content, full_transcript: false };
    let attempt = link.attempt(&job).await;
    let state = match link.unreachable() {
        Some(outcome) => schedule::Link::Unreachable(Arc::new(outcome.clone())),
        None => link_state(link),
    };
    (state, Done::Attempted(Box::new((job.waiting, Some(job.content), attempt))))
}

fn link_state(link: &Link) -> schedule::Link {
    if link.is_open() { schedule::Link::Kept } else { schedule::Link::Closed }
}

/// Settles a delivery to a site that can't be reached at the moment with what the last connection met.
pub(super) async fn answer(driver: Driver, id: DeliveryId, outcome: Arc<Outcome>) {
    let waiting = driver.with_core(|core, now, out| {
        core.scheduler.attempted(id, schedule::Link::Closed, now, out);
        core.waiting.remove(&id)
    });
    if let Some(waiting) = waiting {
        let attempt = without_peer(&driver, &waiting, &waiting.queue.destination, &outcome);
        driver.settle(waiting, None, attempt).await;
    }
}

/// An attempt that reached nobody.
fn without_peer(driver: &Driver, waiting: &Waiting, site: &Destination, outcome: &Outcome) -> Attempt {
    let outcomes =
        waiting.recipients.iter().map(|r| RecipientOutcome::new(r.number, outcome.clone())).collect();
    Attempt {
        delivery: waiting.id,
        destination: site.clone(),
        started: driver.0.clock.now(),
        duration_ms: 0,
        remote: None,
        tls: None,
        outcomes,
        dsn: false,
        transcript: None,
        source: None,
        security: None,
    }
}

/// The content is not what was written: this message waits for a person, everything else goes on.
fn quarantine(driver: &Driver, waiting: &Waiting, reason: String) {
    tracing::error!(id = %waiting.message.id, %reason, "stored content is damaged; the message is quarantined");
    let kind = EventKind::Damaged { reason: reason.clone() };
    let settlement = Settlement {
        delivery: waiting.id,
        recipients: Vec::new(),
        next: Next::Quarantined { reason },
        warned: waiting.warned,
        reports: Vec::new(),
        events: vec![Event { at: driver.0.clock.now(), message: waiting.message.id, kind }],
    };
    driver.commit(settlement, None, Vec::new());
}
