//! What a failure is about, for people: a handful of causes, each with advice, told from the status code and nothing else.

use mail::EnhancedStatus;

use crate::compose::{Ending, Reported};

/// Why it is not delivered, as far as the sender can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No such mailbox.
    NoSuchMailbox,
    /// The domain does not exist, or takes no mail.
    NoSuchDomain,
    /// The mailbox takes nothing at the moment, or is closed.
    MailboxDisabled,
    /// The mailbox is full, or the server is.
    MailboxFull,
    /// The message is too large for it.
    TooLarge,
    /// No server could be reached.
    Unreachable,
    /// The message goes round in circles.
    Loop,
    /// It was given up for its age.
    TooOld,
    /// The other side can't take addresses or content in this form.
    Unsupported,
    /// The other side does not want it: policy, reputation, content.
    Policy,
    /// The sender's address was not accepted.
    Sender,
    /// A secure connection was needed and could not be had.
    Security,
    /// The other side asks for a slower pace.
    Busy,
    /// Nothing more is known.
    Unknown,
}

/// The cause behind an outcome (RFC 3463 section 3; the IANA registry of enhanced status codes).
pub(crate) fn cause(about: &Reported<'_>) -> Cause {
    match about.ending {
        Ending::Expired => Cause::TooOld,
        _ => of_status(about.outcome.status),
    }
}

fn of_status(status: EnhancedStatus) -> Cause {
    match (status.subject, status.detail) {
        (1, 1 | 6 | 3 | 4) | (2, 0) => Cause::NoSuchMailbox,
        (1, 2 | 10) => Cause::NoSuchDomain,
        (1, 7 | 8) => Cause::Sender,
        (2, 1) => Cause::MailboxDisabled,
        (2, 2) | (3, 1) => Cause::MailboxFull,
        (2, 3) | (3, 4) => Cause::TooLarge,
        (3, 2 | 5) | (4, 5) => Cause::Busy,
        (4, 1..=4) => Cause::Unreachable,
        (4, 6) => Cause::Loop,
        (4, 7) => Cause::TooOld,
        (5, 6) | (6, 1 | 3 | 7 | 8 | 9) => Cause::Unsupported,
        (7, 10) | (7, 4) => Cause::Security,
        (7, _) => Cause::Policy,
        _ => Cause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_their_causes() {
        for (code, expected) in [
            ("5.1.1", Cause::NoSuchMailbox),
            ("5.1.10", Cause::NoSuchDomain),
            ("4.2.2", Cause::MailboxFull),
            ("5.3.4", Cause::TooLarge),
            ("4.4.1", Cause::Unreachable),
            ("5.4.6", Cause::Loop),
            ("5.6.7", Cause::Unsupported),
            ("5.7.26", Cause::Policy),
            ("5.0.0", Cause::Unknown),
        ] {
            assert_eq!(of_status(code.parse().unwrap()), expected, "{code}");
        }
    }
}
