//! The cluster: a simulator of many small worlds for what is pure, and nodes on a real PostgreSQL for the rest.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod borrow;
mod nodes;
mod simulation;
mod still;
mod world;
