//! The crate against a real PostgreSQL.

mod commit;
mod failover;
mod login;
mod pool;
mod server;
