//! What the rows hold: postcard behind a version. Files outlive upgrades: when a type that is stored here changes, the
//! version grows and the old form is kept to be read (a test holds the bytes of each version).

use mail::{Accepted, Attempt, Event, EventKind, Timestamp, form1};
use serde::de::DeserializeOwned;

/// The form that is written.
pub(crate) const VERSION: u8 = 2;
/// The form before sources, bounce classes and REQUIRETLS.
const FORM_1: u8 = 1;
/// Levels above this cost more than they save on a few kilobytes of dialogue.
const ZSTD_LEVEL: i32 = 3;
/// The longest transcript that is unpacked; a guard against damage.
const TRANSCRIPT_MAX: usize = 16 << 20;

/// In a number, the bits above these say which node's outbox it is from; none of them in an outbox that is not one of
/// several.
pub(crate) const NODE_SHIFT: u32 = 48;

/// A number of an outbox, told apart from those of other outboxes.
pub(crate) fn number(node: u16, seq: u64) -> u64 {
    u64::from(node) << NODE_SHIFT | seq & ((1 << NODE_SHIFT) - 1)
}

/// A row is not what was written.
#[derive(Debug)]
pub(crate) struct Bad(pub(crate) String);

/// Begins a message's row.
pub(crate) fn begin_row(
    into: &mut Vec<u8>,
    seq: u64,
    at: Timestamp,
    accepted: &Accepted,
) -> Result<(), postcard::Error> {
    into.push(VERSION);
    append(into, &(seq, at, accepted))
}

/// Adds an attempt that delivered everything to a message's row; tells where it begins behind its number.
pub(crate) fn fold(
    into: &mut Vec<u8>,
    seq: u64,
    at: Timestamp,
    attempt: &Attempt,
) -> Result<usize, postcard::Error> {
    append(into, &seq)?;
    let told = into.len();
    append(into, &(at, attempt))?;
    Ok(told)
}

fn append<T: serde::Serialize>(into: &mut Vec<u8>, value: &T) -> Result<(), postcard::Error> {
    let taken = std::mem::take(into);
    *into = postcard::to_extend(value, taken)?;
    Ok(())
}

/// Whether an event goes into its message's row rather than into one of its own.
pub(crate) fn folds(kind: &EventKind) -> Option<&Attempt> {
    match kind {
        EventKind::Attempt(attempt) if attempt.transcript.is_none() && attempt.all_delivered() => {
            Some(attempt)
        }
        _ => None,
    }
}

/// A message's row: when it was accepted, and the events folded into it, by number.
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) accepted: Accepted,
    pub(crate) folded: Vec<(u64, Event)>,
}

/// Reads a message's row.
pub(crate) fn read_row(bytes: &[u8]) -> Result<Row, Bad> {
    match versioned(bytes)? {
        (FORM_1, rest) => row_of::<form1::Accepted, form1::Attempt>(rest),
        (_, rest) => row_of::<Accepted, Attempt>(rest),
    }
}

fn row_of<A, T>(rest: &[u8]) -> Result<Row, Bad>
where
    A: DeserializeOwned + Into<Accepted>,
    T: DeserializeOwned + Into<Attempt>,
{
    let ((seq, at, accepted), mut rest): ((u64, Timestamp, A), _) =
        postcard::take_from_bytes(rest).map_err(bad)?;
    let accepted: Accepted = accepted.into();
    let mut folded = Vec::new();
    while !rest.is_empty() {
        let ((seq, at, attempt), more): ((u64, Timestamp, T), _) =
            postcard::take_from_bytes(rest).map_err(bad)?;
        rest = more;
        let kind = EventKind::Attempt(Box::new(attempt.into()));
        folded.push((seq, Event { at, message: accepted.message.id, kind }));
    }
    Ok(Row { seq, at, accepted, folded })
}

/// How many recipients' delivery is not in a message's row; of one that cannot be read, nothing is known to be over.
pub(crate) fn open(bytes: &[u8]) -> i32 {
    let Ok(row) = read_row(bytes) else { return 1 };
    let all = i32::try_from(row.accepted.recipients.len()).unwrap_or(i32::MAX);
    row.folded.iter().fold(all, |open, (_, event)| open.saturating_sub(recipients_of(event)))
}

/// The recipients of an attempt that delivered to all it tried; of everything else, none.
pub(crate) fn delivered(body: &[u8], transcript: Option<&[u8]>) -> i32 {
    read_event(body, transcript).map_or(0, |event| recipients_of(&event))
}

fn recipients_of(event: &Event) -> i32 {
    folds(&event.kind).map_or(0, |attempt| i32::try_from(attempt.outcomes.len()).unwrap_or(i32::MAX))
}

/// Reads only how a message was accepted.
pub(crate) fn read_accepted(bytes: &[u8]) -> Result<Accepted, Bad> {
    match versioned(bytes)? {
        (FORM_1, rest) => {
            let ((_, _, old), _): ((u64, Timestamp, form1::Accepted), _) =
                postcard::take_from_bytes(rest).map_err(bad)?;
            Ok(old.into())
        }
        (_, rest) => {
            let ((_, _, accepted), _): ((u64, Timestamp, Accepted), _) =
                postcard::take_from_bytes(rest).map_err(bad)?;
            Ok(accepted)
        }
    }
}

/// An event's row and its packed transcript.
pub(crate) fn write_event(event: &mut Event) -> Result<(Vec<u8>, Option<Vec<u8>>), postcard::Error> {
    let transcript = match &mut event.kind {
        EventKind::Attempt(attempt) => attempt.transcript.take(),
        _ => None,
    };
    let mut body = vec![VERSION];
    append(&mut body, event)?;
    // Without memory for the packer there is no transcript; the event itself counts.
    let packed = transcript.and_then(|t| zstd::bulk::compress(t.as_bytes(), ZSTD_LEVEL).ok());
    Ok((body, packed))
}

/// Reads an event's row.
pub(crate) fn read_event(body: &[u8], transcript: Option<&[u8]>) -> Result<Event, Bad> {
    let mut event: Event = match versioned(body)? {
        (FORM_1, rest) => postcard::from_bytes::<form1::Event>(rest).map_err(bad)?.into(),
        (_, rest) => postcard::from_bytes(rest).map_err(bad)?,
    };
    if let (EventKind::Attempt(attempt), Some(packed)) = (&mut event.kind, transcript) {
        let text =
            zstd::bulk::decompress(packed, TRANSCRIPT_MAX).map_err(|e| Bad(format!("transcript: {e}")))?;
        attempt.transcript = Some(String::from_utf8_lossy(&text).into_owned());
    }
    Ok(event)
}

fn versioned(bytes: &[u8]) -> Result<(u8, &[u8]), Bad> {
    match bytes.split_first() {
        Some((&version @ (FORM_1 | VERSION), rest)) => Ok((version, rest)),
        Some((version, _)) => Err(Bad(format!("a row of version {version}"))),
        None => Err(Bad("an empty row".into())),
    }
}

fn bad(e: postcard::Error) -> Bad {
    Bad(e.to_string())
}

#[cfg(test)]
mod tests;
