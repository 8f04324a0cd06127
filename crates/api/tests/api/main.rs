//! The management API over real stores: what it answers, what it refuses, and who may ask.

#![allow(clippy::unwrap_used, reason = "tests")]

mod accounts;
mod cluster;
mod common;
mod hostile;
mod queue;
mod rules;
mod serving;
