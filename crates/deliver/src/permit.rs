//! Whether this node may complete what it has begun.

use std::fmt;
use std::sync::Arc;

use mail::{Disposition, EnhancedStatus, Outcome};

/// Asked right before a message becomes the peer's: before its final dot, the chunk that completes it, or the rename into a
/// mailbox. A node of a cluster that has heard nothing of the others for too long must not complete anything, as another
/// may be delivering the same message by then.
#[derive(Clone, Default)]
pub struct Permit(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Permit {
    /// Always given: there is only one node.
    pub fn always() -> Self {
        Self(None)
    }

    /// Given while `ask` says so. It is called for every message and must be quick.
    pub fn when(ask: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }

    /// Whether it is given now.
    pub fn is_given(&self) -> bool {
        self.0.as_ref().is_none_or(|ask| ask())
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.is_given()).finish()
    }
}

/// What became of recipients for whom the permit was missing: the peer was not given the message.
pub fn withheld() -> Outcome {
    let text = "not completed, as this node had lost touch with its cluster";
    Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 3, 2), text)
}
