//! Small things that others keep in the store: set in memory, written with the next group.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Notes on their way to the database.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// By name: the value, and when it was set, in sets so far.
    set: BTreeMap<String, (u64, Vec<u8>)>,
    sets: u64,
}

impl Notes {
    pub(crate) fn set(&self, name: &str, value: Vec<u8>) {
        let mut pending = self.0.lock();
        pending.sets += 1;
        let sets = pending.sets;
        pending.set.insert(name.to_owned(), (sets, value));
    }

    /// What is not yet known to be written.
    pub(crate) fn pending(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().set.get(name).map(|(_, value)| value.clone())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().set.is_empty()
    }

    /// Writes what is pending, each by `write`. Returns what to tell [`Notes::written`] after the commit.
    pub(crate) fn write<E>(&self, mut write: impl FnMut(&str, &[u8]) -> Result<(), E>) -> Result<u64, E> {
        let pending = self.0.lock();
        for (name, (_, value)) in &pending.set {
            write(name, value)?;
        }
        Ok(pending.sets)
    }

    /// What was set up to then is on stable storage.
    pub(crate) fn written(&self, up_to: u64) {
        self.0.lock().set.retain(|_, (sets, _)| *sets > up_to);
    }
}
