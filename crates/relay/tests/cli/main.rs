//! The program as a person uses it: commands on a running relay and on a stopped one, what they print, how they exit.

#![allow(clippy::unwrap_used, reason = "tests")]

mod accounts;
mod check;
mod cluster;
mod common;
mod config;
mod operate;
mod outgoing;
mod quickstart;
mod sendmail;
mod stops;
