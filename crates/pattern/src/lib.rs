//! What is known of the world's mail systems is data: files in TOML that hold patterns over replies. This crate has what
//! those files have in common, whatever they say about a reply that matches: the patterns ([`ReplyPattern`]), and a
//! reader that tells of each mistake the line and the nearest right name ([`Table`]).
//!
//! `schedule` reads what providers allow and what their replies ask for, `report` what a failure was about.

mod data;
mod duration;
mod reply;

pub use data::{DataError, Items, Table, meant};
pub use duration::{duration_said, parse_duration};
pub use reply::{ReplyPattern, ReplyText};
