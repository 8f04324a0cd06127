//! Turns the program's values into the JSON's.

use history::{AttemptView, RecipientView, Step, Timeline, What};
use mail::{Disposition, Outcome, Recipient, RecipientStatus, Timestamp, TlsInfo};
use serde::Serialize;

use crate::problem::Problem;
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
        class: None,
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

fn seen(outcome: &history::OutcomeView) -> OutcomeView {
    OutcomeView {
        disposition: word(&outcome.result),
        status: outcome.status.clone(),
        code: outcome.code,
        text: outcome.text.clone(),
        class: outcome.class.map(|class| class.to_string()),
    }
}

/// A message's story. `org` gives the name of its organisation.
pub(crate) fn trace(timeline: &Timeline, org: impl Fn(mail::OrgId) -> String) -> Trace {
    let mut trace = Trace { id: timeline.id.to_string(), ..Trace::default() };
    if let Some(accepted) = &timeline.accepted {
        trace.org = Some(org(mail::OrgId(accepted.org)));
        trace.received_at = Some(accepted.at.to_string());
        trace.from = Some(accepted.sender.clone());
        trace.size = Some(accepted.size);
        trace.message_id = accepted.message_id.clone();
        trace.protocol = Some(word(&accepted.protocol));
        trace.client = accepted.client.clone();
        trace.helo = accepted.helo.clone();
        trace.credential = accepted.credential.clone();
        trace.tls = accepted.tls.as_ref().map(tls);
        trace.listener = accepted.listener.clone();
        trace.report_on = accepted.report_on.clone();
    }
    let recipient = |r: &RecipientView| TraceRecipient {
        address: r.address.clone(),
        end: word(&r.end),
        since: r.since.to_string(),
        attempts: r.attempts,
        last: r.last.as_ref().map(seen),
    };
    trace.recipients = timeline.recipients.iter().map(recipient).collect();
    trace.steps = timeline.steps.iter().map(step).collect();
    trace
}

fn step(step: &Step) -> TraceStep {
    let mut out = TraceStep { at: step.at.to_string(), ..TraceStep::default() };
    let named = |addresses: &[String]| {
        addresses.iter().map(|a| StepRecipient { address: a.clone(), outcome: None }).collect::<Vec<_>>()
    };
    let (what, text) = match &step.what {
        What::Attempt(attempt) => {
            fill_attempt(&mut out, attempt);
            ("attempt", attempt_text(attempt))
        }
        What::Expired { recipients } => {
            out.recipients = named(recipients);
            ("expired", "given up: it could not be delivered within its lifetime".into())
        }
        What::Reported { kind, report, recipients } => {
            out.recipients = named(recipients);
            out.report = Some(report.clone());
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
            (out.by, out.destination) = (Some(by.clone()), Some(to.clone()));
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
        What::Forwarded { recipients, sender } => {
            out.recipients = recipients.iter().flat_map(|(_, to)| named(to)).collect();
            ("forwarded", forwarded_text(recipients, sender.as_deref()))
        }
        What::Bounced { recipient, status, text, class, report } => {
            out.recipients = named(std::slice::from_ref(recipient));
            out.report.clone_from(report);
            ("bounced", format!("a report came back ({class}): {status} {text}"))
        }
    };
    (out.what, out.text) = (what.to_owned(), text);
    out
}

fn forwarded_text(recipients: &[(String, Vec<String>)], sender: Option<&str>) -> String {
    let mut parts: Vec<String> =
        recipients.iter().map(|(from, to)| format!("{from} goes to {}", to.join(", "))).collect();
    parts.extend(sender.map(|was| format!("the sender was <{was}>")));
    parts.join("; ")
}

fn attempt_text(attempt: &AttemptView) -> String {
    let count = |d: Disposition| attempt.outcomes.iter().filter(|o| o.result == d).count();
    let parts = [
        (count(Disposition::Delivered), "delivered"),
        (count(Disposition::Deferred), "deferred"),
        (count(Disposition::Refused), "refused"),
    ];
    let parts: Vec<String> = parts.iter().filter(|p| p.0 > 0).map(|p| format!("{} {}", p.0, p.1)).collect();
    let whom = attempt.host.as_ref().unwrap_or(&attempt.destination);
    format!("attempt at {whom}: {}", if parts.is_empty() { "no outcome".into() } else { parts.join(", ") })
}

fn fill_attempt(out: &mut TraceStep, attempt: &AttemptView) {
    out.destination = Some(attempt.destination.clone());
    out.remote = attempt.host.as_ref().map(|host| match &attempt.address {
        Some(address) => format!("{host} [{address}]"),
        None => host.clone(),
    });
    out.tls = attempt.tls.as_ref().map(tls);
    out.source = attempt.source.clone();
    out.security = attempt.security.as_ref().map(|security| format!("{}: {}", security.level, security.why));
    out.duration_ms = Some(attempt.duration_ms);
    out.transcript = attempt.transcript.clone();
    let outcomes = attempt.outcomes.iter();
    out.recipients =
        outcomes.map(|o| StepRecipient { address: o.recipient.clone(), outcome: Some(seen(o)) }).collect();
}

/// Milliseconds of an RFC 3339 time.
pub(crate) fn time(field: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    let bad = |_| Problem::invalid(format!("`{field}` is a time such as 2026-11-24T07:00:00Z"));
    parsed.map(|t| Some(Timestamp(t.as_millisecond()).millis())).map_err(bad)
}
