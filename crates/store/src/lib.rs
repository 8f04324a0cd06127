//! The store: content segments, queue and outbox on stable storage. It is what makes a `250` true.
//!
//! One data model (message 1–n delivery 1–n recipient, and an outbox of events), behind [`Store`]. Two engines: the
//! embedded one keeps rows in SQLite and content in append-only segment files, and this is the only crate that opens
//! `queue.db`; the one for clusters keeps both in PostgreSQL, where all nodes work on them (ADR-0016).
//!
//! The way of a message: [`Store::sink`] takes its content while the session receives it, [`Store::admit`] puts content
//! and envelope on stable storage, the driver delivers what admit handed back (or what [`Store::page`] finds later), and
//! [`Store::settle`] records what became of it, with reports as new messages in the same commit.

mod codec;
mod config;
mod content;
mod error;
mod filter;
mod health;
mod lock;
mod memory;
mod model;
mod notes;
mod objects;
mod operate;
mod outbox;
mod room;
mod settle;
mod store;
pub mod transfer;

mod pg;
mod sqlite;

pub use config::{Config, Fence, PostgresConfig};
pub use content::{Content, ContentRef, FileContent, Sealed, Sink};
pub use error::{NoRoom, StoreError};
pub use filter::{Action, Changed, ChangedDelivery, QueueEntry, QueueFilter};
pub use memory::{MemoryBudget, MemoryGuard};
pub use model::{
    Admission, Admitted, BackupReport, Counts, Damage, Dedupe, Horizon, Latency, NewDelivery, NewState, Next,
    ObjectStats, PendingRecipient, QueueStats, Recovery, RestoreReport, Settled, Settlement, Stats,
    VerifyReport, Waiting,
};
pub use objects::{Objects, ObjectsConfig};
pub use pg::{Hand, hands};
pub use store::Store;
