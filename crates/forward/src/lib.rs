//! Forwarding: sender rewriting, signed return paths, aliases and address rewriting. Pure.
