//! When the sender of forwarded mail is rewritten.
//!
//! SPF (RFC 7208) asks whether the sender's domain lets this host send for it. For mail that came from elsewhere and is
//! sent on elsewhere it does not, so its sender is rewritten. All other mail keeps the sender that it has: rewriting what
//! needs it not would only cost the recipient the truth.

use mail::{Address, Timestamp};

use crate::srs::{Srs, SrsError};

/// Decides whether a sender is rewritten.
#[derive(Clone, Debug)]
pub struct SrsPolicy(Srs);

/// What is known of mail to one recipient.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The envelope's sender; none is the null sender.
    pub sender: Option<&'a Address>,
    /// The sender's domain is one that this relay may send for: of the organisation, or let by its credential.
    pub sender_is_ours: bool,
    /// An alias or a rewriting made this recipient.
    pub forwarded: bool,
    /// The recipient's mail stays with us: its destination is a mailbox or a server of ours, not the MX of a stranger.
    pub recipient_is_local: bool,
}

/// What becomes of the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderDecision {
    /// It stays as it is.
    Keep,
    /// It would have been rewritten but could not be, and stays as it is: bounces reach it, SPF may fail.
    KeepUnfit(SrsError),
    /// This one instead.
    Rewrite(Address),
}

impl SrsPolicy {
    /// Rewrites with `srs`.
    pub fn new(srs: Srs) -> Self {
        Self(srs)
    }

    /// The scheme that it rewrites with.
    pub fn srs(&self) -> &Srs {
        &self.0
    }

    /// What becomes of the sender on the way to one recipient.
    pub fn decide(&self, mail: Forwarding<'_>, now: Timestamp) -> SenderDecision {
        let Some(sender) = mail.sender else { return SenderDecision::Keep };
        let ours = mail.sender_is_ours || sender.domain() == self.0.domain();
        if !mail.forwarded || mail.recipient_is_local || ours {
            return SenderDecision::Keep;
        }
        match self.0.forward(sender, now) {
            Ok(rewritten) => SenderDecision::Rewrite(rewritten),
            Err(error) => SenderDecision::KeepUnfit(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

    #[test]
    fn only_mail_from_strangers_to_strangers_by_an_alias_is_rewritten() {
        let policy = SrsPolicy::new(Srs::new("srs.example.net", Keys::make().unwrap()).unwrap());
        let now = Timestamp(1_795_500_000_000);
        let sender = Address::parse("alice@elsewhere.example").unwrap();
        let asked = Forwarding {
            sender: Some(&sender),
            sender_is_ours: false,
            forwarded: true,
            recipient_is_local: false,
        };
        let SenderDecision::Rewrite(rewritten) = policy.decide(asked, now) else { panic!("not rewritten") };
        assert_eq!(policy.srs().reverse(&rewritten, now), Ok(sender.clone()));
        for kept in [
            Forwarding { sender: None, ..asked },
            Forwarding { sender_is_ours: true, ..asked },
            Forwarding { forwarded: false, ..asked },
            Forwarding { recipient_is_local: true, ..asked },
            Forwarding { sender: Some(&rewritten), ..asked },
        ] {
            assert_eq!(policy.decide(kept, now), SenderDecision::Keep, "{kept:?}");
        }
        let long = Address::parse(&format!("{}@elsewhere.example", "a".repeat(50))).unwrap();
        let long = Forwarding { sender: Some(&long), ..asked };
        assert_eq!(policy.decide(long, now), SenderDecision::KeepUnfit(SrsError::TooLong));
    }
}
