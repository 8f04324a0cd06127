//! Workers: each owns one connection on one path, or answers for a site that can't be reached.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use deliver::Link;
use futures_util::FutureExt as _;
use mail::{
    Attempt, DeliveryId, Destination, Disposition, EnhancedStatus, Event, EventKind, Outcome,
    RecipientOutcome, SourceName,
};
use schedule::{Advice, Next as Turn, Path, Report, Signal};
use store::{Content, Next, Settlement, StoreError, Waiting};
use tokio::sync::{mpsc, oneshot};

use super::settle::Ended;
use super::sharing::OnLoan;
use super::{Answer, Driver, Order};

/// Delivers over one connection until there is nothing left for it.
pub(super) async fn work(driver: Driver, path: Path, first: DeliveryId) {
    let mut worker =
        Worker { link: driver.0.engine.link((path.source.clone(), path.site.clone())), path, driver };
    let limit = worker.driver.0.settings.load().policy.traffic(&worker.path.source, &worker.path.site);
    worker.link.set_limit(limit.messages_per_connection);
    let mut next = Some(first);
    while let Some(id) = next {
        next = match AssertUnwindSafe(worker.turn(id)).catch_unwind().await {
            Ok(next) => next,
            Err(_) => return worker.recover(id).await,
        };
    }
    worker.link.close().await;
}

/// Owns one connection on a path.
struct Worker {
    driver: Driver,
    path: Path,
    link: Link,
}

/// How a turn ended.
enum Done {
    Ended(Box<Ended>),
    Damaged(Box<Waiting>, String),
    /// Nothing was attempted, and another node may do it.
    Back(Box<Waiting>),
    Nothing,
}

impl Worker {
    /// Delivers one; says what comes next.
    async fn turn(&mut self, id: DeliveryId) -> Option<DeliveryId> {
        let under_attempt = self.driver.0.attempts.as_ref().map(|attempts| attempts.begin(id));
        let here = self.driver.clone();
        let on_loan = here.0.member.is_some().then(|| here.0.sharing.begin(id));
        let (report, done) = self.deliver_one(id, on_loan.as_ref()).await;
        let driver = &self.driver;
        let stopping = driver.0.stopping.is_cancelled();
        // The scheduler hears of the connection before the settlement can be committed.
        let turn = driver.with_core(|core, now, out| {
            let kept = report.link == schedule::Link::Kept;
            core.scheduler.attempted(id, report, now, out);
            let turn =
                if kept && !stopping { core.scheduler.next_for(&self.path, now, out) } else { Turn::Close };
            // It is on the list before anybody can look for it: otherwise a new worker would come in its place.
            let told = (turn == Turn::Wait).then(|| core.wait_idle(&self.path));
            (turn, told)
        });
        drop(on_loan);
        match done {
            Done::Ended(ended) => driver.settle(*ended).await,
            Done::Damaged(waiting, reason) => quarantine(driver, &waiting, reason),
            Done::Back(waiting) => driver.hand_back(&waiting),
            Done::Nothing => {}
        }
        drop(under_attempt);
        match turn {
            (Turn::Deliver(id), _) => Some(id),
            (Turn::Wait, Some(told)) => self.idle(told).await,
            (Turn::Wait | Turn::Close, _) => None,
        }
    }

