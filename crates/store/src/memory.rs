//! One budget for the message bytes that are kept in memory, whoever keeps them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bound on message bytes in memory. Clones share the same budget. Nobody waits for it: who gets nothing uses a file.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// Bytes taken from a [`MemoryBudget`]; given back when dropped.
#[derive(Debug)]
pub struct MemoryGuard {
    budget: MemoryBudget,
    bytes: u64,
}

impl MemoryBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Budget { limit: bytes, used: AtomicU64::new(0) }))
    }

    /// Takes `n` bytes if they are there.
    pub fn try_take(&self, n: usize) -> Option<MemoryGuard> {
        let bytes = n as u64;
        self.take(bytes).then(|| MemoryGuard { budget: self.clone(), bytes })
    }

    /// Takes `n` bytes whether they are there or not: for the few things that must be in memory, such as a report that
    /// has just been composed.
    pub fn force_take(&self, n: usize) -> MemoryGuard {
        let bytes = n as u64;
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        MemoryGuard { budget: self.clone(), bytes }
    }

    /// Bytes taken at the moment.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The bound.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    fn take(&self, bytes: u64) -> bool {
        let limit = self.0.limit;
        self.0
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|total| *total <= limit)
            })
            .is_ok()
    }
}

impl MemoryGuard {
    /// Makes the guard hold `n` bytes in all, taking what is missing or giving back what is over. False (and unchanged)
    /// when the budget has not enough.
    pub fn resize(&mut self, n: usize) -> bool {
        let bytes = n as u64;
        if bytes > self.bytes {
            if !self.budget.take(bytes - self.bytes) {
                return false;
            }
        } else {
            self.budget.0.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for MemoryGuard {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = MemoryBudget::new(100);
        let mut first = budget.try_take(60).unwrap();
        assert!(budget.try_take(41).is_none());
        assert!(first.resize(100) && !first.resize(101));
        assert_eq!((budget.used(), first.bytes()), (100, 100));
        assert!(first.resize(10));
        let forced = budget.force_take(500);
        assert!(budget.try_take(1).is_none());
        drop((first, forced));
        assert_eq!(budget.used(), 0);
    }
}
