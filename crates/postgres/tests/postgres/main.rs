//! The crate against a real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod commit;
mod failover;
mod login;
mod pool;
mod server;
