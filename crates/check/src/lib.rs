//! Who may do what. Pure decisions over a snapshot of config and directory, so that `explain` asks the very functions
//! that the live pipeline asks; and the back-off for wrong passwords.
//!
//! A session asks in this order: [`authorise::login`] after a right password, [`authorise::sender`] at MAIL,
//! [`authorise::recipient`] at RCPT (and [`authorise::called`] when that says to ask the destination first), and
//! [`author::check`] once the header section is there.

pub mod author;
pub mod authorise;
mod backoff;
mod callout;
mod policy;

pub use authorise::{Access, Client, Passage};
pub use backoff::Backoff;
pub use callout::{Cached, Callout, CalloutCache};
pub use policy::{ListError, LocalRecipients, Mode, Policy, RecipientList, RelayNetwork};
