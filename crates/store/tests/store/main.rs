//! Tests of the store through its API: a conformance suite that every engine has to pass, a comparison with a model, and
//! what disks and crashes do to the embedded engine.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backup;
mod cluster;
mod common;
mod compaction;
mod conformance;
mod crash;
mod damage;
mod disk;
mod faults;
mod model;
mod scale;
mod versions;
