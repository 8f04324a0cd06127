//! The rules of the crate `postgres` under fire: a real cluster whose engines, agents and machines are killed, frozen and cut off
//! while clients commit through the pool. What was acknowledged has to be there afterwards, always; and the cluster has to be
//! of use again in time, by itself.
//!
//! `short` runs with every `cargo xtask test`, `full` with `cargo xtask cluster-test`.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod full;
mod journal;
mod short;
mod world;
mod writer;
