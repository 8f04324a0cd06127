//! Which deliveries are under attempt, in a file that outlives a process that dies: after a crash only they are suspected
//! of having caused it, not all the mail that was in memory.
//!
//! The file is written in place, one slot for each attempt, and never synced: what a process has written is in the page
//! cache and stays when the process is killed. After a power cut the slots may be old or empty, and then nobody is
//! suspected, which is right. It is kept only in runs that began after an unclean stop: in any other run an attempt costs
//! nothing, and the first crash counts for everything that was in memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mail::{DeliveryId, MessageId};
use parking_lot::Mutex;

/// Name of the file in the data directory.
const FILE: &str = "attempts";
const MAGIC: &[u8; SLOT] = b"posthouse-tries1";
/// Octets of a slot: message, index, and a mark that it is taken.
const SLOT: usize = 16;
const TAKEN: [u8; 2] = *b"PH";
/// More slots than any relay has connections. Files that are longer are not ours.
const SLOTS_MAX: u64 = 1 << 20;

/// What the last run was attempting when it ended; none when it did not keep the file.
///
/// # Errors
/// The file is there and cannot be read, or is none of ours. Then everything that was in memory is suspected.
pub(crate) fn left(data_dir: &Path) -> io::Result<Option<BTreeSet<DeliveryId>>> {
    let path = data_dir.join(FILE);
    let bytes = match fs::metadata(&path) {
        Ok(found) if found.len() > SLOTS_MAX * SLOT as u64 => return Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => fs::read(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(slots) = bytes.strip_prefix(MAGIC) else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok(Some(slots.chunks_exact(SLOT).filter_map(read).collect()))
}

/// Takes away what the last run left, once it has been counted.
///
/// # Errors
/// The system's.
pub(crate) fn forget(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(data_dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The file, kept for as long as this run lasts.
#[derive(Debug)]
pub(crate) struct Attempts {
    file: File,
    path: PathBuf,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    free: Vec<u64>,
    made: u64,
    failed: bool,
}

impl Attempts {
    /// Begins the file anew.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn keep(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all_at(MAGIC, 0)?;
        Ok(Self { file, path, slots: Mutex::default() })
    }

    /// Notes that a delivery is under attempt, until the guard goes.
    pub(crate) fn begin(self: &Arc<Self>, id: DeliveryId) -> UnderAttempt {
        let slot = {
            let mut slots = self.slots.lock();
            slots.free.pop().unwrap_or_else(|| {
                slots.made += 1;
                slots.made
            })
        };
        self.write(slot, &written(id));
        UnderAttempt { attempts: Arc::clone(self), slot }
    }

    fn write(&self, slot: u64, bytes: &[u8; SLOT]) {
        let Err(error) = self.file.write_all_at(bytes, slot * SLOT as u64) else { return };
        // A full disk stops no mail. But a file that says too little would acquit the culprit.
        if !std::mem::replace(&mut self.slots.lock().failed, true) {
            let gone = fs::remove_file(&self.path);
            tracing::warn!(%error, ?gone, "attempts are not noted any more; a crash counts for all mail in memory");
        }
    }
}

/// A delivery is under attempt while this lives.
#[derive(Debug)]
pub(crate) struct UnderAttempt {
    attempts: Arc<Attempts>,
    slot: u64,
}

impl Drop for UnderAttempt {
    fn drop(&mut self) {
        self.attempts.write(self.slot, &[0; SLOT]);
        self.attempts.slots.lock().free.push(self.slot);
    }
}

fn written(id: DeliveryId) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&id.message.0.to_le_bytes());
    slot[8..10].copy_from_slice(&id.index.to_le_bytes());
    slot[SLOT - 2..].copy_from_slice(&TAKEN);
    slot
}

fn read(slot: &[u8]) -> Option<DeliveryId> {
    let (message, rest) = slot.split_first_chunk::<8>()?;
    let index = rest.first_chunk::<2>()?;
    slot.ends_with(&TAKEN).then(|| DeliveryId {
        message: MessageId(u64::from_le_bytes(*message)),
        index: u16::from_le_bytes(*index),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(message: u64, index: u16) -> DeliveryId {
        DeliveryId { message: MessageId(message), index }
    }

    #[test]
    fn what_is_under_attempt_is_in_the_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(left(dir.path()).unwrap(), None);
        let attempts = Arc::new(Attempts::keep(dir.path()).unwrap());
        assert_eq!(left(dir.path()).unwrap(), Some(BTreeSet::new()));
        let first = attempts.begin(id(u64::MAX, 7));
        let second = attempts.begin(id(2, u16::MAX));
        assert_eq!(left(dir.path()).unwrap(), Some([id(u64::MAX, 7), id(2, u16::MAX)].into()));
        drop(first);
        let third = attempts.begin(id(3, 0));
        assert_eq!(left(dir.path()).unwrap(), Some([id(2, u16::MAX), id(3, 0)].into()));
        // Slots are used again: the file has as many as there ever were attempts at one time.
        drop((second, third));
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), 3 * SLOT as u64);
        assert_eq!(left(dir.path()).unwrap(), Some(BTreeSet::new()));
        forget(dir.path()).unwrap();
        forget(dir.path()).unwrap();
        assert_eq!(left(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_an_error_and_a_torn_slot_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"").unwrap();
        assert!(left(dir.path()).is_err());
        fs::write(dir.path().join(FILE), b"something else altogether").unwrap();
        assert!(left(dir.path()).is_err());
        let attempts = Arc::new(Attempts::keep(dir.path()).unwrap());
        let _one = attempts.begin(id(1, 1));
        let mut bytes = fs::read(dir.path().join(FILE)).unwrap();
        bytes.extend_from_slice(&written(id(2, 2))[..9]);
        fs::write(dir.path().join(FILE), bytes).unwrap();
        assert_eq!(left(dir.path()).unwrap(), Some([id(1, 1)].into()));
    }
}
