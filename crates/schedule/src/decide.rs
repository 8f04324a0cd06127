//! What the outcomes of an attempt mean: done, refused, tried again when, given up, and whether the sender hears that
//! it is late.

use std::time::Duration;

use mail::{DeliveryId, Disposition, EnhancedStatus, Notify, Outcome, RecipientOutcome, Timestamp};

use crate::limits::Retry;
use crate::signal::Advice;

/// So much time is left between two attempts, however close the end of the lifetime is.
const LAST_STEP_MIN: Duration = Duration::from_secs(1);

/// What [`decide()`] has to know about a delivery.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Which one.
    pub id: DeliveryId,
    /// Attempts before this one.
    pub attempts: u32,
    /// How old the message is, clock jumps not counted ([`crate::ClockWatch::age`]).
    pub age: Duration,
    /// Whether the sender was told already that it is late.
    pub warned: bool,
    /// The recipients that were not final before this attempt: number and NOTIFY.
    pub recipients: &'a [(u16, Notify)],
}

/// What becomes of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Delivered.
    Delivered(Outcome),
    /// Refused for good.
    Refused(Outcome),
    /// Tried again.
    Retry(Outcome),
    /// Given up: deferred once more, and the message's lifetime is over.
    Expired(Outcome),
}

/// What becomes of a delivery after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Every recipient of [`Facts::recipients`], in that order.
    pub recipients: Vec<(u16, Fate)>,
    /// When the rest is tried again; none when nothing is left.
    pub retry_at: Option<Timestamp>,
    /// Attempts, this one among them.
    pub attempts: u32,
    /// Recipients about whom the sender is now told that they are late. Not empty at most once in the life of a
    /// delivery, if [`Facts::warned`] is set from then on.
    pub warn: Vec<u16>,
    /// When the rest will be given up: `Will-Retry-Until` of a delay warning.
    pub expires_at: Timestamp,
}

/// Decides after an attempt. Nothing expires but here, behind a failed attempt: a message that slept on a machine that
/// was off for a week gets its attempt first.
///
/// The last attempt comes at the end of the lifetime, and one comes when the warning is due, even where the retry
/// steps would be longer.
///
/// `advice` is what the provider data say of recipients' replies, by the recipient's number. Of several times to try again the
/// earliest counts, and it takes the place of the retry step; who greylists says when, and being early there costs another round.
pub fn decide(
    retry: &Retry,
    facts: &Facts<'_>,
    outcomes: &[RecipientOutcome],
    advice: &[(u16, Advice)],
    now: Timestamp,
) -> Decision {
    let attempts = facts.attempts.saturating_add(1);
    let is_over = facts.age >= retry.lifetime;
    let mut left = false;
    let mut late = Vec::new();
    let mut advised: Option<Duration> = None;
    let recipients: Vec<(u16, Fate)> = facts
        .recipients
        .iter()
        .map(|&(number, notify)| {
            let advice = advice.iter().find(|advice| advice.0 == number).map(|advice| advice.1);
            let fate = fate(outcome_of(number, outcomes), advice, is_over);
            if matches!(fate, Fate::Retry(_)) {
                left = true;
                if let Some(Advice::RetryAfter(after)) = advice {
                    advised = Some(advised.map_or(after, |sooner| sooner.min(after)));
                }
                if notify.wants_delay() {
                    late.push(number);
                }
            }
            (number, fate)
        })
        .collect();
    let warn_is_due = facts.age >= retry.warn_after;
    let will_warn = !facts.warned && !late.is_empty();
    let retry_at = left.then(|| {
        let mut step = match advised {
            Some(after) => after.min(retry.longest()).max(LAST_STEP_MIN),
            None => retry.delay(facts.id, attempts),
        };
        if will_warn && !warn_is_due {
            step = step.min(retry.warn_after.saturating_sub(facts.age));
        }
        let rest = retry.lifetime.saturating_sub(facts.age);
        now.plus(step.min(rest.max(LAST_STEP_MIN)))
    });
    Decision {
        recipients,
        retry_at,
        attempts,
        warn: if will_warn && warn_is_due { late } else { Vec::new() },
        expires_at: now.plus(retry.lifetime.saturating_sub(facts.age)),
    }
}

