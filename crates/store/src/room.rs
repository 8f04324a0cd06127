//! Whether the disk has room for something new: asked of the kernel once a second, answered from memory, less what has
//! been written since.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statvfs::statvfs;

use crate::error::NoRoom;

/// One per cent of the inodes is kept.
const INODE_SHARE: u64 = 100;

#[derive(Debug)]
pub(crate) struct Room {
    dir: PathBuf,
    reserve: u64,
    free: AtomicU64,
    inodes: AtomicU64,
    inodes_total: AtomicU64,
    /// What had been written when the kernel was asked.
    written_then: AtomicU64,
}

impl Room {
    pub(crate) fn new(dir: &Path, reserve: u64) -> Self {
        let room = Self {
            dir: dir.to_owned(),
            reserve,
            free: AtomicU64::new(u64::MAX),
            inodes: AtomicU64::new(0),
            inodes_total: AtomicU64::new(0),
            written_then: AtomicU64::new(0),
        };
        room.refresh(0);
        room
    }

    /// Asks the kernel.
    pub(crate) fn refresh(&self, written: u64) {
        match statvfs(&self.dir) {
            Ok(fs) => {
                self.written_then.store(written, Ordering::Relaxed);
                self.free.store(fs.blocks_available().saturating_mul(fs.fragment_size()), Ordering::Relaxed);
                self.inodes.store(fs.files_available(), Ordering::Relaxed);
                // Some file systems have no fixed number of inodes and say 0.
                self.inodes_total.store(fs.files(), Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "cannot ask for free disk space"),
        }
    }

    pub(crate) fn check(&self, written: u64) -> Result<(), NoRoom> {
        let since = written.saturating_sub(self.written_then.load(Ordering::Relaxed));
        let free = self.free.load(Ordering::Relaxed).saturating_sub(since);
        if free < self.reserve {
            return Err(NoRoom::Disk { free, reserve: self.reserve });
        }
        let (free, total) = (self.inodes.load(Ordering::Relaxed), self.inodes_total.load(Ordering::Relaxed));
        if total > 0 && free < total / INODE_SHARE {
            return Err(NoRoom::Inodes { free, reserve: total / INODE_SHARE });
        }
        Ok(())
    }
}
