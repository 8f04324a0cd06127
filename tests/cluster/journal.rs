//! What was acknowledged, in a file of its own, fsynced line by line before anybody counts on it: the judge's only witness.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;

use tempfile::TempDir;

/// The file.
pub(crate) struct Journal {
    file: Mutex<File>,
    path: PathBuf,
    _dir: TempDir,
}

impl Journal {
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("journal-").unwrap();
        let path = dir.path().join("acknowledged");
        Self { file: Mutex::new(File::create(&path).unwrap()), path, _dir: dir }
    }

    /// Writes an acknowledgement down.
    pub(crate) fn acknowledged(&self, id: impl Display) {
        let mut file = self.file.lock().unwrap();
        writeln!(file, "{id}").unwrap();
        file.sync_data().unwrap();
    }

    /// What the file says.
    pub(crate) fn read<T: FromStr<Err: Debug> + Ord>(&self) -> BTreeSet<T> {
        fs::read_to_string(&self.path).unwrap().lines().map(|l| l.parse().unwrap()).collect()
    }
}

#[test]
fn what_is_written_down_is_read_back() {
    let journal = Journal::new();
    for id in [3, 1, 2] {
        journal.acknowledged(id);
    }
    assert_eq!(journal.read(), BTreeSet::from([1, 2, 3]));
}
