//! The full form: a world for each way to fail.

mod engines;
mod limits;
mod relays;