    /// Waits for something to do; none when the connection is to be closed.
    async fn idle(&mut self, mut told: oneshot::Receiver<Order>) -> Option<DeliveryId> {
        let Self { driver, path, link } = self;
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
            if let Some(idle) = core.idle.get_mut(path) {
                idle.retain(|worker| !worker.is_closed());
                if idle.is_empty() {
                    core.idle.remove(path);
                }
            }
            core.scheduler.release_slot(path, now, out);
        });
        None
    }

    /// One attempt. What it says is what became of the connection, and what there is to settle.
    async fn deliver_one(&mut self, id: DeliveryId, on_loan: Option<&OnLoan<'_>>) -> (Report, Done) {
        let driver = self.driver.clone();
        // The connection is open meanwhile: it goes when its place is another's.
        let may_begin = within(on_loan, driver.may_begin()).await;
        let waiting = driver.0.core.lock().waiting.remove(&id);
        // While stopping, it stays active on disk and waits there for the next start.
        let Some(waiting) = waiting.filter(|_| !driver.0.stopping.is_cancelled()) else {
            return (self.untouched(), Done::Nothing);
        };
        match may_begin {
            Some(true) => {}
            Some(false) => return (self.untouched(), Done::Back(Box::new(waiting))),
            None => return (closed(), Done::Back(Box::new(waiting))),
        }
        let content = match &waiting.body {
            Some(body) => Ok(body.clone()),
            None => driver.0.store.content(&waiting.content).await,
        };
        match content {
            Ok(content) if waiting.queue.destination == Destination::Bounces => {
                let ended = driver.take_bounce(waiting, content).await;
                (self.untouched(), Done::Ended(Box::new(ended)))
            }
            Ok(content) => self.attempt(waiting, content, on_loan).await,
            Err(StoreError::Damaged { reason, .. }) => {
                (self.untouched(), Done::Damaged(Box::new(waiting), reason))
            }
            // The database fails over: that is nothing to count as an attempt.
            Err(StoreError::Unavailable(_)) => (self.untouched(), Done::Back(Box::new(waiting))),
            Err(error) => {
                let text = format!("the stored message could not be read: {error}");
                let outcome = Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 3, 0), text);
                let attempt = without_peer(&driver, &waiting, None, &outcome);
                (self.untouched(), Done::Ended(Box::new(Ended::new(waiting, None, attempt))))
            }
        }
    }

    async fn attempt(
        &mut self,
        waiting: Waiting,
        content: Content,
        on_loan: Option<&OnLoan<'_>>,
    ) -> (Report, Done) {
        let driver = self.driver.clone();
        let (job, sender) = driver.job(waiting, content);
        let attempt = within(on_loan, self.link.attempt(&job));
        let Some(attempt) = driver.0.cut_off.run_until_cancelled(attempt).await else {
            return (closed(), Done::Nothing);
        };
        let withheld = |of: &RecipientOutcome| of.outcome == deliver::withheld();
        let Some(attempt) = attempt.filter(|attempt| !attempt.outcomes.iter().all(withheld)) else {
            return (closed(), Done::Back(Box::new(job.waiting)));
        };
        let (signals, advice) = self.judge(&attempt);
        let link = match self.link.unreachable() {
            Some(outcome) => schedule::Link::Unreachable(Arc::new(outcome.clone())),
            None => self.state(),
        };
        let report = Report { link, latency: self.link.latency(), signals };
        let mut waiting = job.waiting;
        if let Some(message) = sender {
            waiting.message = message;
        }
        (report, Done::Ended(Box::new(Ended { advice, ..Ended::new(waiting, Some(job.content), attempt) })))
    }

    /// What the replies say about the path, and about each recipient.
    fn judge(&self, attempt: &Attempt) -> (Vec<Signal>, Vec<(u16, Advice)>) {
        if attempt.all_delivered() {
            return (Vec::new(), Vec::new());
        }
        let settings = self.driver.0.settings.load();
        let (mut signals, mut advice) = (Vec::<Signal>::new(), Vec::new());
        let failed = attempt.outcomes.iter().filter(|of| of.outcome.disposition != Disposition::Delivered);
        for of in failed {
            let judgement = settings.policy.providers.judge(&self.path.site, &of.outcome);
            for signal in judgement.actions {
                if !signals.contains(&signal) {
                    signals.push(signal);
                }
            }
            advice.extend(judgement.advice.map(|advice| (of.recipient, advice)));
        }
        (signals, advice)
    }

    fn state(&self) -> schedule::Link {
        if self.link.is_open() { schedule::Link::Kept } else { schedule::Link::Closed }
    }

    fn untouched(&self) -> Report {
        Report::of(self.state())
    }

    /// A fault of this program ended the turn. The message is on disk as it was; it is tried again, the slot is free, and
    /// the fault is on record. Whether the peer took the message is not known.
    async fn recover(self, id: DeliveryId) {
        metrics::counter!("posthouse_delivery_panics_total").increment(1);
        tracing::error!(%id, path = %self.path, "a fault of this program ended an attempt; please report it");
        let driver = self.driver;
        driver.with_core(|core, now, out| {
            core.scheduler.attempted(id, closed(), now, out);
        });
        let text = "a fault of this program ended the attempt";
        let outcome = Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 3, 0), text);
        match driver.0.store.load(id).await {
            Ok(Some(waiting)) => {
                let attempt = without_peer(&driver, &waiting, Some(self.path.source), &outcome);
                driver.settle(Ended::new(waiting, None, attempt)).await;
            }
            // Settled before the fault, or the store has stopped: then the next start finds it.
            Ok(None) => driver.with_core(|core, now, out| core.scheduler.finished(id, None, now, out)),
            Err(error) => tracing::error!(%id, %error, "it could not be put back"),
        }
    }
}

/// Does something on a loan; none when that ran out meanwhile. Without shared limits there are no loans.
async fn within<T>(on_loan: Option<&OnLoan<'_>>, work: impl Future<Output = T>) -> Option<T> {
    match on_loan {
        Some(loan) => loan.run(work).await,
        None => Some(work.await),
    }
}

fn closed() -> Report {
    Report::of(schedule::Link::Closed)
}

fn follow(order: Option<Order>) -> Option<DeliveryId> {
    match order {
        Some(Order::Deliver(id)) => Some(id),
        Some(Order::Close) | None => None,
    }
}

/// Answers one delivery after the other, for as long as the relay runs. One task for all: of a long queue to a dead host
/// there may be many thousands a second.
pub(super) async fn answer_all(driver: Driver, mut answers: mpsc::UnboundedReceiver<Answer>) {
    let stopping = driver.0.stopping.clone();
    while let Some(Some(answer)) = stopping.run_until_cancelled(answers.recv()).await {
        let id = answer.id;
        if AssertUnwindSafe(answer_one(&driver, answer)).catch_unwind().await.is_err() {
            metrics::counter!("posthouse_delivery_panics_total").increment(1);
            tracing::error!(%id, "a fault of this program ended an answer; please report it");
            driver.with_core(|core, now, out| core.scheduler.finished(id, None, now, out));
        }
    }
}

async fn answer_one(driver: &Driver, Answer { id, outcome, source }: Answer) {
    let waiting = driver.with_core(|core, now, out| {
        core.scheduler.attempted(id, Report::of(schedule::Link::Closed), now, out);
        core.waiting.remove(&id)
    });
    if let Some(waiting) = waiting {
        let attempt = without_peer(driver, &waiting, Some(source), &outcome);
        driver.settle(Ended::new(waiting, None, attempt)).await;
    }
}

/// An attempt that reached nobody.
fn without_peer(
    driver: &Driver,
    waiting: &Waiting,
    source: Option<SourceName>,
    outcome: &Outcome,
) -> Attempt {
    let outcomes =
        waiting.recipients.iter().map(|r| RecipientOutcome::new(r.number, outcome.clone())).collect();
    Attempt {
        delivery: waiting.id,
        destination: waiting.queue.destination.clone(),
        started: driver.0.clock.now(),
        duration_ms: 0,
        remote: None,
        tls: None,
        outcomes,
        dsn: false,
        transcript: None,
        source,
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
