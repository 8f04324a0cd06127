//! Listeners with a real store behind them and real connections in front.

mod limits;
mod relay;
mod sessions;
mod shutdown;
mod tls;
mod wire;
