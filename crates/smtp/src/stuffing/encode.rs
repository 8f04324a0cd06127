//! Puts dots on: what goes out by DATA.
