//! Limits that all nodes of a cluster share: this node borrows its part of them, and what it was not lent or has run out is
//! not used. What to ask for, and when, says the scheduler; here it is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::Borrow;
use mail::DeliveryId;
use parking_lot::Mutex;
use schedule::{Borrowed, Granted, Wish};
use tokio::sync::Notify;

use super::Driver;

/// Renewals are no closer together, so that what comes in a burst is asked for at once.
const SPACING: Duration = Duration::from_millis(20);
/// While the relay stops, nobody else keeps time.
const STOPPING: Duration = Duration::from_millis(500);
/// After so many answers that did not come the operator is told.
const SILENT_MAX: u32 = 3;

tokio::task_local! {
    /// The loan that the attempt of this task is made on.
    static LOAN: Arc<Loan>;
}

/// Whether the attempt that asks may complete what it does, as far as the shared limits go. From then on it is not cut off
/// any more: the peer may have the message, and only its reply tells.
pub(crate) fn may_complete() -> bool {
    LOAN.try_with(|loan| loan.may_complete()).unwrap_or(true)
}

/// What the driver keeps for it.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Told when something is to be borrowed.
    wanted: Notify,
    attempts: Mutex<HashMap<DeliveryId, Arc<Loan>>>,
}

/// What an attempt is made on.
#[derive(Debug, Default)]
struct Loan {
    state: Mutex<State>,
    over: Notify,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Good,
    /// Something of the attempt is being completed.
    Completing,
    /// It has run out. With something being completed, that comes to its end, and nothing after it begins.
    Over { completing: bool },
}

impl Loan {
    fn may_complete(&self) -> bool {
        let mut state = self.state.lock();
        if *state == State::Good {
            *state = State::Completing;
        }
        *state == State::Completing
    }

    fn end(&self) {
        let mut state = self.state.lock();
        let completing = matches!(*state, State::Completing | State::Over { completing: true });
        *state = State::Over { completing };
        self.over.notify_one();
    }

    /// Ready when the attempt is to end at once.
    async fn cut(&self) {
        while *self.state.lock() != (State::Over { completing: false }) {
            self.over.notified().await;
        }
    }
}

impl Sharing {
    /// Something is to be borrowed.
    pub(super) fn wanted(&self) {
        self.wanted.notify_one();
    }

    /// The loan that this attempt was made on has run out; its worker may not have begun with it yet.
    pub(super) fn cut(&self, id: DeliveryId) {
        metrics::counter!("posthouse_borrowed_cut_total").increment(1);
        self.attempts.lock().entry(id).or_default().end();
    }

    /// An attempt begins. It is over when the guard goes.
    pub(super) fn begin(&self, id: DeliveryId) -> OnLoan<'_> {
        let loan = self.attempts.lock().entry(id).or_default().clone();
        OnLoan { sharing: self, id, loan }
    }

    fn is_quiet(&self) -> bool {
        self.attempts.lock().is_empty()
    }
}

/// An attempt on a loan.
#[derive(Debug)]
pub(super) struct OnLoan<'a> {
    sharing: &'a Sharing,
    id: DeliveryId,
    loan: Arc<Loan>,
}

impl OnLoan<'_> {
    /// Attempts; none when it was cut off before anything was completed.
    pub(super) async fn run<T>(&self, attempt: impl Future<Output = T>) -> Option<T> {
        let attempt = LOAN.scope(Arc::clone(&self.loan), attempt);
        tokio::select! {
            biased;
            () = self.loan.cut() => None,
            done = attempt => Some(done),
        }
    }
}

impl Drop for OnLoan<'_> {
    fn drop(&mut self) {
        self.sharing.attempts.lock().remove(&self.id);
    }
}

impl Driver {
    /// What this node has of the limits that all share.
    pub(crate) fn borrowed(&self) -> Vec<Borrowed> {
        let now = self.now();
        self.0.core.lock().scheduler.borrowed(now)
    }
}

