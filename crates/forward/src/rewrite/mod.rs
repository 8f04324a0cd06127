//! Aliases and address rewriting: which recipients an envelope turns into. Pure data and one function, so that a session
//! that asks "is there such a recipient", the admission of a message and `explain` can't give different answers.
//!
//! For one address the first of these that matches counts: the organisation's aliases for that address, its catch-all for
//! the domain, its patterns in order; then the same of the whole relay. What comes out is looked at again, until nothing
//! matches. That always ends:
//!
//! - an alias that names itself (`a → a, b`) keeps itself;
//! - one that leads back to an earlier one is left out there and told of ([`Expansion::problems`]); where nothing else is
//!   left, the recipient is refused;
//! - a pattern is used once on the way from a recipient, even if it matches its own result;
//! - depth and number of recipients are limited; what goes over is refused whole, never in part.

mod dsn;
mod expand;
mod rules;
mod template;
mod walk;

pub use expand::{Expanded, Expansion, Opened, Refused, Rewriter};
pub use rules::{Alias, AliasFrom, AliasTo, Rewrite, RuleError, Rules};
