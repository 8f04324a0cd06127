//! Black-box scenarios, one a file.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]
