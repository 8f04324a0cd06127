//! What every engine on PostgreSQL shares: connections to the server that takes writes, the rule by which a commit
//! counts, numbered migrations, and the guard that refuses a server which could lose what it acknowledged.
//!
//! The rule, learned by breaking it: a commit that waits for a standby and is cancelled reports *success* with a
//! warning. So any notice while committing is a failure, nothing here ever cancels, a time-out drops the
//! connection, and every transaction writes, because one that does not waits for no standby.

mod commit;
mod config;
mod connect;
mod error;
mod guard;
mod listen;
mod migrate;
mod pool;
mod session;
mod stats;
#[cfg(feature = "test-server")]
pub mod test;
mod tls;
mod url;
mod writer;

pub use config::{Config, Durability};
pub use error::{CommitError, PgError};
pub use listen::{Heard, Listener};
pub use migrate::migrate;
pub use pool::Pool;
pub use session::{Session, Tx};
pub use stats::{PoolStats, Replication, Standby};
pub use tokio_postgres::{Row, types};
