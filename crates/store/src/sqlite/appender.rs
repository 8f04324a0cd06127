//! Content on its way to stable storage, on a thread of its own (`posthouse-content`): it takes the next group, writes all
//! its content with one write and one fdatasync, and hands it over. So the sync of one group's content goes on while the
//! group before commits; a group is handed over only when its content is safe.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Shared;
use super::handover::Group;
use super::item::Item;
use crate::content::{ContentRef, HEADER, Header, Place, Sealed, SegmentId};
use crate::error::StoreError;

/// A buffer for content that grew beyond this is given back.
const BUFFER_KEEP: usize = 1 << 20;

/// The segment that is appended to.
struct Open {
    id: SegmentId,
    file: File,
    size: u64,
}

/// Appends to the current segment. The content thread has it, and for a moment the writer, when it tries again what a full
/// disk kept from being written.
pub(crate) struct Appender {
    shared: Arc<Shared>,
    segment: Option<Open>,
    buffer: Vec<u8>,
    /// Segments that are full; groups that are not committed yet may have content in them.
    ended: Vec<SegmentId>,
}

impl Appender {
    /// Opens the first segment, so that a first admission needs no more than the others.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let mut appender = Self { shared, segment: None, buffer: Vec::new(), ended: Vec::new() };
        // On a full disk the store opens all the same: what is queued can be delivered.
        match appender.open_segment() {
            Ok(()) | Err(StoreError::NoSpace) => Ok(appender),
            Err(error) => Err(error),
        }
    }

    /// The content thread. Works until the inbox is closed and empty, or nobody takes what it prepares.
    pub(crate) fn run(shared: &Shared, appender: &Mutex<Self>) {
        let mut ops = Vec::new();
        // Not before the last group was taken: what comes meanwhile makes this one larger.
        while shared.handover.wait_until_free() && shared.inbox.take(&mut ops, shared.has_leftovers()) {
            // Those that were withdrawn meanwhile are left out.
            let items = ops.drain(..).filter_map(Item::new).collect();
            let group = appender.lock().prepare(items);
            shared.handover.put(group);
        }
        shared.handover.close();
    }

    fn prepare(&mut self, mut items: Vec<Item>) -> Group {
        let full = self.segment.as_ref().is_some_and(|s| s.size >= self.shared.config.segment_size);
        if full && let Some(segment) = self.segment.take() {
            self.ended.push(segment.id);
        }
        let placed = self.shared.health.check().and_then(|()| self.place(&mut items));
        Group { items, placed, ended: std::mem::take(&mut self.ended) }
    }

    /// Puts the content of all new messages on stable storage that is not there yet, and notes where it is. After an error
    /// none of it is noted.
    pub(crate) fn place(&mut self, items: &mut [Item]) -> Result<(), StoreError> {
        let needed = items.iter_mut().flat_map(Item::admissions).any(|(admission, placement)| {
            placement.at.is_none() && is_written(&admission.content, !admission.deliveries.is_empty())
        });
        if self.segment.is_none() {
            match self.open_segment() {
                // What brings no content along does not need one.
                Err(StoreError::NoSpace) if !needed => {}
                opened => opened?,
            }
        }
        let (id, start) = self.segment.as_ref().map_or((0, 0), |segment| (segment.id, segment.size));
        self.buffer.clear();
        for (admission, placement) in items.iter_mut().flat_map(Item::admissions) {
            if placement.at.is_none() {
                let wanted = !admission.deliveries.is_empty();
                placement.at = Some(append(&mut self.buffer, id, start, &admission.content, wanted));
            }
        }
        self.write_buffer().inspect_err(|_| {
            let placements = items.iter_mut().flat_map(Item::admissions).map(|(_, placement)| placement);
            // Content that was safe before is in an earlier segment, or before this.
            placements
                .filter(|p| p.at.is_some_and(|at| at.segment == id && at.offset >= start))
                .for_each(|placement| placement.at = None);
        })
    }

    fn write_buffer(&mut self) -> Result<(), StoreError> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        if self.buffer.is_empty() {
            return Ok(());
        }
        // A write that failed half way is written over by the next one: the size has not grown.
        segment
            .file
            .write_all_at(&self.buffer, segment.size)
            .map_err(|e| StoreError::io("writing content", &e))?;
        self.shared.health.sync_data(&segment.file, "a content segment")?;
        segment.size += self.buffer.len() as u64;
        self.shared.segments.grown(segment.id, segment.size);
        self.shared.segments.written(self.buffer.len() as u64);
        if self.buffer.capacity() > BUFFER_KEEP {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    fn open_segment(&mut self) -> Result<(), StoreError> {
        let segments = &self.shared.segments;
        let (id, file) = segments.create_file()?;
        segments.sync_dir()?;
        segments.begin(id);
        self.segment = Some(Open { id, file, size: 0 });
        Ok(())
    }

    /// Nothing more is appended. Returns the segments that nobody appends to from now on.
    pub(crate) fn close(&mut self) -> Vec<SegmentId> {
        self.ended.extend(self.segment.take().map(|segment| segment.id));
        std::mem::take(&mut self.ended)
    }
}

/// Whether content goes into the segment: it has no file of its own, and somebody gets it.
fn is_written(content: &Sealed, wanted: bool) -> bool {
    wanted && matches!(content.place, Place::Memory(_))
}

/// Appends a record to the group's buffer, unless the content has a file of its own or nobody gets it.
fn append(
    buffer: &mut Vec<u8>,
    segment: SegmentId,
    start: u64,
    content: &Sealed,
    wanted: bool,
) -> ContentRef {
    let (message, crc, length) = (content.message, content.crc, content.len());
    let mut at = ContentRef { message, segment, offset: 0, length, crc };
    match &content.place {
        Place::File(own) => {
            at.segment = own.id;
            at.offset = HEADER as u64;
        }
        Place::Memory(bytes) if wanted => {
            buffer.extend_from_slice(&Header { message, length, crc }.encode());
            at.offset = start + buffer.len() as u64;
            buffer.extend_from_slice(bytes);
        }
        Place::Memory(_) => {}
    }
    at
}
