//! Settlement: what an attempt means, as one commit. The recipients' new states, the reports as new messages, the
//! events and the removal stand or fall together.

use std::sync::atomic::Ordering;

use directory::{NewSuppression, SuppressedBy};
use mail::{
    Address, Attempt, BounceClass, Disposition, Event, EventKind, Notify, OrgId, Outcome, RecipientStatus,
    ReportKind, State, Timestamp,
};
use schedule::{Advice, Decision, Facts, Fate, Now, decide};
use store::{Admitted, Content, Next, Settled, Settlement, Waiting};

use super::reports::{Prepared, Subject};
use super::{Driver, Reserved, Settings, Suppress};

/// What an attempt brought, to be settled.
pub(super) struct Ended {
    pub(super) waiting: Waiting,
    /// What was sent, where it could be read.
    pub(super) content: Option<Content>,
    pub(super) attempt: Attempt,
    /// What the provider data say of the replies, by the recipient's number.
    pub(super) advice: Vec<(u16, Advice)>,
    /// What else happened.
    pub(super) events: Vec<Event>,
    /// What else is sent.
    pub(super) letters: Vec<Prepared>,
}

impl Ended {
    pub(super) fn new(waiting: Waiting, content: Option<Content>, attempt: Attempt) -> Self {
        Self { waiting, content, attempt, advice: Vec::new(), events: Vec::new(), letters: Vec::new() }
    }
}

impl Driver {
    /// Decides what the attempt means, writes the reports it calls for, and hands all of it to the store.
    pub(super) async fn settle(&self, ended: Ended) {
        let Ended { waiting, content, mut attempt, advice, mut events, letters: mut prepared } = ended;
        let settings = self.0.settings.load_full();
        let now = self.now();
        classify(&settings, &mut attempt);
        let notify: Vec<(u16, Notify)> =
            waiting.recipients.iter().map(|r| (r.number, r.recipient.notify)).collect();
        let facts = Facts {
            id: waiting.id,
            attempts: waiting.attempts,
            age: self.age(&waiting, now),
            warned: waiting.warned,
            recipients: &notify,
        };
        let decision = decide(&settings.retry, &facts, &attempt.outcomes, &advice, now.wall);
        self.count(&decision, &attempt);
        log(&waiting, &attempt, &decision);
        self.suppress(&settings, &waiting, &attempt, &decision);
        for (kind, recipients) in reports_due(&waiting, &attempt, &decision) {
            let subject =
                Subject { waiting: &waiting, attempt: &attempt, decision: &decision, now: now.wall };
            prepared
                .extend(self.prepare_report(&settings, kind, &recipients, &subject, content.as_ref()).await);
        }
        let (mut settlement, reserved) = settlement(&waiting, attempt, &decision, prepared, now.wall);
        settlement.events.append(&mut events);
        self.commit(settlement, decision.retry_at, reserved);
    }

    /// Puts addresses that do not exist on the list of those that are written to no more, where the operator wants that.
    fn suppress(&self, settings: &Settings, waiting: &Waiting, attempt: &Attempt, decision: &Decision) {
        let wanted = match settings.suppress {
            Suppress::Never => false,
            Suppress::Bulk => waiting.message.stream == mail::Stream::Bulk,
            Suppress::Always => true,
        };
        if !wanted {
            return;
        }
        for (pending, (_, fate)) in waiting.recipients.iter().zip(&decision.recipients) {
            let Fate::Refused(outcome) = fate else { continue };
            let class = attempt.outcomes.iter().find(|o| o.recipient == pending.number).and_then(|o| o.class);
            if class.is_some_and(BounceClass::suppresses) {
                self.suppress_address(waiting.message.org, &pending.recipient.address, outcome);
            }
        }
    }

    /// Best effort: the next mail to the address will be refused as this one was, and tries again.
    pub(super) fn suppress_address(&self, org: OrgId, address: &Address, outcome: &Outcome) {
        let directory = self.0.directory.clone();
        let Some(org) = directory.snapshot().org(org).map(|org| org.name.to_string()) else { return };
        let new = NewSuppression {
            org,
            address: address.clone(),
            class: BounceClass::Recipient,
            reason: format!("{} {}", outcome.status, outcome.text),
            source: SuppressedBy::Bounce,
        };
        self.spawn(async move {
            let address = new.address.clone();
            if let Err(error) = directory.suppress(new, &"posthouse".into()).await {
                tracing::warn!(%address, %error, "could not be put on the suppression list");
            }
        });
    }

