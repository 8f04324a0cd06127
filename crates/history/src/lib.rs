//! What became of every message: events copied out of the store's outbox into files that are dropped whole at
//! retention, and the timelines that `posthouse trace` reads from them.
//!
//! A message that went through at the first attempt is one compact row. Everything else (retries, refusals, reports,
//! what operators did) is one event row each. Loss of history never stops the relay: a damaged file is set aside with
//! a loud log line.

mod error;
mod history;
mod query;
mod timeline;

pub use error::HistoryError;
pub use history::{Config, History, Stats};
pub use query::TraceQuery;
pub use timeline::{End, RecipientTrace, Step, Timeline, What};
