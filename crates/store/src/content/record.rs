//! A record in a segment: a header of 24 octets, then the content.
//!
//! ```text
//! 0   magic   "PHc1"
//! 4   crc     CRC32C of the content, then of the length and id below, little endian
//! 8   length  octets of content
//! 16  id      message id
//! ```

use std::io;

use mail::MessageId;

/// Octets before the content.
pub(crate) const HEADER: usize = 24;
/// Files are read and written in pieces of this size.
pub(crate) const CHUNK: usize = 256 << 10;

const MAGIC: [u8; 4] = *b"PHc1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) message: MessageId,
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.crc.to_le_bytes());
        out[8..].copy_from_slice(&tail(self.message, self.length));
        out
    }

    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let id = rest.first_chunk::<8>()?;
        (*magic == MAGIC).then(|| Self {
            message: MessageId(u64::from_le_bytes(*id)),
            length: u64::from_le_bytes(*length),
            crc: u32::from_le_bytes(*crc),
        })
    }
}

/// The checksum of a record whose content has the CRC32C `content`.
pub(crate) fn seal(content: u32, message: MessageId, length: u64) -> u32 {
    crc32c::crc32c_append(content, &tail(message, length))
}

/// The checksum of a record, its content read piece by piece by `read(offset, max)`.
pub(crate) fn crc_of(
    message: MessageId,
    length: u64,
    mut read: impl FnMut(u64, usize) -> io::Result<bytes::Bytes>,
) -> io::Result<u32> {
    let (mut crc, mut offset) = (0, 0);
    while offset < length {
        let piece = read(offset, CHUNK)?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        crc = crc32c::crc32c_append(crc, &piece);
        offset += piece.len() as u64;
    }
    Ok(seal(crc, message, length))
}

fn tail(message: MessageId, length: u64) -> [u8; 16] {
    let mut tail = [0; 16];
    tail[..8].copy_from_slice(&length.to_le_bytes());
    tail[8..].copy_from_slice(&message.0.to_le_bytes());
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_a_wrong_one_does_not() {
        let header = Header {
            message: MessageId(77),
            length: 5,
            crc: seal(crc32c::crc32c(b"hello"), MessageId(77), 5),
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        assert_eq!(Header::decode(&[0; HEADER]), None);
        assert_ne!(
            header.crc,
            seal(crc32c::crc32c(b"hello"), MessageId(78), 5),
            "the id is part of the checksum"
        );
        let read = crc_of(MessageId(77), 5, |at, max| {
            let at = usize::try_from(at).unwrap();
            Ok(bytes::Bytes::from_static(&b"hello"[at..(at + max.min(2)).min(5)]))
        });
        assert_eq!(read.unwrap(), header.crc);
    }
}
