//! What the operator says about the server.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Who answers for it that an acknowledged commit is on two machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// We look: fsync, full_page_writes, synchronous_commit and synchronous_standby_names are checked when a
    /// connection opens, and the standby names again at every commit.
    #[default]
    Checked,
    /// Whoever runs the server, by other means than PostgreSQL's own (Aurora, Neon, a replicated volume). Only
    /// `synchronous_commit` is checked: it must not be `off`.
    Provider,
}

/// How to reach PostgreSQL.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// `postgres://user:password@host1:5432,host2/database?sslmode=…`. With several hosts the one that takes writes
    /// is found and, after a fail-over, found again. Over a network the certificate is verified unless `sslmode`
    /// says less; a host that starts with `/` (written `%2F`) is the directory of a Unix socket.
    pub url: String,
    /// More roots to verify the server's certificate by, in PEM; those of the system and of the URL's `sslrootcert`
    /// apart.
    pub ca_file: Option<PathBuf>,
    /// How many connections at most.
    pub pool: usize,
    /// Who answers for the durability.
    pub durability: Durability,
    /// How long a commit is tried during a fail-over before it is given up.
    pub hold: Duration,
    /// What `pg_stat_activity` shows.
    pub application_name: String,
}

impl Config {
    /// The defaults: 16 connections, durability checked, one minute of hold.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            pool: 16,
            durability: Durability::Checked,
            hold: Duration::from_secs(60),
            application_name: "posthouse".to_owned(),
        }
    }
}

/// Without the URL: there may be a password in it.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("pool", &self.pool)
            .field("durability", &self.durability)
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}
