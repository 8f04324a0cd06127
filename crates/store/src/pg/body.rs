//! Content out of the database or the object storage: small ones into memory, large ones into the spool, their checksum compared.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mail::MessageId;
use postgres::{PgError, Session};

use super::objects::IN_OBJECTS;
use super::schema::day;
use super::shared::Shared;
use super::write::content_ref;
use crate::codec;
use crate::content::{Content, ContentRef, FileContent, MEMORY_MAX, guarded, seal};
use crate::error::StoreError;
use crate::objects::{self, Objects};

type Result<T> = std::result::Result<T, PgError>;

/// A piece of content; none behind the last one.
async fn piece(session: Session, message: MessageId, n: i32) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT data FROM store.content WHERE day = $1 AND message = $2 AND n = $3";
    let row = session.query_opt(sql, &[&day(message), &codec::id(message), &n]).await?;
    row.map(|row| row.try_get(0).map_err(PgError::from)).transpose()
}

/// Content as it comes, from wherever it is.
enum Pieces<'a> {
    Table {
        shared: &'a Shared,
        message: MessageId,
        n: i32,
    },
    Objects {
        objects: &'a Objects,
        pieces: objects::Pieces,
    },
    /// There is nothing.
    Nothing,
}

impl<'a> Pieces<'a> {
    async fn of(shared: &'a Shared, at: ContentRef) -> std::result::Result<Self, StoreError> {
        if at.offset != u64::from(IN_OBJECTS.unsigned_abs()) {
            return Ok(Self::Table { shared, message: at.message, n: 0 });
        }
        let Some(side) = &shared.objects else {
            let text = "this node does not know the object storage that other nodes put content into";
            return Err(StoreError::Objects(text.into()));
        };
        let objects = &side.objects;
        Ok(match objects.get(at.message).await? {
            Some(pieces) => Self::Objects { objects, pieces },
            None => Self::Nothing,
        })
    }

    /// The next piece; none at the end.
    async fn next(&mut self) -> std::result::Result<Option<Bytes>, StoreError> {
        match self {
            Self::Table { shared, message, n } => {
                let (message, number) = (*message, *n);
                *n += 1;
                Ok(shared.read(|session| piece(session, message, number)).await?.map(Bytes::from))
            }
            Self::Objects { objects, pieces } => objects.next(pieces).await,
            Self::Nothing => Ok(None),
        }
    }
}

/// Whether a message is still there.
async fn is_there(session: Session, message: MessageId) -> Result<bool> {
    let row = session.query_opt("SELECT FROM store.message WHERE id = $1", &[&codec::id(message)]).await?;
    Ok(row.is_some())
}

/// The content at `at`.
pub(crate) async fn content(shared: &Shared, at: ContentRef) -> std::result::Result<Content, StoreError> {
    shared.counters.content_reads.fetch_add(1, Ordering::Relaxed);
    let small = usize::try_from(at.length).ok().filter(|length| *length <= MEMORY_MAX);
    let guard = small.and_then(|length| shared.config.memory.try_take(length));
    let file = if guard.is_none() && at.length > 0 { Some(create(shared).await?) } else { None };
    let (mut crc, mut offset, mut bytes) = (0, 0, Vec::new());
    let mut pieces = Pieces::of(shared, at).await?;
    while offset < at.length {
        let Some(piece) = pieces.next().await? else { break };
        crc = crc32c::crc32c_append(crc, &piece);
        let place = offset;
        offset += piece.len() as u64;
        match &file {
            Some(file) => write(file.clone(), piece, place).await?,
            None => bytes.extend_from_slice(&piece),
        }
    }
    if offset != at.length || seal(crc, at.message, at.length) != at.crc {
        if !shared.read(|session| is_there(session, at.message)).await? {
            return Err(StoreError::Invalid(format!("message {} is gone", at.message)));
        }
        let reason = if offset == at.length {
            "the checksum is wrong".to_owned()
        } else {
            format!("there are {offset} octets of it in place of {}", at.length)
        };
        return Err(StoreError::Damaged { message: at.message, reason });
    }
    Ok(match file {
        Some(file) => Content::File(FileContent::new(file, 0, at.length)),
        None => Content::Memory(guarded(bytes, guard)),
    })
}

/// A file that is gone as soon as nobody has it open.
async fn create(shared: &Shared) -> std::result::Result<Arc<std::fs::File>, StoreError> {
    let spool = shared.spool.clone();
    blocking(move || {
        let (id, file) = spool.create_file()?;
        spool.remove_file(id);
        Ok(Arc::new(file))
    })
    .await
}

async fn write(file: Arc<std::fs::File>, piece: Bytes, place: u64) -> std::result::Result<(), StoreError> {
    blocking(move || file.write_all_at(&piece, place).map_err(|e| StoreError::io("writing to the spool", &e)))
        .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, StoreError> + Send + 'static,
) -> std::result::Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StoreError::Closed))
}

/// What the rows of messages say of their content, in order of their ids, behind `after`.
pub(crate) async fn refs(session: Session, after: i64, n: i64) -> Result<Vec<ContentRef>> {
    let sql = "SELECT id, length, crc, place FROM store.message WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = session.query(sql, &[&after, &n]).await?;
    rows.iter()
        .map(|row| {
            let length = row.try_get::<_, i64>(1)?.cast_unsigned();
            let (id, crc) = (codec::message_id(row.try_get(0)?), super::read::crc(row.try_get(2)?));
            Ok(content_ref(id, row.try_get(3)?, length, crc))
        })
        .collect()
}

/// Whether content is what was written, read piece by piece: how many octets there are, and what is wrong with them.
pub(crate) async fn look_at(
    shared: &Shared,
    at: ContentRef,
) -> std::result::Result<(u64, Option<String>), StoreError> {
    let (mut crc, mut offset) = (0, 0);
    let mut pieces = Pieces::of(shared, at).await?;
    while let Some(piece) = pieces.next().await? {
        crc = crc32c::crc32c_append(crc, &piece);
        offset += piece.len() as u64;
    }
    if offset == at.length && seal(crc, at.message, at.length) == at.crc {
        return Ok((offset, None));
    }
    // Delivered while we looked?
    let there = shared.read(|session| is_there(session, at.message)).await?;
    let reason =
        format!("there are {offset} octets of it in place of {}, or their checksum is wrong", at.length);
    Ok((offset, there.then_some(reason)))
}
