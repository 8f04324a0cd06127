//! The segment files and how many bytes of each are live: kept in memory, and by each commit in a row for each segment
//! that it concerns, so that a start need not go through all messages.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::record::{HEADER, Header, crc_of, seal};
use super::{Content, ContentRef, FileContent, MEMORY_MAX};
use crate::error::StoreError;
use crate::health::Health;
use crate::memory::MemoryBudget;

/// A segment's number; its file is named after it.
pub(crate) type SegmentId = u64;

/// What is known of a segment that messages refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Bytes of records that a message refers to, headers included.
    pub(crate) live: u64,
    /// Number of those records.
    pub(crate) records: u64,
    /// Where the last record ever referred to ends: the file may be longer, but not shorter.
    pub(crate) reach: u64,
    /// The smallest and the largest message id ever referred to: where to look for the rows.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The writer still appends to it.
    pub(crate) open: bool,
    /// Something in it cannot be read: it is not compacted.
    pub(crate) stuck: bool,
}

/// The segments that messages refer to or that are being written, and what they add up to.
#[derive(Debug, Default)]
struct Known {
    segments: BTreeMap<SegmentId, Segment>,
    /// Candidates for deletion.
    dead: Vec<SegmentId>,
    totals: Totals,
}

/// All segments together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) segments: u64,
    pub(crate) size: u64,
    pub(crate) live: u64,
}

impl Known {
    /// Changes a segment, and the totals with it.
    fn change(&mut self, id: SegmentId, change: impl FnOnce(&mut Segment)) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        let before = *segment;
        change(segment);
        self.totals.size = self.totals.size + segment.size - before.size;
        self.totals.live = self.totals.live + segment.live - before.live;
        if segment.is_dead() {
            self.dead.push(id);
        }
    }

    fn add(&mut self, id: SegmentId, segment: Segment) {
        self.totals.segments += 1;
        self.totals.size += segment.size;
        self.totals.live += segment.live;
        self.segments.insert(id, segment);
    }
}

impl Segment {
    fn is_dead(&self) -> bool {
        self.records == 0 && !self.open
    }

    /// A message refers to this record.
    fn gain(&mut self, at: &ContentRef) {
        self.live += record_size(at.length);
        self.records += 1;
        self.reach = self.reach.max(at.offset + at.length);
        self.size = self.size.max(self.reach);
        self.first = self.first.min(at.message.0);
        self.last = self.last.max(at.message.0);
    }

    /// It does no more.
    fn lose(&mut self, at: &ContentRef) {
        self.live = self.live.saturating_sub(record_size(at.length));
        self.records = self.records.saturating_sub(1);
    }

    /// One that nothing refers to yet.
    fn fresh() -> Self {
        Self { first: u64::MAX, ..Self::default() }
    }
}

#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    dir_file: File,
    pub(crate) memory: MemoryBudget,
    pub(crate) health: Arc<Health>,
    /// Whether what is written has to survive a power cut. Not where files are but a step on the way to a database.
    pub(crate) durable: bool,
    next: AtomicU64,
    known: Mutex<Known>,
    /// Content bytes written since the start.
    pub(crate) bytes_written: AtomicU64,
    /// Times that content was read back.
    pub(crate) reads: AtomicU64,
}

impl Segments {
    /// Opens the directory, making it if it is not there.
    pub(crate) fn open(dir: PathBuf, memory: MemoryBudget, health: Arc<Health>) -> Result<Self, StoreError> {
        make_dir(&dir)?;
        let dir_file =
            File::open(&dir).map_err(|e| StoreError::io(format!("opening {}", dir.display()), &e))?;
        let highest = list(&dir)?.keys().max().copied().unwrap_or(0);
        Ok(Self {
            dir,
            dir_file,
            memory,
            health,
            durable: true,
            next: AtomicU64::new(highest + 1),
            known: Mutex::default(),
            bytes_written: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        })
    }

