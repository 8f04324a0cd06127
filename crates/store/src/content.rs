//! The content of messages: immutable octets in memory or in a segment file.

mod record;
mod segments;
mod sink;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use mail::MessageId;

pub(crate) use record::{CHUNK, HEADER, Header, seal};
pub(crate) use segments::{Segment, SegmentId, Segments, file_name, list, make_dir, record_size};
pub(crate) use sink::{Place, guarded};
pub use sink::{Sealed, Sink};

/// Content up to this many octets is kept in memory while the budget gives it.
pub(crate) const MEMORY_MAX: usize = 256 << 10;

/// Where the content of a message is. It may move (compaction); [`crate::Store::content`] finds it all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentRef {
    pub(crate) message: MessageId,
    pub(crate) segment: SegmentId,
    /// Of the content itself, behind the record's header.
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

impl ContentRef {
    /// The content's size in octets.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is no octet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// The content of a message. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory; the bytes give their part of the budget back when the last clone goes.
    Memory(Bytes),
    /// In a file.
    File(FileContent),
}

/// Content in a file that stays readable as long as this lives, even if the file is deleted meanwhile.
#[derive(Clone, Debug)]
pub struct FileContent {
    file: Arc<File>,
    start: u64,
    length: u64,
}

impl Content {
    /// Size in octets.
    pub fn len(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File(file) => file.length,
        }
    }

    /// Whether there is no octet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `max` octets from `offset`; fewer only at the end, none behind it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn chunk(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        match self {
            Content::Memory(_) => self.chunk_blocking(offset, max),
            Content::File(file) => file.chunk(offset, max).await,
        }
    }

    /// As [`Content::chunk`], for threads that may wait for the disk.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn chunk_blocking(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        match self {
            Content::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(start..start.saturating_add(max).min(bytes.len())))
            }
            Content::File(file) => file.chunk_blocking(offset, max),
        }
    }

    /// The first `n` octets, or all when there are fewer.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn read_all_up_to(&self, n: usize) -> io::Result<Bytes> {
        self.chunk(0, n).await
    }
}

impl FileContent {
    pub(crate) fn new(file: Arc<File>, start: u64, length: u64) -> Self {
        Self { file, start, length }
    }

    /// Size in octets.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is no octet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// At most `max` octets from `offset`; fewer only at the end, none behind it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn chunk(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.chunk_blocking(offset, max))
            .await
            .map_err(io::Error::other)?
    }

    /// Fills `buffer` from this place of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], place: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, place)
    }

    pub(crate) fn chunk_blocking(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let left = self.length.saturating_sub(offset);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(max);
        let mut buffer = vec![0; n];
        self.file.read_exact_at(&mut buffer, self.start + offset)?;
        Ok(Bytes::from(buffer))
    }
}
