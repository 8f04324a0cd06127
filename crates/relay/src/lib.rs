//! Posthouse, the program: configuration, command line, wiring and the pipeline that chains the stages.

pub mod config;
