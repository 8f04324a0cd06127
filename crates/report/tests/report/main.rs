//! Reports as their readers see them.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod classes;
mod inbound;
mod mime;
mod parses;
mod python;
mod sample;
mod snapshots;
mod tls;
