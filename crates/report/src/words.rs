//! The part for people, and its words. Everything that is said stands in a [`Words`]; another language is another value
//! of it.

use mail::ReportKind;

use crate::cause::{Cause, cause};
use crate::compose::{DsnRequest, Ending, Reported};
use crate::encode::{fill, one_line};
use crate::status_part::has_own_status;

/// A peer's words are cut after so many characters.
const ANSWER_MAX: usize = 1000;

/// Recipients that are described one by one; of the others only the addresses are listed. The part for programs has all.
const DESCRIBED_MAX: usize = 50;

/// Everything that a report says in one language. `{}` is where a name goes.
pub(crate) struct Words {
    subject_failure: &'static str,
    subject_delay: &'static str,
    subject_success: &'static str,
    greeting: &'static str,
    failure: &'static str,
    delay: &'static str,
    success: &'static str,
    on_its_way: &'static str,
    answered: &'static str,
    no_answer: &'static str,
    retry_until: &'static str,
    delivered: &'static str,
    relayed: &'static str,
    expanded: &'static str,
    expired: &'static str,
    more: &'static str,
    received: &'static str,
    reference: &'static str,
    attached: &'static str,
    advice: fn(Cause) -> &'static str,
}

/// English.
pub(crate) const ENGLISH: Words = Words {
    subject_failure: "Undelivered mail returned to sender",
    subject_delay: "Delayed mail (still being tried)",
    subject_success: "Mail delivered",
    greeting: "This is the mail system at {}.",
    failure: "Your message could not be delivered to the recipients listed below. It will not be tried again for them.",
    delay: "Your message has not been delivered yet to the recipients listed below. You need not send it again: \
            we keep trying.",
    success: "You asked to be told when your message is delivered. It was, to the recipients listed below.",
    on_its_way: "You asked to be told when your message is delivered. It is on its way to the recipients listed below.",
    answered: "{} answered:",
    no_answer: "What happened:",
    retry_until: "We keep trying until {}.",
    delivered: "Delivered.",
    relayed: "Handed on to a mail system that sends no delivery reports. You may hear nothing more about this recipient.",
    expanded: "This address stands for several others, and your message is on its way to them. You hear about them only if it \
               can't be delivered.",
    expired: "We tried several times and give up now. The last attempt ended like this.",
    more: "The same goes for:",
    received: "Your message was received here on {}.",
    reference: "If you ask your mail administrator about it, give this reference: {}",
    attached: "The details for mail programs, and the header of your message or all of it, are attached.",
    advice: english_advice,
};

fn english_advice(cause: Cause) -> &'static str {
    match cause {
        Cause::NoSuchMailbox => {
            "The recipient's mail server does not know this address. Check it for typing mistakes, or ask the \
             recipient for the right one some other way."
        }
        Cause::NoSuchDomain => {
            "The part of the address behind the @ does not exist or takes no mail. Check it for typing mistakes."
        }
        Cause::MailboxDisabled => {
            "The mailbox takes no mail at the moment. Ask the recipient some other way, for example by telephone."
        }
        Cause::MailboxFull => {
            "The recipient's mailbox or mail server has no room left. Tell the recipient some other way, and send it \
             again later."
        }
        Cause::TooLarge => {
            "The message is larger than the recipient's mail server takes. Send it without large attachments, or \
             share the files as a link."
        }
        Cause::Unreachable => {
            "The recipient's mail server could not be reached. The fault is most likely on the recipient's side; if it \
             lasts, tell the recipient some other way."
        }
        Cause::Loop => {
            "The message was going round in circles between mail servers. An administrator has to correct a \
             forwarding or a route; show this report to yours."
        }
        Cause::TooOld => {
            "Send it again if it still matters, or tell the recipient some other way that their mail can't get \
             through."
        }
        Cause::Unsupported => {
            "The recipient's mail server can't take a message with such characters or content. Send it again from or to \
             an address with plain letters (a-z), or in a simpler format."
        }
        Cause::Policy => {
            "The recipient's mail server refuses this message by its own rules, or takes it for unwanted mail. Its \
             answer above may say why; if it does not help you, show this report to your mail administrator."
        }
        Cause::Sender => {
            "The recipient's mail server does not accept your own address as a sender. Show this report to your \
             mail administrator."
        }
        Cause::Security => {
            "A secure connection is required for this recipient and could not be made. Show this report to your mail \
             administrator."
        }
        Cause::Busy => "The recipient's mail server is busy or asks us to slow down.",
        Cause::Unknown => {
            "The answer above is all that is known. If it does not help you, show this report to your mail \
             administrator."
        }
    }
}

