//! Values as they stand in columns and blobs. A blob begins with its format's number, so that a later version can read
//! what an earlier one wrote.

use mail::{
    Address, Destination, Event, Message, MessageId, Notify, OrgId, Outcome, QueueKey, Recipient,
    RecipientStatus, State, Stream,
};
use rusqlite::types::{FromSqlError, Type};
use serde::Serialize;
use serde::de::DeserializeOwned;

const FORMAT: u8 = 1;

/// Ids are 63 bits; SQLite's integers have a sign.
pub(crate) fn id(message: MessageId) -> i64 {
    message.0.cast_signed()
}

pub(crate) fn message_id(column: i64) -> MessageId {
    MessageId(column.cast_unsigned())
}

pub(crate) fn state_code(state: State) -> u8 {
    match state {
        State::Active => 0,
        State::Waiting => 1,
        State::Held => 2,
        State::Sandboxed => 3,
        State::Quarantined => 4,
    }
}

pub(crate) fn state(code: u8) -> rusqlite::Result<State> {
    Ok(match code {
        0 => State::Active,
        1 => State::Waiting,
        2 => State::Held,
        3 => State::Sandboxed,
        4 => State::Quarantined,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, i64::from(other))),
    })
}

pub(crate) fn stream_code(stream: Stream) -> u8 {
    match stream {
        Stream::Transactional => 0,
        Stream::Bulk => 1,
    }
}

pub(crate) fn queue_key(org: i64, stream: u8, destination: &str) -> rusqlite::Result<QueueKey> {
    let stream = if stream == 1 { Stream::Bulk } else { Stream::Transactional };
    let destination: Destination = destination.parse().map_err(unreadable)?;
    Ok(QueueKey { org: OrgId(org), stream, destination })
}

pub(crate) fn status_code(status: &RecipientStatus) -> u8 {
    match status {
        RecipientStatus::Pending(_) => 0,
        RecipientStatus::Delivered(_) => 1,
        RecipientStatus::Failed(_) => 2,
        RecipientStatus::Removed => 3,
    }
}

pub(crate) fn status_outcome(status: &RecipientStatus) -> Option<&Outcome> {
    match status {
        RecipientStatus::Pending(outcome) => outcome.as_ref(),
        RecipientStatus::Delivered(outcome) | RecipientStatus::Failed(outcome) => Some(outcome),
        RecipientStatus::Removed => None,
    }
}

pub(crate) fn status(code: u8, outcome: Option<Outcome>) -> rusqlite::Result<RecipientStatus> {
    match (code, outcome) {
        (0, outcome) => Ok(RecipientStatus::Pending(outcome)),
        (1, Some(outcome)) => Ok(RecipientStatus::Delivered(outcome)),
        (2, Some(outcome)) => Ok(RecipientStatus::Failed(outcome)),
        (3, _) => Ok(RecipientStatus::Removed),
        (other, _) => Err(rusqlite::Error::IntegralValueOutOfRange(0, i64::from(other))),
    }
}

/// NOTIFY and ORCPT, or none when neither was given.
pub(crate) fn recipient_detail(recipient: &Recipient, scratch: &mut Vec<u8>) -> Option<usize> {
    if recipient.notify == Notify::Unset && recipient.orcpt.is_none() {
        return None;
    }
    Some(encode(&(recipient.notify, &recipient.orcpt), scratch))
}

pub(crate) fn recipient(address: &str, detail: Option<&[u8]>) -> rusqlite::Result<Recipient> {
    let address = Address::parse(address).map_err(unreadable)?;
    let (notify, orcpt) = match detail {
        Some(blob) => decode(blob)?,
        None => (Notify::Unset, None),
    };
    Ok(Recipient { address, notify, orcpt })
}

pub(crate) fn message(blob: &[u8]) -> rusqlite::Result<Message> {
    decode(blob)
}

pub(crate) fn event(blob: &[u8]) -> rusqlite::Result<Event> {
    decode(blob)
}

pub(crate) fn outcome(blob: Option<&[u8]>) -> rusqlite::Result<Option<Outcome>> {
    blob.map(decode).transpose()
}

/// Writes a value into `scratch`, which is emptied first. Returns its length.
pub(crate) fn encode<T: Serialize>(value: &T, scratch: &mut Vec<u8>) -> usize {
    scratch.clear();
    scratch.push(FORMAT);
    let buffer = std::mem::take(scratch);
    // Writing into memory cannot fail, and none of our types is of a kind that the format cannot hold.
    *scratch = postcard::to_extend(value, buffer).unwrap_or_default();
    scratch.len()
}

fn decode<T: DeserializeOwned>(blob: &[u8]) -> rusqlite::Result<T> {
    match blob.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(unreadable),
        _ => Err(unreadable(FromSqlError::InvalidType)),
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, Box::new(error))
}
