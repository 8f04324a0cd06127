//! The rule of a commit.
