//! What became of every message: events copied out of the store's outbox into files that are dropped whole at
//! retention, and the timelines that `posthouse trace` reads from them.
//!
//! A message that went through at the first attempt is one compact row. Everything else (retries, refusals, reports,
//! what operators did) is one event row each. Loss of history never stops the relay: a damaged file is set aside with
//! a loud log line.
//!
//! `drain` copies the outbox; `writer` owns the files; `file` is one of them, with `record` (what its rows hold) and
//! `index` (how messages are found by address); `query` finds messages and `timeline` puts their stories together.

mod backup;
mod carry;
mod drain;
mod error;
mod file;
mod files;
mod history;
mod index;
mod query;
mod record;
mod timeline;
mod view;
mod writer;

pub use drain::{OutboxSource, drain};
pub use error::HistoryError;
pub use history::{Config, History, Stats};
pub use query::TraceQuery;
pub use timeline::End;
pub use view::{AcceptedView, AttemptView, OutcomeView, RecipientView, Step, Timeline, What};
