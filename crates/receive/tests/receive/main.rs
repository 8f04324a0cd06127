//! Listeners with a real store behind them and real connections in front.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod limits;
mod relay;
mod sessions;
mod shutdown;
mod tls;
mod wire;
