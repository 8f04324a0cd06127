//! What replies tell the scheduler: as the provider data read them ([`Judgement`]), as signals about a path, and as advice
//! about a recipient.

use std::sync::Arc;
use std::time::Duration;

/// What a reply says about the path it came by: about this source at this site, and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Too fast: a 421, or words of rate limiting. The path's window shrinks.
    Slow,
    /// This source is not wanted at this site for a while: the path is closed, and others of its pool take over.
    Suspend {
        /// For how long.
        path_for: Duration,
        /// Why, in words for operators.
        reason: Arc<str>,
    },
    /// The peer says that these are too many connections.
    Full {
        /// How many the path had, as far as the worker knows; 0 when it does not.
        connections: u32,
    },
}

/// What a reply advises for a recipient that was deferred or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Deferred, and to be tried again after this time: greylisting, as a rule. Only ever brings an attempt forward or
    /// puts it off to that time; lifetime and warning stay as they are.
    RetryAfter(Duration),
    /// Deferred by its code, but in truth it will never be taken: refused.
    Bounce,
    /// Refused by its code, but not for good: tried again as if deferred.
    KeepTrying,
}

/// What the provider data make of one reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What it says about the path.
    pub actions: Vec<Signal>,
    /// What it says about the recipient it was given for.
    pub advice: Option<Advice>,
}
