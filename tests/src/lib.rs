//! The harness of the black-box scenarios: the relay as a process, real mail programs beside it, and the
//! instruments that judge what arrived.
//!
//! Nothing in here but `fill` knows the relay's insides: it is configured by its file, spoken to over its ports and its command
//! line, killed by signals, and judged by what reaches the far end. Every process lives in a directory of its own on
//! high loopback ports and dies with the value that holds it.
#![allow(clippy::unwrap_used, reason = "a harness fails by panicking, with the place where it happened")]

pub mod client;
pub mod disk;
pub mod engine;
pub mod fill;
pub mod ledger;
pub mod letter;
pub mod neighbours;
pub mod process;
pub mod relay;
pub mod sink;
pub mod strace;
pub mod tls;
pub mod wait;

/// What a scenario needs on most of its lines.
pub mod prelude {
    pub use crate::client::{Reply, Smtp};
    pub use crate::engine::Engine;
    pub use crate::ledger::{Ledger, Pump};
    pub use crate::letter::Letter;
    pub use crate::process::Daemon;
    pub use crate::relay::Relay;
    pub use crate::sink::{Act, Received, Sink, Stage};
    pub use crate::wait::{eventually, free_port};
    pub use std::time::Duration;
}
