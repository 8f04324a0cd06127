//! What no compiler checks: the edges between crates as ARCHITECTURE.md draws them, the size and the head of every file,
//! unfinished work, and the licences and sources of what we depend on.

mod edges;
mod files;
mod supply;

use crate::shell::{Done, root};

/// Checks everything and tells of every fault, not only of the first.
pub(crate) fn check() -> Done {
    let root = root();
    let mut faults = Vec::new();
    faults.extend(edges::faults(&root)?);
    faults.extend(files::faults(&root)?);
    faults.extend(supply::faults(&root)?);
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("{} faults", faults.len())) }
}
