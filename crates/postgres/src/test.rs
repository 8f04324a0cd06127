//! A throwaway server for tests: one for each test process, deleted when the process ends, however it ends.

use crate::Config;

/// A PostgreSQL server that belongs to this process.
pub struct Server {}

impl Server {
    /// The one server of this process; started when first asked for.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start; the text says what to do.
    pub fn shared() -> &'static Self {
        todo!()
    }

    /// A fresh empty database on it; durability is [`Provider`](crate::Durability::Provider).
    ///
    /// # Panics
    /// When the server does not make it.
    pub fn database(&self) -> Config {
        todo!()
    }
}