    /// Opens a directory for content on its way to a database, and empties it.
    pub(crate) fn spool(dir: PathBuf, memory: MemoryBudget, health: Arc<Health>) -> Result<Self, StoreError> {
        let spool = Self { durable: false, ..Self::open(dir, memory, health)? };
        spool.adopt(BTreeMap::new())?;
        Ok(spool)
    }

    /// Takes over what the message rows say, and removes the files that no row refers to. Returns how many.
    pub(crate) fn adopt(&self, referred: BTreeMap<SegmentId, Segment>) -> Result<u64, StoreError> {
        if let Some(highest) = referred.keys().max() {
            self.next.fetch_max(highest + 1, Ordering::Relaxed);
        }
        let mut removed = 0;
        for id in list(&self.dir)?.into_keys().filter(|id| !referred.contains_key(id)) {
            self.remove_file(id);
            removed += 1;
        }
        let mut known = self.known.lock();
        referred.into_iter().for_each(|(id, segment)| known.add(id, segment));
        Ok(removed)
    }

    pub(crate) fn path(&self, id: SegmentId) -> PathBuf {
        self.dir.join(file_name(id))
    }

    /// A new, empty segment file; its directory entry is not yet on stable storage.
    pub(crate) fn create_file(&self) -> Result<(SegmentId, File), StoreError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path(id);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| StoreError::io(format!("creating {}", path.display()), &e))?;
        Ok((id, file))
    }

    pub(crate) fn sync_dir(&self) -> Result<(), StoreError> {
        self.health.sync_all(&self.dir_file, "the content directory")
    }

    /// Unlinks a file that no row refers to. What cannot be removed is tried again at the next start.
    pub(crate) fn remove_file(&self, id: SegmentId) {
        if let Err(error) = fs::remove_file(self.path(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(segment = id, %error, "cannot remove a content file");
        }
    }

    pub(crate) fn written(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The writer appends to this segment from now on.
    pub(crate) fn begin(&self, id: SegmentId) {
        self.known.lock().add(id, Segment { open: true, ..Segment::fresh() });
    }

    /// The writer has grown the segment it appends to.
    pub(crate) fn grown(&self, id: SegmentId, size: u64) {
        self.known.lock().change(id, |segment| segment.size = size);
    }

    /// The writer appends to it no more.
    pub(crate) fn end(&self, id: SegmentId) {
        self.known.lock().change(id, |segment| segment.open = false);
    }

    /// Leaves a segment out of compaction.
    pub(crate) fn set_stuck(&self, id: SegmentId) {
        self.known.lock().change(id, |segment| segment.stuck = true);
    }

    /// Applies what a commit made live and what it let go. True when a segment has nothing live any more.
    pub(crate) fn apply(&self, added: &[ContentRef], removed: &[ContentRef]) -> bool {
        let mut known = self.known.lock();
        for at in added {
            if !known.segments.contains_key(&at.segment) {
                known.add(at.segment, Segment::fresh());
            }
            known.change(at.segment, |segment| segment.gain(at));
        }
        for at in removed {
            known.change(at.segment, |segment| segment.lose(at));
        }
        !known.dead.is_empty()
    }

    /// How the segments concerned will stand after a commit; nothing changes by asking.
    pub(crate) fn after(&self, added: &[ContentRef], removed: &[ContentRef]) -> BTreeMap<SegmentId, Segment> {
        let mut after = BTreeMap::new();
        if added.is_empty() && removed.is_empty() {
            return after;
        }
        let known = self.known.lock();
        let now = |id| known.segments.get(&id).copied().unwrap_or_else(Segment::fresh);
        for at in added {
            after.entry(at.segment).or_insert_with(|| now(at.segment)).gain(at);
        }
        for at in removed {
            after.entry(at.segment).or_insert_with(|| now(at.segment)).lose(at);
        }
        after
    }

    /// Forgets and unlinks the segments that nothing refers to.
    pub(crate) fn remove_dead(&self) {
        let dead: Vec<SegmentId> = {
            let mut known = self.known.lock();
            let mut dead = std::mem::take(&mut known.dead);
            // A commit may have referred to it again since.
            dead.retain(|id| match known.segments.get(id) {
                Some(segment) if segment.is_dead() => {
                    let size = segment.size;
                    known.segments.remove(id);
                    known.totals.segments -= 1;
                    known.totals.size -= size;
                    true
                }
                _ => false,
            });
            dead
        };
        dead.into_iter().for_each(|id| self.remove_file(id));
    }

    pub(crate) fn totals(&self) -> Totals {
        self.known.lock().totals
    }

    /// All segments as they stand.
    pub(crate) fn snapshot(&self) -> Vec<(SegmentId, Segment)> {
        self.known.lock().segments.iter().map(|(id, segment)| (*id, *segment)).collect()
    }

    /// Reads content and compares its checksum. None when there is no such file: it has been moved or its message is gone.
    pub(crate) fn read(&self, at: &ContentRef) -> Result<Option<Content>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let file = match File::open(self.path(at.segment)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("opening content", &error)),
        };
        let content = FileContent::new(Arc::new(file), at.offset, at.length);
        let mut header = [0; HEADER];
        content.read_at(&mut header, at.offset - HEADER as u64).map_err(|e| unreadable(at, &e))?;
        let expected = Header { message: at.message, length: at.length, crc: at.crc };
        if Header::decode(&header) != Some(expected) {
            return Err(damaged(at, "the header is not that of this message"));
        }
        let small = usize::try_from(at.length).ok().filter(|length| *length <= MEMORY_MAX);
        if let Some((length, guard)) = small.and_then(|n| self.memory.try_take(n).map(|guard| (n, guard))) {
            let mut bytes = vec![0; length];
            content.read_at(&mut bytes, at.offset).map_err(|e| unreadable(at, &e))?;
            if seal(crc32c::crc32c(&bytes), at.message, at.length) != at.crc {
                return Err(damaged(at, "the checksum is wrong"));
            }
            return Ok(Some(Content::Memory(super::sink::guarded(bytes, Some(guard)))));
        }
        let crc = crc_of(at.message, at.length, |offset, max| content.chunk_blocking(offset, max))
            .map_err(|e| unreadable(at, &e))?;
        if crc != at.crc {
            return Err(damaged(at, "the checksum is wrong"));
        }
        Ok(Some(Content::File(content)))
    }
}

