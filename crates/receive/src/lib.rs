//! Listeners that drive SMTP's server session into check and admit.
//!
//! [`serve`] accepts connections; each is a task that feeds [`smtp::server::Session`], streams content into the store
//! and asks the [`Backend`] what it cannot decide itself.

mod alarm;
mod auth;
mod backend;
mod connection;
mod header;
mod intake;
mod limits;
mod local;
mod meters;
mod policy;
mod received;
mod serve;
mod wire;

pub use backend::{AuthAnswer, AuthAsk, Backend, Client, Identity, MailAsk, RcptAsk, Submission};
pub use limits::{Connections, Counted, TooMany};
pub use local::LocalMessage;
pub use policy::{BareNewline, Limits, ListenerConfig, Mode, Policy};
pub use serve::serve;
