//! Replays the dialogues in `tests/dialogues/` on a server session, whole and cut at every octet, and holds the
//! session against what an attacker can do with the place where input is cut.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dialogue;
mod driver;
mod splits;
