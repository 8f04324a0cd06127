//! When a message that one host has turned away is offered to another in the same attempt.
//!
//! Postfix offers whatever got a 4xx to the next exchanger, and lets at most two of them hear of a message in one attempt
//! (`smtp_mx_session_limit`); Exim goes on to the next host after a 4xx to MAIL, RCPT or the message. Both ask a second
//! host also where the first greylists, which brings nothing: exchangers of one domain share what they know of senders.
//! Here the second host is asked when the first one speaks of trouble of its own, and not when it speaks of the message,
//! its sender or its recipient. A refusal (5xx) is the answer of the domain; nobody else is asked.

use mail::{Disposition, Outcome, RecipientOutcome};

/// Exchangers of a domain that hear of a message in one attempt.
pub(crate) const EXCHANGERS_HEAR_MAX: u32 = 2;

/// Whether what came of a transaction at one mail exchanger may be put to another. The outcomes are those of all
/// recipients that it was about.
pub(crate) fn may_go_on(outcomes: &[RecipientOutcome]) -> bool {
    let mut any = false;
    for RecipientOutcome { outcome, .. } in outcomes {
        match outcome.disposition {
            Disposition::Delivered => return false,
            Disposition::Refused => {}
            Disposition::Deferred if is_about_the_message(outcome) => return false,
            Disposition::Deferred => any = true,
        }
    }
    any
}

/// Whether a deferral is about the message, its sender or a recipient, as greylisting is, and not about the host.
fn is_about_the_message(outcome: &Outcome) -> bool {
    let says = |words: &[&str]| {
        let text = outcome.text.to_ascii_lowercase();
        words.iter().any(|word| text.contains(word))
    };
    match (outcome.code, outcome.status.subject) {
        // No reply: the connection was lost.
        (None, _) => false,
        // The service closes.
        (Some(421), _) => false,
        // Mailbox (x.2), and policy (x.7).
        (Some(_), 2 | 7) => true,
        // "Mailbox unavailable", in words that do not say what it is about.
        (Some(450), 0) => true,
        _ => says(&["greylist", "graylist", "grey-list", "gray-list"]),
    }
}

#[cfg(test)]
mod tests {
    use mail::{EnhancedStatus, Reply};

    use super::*;

    /// Code, subject and detail of the enhanced code, words.
    type Said = (u16, Option<(u16, u16)>, &'static str);

    fn outcomes(replies: &[Said]) -> Vec<RecipientOutcome> {
        let outcome = |(n, (code, enhanced, text)): (u16, &Said)| {
            let enhanced = enhanced.map(|(subject, detail)| {
                EnhancedStatus::new(u8::try_from(code / 100).unwrap(), subject, detail)
            });
            let reply = Reply { code: *code, enhanced, text: (*text).into() };
            RecipientOutcome::new(n, Outcome::from_reply(&reply))
        };
        (0..).zip(replies).map(outcome).collect()
    }

    #[test]
    fn trouble_of_the_host_goes_on_and_what_is_said_of_the_message_does_not() {
        for (replies, goes_on) in [
            (&[(451, None, "local error")][..], true),
            (&[(451, Some((3, 0)), "queue file write error")], true),
            (&[(452, Some((3, 1)), "insufficient storage")], true),
            (&[(421, Some((7, 0)), "closing")], true),
            (&[(451, Some((4, 3)), "cannot look up the recipient")], true),
            (&[(450, None, "try again")], false),
            (&[(450, Some((2, 0)), "<a@example.net>: Recipient address rejected: Greylisted")], false),
            (&[(451, Some((7, 1)), "Greylisting in action")], false),
            (&[(451, None, "Greylisted, come back in 5 minutes")], false),
            (&[(452, Some((2, 2)), "mailbox full")], false),
            (&[(550, Some((1, 1)), "no such user")], false),
            (&[(550, Some((1, 1)), "no such user"), (451, None, "local error")], true),
            (&[(250, None, "ok"), (451, None, "local error")], false),
            (&[(450, Some((2, 0)), "greylisted"), (451, None, "local error")], false),
        ] {
            assert_eq!(may_go_on(&outcomes(replies)), goes_on, "{replies:?}");
        }
        assert!(!may_go_on(&[]));
    }
}
