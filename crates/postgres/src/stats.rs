//! What an operator sees of the way to PostgreSQL: connections, commits, how far the standbys are behind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::{PgError, Pool};

/// The standbys of the server that takes writes. Who may not see it sees the rows, and NULL in them.
const STANDBYS: &str = "SELECT application_name, state, sync_state, \
    pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint, extract(epoch FROM flush_lag)::float8 \
    FROM pg_stat_replication ORDER BY application_name";

/// What a pool has done since it was opened, and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Connections that are open, in use or not. A [`Listener`](crate::Listener)'s are not of the pool.
    pub open: u64,
    /// Those of them that are in use.
    pub busy: u64,
    /// Connections that were ever opened.
    pub opened: u64,
    /// Connections that went or were given up, in use or not.
    pub lost: u64,
    /// Commits that count.
    pub commits: u64,
    /// How long all of them took together, from COMMIT to the answer: what the standby takes.
    pub commit_time: Duration,
    /// The longest of them.
    pub commit_time_max: Duration,
    /// Tries to commit of which nobody could tell what became of them.
    pub unknown: u64,
    /// The server that took writes when a connection was last opened, as the URL names it; none while there is none.
    pub server: Option<String>,
}

/// A standby, as the server sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Standby {
    /// Its `application_name`, by which `synchronous_standby_names` knows it.
    pub name: String,
    /// `streaming`, `catchup`, …
    pub state: String,
    /// `sync` and `quorum`: commits wait for it; `potential`, `async`: they do not.
    pub sync_state: String,
    /// How many octets of log it has not on disk yet.
    pub lag_bytes: u64,
    /// How long ago what it has put on disk last was written here; none when nothing is on the way.
    pub lag: Option<Duration>,
}

impl Standby {
    /// Whether commits may wait for this one.
    pub fn is_sync(&self) -> bool {
        matches!(self.sync_state.as_str(), "sync" | "quorum")
    }
}

/// What the server tells about its standbys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replication {
    /// They, by name.
    pub standbys: Vec<Standby>,
    /// There are some of which this role may see nothing: `GRANT pg_monitor TO …`.
    pub hidden: u64,
}

/// Counted while the pool works.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) opened: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) unknown: AtomicU64,
    commits: AtomicU64,
    commit_nanos: AtomicU64,
    commit_nanos_max: AtomicU64,
}

impl Counters {
    /// A commit that counts took so long.
    pub(crate) fn committed(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Relaxed);
        self.commit_nanos.fetch_add(nanos, Relaxed);
        self.commit_nanos_max.fetch_max(nanos, Relaxed);
    }
}

impl Pool {
    /// What this pool has done, and how it stands. Costs nothing.
    pub fn stats(&self) -> PoolStats {
        let (busy, idle) = self.connections();
        let count = &self.0.counters;
        PoolStats {
            open: busy + idle,
            busy,
            opened: count.opened.load(Relaxed),
            lost: count.lost.load(Relaxed),
            commits: count.commits.load(Relaxed),
            commit_time: Duration::from_nanos(count.commit_nanos.load(Relaxed)),
            commit_time_max: Duration::from_nanos(count.commit_nanos_max.load(Relaxed)),
            unknown: count.unknown.load(Relaxed),
            server: self.0.writer.server(),
        }
    }

    /// How far the standbys are behind, by the server that takes writes.
    ///
    /// # Errors
    /// As for [`Pool::read`]; a provider may refuse the question ([`PgError::Bug`]).
    pub async fn replication(&self) -> Result<Replication, PgError> {
        let rows = self.read(|session| async move { session.query(STANDBYS, &[]).await }).await?;
        let mut all = Replication::default();
        for row in rows {
            let seen: (Option<String>, Option<String>, Option<String>) = (row.get(0), row.get(1), row.get(2));
            let (Some(name), Some(state), Some(sync_state)) = seen else {
                all.hidden += 1;
                continue;
            };
            let lag_bytes = u64::try_from(row.get::<_, Option<i64>>(3).unwrap_or(0)).unwrap_or(0);
            let lag = row.get::<_, Option<f64>>(4).and_then(|s| Duration::try_from_secs_f64(s).ok());
            all.standbys.push(Standby { name, state, sync_state, lag_bytes, lag });
        }
        Ok(all)
    }
}