fn fate(mut outcome: Outcome, advice: Option<Advice>, is_over: bool) -> Fate {
    outcome.disposition = match (outcome.disposition, advice) {
        (Disposition::Deferred, Some(Advice::Bounce)) => Disposition::Refused,
        (Disposition::Refused, Some(Advice::KeepTrying | Advice::RetryAfter(_))) => Disposition::Deferred,
        (disposition, _) => disposition,
    };
    match outcome.disposition {
        Disposition::Delivered => Fate::Delivered(outcome),
        Disposition::Refused => Fate::Refused(outcome),
        Disposition::Deferred if is_over => Fate::Expired(outcome),
        Disposition::Deferred => Fate::Retry(outcome),
    }
}

/// A recipient that the attempt says nothing of is tried again: losing it would be worse than a duplicate.
fn outcome_of(number: u16, outcomes: &[RecipientOutcome]) -> Outcome {
    outcomes.iter().find(|o| o.recipient == number).map_or_else(
        || {
            let status = EnhancedStatus::new(4, 3, 0);
            Outcome::own(
                Disposition::Deferred,
                status,
                "the attempt ended without a word about this recipient",
            )
        },
        |o| o.outcome.clone(),
    )
}

#[cfg(test)]
mod tests {
    use mail::MessageId;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: Timestamp = Timestamp(1_795_503_600_000);
    const ALL: [(u16, Notify); 3] = [(0, Notify::Unset), (1, Notify::Unset), (4, Notify::Never)];

