//! Client session.
