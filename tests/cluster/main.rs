//! A real PostgreSQL cluster whose engines, agents and machines are killed, frozen and cut off, under two kinds of clients: of the
//! crate `postgres` (`short`, `full`), and of whole relays that stand before it (`nodes`). What was acknowledged has to be there
//! afterwards, always; and everything has to be of use again in time, by itself.
//!
//! What is called `short` runs with every `cargo xtask test`, what is called `full` with `cargo xtask cluster-test`, which prints
//! `figures` when it is asked to.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod full;
mod journal;
mod nodes;
mod short;
mod world;
mod writer;
