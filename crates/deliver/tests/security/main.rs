//! How connections to mail exchangers are protected: DANE with zones that Knot signs and Unbound validates, MTA-STS with a
//! real web server, the operator's rules, REQUIRETLS and `TLS-Required: No`, and what is counted for TLS reports.

#![allow(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

mod dane;
mod mta_sts;
#[allow(dead_code, reason = "the other deliveries use the rest")]
#[path = "../deliveries/peer.rs"]
mod peer;
mod require_tls;
#[allow(dead_code, reason = "the other deliveries use the rest")]
#[path = "../deliveries/support.rs"]
mod rig;
mod rules;
#[path = "../../../net/tests/neighbours/signed.rs"]
mod signed;
#[allow(dead_code, reason = "the tests of the network use the rest")]
#[path = "../../../net/tests/neighbours/support.rs"]
mod support;
#[allow(dead_code, reason = "the other deliveries use it")]
#[path = "../deliveries/token_server.rs"]
mod token_server;
#[path = "../../../net/tests/neighbours/web.rs"]
mod web;
mod world;
