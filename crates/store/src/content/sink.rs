//! Where a session puts content while it receives it: memory while the budget gives it and the message is small, else a
//! file of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mail::MessageId;

use super::record::{CHUNK, HEADER, Header, seal};
use super::segments::{SegmentId, Segments};
use super::{Content, FileContent, MEMORY_MAX};
use crate::error::StoreError;
use crate::memory::MemoryGuard;

/// The first piece of memory that is asked for.
const FIRST: usize = 8 << 10;
/// What a sink buffers beside the budget before it writes to its file.
const FILE_BUFFER: usize = 64 << 10;

/// Takes the content of one message. Dropped unfinished, it leaves nothing behind.
#[derive(Debug)]
pub struct Sink {
    segments: Arc<Segments>,
    message: MessageId,
    crc: u32,
    length: u64,
    buffer: Vec<u8>,
    /// The part of the budget that `buffer` has; none once there is a file.
    guard: Option<MemoryGuard>,
    file: Option<OwnFile>,
}

/// Content that is complete: in memory, or on stable storage in a file of its own. Dropped without being admitted, it
/// leaves nothing behind.
#[derive(Debug)]
pub struct Sealed {
    pub(crate) message: MessageId,
    pub(crate) crc: u32,
    content: Content,
    pub(crate) place: Place,
}

/// Where sealed content is until it is admitted.
#[derive(Debug)]
pub(crate) enum Place {
    Memory(Bytes),
    File(Arc<OwnFile>),
}

/// A segment with one record, written by a session. Removed when dropped, unless a commit refers to it.
#[derive(Debug)]
pub(crate) struct OwnFile {
    segments: Arc<Segments>,
    file: Arc<File>,
    pub(crate) id: SegmentId,
    keep: AtomicBool,
}

/// Bytes with their part of the budget.
struct Guarded {
    bytes: Vec<u8>,
    _guard: MemoryGuard,
}

impl Sink {
    pub(crate) fn new(segments: Arc<Segments>, message: MessageId) -> Self {
        Self { segments, message, crc: 0, length: 0, buffer: Vec::new(), guard: None, file: None }
    }

    /// Takes more octets.
    ///
    /// # Errors
    /// When there is no memory left and no file can be written: `NoSpace`, `Io`, `Failed`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.length += bytes.len() as u64;
        if self.file.is_none() && self.fits_in_memory(self.buffer.len() + bytes.len()) {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(OwnFile::create(self.segments.clone()).await?);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= FILE_BUFFER || self.guard.is_some() {
            self.spill().await?;
        }
        Ok(())
    }

    /// Octets so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is no octet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Completes the content. What is in a file is on stable storage afterwards, its directory entry included.
    ///
    /// # Errors
    /// `NoSpace`, `Io`, or `Failed` when an fsync failed.
    pub async fn finish(mut self) -> Result<Sealed, StoreError> {
        let crc = seal(self.crc, self.message, self.length);
        let (message, length) = (self.message, self.length);
        if self.file.is_some() {
            self.spill().await?;
        }
        let Some(own) = self.file.take() else {
            let bytes = guarded(std::mem::take(&mut self.buffer), self.guard.take());
            return Ok(Sealed::in_memory(message, crc, bytes));
        };
        let header = Header { message, length, crc };
        let own = blocking(move || own.complete(header)).await?;
        let content = Content::File(FileContent::new(own.file.clone(), HEADER as u64, length));
        Ok(Sealed { message, crc, content, place: Place::File(Arc::new(own)) })
    }

    /// Whether the budget lets the buffer grow to `needed` octets.
    fn fits_in_memory(&mut self, needed: usize) -> bool {
        if needed > MEMORY_MAX {
            return false;
        }
        let capacity = self.buffer.capacity();
        if needed <= capacity {
            return true;
        }
        let wanted = needed.next_power_of_two().clamp(FIRST, MEMORY_MAX);
        let granted = match &mut self.guard {
            Some(guard) => guard.resize(wanted),
            none => {
                *none = self.segments.memory.try_take(wanted);
                none.is_some()
            }
        };
        if granted {
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
        granted
    }

    /// Writes the buffer to the file, and gives its memory back to the budget.
    async fn spill(&mut self) -> Result<(), StoreError> {
        let Some(own) = &self.file else { return Ok(()) };
        let at = HEADER as u64 + self.length - self.buffer.len() as u64;
        let (file, mut buffer) = (own.file.clone(), std::mem::take(&mut self.buffer));
        let segments = self.segments.clone();
        let guard = self.guard.take();
        self.buffer = blocking(move || {
            for (i, piece) in buffer.chunks(CHUNK).enumerate() {
                file.write_all_at(piece, at + (i * CHUNK) as u64)
                    .map_err(|e| StoreError::io("writing content", &e))?;
            }
            segments.written(buffer.len() as u64);
            buffer.clear();
            // What came from the budget goes back with it.
            Ok(if guard.is_some() { Vec::new() } else { buffer })
        })
        .await?;
        Ok(())
    }
}

impl Sealed {
    /// Content that has just been composed, such as a report. Counts towards the budget even when that is spent.
    pub(crate) fn composed(segments: &Segments, message: MessageId, bytes: Vec<u8>) -> Self {
        let crc = seal(crc32c::crc32c(&bytes), message, bytes.len() as u64);
        let guard = segments.memory.force_take(bytes.len());
        Self::in_memory(message, crc, guarded(bytes, Some(guard)))
    }

    fn in_memory(message: MessageId, crc: u32, bytes: Bytes) -> Self {
        let content = Content::Memory(bytes.clone());
        Self { message, crc, content, place: Place::Memory(bytes) }
    }

    /// The content.
    pub fn content(&self) -> &Content {
        &self.content
    }

    pub(crate) fn into_content(self) -> Content {
        self.content
    }

    /// Size in octets.
    pub fn len(&self) -> u64 {
        self.content.len()
    }

    /// Whether there is no octet.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }
}

impl OwnFile {
    async fn create(segments: Arc<Segments>) -> Result<Self, StoreError> {
        blocking(move || {
            segments.health.check()?;
            let (id, file) = segments.create_file()?;
            Ok(Self { segments, file: Arc::new(file), id, keep: AtomicBool::new(false) })
        })
        .await
    }

    fn complete(self, header: Header) -> Result<Self, StoreError> {
        self.file.write_all_at(&header.encode(), 0).map_err(|e| StoreError::io("writing content", &e))?;
        if self.segments.durable {
            self.segments.health.sync_data(&self.file, "a content file")?;
            self.segments.sync_dir()?;
        }
        Ok(self)
    }

    /// A commit refers to it, or may do so.
    pub(crate) fn keep(&self) {
        self.keep.store(true, Ordering::Release);
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Acquire) {
            // Left behind it would cost disk space until the next start, no more.
            self.segments.remove_file(self.id);
        }
    }
}

impl AsRef<[u8]> for Guarded {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(crate) fn guarded(bytes: Vec<u8>, guard: Option<MemoryGuard>) -> Bytes {
    match guard {
        Some(guard) => Bytes::from_owner(Guarded { bytes, _guard: guard }),
        None => Bytes::from(bytes),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Closed),
    }
}
