//! Several nodes on one PostgreSQL: which of them live, what a dead one leaves, what only one may do, and limits
//! that all share.
//!
//! A node beats every two seconds; each beat is a commit. Whoever sees the same beat for eight seconds, by its own
//! monotonic clock and with every beat of its own succeeding meanwhile, declares the node dead: its epoch goes up,
//! and nothing that carries the old one counts any more. A node itself stops starting things and sends no final dot
//! six seconds after the start of its last good beat, so it has stopped before anybody takes over, frozen or not.

mod borrow;
mod error;
mod join;
mod lease;
mod member;
mod node;
mod observer;
mod role;
mod schema;
mod share;
mod still;
mod survey;

pub use borrow::{Borrow, Grant, Wish};
pub use error::ClusterError;
pub use lease::Lease;
pub use member::{Beats, Ended, Member, NodeConfig, Takeover};
pub use node::{Node, NodeState, Token, forget, nodes, set_draining};
pub use observer::{Observer, Sight};
pub use role::Elected;
pub use share::{Claim, fair_share, share};
pub use still::{beating, end_all};
pub use survey::{Holder, Survey, survey};

use std::time::Duration;

/// How often a node beats.
pub const BEAT: Duration = Duration::from_secs(2);
/// How long the same beat is seen before its node is declared dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(8);
/// How long a node may act on a beat, from the moment it was begun.
pub const LEASE: Duration = Duration::from_secs(6);
/// How long a node may use what it borrowed of a shared limit; see [`Borrow`].
pub const GRANT: Duration = Duration::from_secs(10);
