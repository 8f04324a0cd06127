//! Values as they stand in columns and blobs. A blob begins with its format's number, so that a later version can read
//! what an earlier one wrote.

use std::borrow::Cow;

use mail::{
    Address, Body, Destination, Event, Message, MessageId, Notify, OrgId, Origin, Outcome, QueueKey,
    Recipient, RecipientStatus, Ret, State, Stream, Timestamp, form1,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The form that is written. In form 1 a message's detail was the whole message, and events told less.
const FORMAT: u8 = 2;
const FORM_1: u8 = 1;
/// Several events in one blob: each an encoded event behind its length, four octets, little endian.
const PACKED: u8 = 3;

/// A stored value that makes no sense. Never seen unless something else has written to the database.
#[derive(Debug, thiserror::Error)]
#[error("a stored value cannot be read: {0}")]
pub(crate) struct Unreadable(pub(crate) String);

type Result<T> = std::result::Result<T, Unreadable>;

impl From<Unreadable> for rusqlite::Error {
    fn from(error: Unreadable) -> Self {
        Self::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
    }
}

/// What of a message stands in no column of its row.
#[derive(Serialize, Deserialize)]
struct Detail<'a> {
    org: OrgId,
    stream: Stream,
    ret: Option<Ret>,
    envid: Cow<'a, Option<String>>,
    body: Body,
    smtputf8: bool,
    /// When it is not the content's.
    size: Option<u64>,
    header_message_id: Cow<'a, Option<String>>,
    origin: Cow<'a, Origin>,
    require_tls: bool,
    tls_optional: bool,
}

/// What stands in columns of a message's row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    pub(crate) id: MessageId,
    pub(crate) received_at: Timestamp,
    pub(crate) sender: &'a str,
    pub(crate) length: u64,
}

/// Ids are 63 bits; the integers of databases have a sign.
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

pub(crate) fn state(code: u8) -> Result<State> {
    Ok(match code {
        0 => State::Active,
        1 => State::Waiting,
        2 => State::Held,
        3 => State::Sandboxed,
        4 => State::Quarantined,
        other => return Err(Unreadable(format!("a code that is not known: {other}"))),
    })
}

pub(crate) fn stream_code(stream: Stream) -> u8 {
    match stream {
        Stream::Transactional => 0,
        Stream::Bulk => 1,
    }
}

pub(crate) fn queue_key(org: i64, stream: u8, destination: &str) -> Result<QueueKey> {
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

pub(crate) fn status(code: u8, outcome: Option<Outcome>) -> Result<RecipientStatus> {
    match (code, outcome) {
        (0, outcome) => Ok(RecipientStatus::Pending(outcome)),
        (1, Some(outcome)) => Ok(RecipientStatus::Delivered(outcome)),
        (2, Some(outcome)) => Ok(RecipientStatus::Failed(outcome)),
        (3, _) => Ok(RecipientStatus::Removed),
        (other, _) => Err(Unreadable(format!("a code that is not known: {other}"))),
    }
}

/// NOTIFY and ORCPT, or none when neither was given.
pub(crate) fn recipient_detail(recipient: &Recipient, scratch: &mut Vec<u8>) -> Option<usize> {
    if recipient.notify == Notify::Unset && recipient.orcpt.is_none() {
        return None;
    }
    Some(encode(&(recipient.notify, &recipient.orcpt), scratch))
}

pub(crate) fn recipient(address: &str, detail: Option<&[u8]>) -> Result<Recipient> {
    let address = Address::parse(address).map_err(unreadable)?;
    let (notify, orcpt) = match detail {
        Some(blob) => decode(blob)?,
        None => (Notify::Unset, None),
    };
    Ok(Recipient { address, notify, orcpt })
}

/// Writes what of a message stands in no column into `scratch`; `length` is its content's.
pub(crate) fn message_detail(message: &Message, length: u64, scratch: &mut Vec<u8>) -> usize {
    let detail = Detail {
        org: message.org,
        stream: message.stream,
        ret: message.ret,
        envid: Cow::Borrowed(&message.envid),
        body: message.body,
        smtputf8: message.smtputf8,
        size: (message.size != length).then_some(message.size),
        header_message_id: Cow::Borrowed(&message.header_message_id),
        origin: Cow::Borrowed(&message.origin),
        require_tls: message.require_tls,
        tls_optional: message.tls_optional,
    };
    encode(&detail, scratch)
}

pub(crate) fn message(columns: Columns<'_>, blob: &[u8]) -> Result<Message> {
    if let Some((&FORM_1, rest)) = blob.split_first() {
        return postcard::from_bytes::<form1::Message>(rest).map(Message::from).map_err(unreadable);
    }
    let detail: Detail<'_> = decode(blob)?;
    let reverse_path = match columns.sender {
        "" => None,
        sender => Some(Address::parse(sender).map_err(unreadable)?),
    };
    Ok(Message {
        id: columns.id,
        org: detail.org,
        stream: detail.stream,
        received_at: columns.received_at,
        reverse_path,
        ret: detail.ret,
        envid: detail.envid.into_owned(),
        body: detail.body,
        smtputf8: detail.smtputf8,
        size: detail.size.unwrap_or(columns.length),
        header_message_id: detail.header_message_id.into_owned(),
        origin: detail.origin.into_owned(),
        require_tls: detail.require_tls,
        tls_optional: detail.tls_optional,
    })
}

pub(crate) fn event(blob: &[u8]) -> Result<Event> {
    match blob.split_first() {
        Some((&FORM_1, rest)) => {
            postcard::from_bytes::<form1::Event>(rest).map(Event::from).map_err(unreadable)
        }
        _ => decode(blob),
    }
}

/// Adds an encoded event to a blob of several.
pub(crate) fn pack(blob: &mut Vec<u8>, event: &[u8]) {
    if blob.is_empty() {
        blob.push(PACKED);
    }
    // An event is far from four gigabytes.
    blob.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_le_bytes());
    blob.extend_from_slice(event);
}

/// The events of a blob, one or several.
pub(crate) fn unpack(blob: &[u8]) -> Result<Vec<Event>> {
    let Some((&PACKED, mut rest)) = blob.split_first() else { return Ok(vec![event(blob)?]) };
    let mut events = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (one, next) = behind.split_at_checked(length).ok_or_else(format)?;
        events.push(event(one)?);
        rest = next;
    }
    if rest.is_empty() { Ok(events) } else { Err(format()) }
}

pub(crate) fn outcome(blob: Option<&[u8]>) -> Result<Option<Outcome>> {
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

pub(crate) fn decode<T: DeserializeOwned>(blob: &[u8]) -> Result<T> {
    match blob.split_first() {
        // The forms differ in messages and events alone, which are looked at before.
        Some((&(FORM_1 | FORMAT), rest)) => postcard::from_bytes(rest).map_err(unreadable),
        _ => Err(format()),
    }
}

fn unreadable(error: impl std::error::Error) -> Unreadable {
    Unreadable(error.to_string())
}

fn format() -> Unreadable {
    Unreadable("not in a form that this version writes or wrote".into())
}
