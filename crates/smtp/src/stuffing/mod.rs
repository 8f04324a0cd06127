//! Dot-stuffing (RFC 5321 section 4.5.2): taken off what comes in, put on what goes out.

pub mod decode;
pub mod encode;
