//! Outcomes that no reply speaks of.

use mail::{Disposition, EnhancedStatus, Outcome};

use crate::client::{Lost, Wait};

/// What was being done when the connection got lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Waiting(Wait),
    SendingContent,
}

/// The peer does not know SMTPUTF8 (RFC 6531 section 3.4) and an address or a header field needs it.
pub(super) fn no_utf8() -> Outcome {
    let text = "the next hop does not support internationalised email (SMTPUTF8), which this message or address needs";
    Outcome::own(Disposition::Refused, EnhancedStatus::new(5, 6, 7), text)
}

/// The peer does not know 8BITMIME (RFC 6152) and the content has octets over 127.
pub(super) fn no_eight_bit() -> Outcome {
    let text = "the next hop takes only 7-bit mail (no 8BITMIME), and this message has 8-bit content";
    Outcome::own(Disposition::Refused, EnhancedStatus::new(5, 6, 3), text)
}

/// The sender wants TLS all the way, and the peer does not promise to see to it (RFC 8689 section 4.2.1).
pub(super) fn no_require_tls() -> Outcome {
    let text = "the sender requires TLS all the way (REQUIRETLS), and the next hop does not support that";
    Outcome::own(Disposition::Refused, EnhancedStatus::new(5, 7, 30), text)
}

/// The message is larger than the peer takes (RFC 1870).
pub(super) fn too_big(size: u64, limit: u64) -> Outcome {
    let text = format!("the message has {size} octets, the next hop takes no more than {limit}");
    Outcome::own(Disposition::Refused, EnhancedStatus::new(5, 3, 4), text)
}

/// The connection is lost. After the final dot (`may_have_it`) the peer may have the message or not; it is sent again, as a message
/// twice is better than none (RFC 1047).
pub(super) fn lost(lost: &Lost, doing: Doing, may_have_it: bool) -> Outcome {
    let what = match doing {
        Doing::Waiting(wait) => format!("while we waited for {}", wait.words()),
        Doing::SendingContent => "while the message was being sent".into(),
    };
    let mut text = match lost {
        Lost::Closed => format!("the peer closed the connection {what}"),
        Lost::TimedOut(after) => format!("the peer was silent for {} s {what}", after.as_secs_f32()),
        Lost::Broken(error) => format!("the connection broke {what}: {error}"),
        Lost::Fault(fault) => format!("{fault}, {what}"),
    };
    if may_have_it {
        text.push_str("; it may have the message nevertheless, which is then sent to it a second time");
    }
    let status = match lost {
        Lost::Fault(_) => EnhancedStatus::new(4, 5, 0),
        _ => EnhancedStatus::new(4, 4, 2),
    };
    Outcome::own(Disposition::Deferred, status, text)
}
