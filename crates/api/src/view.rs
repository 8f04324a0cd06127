//! Turns the program's values into the JSON's.

use history::{End, Step, Timeline, What};
use mail::{Attempt, Outcome, Recipient, RecipientStatus, TlsInfo};
use serde::Serialize;

use crate::types::{DeliveryRecipient, OutcomeView, StepRecipient, Trace, TraceRecipient, TraceStep};

/// The word that an enum is serialised as.
pub(crate) fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `TLSv1.3 TLS_AES_256_GCM_SHA384 verified`
pub(crate) fn tls(info: &TlsInfo) -> String {
    format!("{} {} {}", info.version, info.cipher, info.verified).trim_end().to_owned()
}

pub(crate) fn outcome(outcome: &Outcome) -> OutcomeView {
    OutcomeView {
        disposition: word(&outcome.disposition),
        status: outcome.status.to_string(),
        code: outcome.code,
        text: outcome.text.clone(),
    }
}

pub(crate) fn recipient(who: &Recipient, status: &RecipientStatus) -> DeliveryRecipient {
    let (word, last) = match status {
        RecipientStatus::Pending(last) => ("pending", last.as_ref()),
        RecipientStatus::Delivered(last) => ("delivered", Some(last)),
        RecipientStatus::Failed(last) => ("failed", Some(last)),
        RecipientStatus::Removed => ("removed", None),
    };
    DeliveryRecipient { address: who.address.to_string(), status: word.to_owned(), last: last.map(outcome) }
}

/// A message's story. `org` is the name of its organisation.
pub(crate) fn trace(timeline: &Timeline, org: impl Fn(mail::OrgId) -> String) -> Trace {
    let mut trace = Trace { id: timeline.id.to_string(), ..Trace::default() };
    if let Some(accepted) = &timeline.accepted {
        let (message, origin) = (&accepted.message, &accepted.message.origin);
        trace.org = Some(org(message.org));
        trace.received_at = Some(message.received_at.to_string());
        trace.from = Some(message.sender().to_owned());
        trace.size = Some(message.size);
        trace.message_id = message.header_message_id.clone();
        trace.protocol = Some(word(&origin.protocol));
        trace.client = origin.client.map(|ip| ip.to_string());
        trace.helo = origin.helo.clone();
        trace.credential = origin.credential.clone();
        trace.tls = origin.tls.as_ref().map(tls);
        trace.listener = origin.listener.clone();
        trace.report_on = accepted.report_on.map(|id| id.to_string());
    }
    trace.recipients = timeline
        .recipients
        .iter()
        .map(|r| TraceRecipient {
            address: r.address.clone(),
            end: end(r.end).to_owned(),
            since: r.since.to_string(),
            attempts: r.attempts,
            last: r.last.as_ref().map(outcome),
        })
        .collect();
    trace.steps = timeline.steps.iter().map(|step| self::step(step, timeline)).collect();
    trace
}

fn end(end: End) -> &'static str {
    match end {
        End::Queued => "queued",
        End::Held => "held",
        End::Caught => "caught",
        End::Delivered => "delivered",
        End::Refused => "refused",
        End::Expired => "expired",
        End::Removed => "removed",
    }
}

fn step(step: &Step, timeline: &Timeline) -> TraceStep {
    let mut out = TraceStep { at: step.at.to_string(), ..TraceStep::default() };
    let named = |addresses: &[String]| {
        addresses.iter().map(|a| StepRecipient { address: a.clone(), outcome: None }).collect::<Vec<_>>()
    };
    let (what, text) = match &step.what {
        What::Attempt(attempt) => {
            fill_attempt(&mut out, attempt, timeline);
            ("attempt", attempt_text(attempt))
        }
        What::Expired { recipients } => {
            out.recipients = named(recipients);
            ("expired", "given up: it could not be delivered within its lifetime".into())
        }
        What::Reported { kind, report, recipients } => {
            out.recipients = named(recipients);
            out.report = Some(report.to_string());
            ("reported", format!("a {} report went to the sender", word(kind)))
        }
        What::Held { by, reason } => {
            out.by = Some(by.clone());
            ("held", format!("held by {by}: {reason}"))
        }
        What::Released { by } => {
            out.by = Some(by.clone());
            ("released", format!("released by {by}"))
        }
        What::Retried { by } => {
            out.by = Some(by.clone());
            ("retried", format!("told by {by} to be tried at once"))
        }
        What::Rerouted { by, to } => {
            (out.by, out.destination) = (Some(by.clone()), Some(to.to_string()));
            ("rerouted", format!("sent to {to} instead by {by}"))
        }
        What::Removed { by, recipients } => {
            (out.by, out.recipients) = (Some(by.clone()), named(recipients));
            ("removed", format!("removed from the queue by {by}"))
        }
        What::Damaged { reason } => ("damaged", format!("its stored content is damaged: {reason}")),
        What::Caught { recipients } => {
            out.recipients = named(recipients);
            ("caught", "caught by the sandbox; `posthouse queue show ID --raw` shows it".into())
        }
    };
    (out.what, out.text) = (what.to_owned(), text);
    out
}

fn attempt_text(attempt: &Attempt) -> String {
    let count = |d| attempt.outcomes.iter().filter(|r| r.outcome.disposition == d).count();
    let parts = [
        (count(mail::Disposition::Delivered), "delivered"),
        (count(mail::Disposition::Deferred), "deferred"),
        (count(mail::Disposition::Refused), "refused"),
    ];
    let parts: Vec<String> = parts.iter().filter(|p| p.0 > 0).map(|p| format!("{} {}", p.0, p.1)).collect();
    let whom = attempt.remote.as_ref().map_or_else(|| attempt.destination.to_string(), |r| r.name.clone());
    format!("attempt at {whom}: {}", if parts.is_empty() { "no outcome".into() } else { parts.join(", ") })
}

fn fill_attempt(out: &mut TraceStep, attempt: &Attempt, timeline: &Timeline) {
    let address = |number: u16| {
        let known = timeline.recipients.iter().find(|r| r.number == number);
        known.map_or_else(|| format!("recipient {number}"), |r| r.address.clone())
    };
    out.destination = Some(attempt.destination.to_string());
    out.remote = attempt.remote.as_ref().map(|remote| match remote.address {
        Some(address) => format!("{} [{address}]", remote.name),
        None => remote.name.clone(),
    });
    out.tls = attempt.tls.as_ref().map(tls);
    out.duration_ms = Some(attempt.duration_ms);
    out.transcript = attempt.transcript.clone();
    out.recipients = attempt
        .outcomes
        .iter()
        .map(|r| StepRecipient { address: address(r.recipient), outcome: Some(outcome(&r.outcome)) })
        .collect();
}
