//! Forwarding: whom mail really goes to, and whom its bounces go to. Pure: no I/O, the time is handed in.
//!
//! - [`Rewriter`]: aliases, catch-alls and address rewriting; which recipients an envelope turns into.
//! - [`Srs`]: the Sender Rewriting Scheme, so that forwarded mail passes SPF and its bounces find their way back.
//! - [`ReturnPaths`]: signed return paths, so that a late bounce is matched to its message and a forged one is not.
//! - [`Keys`]: the secrets that both are signed with, several at a time so that they can be changed.

mod keys;
mod mac;
mod policy;
mod rewrite;
mod srs;
mod verp;

pub use keys::{Keys, KeysError};
pub use policy::{Forwarding, SenderDecision, SrsPolicy};
pub use rewrite::{
    Alias, AliasFrom, AliasTo, Expanded, Expansion, Opened, Refused, Rewrite, Rewriter, RuleError, Rules,
};
pub use srs::{Srs, SrsError};
pub use verp::{ReturnPath, ReturnPaths, VerpError};
