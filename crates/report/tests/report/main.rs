//! Reports as their readers see them.

mod mime;
mod parses;
mod python;
mod sample;
mod snapshots;
