//! Delivery: connect, drive the SMTP client session, write to a Maildir; outcomes as values.
//!
//! ```text
//!  Engine ──link(destination)──► Link ──attempt(job)──► Attempt: an outcome for every recipient
//!                                 │
//!            target: where to ────┼──── open: connect, TLS, EHLO, AUTH ──── transact: envelope and content
//!                                 └──── maildir, discard
//! ```
//!
//! A [`Link`] keeps its connection between attempts, so that a queue's messages go one behind the other over the same
//! connection. Nothing here decides about retries or reports: that is the driver's business.

mod callout;
mod engine;
mod error;
mod link;
mod maildir;
mod open;
mod probe;
mod settings;
mod target;
mod transact;
mod way;
mod wire;

pub use callout::{CalloutAnswer, callout};
pub use engine::{Engine, EngineConfig};
pub use link::{Job, Link};
pub use probe::{ProbeReport, ProbeStep, probe};
pub use settings::{Settings, SmartHost, SmartHostTls, SmartHostTlsError, Timeouts};
