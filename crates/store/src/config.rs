//! What the operator decides about the store.

use std::path::PathBuf;

use crate::memory::MemoryBudget;

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
            node: 0,
        }
    }
}
