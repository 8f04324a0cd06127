//! What became of every message: events copied out of the store's outbox into the history, and the timelines that
//! `posthouse trace` reads from it.
//!
//! A message that went through at the first attempt is one compact row. Everything else (retries, refusals, reports,
//! what operators did) is one event row each. Two engines keep them: files of a day each, dropped whole at retention
//! (`embedded`), and partitions of a day each in PostgreSQL, shared by the nodes of a cluster (`pg`). Loss of history
//! never stops the relay.
//!
//! `drain` copies the outbox; `record` is what the rows hold; `key` how messages are found by address; `query` what can
//! be asked and `timeline` how a message's story is put together; `raw` carries rows from one engine to the other.

mod batch;
mod day;
mod drain;
mod embedded;
mod error;
mod history;
mod key;
mod pg;
mod query;
mod raw;
mod record;
mod timeline;
mod trust;
mod view;

pub use drain::{OutboxSource, drain};
pub use error::HistoryError;
pub use history::{Config, History, MaySweep, Stats};
pub use query::TraceQuery;
pub use raw::{Mark, Raw, Record};
pub use timeline::End;
pub use view::{AcceptedView, AttemptView, OutcomeView, RecipientView, Step, Timeline, What};