/// The report's subject.
pub(crate) fn subject(words: &Words, kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Failure => words.subject_failure,
        ReportKind::Delay => words.subject_delay,
        ReportKind::Success => words.subject_success,
    }
}

/// The whole part: what happened, to whom, what the other server said, and what the sender can do.
pub(crate) fn human(
    words: &Words,
    request: &DsnRequest<'_>,
    about: &[&Reported<'_>],
    hostname: &str,
) -> String {
    let summary = match request.kind {
        ReportKind::Failure => words.failure,
        ReportKind::Delay => words.delay,
        ReportKind::Success if about.iter().any(|r| r.ending == Ending::Expanded) => words.on_its_way,
        ReportKind::Success => words.success,
    };
    let mut text = fill(&words.greeting.replace("{}", hostname), "");
    text.push_str("\r\n");
    text.push_str(&fill(summary, ""));
    let (described, listed) = about.split_at(about.len().min(DESCRIBED_MAX));
    for recipient in described {
        text.push_str(&describe(words, recipient));
    }
    if !listed.is_empty() {
        text.push_str("\r\n");
        text.push_str(&fill(words.more, ""));
        for recipient in listed {
            text.push_str(&fill(&address_line(recipient), "  "));
        }
    }
    text.push_str("\r\n");
    text.push_str(&fill(&words.received.replace("{}", &request.message.received_at.rfc5322()), ""));
    text.push_str(&fill(&words.reference.replace("{}", &request.message.id.to_string()), ""));
    text.push_str(&fill(words.attached, ""));
    text
}

/// One recipient: address, what happened, advice.
fn describe(words: &Words, about: &Reported<'_>) -> String {
    let mut text = format!("\r\n{}", fill(&address_line(about), ""));
    match about.ending {
        Ending::Delivered => text.push_str(&fill(words.delivered, "    ")),
        Ending::Relayed => text.push_str(&fill(words.relayed, "    ")),
        Ending::Expanded => text.push_str(&fill(words.expanded, "    ")),
        Ending::Failed | Ending::Expired | Ending::Delayed { .. } => {
            if about.ending == Ending::Expired {
                text.push_str(&fill(words.expired, "    "));
            }
            text.push_str(&fill(&heading(words, about), "    "));
            text.push_str(&fill(&answer(about), "        "));
            if let Ending::Delayed { retry_until } = about.ending {
                text.push_str(&fill(&words.retry_until.replace("{}", &retry_until.rfc5322()), "    "));
            }
            // Of a message that is only late nothing has to be done yet.
            if about.ending == Ending::Failed || about.ending == Ending::Expired {
                text.push_str(&fill((words.advice)(cause(about)), "    "));
            }
        }
    }
    text
}

fn address_line(about: &Reported<'_>) -> String {
    format!("<{}>", one_line(about.recipient.address.as_str(), 400))
}

/// Who said what follows: the peer by name, when it was the peer.
fn heading(words: &Words, about: &Reported<'_>) -> String {
    match (about.outcome.code, about.remote) {
        (Some(_), Some(remote)) => words.answered.replace("{}", &one_line(&remote.name, 255)),
        _ => words.no_answer.to_owned(),
    }
}

fn answer(about: &Reported<'_>) -> String {
    let text = one_line(&about.outcome.text, ANSWER_MAX);
    match about.outcome.code {
        Some(code) if has_own_status(about.outcome) => format!("{code} {} {text}", about.outcome.status),
        Some(code) => format!("{code} {text}"),
        None => text,
    }
}
