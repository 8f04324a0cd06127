//! The scheduler against a world that behaves like the driver, the store and the sites: with random events, and
//! through days of mail.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod bank;
mod cases;
mod model;
mod nodes;
mod property;
mod seeds;
mod sharing;
mod simulation;
mod store;
mod world;
