//! NOTIFY, as a hint.

/// What a [`Listener`] heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody notified.
    Notification {
        /// On this channel.
        channel: String,
        /// With this text.
        payload: String,
    },
    /// The connection is new, or too much came at once: anything may have been missed. Look at the truth.
    Missed,
}

/// Hears what is notified, and connects again when it must. Dropping it ends it.
pub struct Listener {}

impl Listener {
    /// Waits for the next hint. The first is always [`Heard::Missed`]. Safe to drop and call again.
    pub async fn next(&mut self) -> Heard {
        todo!()
    }
}
