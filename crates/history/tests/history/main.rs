//! The history as the relay uses it: appended to in batches, asked by every key, restarted, damaged, dropped.

#![allow(clippy::unwrap_used, reason = "tests")]

mod backup;
mod common;
mod draining;
mod engine;
mod faults;
mod model;
mod postgres;
mod retention;
mod tracing;
mod transfer;
