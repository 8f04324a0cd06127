//! What the operator decides about the store.

use std::collections::BTreeSet;
use std::path::PathBuf;

use mail::DeliveryId;

use crate::memory::MemoryBudget;
use crate::objects::Objects;

/// Which node of a cluster writes, and which of its lives: what every commit is fenced by. A node that has been taken
/// for dead gets a higher epoch; what it still writes with the old one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence {
    /// The node's number, up to 1023; it stands in its message ids as well.
    pub node: u16,
    /// Counts the lives of the node, from 1.
    pub epoch: i64,
}

/// Configuration of the store in PostgreSQL, which the nodes of a cluster share.
#[derive(Clone)]
pub struct PostgresConfig {
    /// Connections to the server that takes writes. The queue uses few: one to write with, some to read with.
    pub pool: postgres::Pool,
    /// Which node this is.
    pub fence: Fence,
    /// A directory of this node alone, for content on its way that is too large for memory. Made with mode 0700 if it
    /// does not exist; what is in it is worth nothing after a restart.
    pub spool: PathBuf,
    /// Where message buffers take their memory from; shared with whoever else buffers messages.
    pub memory: MemoryBudget,
    /// Bytes of the spool's file system that are left alone: below it nothing new is accepted.
    pub disk_reserve: u64,
    /// A delivery that was being attempted in this many unclean ends of nodes in a row is held.
    pub crashes_max: u32,
    /// As in [`Config::attempted`]. Who takes over from another node does not know it, and suspects all that was in hand.
    pub attempted: Option<BTreeSet<DeliveryId>>,
    /// Where large content goes. All nodes need the same: what one has put there another reads.
    pub objects: Option<Objects>,
}

impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("fence", &self.fence)
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

impl PostgresConfig {
    /// The defaults: 256 MiB of memory, 256 MiB of disk reserve, three crashes.
    pub fn new(pool: postgres::Pool, fence: Fence, spool: impl Into<PathBuf>) -> Self {
        Self {
            pool,
            fence,
            spool: spool.into(),
            memory: MemoryBudget::new(256 << 20),
            disk_reserve: 256 << 20,
            crashes_max: 3,
            attempted: None,
            objects: None,
        }
    }
}

/// Configuration of the embedded store.
#[derive(Clone, Debug)]
pub struct Config {
    /// `data_dir`: made with mode 0700 if it does not exist.
    pub dir: PathBuf,
    /// Where message buffers take their memory from; shared with whoever else buffers messages.
    pub memory: MemoryBudget,
    /// Bytes of the file system that are left alone: below it nothing new is accepted. One per cent of the inodes is
    /// kept as well.
    pub disk_reserve: u64,
    /// A content segment is closed once it has this many bytes.
    pub segment_size: u64,
    /// A delivery that was active in this many unclean stops in a row is held.
    pub crashes_max: u32,
    /// What the last process was attempting when it ended, where that is known: after an unclean stop only these are
    /// counted, and whatever else was active is acquitted.
    pub attempted: Option<BTreeSet<DeliveryId>>,
    /// The node's number in its ids (0 when there is no cluster).
    pub node: u16,
}

impl Config {
    /// The defaults for a data directory: 256 MiB of memory, 256 MiB of disk reserve, segments of 64 MiB, three crashes.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            memory: MemoryBudget::new(256 << 20),
            disk_reserve: 256 << 20,
            segment_size: 64 << 20,
            crashes_max: 3,
            attempted: None,
            node: 0,
        }
    }
}