/// Bytes that a record with `length` octets of content takes.
pub(crate) fn record_size(length: u64) -> u64 {
    HEADER as u64 + length
}

/// The segment files in a directory with their sizes. Foreign files are left alone.
pub(crate) fn list(dir: &Path) -> Result<HashMap<SegmentId, u64>, StoreError> {
    let failed = |e: io::Error| StoreError::io(format!("listing {}", dir.display()), &e);
    let mut found = HashMap::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|n| n.strip_suffix(".seg")).filter(|hex| hex.len() == 16);
        if let Some(id) = id.and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
            found.insert(id, entry.metadata().map_err(failed)?.len());
        }
    }
    Ok(found)
}

pub(crate) fn file_name(id: SegmentId) -> String {
    format!("{id:016x}.seg")
}

/// Makes a directory that only its owner may enter, and its parents.
pub(crate) fn make_dir(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| StoreError::io(format!("making {}", dir.display()), &e))
}

fn unreadable(at: &ContentRef, error: &io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return damaged(at, "the file ends too early");
    }
    damaged(at, &format!("it cannot be read: {error}"))
}

fn damaged(at: &ContentRef, what: &str) -> StoreError {
    let reason = format!("{what} ({} at {})", file_name(at.segment), at.offset);
    StoreError::Damaged { message: at.message, reason }
}
