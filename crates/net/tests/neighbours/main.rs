//! The network code against the real neighbours: Knot and Unbound for the DNS, Pebble for ACME, microsocks and HAProxy
//! for proxies, systemd for socket activation. A neighbour that is missing is a failure that names its Debian package.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as tests do")]

mod acme;
mod activation;
mod balancer;
mod dns;
mod dnssec;
mod egress;
mod exhaustion;
mod openssl;
mod reload;
mod signed;
mod sts;
mod support;
mod web;
