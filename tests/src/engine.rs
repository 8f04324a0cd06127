//! The two stores that a relay may have, and tests that hold on both: one function, two tests.

use crate::neighbours::postgres::Postgres;
use crate::relay::{Builder, Relay};

/// What the relays of a test keep their mail in.
pub enum Engine {
    /// Files of their own.
    Embedded,
    /// A PostgreSQL server, in which each relay has a database.
    Postgres(Box<Postgres>),
}

/// What the server's configuration ends in: durable, and no larger than a test needs. Its vacuum has nothing to wait for.
pub const SETTINGS: &str = "fsync = on\nfull_page_writes = on\nshared_buffers = 32MB\nmax_connections = 100\n\
                            min_wal_size = 8MB\nmax_wal_size = 128MB\nautovacuum_naptime = 5s";

impl Engine {
    /// A PostgreSQL server, started for this test.
    pub fn postgres() -> Self {
        Self::Postgres(Box::new(Postgres::start(SETTINGS)))
    }

    /// Whether it is files of the relay's own.
    pub fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded)
    }

    /// A relay that keeps its mail there, apart from that of all others.
    pub fn relay(&self) -> Builder {
        match self {
            Self::Embedded => Relay::builder(),
            Self::Postgres(server) => Relay::builder().postgres(&server.database().1),
        }
    }

    /// Such a relay that sends everything to `to`.
    #[track_caller]
    pub fn routed_to(&self, to: &str) -> Relay {
        self.relay().route(&[], to).start()
    }
}

/// Makes two tests of each function that takes an [`Engine`]: `embedded::NAME` and `postgres::NAME`.
#[macro_export]
macro_rules! on_both_engines {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[test]
            fn $test() {
                super::$test(&$crate::engine::Engine::Embedded);
            })+
        }
        mod postgres {
            $(#[test]
            fn $test() {
                $crate::needs!("postgres", "setpriv");
                super::$test(&$crate::engine::Engine::postgres());
            })+
        }
    };
}
