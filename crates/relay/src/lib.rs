//! Posthouse, the program: configuration, command line, wiring and the pipeline that chains the stages.

mod backup;
mod check;
pub mod cli;
pub mod config;
mod driver;
mod migrate;
mod pipeline;
mod plan;
mod replies;
mod service;
