//! What a rule makes of the reply that it matched.

use mail::{Disposition, Outcome};
use pattern::{ReplyText, duration_said};

use super::rule::Rule;
use crate::signal::{Advice, Judgement, Signal};

/// A suspension's reason is cut after so many characters.
const REASON_MAX: usize = 200;

pub(super) fn judgement(rule: &Rule, outcome: &Outcome, reply: &ReplyText) -> Judgement {
    let action = &rule.action;
    let mut actions = Vec::new();
    if action.slow {
        actions.push(Signal::Slow);
    }
    if action.full {
        // A peer that says how many it allows has seen one more.
        let allowed = rule.pattern.caught(reply).and_then(|n| n.parse::<u32>().ok());
        actions.push(Signal::Full { connections: allowed.map_or(0, |n| n.saturating_add(1)) });
    }
    if let Some(path_for) = action.suspend {
        actions.push(Signal::Suspend { path_for, reason: reason(outcome).into() });
    }
    let refused = outcome.disposition == Disposition::Refused;
    let advice = match action {
        _ if action.bounce => (!refused).then_some(Advice::Bounce),
        _ if action.keep => refused.then_some(Advice::KeepTrying),
        // A few servers greylist with a 5xx.
        _ if action.retry.is_some() && refused => Some(Advice::KeepTrying),
        _ => action.retry.map(|wait| Advice::RetryAfter(duration_said(&reply.lower).unwrap_or(wait))),
    };
    Judgement { actions, advice }
}

/// The reply in one line.
fn reason(outcome: &Outcome) -> String {
    let code = outcome.code.map(|code| format!("{code} ")).unwrap_or_default();
    let words: Vec<&str> = outcome.text.split_whitespace().collect();
    let text = format!("{code}{} {}", outcome.status, words.join(" "));
    match text.char_indices().nth(REASON_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
