//! Deliveries to peers of all kinds: peers written here that do what no server should, and the real neighbours
//! (Postfix's smtp-sink, Dovecot's LMTP server, Knot for the DNS). A neighbour that is missing is a failure that names
//! its Debian package.

#![allow(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

mod access_tokens;
mod callout;
mod chunks;
mod content;
mod dead_hosts;
mod dovecot;
mod exchangers;
mod failover;
mod files;
mod odd_peers;
mod peer;
mod permit;
mod postfix;
mod reuse;
mod sink;
mod sites;
mod smart_hosts;
mod smart_order;
mod sources;
mod support;
mod tls;
mod token_server;
mod transactions;