    fn facts(attempts: u32, age: Duration) -> Facts<'static> {
        let id = DeliveryId { message: MessageId(9), index: 0 };
        Facts { id, attempts, age, warned: false, recipients: &ALL }
    }

    fn outcome(recipient: u16, disposition: Disposition) -> RecipientOutcome {
        let class = if disposition == Disposition::Refused { 5 } else { 4 };
        RecipientOutcome::new(recipient, Outcome::own(disposition, EnhancedStatus::new(class, 2, 0), "x"))
    }

    fn deferred() -> Vec<RecipientOutcome> {
        ALL.iter().map(|r| outcome(r.0, Disposition::Deferred)).collect()
    }

    fn no_jitter() -> Retry {
        Retry { jitter: 0.0, ..Retry::default() }
    }

    #[test]
    fn each_recipient_has_its_own_end() {
        let outcomes = [
            outcome(0, Disposition::Delivered),
            outcome(1, Disposition::Refused),
            outcome(4, Disposition::Deferred),
        ];
        let decision = decide(&no_jitter(), &facts(0, HOUR), &outcomes, &[], NOW);
        assert!(matches!(
            &decision.recipients[..],
            [(0, Fate::Delivered(_)), (1, Fate::Refused(_)), (4, Fate::Retry(_))]
        ));
        assert_eq!(decision.attempts, 1);
        assert_eq!(decision.retry_at, Some(NOW.plus(Duration::from_secs(60))));
        let decision = decide(&no_jitter(), &facts(0, HOUR), &outcomes[..2], &[], NOW);
        assert!(matches!(&decision.recipients[2], (4, Fate::Retry(o)) if o.status.subject == 3));
    }

    #[test]
    fn nothing_left_is_not_tried_again() {
        let outcomes: Vec<_> = ALL.iter().map(|r| outcome(r.0, Disposition::Delivered)).collect();
        let decision = decide(&no_jitter(), &facts(3, HOUR * 1000), &outcomes, &[], NOW);
        assert_eq!(decision.retry_at, None);
        assert!(decision.warn.is_empty());
    }

    #[test]
    fn given_up_at_the_end_of_the_lifetime_and_not_before() {
        let retry = no_jitter();
        let before = decide(&retry, &facts(30, HOUR * 119), &deferred(), &[], NOW);
        assert!(before.recipients.iter().all(|r| matches!(r.1, Fate::Retry(_))));
        // The step would be four hours; the last attempt comes when the lifetime ends.
        assert_eq!(before.retry_at, Some(NOW.plus(HOUR)));
        assert_eq!(before.expires_at, NOW.plus(HOUR));
        let after = decide(&retry, &facts(31, HOUR * 120), &deferred(), &[], NOW);
        assert!(after.recipients.iter().all(|r| matches!(r.1, Fate::Expired(_))));
        assert_eq!(after.retry_at, None);
    }

    #[test]
    fn warns_once_and_in_time() {
        let retry = no_jitter();
        // After 3 h 51 min the next step is four hours: an attempt comes when the warning is due.
        let early = decide(&retry, &facts(6, Duration::from_secs(231 * 60)), &deferred(), &[], NOW);
        assert!(early.warn.is_empty());
        assert_eq!(early.retry_at, Some(NOW.plus(Duration::from_secs(9 * 60))));
        let due = decide(&retry, &facts(7, HOUR * 4), &deferred(), &[], NOW);
        assert_eq!(due.warn, [0, 1], "not the one with NOTIFY=NEVER");
        assert_eq!(due.retry_at, Some(NOW.plus(HOUR * 4)));
        let again = decide(&retry, &Facts { warned: true, ..facts(8, HOUR * 8) }, &deferred(), &[], NOW);
        assert!(again.warn.is_empty());
    }

    #[test]
    fn who_wants_no_warning_gets_none_and_no_attempt_for_it() {
        let mut facts = facts(6, Duration::from_secs(231 * 60));
        facts.recipients = &ALL[2..];
        let decision = decide(&no_jitter(), &facts, &deferred(), &[], NOW);
        assert_eq!(decision.retry_at, Some(NOW.plus(HOUR * 4)));
        facts.age = HOUR * 5;
        assert!(decide(&no_jitter(), &facts, &deferred(), &[], NOW).warn.is_empty());
    }

    #[test]
    fn advice_brings_greylisted_mail_back_in_time_and_corrects_codes() {
        let outcomes = [
            outcome(0, Disposition::Deferred),
            outcome(1, Disposition::Deferred),
            outcome(4, Disposition::Refused),
        ];
        let advice =
            [(0, Advice::RetryAfter(HOUR / 6)), (1, Advice::Bounce), (4, Advice::RetryAfter(HOUR / 3))];
        let decision = decide(&no_jitter(), &facts(6, HOUR * 5), &outcomes, &advice, NOW);
        assert!(matches!(
            &decision.recipients[..],
            [(0, Fate::Retry(_)), (1, Fate::Refused(_)), (4, Fate::Retry(_))]
        ));
        // The step would be four hours; the earlier of the two that are advised counts.
        assert_eq!(decision.retry_at, Some(NOW.plus(HOUR / 6)));
        let late = decide(&no_jitter(), &facts(9, HOUR * 120), &outcomes, &advice, NOW);
        assert!(matches!(&late.recipients[2], (4, Fate::Expired(_))), "advice does not outlive the message");
        let keep = decide(&no_jitter(), &facts(0, HOUR), &outcomes, &[(4, Advice::KeepTrying)], NOW);
        assert!(matches!(&keep.recipients[2], (4, Fate::Retry(_))));
        // Whatever is advised, the next attempt comes before the lifetime ends.
        let far = [(0, Advice::RetryAfter(HOUR * 1000))];
        let soon = decide(&no_jitter(), &facts(9, HOUR * 119), &outcomes, &far, NOW);
        assert_eq!(soon.retry_at, Some(NOW.plus(HOUR)));
    }
}