    fn count(&self, decision: &Decision, attempt: &Attempt) {
        for class in attempt.outcomes.iter().filter_map(|outcome| outcome.class) {
            metrics::counter!("posthouse_bounces_total", "class" => class.as_str()).increment(1);
        }
        let tally = &self.0.tally;
        for (_, fate) in &decision.recipients {
            // Literals, so that the key is made once and not for each recipient.
            let (result, counter) = match fate {
                Fate::Delivered(_) => (
                    metrics::counter!("posthouse_recipients_total", "result" => "delivered"),
                    &tally.delivered,
                ),
                Fate::Refused(_) => {
                    (metrics::counter!("posthouse_recipients_total", "result" => "refused"), &tally.failed)
                }
                Fate::Retry(_) => {
                    (metrics::counter!("posthouse_recipients_total", "result" => "deferred"), &tally.deferred)
                }
                Fate::Expired(_) => {
                    (metrics::counter!("posthouse_recipients_total", "result" => "expired"), &tally.failed)
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
            result.increment(1);
        }
    }

    fn age(&self, waiting: &Waiting, now: Now) -> std::time::Duration {
        let mut core = self.0.core.lock();
        core.look_at_clock(now);
        core.watch.age(waiting.message.received_at, now)
    }

    /// Hands a settlement to the store; the scheduler hears of it when it is committed, and no sooner.
    pub(super) fn commit(&self, settlement: Settlement, due: Option<Timestamp>, reserved: Vec<Reserved>) {
        let driver = self.clone();
        let id = settlement.delivery;
        self.0.store.settle(settlement, move |result| {
            let due = match result {
                Ok(settled) => {
                    let due = due.filter(|_| settled.state == Some(State::Waiting));
                    begin_reports(settled, reserved);
                    due
                }
                Err(error) => {
                    tracing::error!(%id, %error, "what became of a delivery could not be recorded");
                    None
                }
            };
            driver.with_core(|core, now, out| core.scheduler.finished(id, due, now, out));
        });
    }
}

/// What each failure was about, in a word.
fn classify(settings: &Settings, attempt: &mut Attempt) {
    for of in &mut attempt.outcomes {
        if of.outcome.disposition != Disposition::Delivered {
            let hosts = attempt.remote.as_ref().map(|remote| remote.name.as_str());
            let provider = hosts.and_then(|host| settings.policy.providers.provider_of(&[host]));
            of.class = Some(settings.classifier.classify(&of.outcome, provider.as_deref()));
        }
    }
}

fn begin_reports(settled: Settled, reserved: Vec<Reserved>) {
    for (admitted, places) in settled.reports.into_iter().zip(reserved) {
        if let Admitted::New(deliveries) = admitted {
            places.admitted(deliveries);
        }
    }
}

/// Which reports the sender gets, and about whom. A message from the null sender is never reported on.
fn reports_due(waiting: &Waiting, attempt: &Attempt, decision: &Decision) -> Vec<(ReportKind, Vec<u16>)> {
    if waiting.message.reverse_path.is_none() {
        return Vec::new();
    }
    let (mut failed, mut succeeded) = (Vec::new(), Vec::new());
    for ((number, fate), pending) in decision.recipients.iter().zip(&waiting.recipients) {
        let notify = pending.recipient.notify;
        match fate {
            Fate::Refused(_) | Fate::Expired(_) if notify.wants_failure() => failed.push(*number),
            // Who takes over mail with DSN reports success by itself.
            Fate::Delivered(_) if notify.wants_success() && !attempt.dsn => succeeded.push(*number),
            _ => {}
        }
    }
    let all = [
        (ReportKind::Failure, failed),
        (ReportKind::Delay, decision.warn.clone()),
        (ReportKind::Success, succeeded),
    ];
    all.into_iter().filter(|(_, recipients)| !recipients.is_empty()).collect()
}

fn settlement(
    waiting: &Waiting,
    attempt: Attempt,
    decision: &Decision,
    prepared: Vec<Prepared>,
    now: Timestamp,
) -> (Settlement, Vec<Reserved>) {
    let message = waiting.message.id;
    let mut events = Vec::with_capacity(1 + prepared.len());
    events.push(Event { at: now, message, kind: EventKind::Attempt(Box::new(attempt)) });
    let expired: Vec<u16> = numbers(decision, |fate| matches!(fate, Fate::Expired(_)));
    if !expired.is_empty() {
        events.push(Event { at: now, message, kind: EventKind::Expired { recipients: expired } });
    }
    let warned = waiting.warned || !decision.warn.is_empty();
    let (mut reports, mut reserved) = (Vec::new(), Vec::new());
    for report in prepared {
        events.extend(report.event.map(|kind| Event { at: now, message, kind }));
        reports.push(report.admission);
        reserved.push(report.reserved);
    }
    let next = match decision.retry_at {
        Some(due) => Next::Deferred { due, attempts: decision.attempts },
        None => Next::Done,
    };
    let recipients = decision.recipients.iter().map(|(n, fate)| (*n, status(fate))).collect();
    (Settlement { delivery: waiting.id, recipients, next, warned, reports, events }, reserved)
}

fn status(fate: &Fate) -> RecipientStatus {
    match fate {
        Fate::Delivered(outcome) => RecipientStatus::Delivered(outcome.clone()),
        Fate::Refused(outcome) | Fate::Expired(outcome) => RecipientStatus::Failed(outcome.clone()),
        Fate::Retry(outcome) => RecipientStatus::Pending(Some(outcome.clone())),
    }
}

fn numbers(decision: &Decision, wanted: impl Fn(&Fate) -> bool) -> Vec<u16> {
    decision.recipients.iter().filter(|(_, fate)| wanted(fate)).map(|(n, _)| *n).collect()
}

/// The outcome behind a fate.
pub(super) fn outcome_of(fate: &Fate) -> &Outcome {
    match fate {
        Fate::Delivered(outcome) | Fate::Refused(outcome) | Fate::Retry(outcome) | Fate::Expired(outcome) => {
            outcome
        }
    }
}

/// One line for each attempt that went through, one for each recipient of another.
fn log(waiting: &Waiting, attempt: &Attempt, decision: &Decision) {
    let remote = attempt.remote.as_ref().map_or("", |remote| remote.name.as_str());
    if attempt.all_delivered() {
        tracing::info!(
            id = %waiting.message.id, from = waiting.message.sender(), recipients = decision.recipients.len(),
            destination = %attempt.destination, remote, ms = attempt.duration_ms, "delivered"
        );
        return;
    }
    for ((_, fate), pending) in decision.recipients.iter().zip(&waiting.recipients) {
        let outcome = outcome_of(fate);
        tracing::info!(
            id = %waiting.message.id, to = %pending.recipient.address, destination = %attempt.destination, remote,
            result = ?outcome.disposition, status = %outcome.status, code = outcome.code, text = %outcome.text.escape_debug(),
            retry_at = decision.retry_at.map(|t| t.to_string()), "not delivered"
        );
    }
}