/// Borrows for as long as the relay runs, and until the last attempts have ended.
pub(super) async fn share(driver: Driver, borrow: Borrow) {
    driver.with_core(|core, now, out| core.scheduler.set_sharing(true, now, out));
    let mut silent = 0;
    loop {
        tokio::select! {
            () = driver.0.cut_off.cancelled() => return,
            () = driver.0.sharing.wanted.notified() => {}
            () = stopping(&driver) => if driver.0.sharing.is_quiet() { return },
        }
        let wishes = driver.with_core(|core, now, _| core.scheduler.wishes(now));
        let granted =
            if wishes.is_empty() { Vec::new() } else { ask(&driver, &borrow, &wishes, &mut silent).await };
        driver.with_core(|core, now, out| core.scheduler.granted(&granted, now, out));
        tokio::time::sleep(SPACING).await;
    }
}

/// Ready every now and then while the relay stops.
async fn stopping(driver: &Driver) {
    driver.0.stopping.cancelled().await;
    tokio::time::sleep(STOPPING).await;
}

/// Asks the database. It is waited for however long it takes: a renewal that was given up could still be carried out, behind
/// a later one.
async fn ask(driver: &Driver, borrow: &Borrow, wishes: &[Wish], silent: &mut u32) -> Vec<Granted> {
    let wishes: Vec<cluster::Wish> = wishes
        .iter()
        .map(|wish| cluster::Wish {
            key: wish.key.clone(),
            capacity: wish.capacity,
            wanted: wish.wanted,
            in_use: wish.in_use,
            lasts: wish.lasts,
        })
        .collect();
    let began = driver.0.clock.mono();
    let renewed = borrow.renew(&wishes).await;
    let took = driver.0.clock.mono().since(began);
    metrics::histogram!("posthouse_borrowed_renewal_seconds").record(took.as_secs_f64());
    match renewed {
        Ok(grants) => {
            if std::mem::take(silent) >= SILENT_MAX {
                tracing::info!("this node's part of the shared limits is renewed again");
            }
            let granted = |grant: cluster::Grant| Granted {
                key: grant.key,
                amount: grant.amount,
                fair: grant.fair,
                until: grant.until,
            };
            grants.into_iter().map(granted).collect()
        }
        Err(error) => {
            metrics::counter!("posthouse_borrowed_failures_total").increment(1);
            *silent = silent.saturating_add(1);
            if *silent == SILENT_MAX {
                tracing::warn!(%error, "this node's part of the shared limits is not renewed; what it uses of them ends soon");
            }
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use mail::MessageId;

    use super::*;

    fn id(n: u64) -> DeliveryId {
        DeliveryId { message: MessageId(n), index: 0 }
    }

    #[tokio::test]
    async fn an_attempt_is_cut_off_whenever_it_is_said_and_no_other_with_it() {
        let sharing = Sharing::default();
        let (one, other) = (sharing.begin(id(1)), sharing.begin(id(2)));
        let attempts = async {
            sharing.cut(id(1));
            tokio::join!(one.run(std::future::pending::<()>()), other.run(std::future::ready(may_complete())))
        };
        assert_eq!(attempts.await, (None, Some(true)));
        // Said before the worker has begun.
        sharing.cut(id(3));
        assert_eq!(sharing.begin(id(3)).run(std::future::pending::<()>()).await, None);
        drop((one, other));
        assert!(sharing.is_quiet());
        assert_eq!(sharing.begin(id(1)).run(async { may_complete() }).await, Some(true));
    }

    #[tokio::test]
    async fn what_is_being_completed_comes_to_its_end_and_nothing_after_it_begins() {
        let sharing = Sharing::default();
        let attempt = sharing.begin(id(1));
        let done = attempt.run(async {
            let first = may_complete();
            sharing.cut(id(1));
            tokio::task::yield_now().await;
            (first, may_complete())
        });
        assert_eq!(done.await, Some((true, false)));
    }
}
