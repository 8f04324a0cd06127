//! Black-box scenarios, one a file.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod acme;
mod auth;
mod clients;
mod clock;
mod damage;
mod disk_full;
mod drain;
mod durable;
mod eio;
mod isolation;
mod kill9;
mod lost_reply;
mod mdaemon;
mod mx;
mod next_hops;
mod open_relay;
mod operate;
mod power_cut;
mod proxies;
mod quickstart;
mod reload;
mod reports;
mod resources;
mod second_process;
mod service;
mod smarthost;
mod smuggling;
mod starttls;
mod startup;
