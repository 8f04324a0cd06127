//! Sender rewriting against the real postsrsd: each turns back what the other has made. A neighbour that is missing is a
//! failure that names its Debian package.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as tests do")]

mod postsrsd;
