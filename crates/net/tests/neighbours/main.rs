//! The network code against the real neighbours: Knot and Unbound for the DNS, Pebble for ACME, systemd for socket
//! activation. A neighbour that is missing is a failure that names its Debian package.

mod acme;
mod activation;
mod dns;
mod exhaustion;
mod reload;
mod support;
