//! SMTP without I/O: grammar, replies, the server and client sessions, SASL, dot-stuffing.
//!
//! Nothing here reads a socket, a clock or a file. A session is fed with octets, answers with octets and asks its
//! driver what it cannot know itself.

pub mod client;
pub mod grammar;
pub mod reply;
pub mod sasl;
pub mod server;
pub mod stuffing;
