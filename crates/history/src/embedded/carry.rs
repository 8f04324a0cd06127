//! What is kept of a file that is dropped: the rows of messages that are still in the queue. They move into the file
//! that is written, so that a held message can be traced for as long as it is held.

use mail::MessageId;

use super::file::{Carried, File, number};
use super::files::Listed;
use super::search::{Readers, add};
use crate::error::HistoryError;
use crate::record;
use crate::timeline::Story;

/// Collects what must be kept of `old`; `all` are all files, `old` among them.
pub(crate) fn collect(old: &Listed, all: &[Listed]) -> Result<Carried, HistoryError> {
    let file = File::read(&old.path)?;
    let mut carried = Carried::default();
    let mut readers = None;
    for id in candidates(&file)? {
        let mut story = Story::default();
        add(&file, id, &mut story)?;
        // Most are over by what this very file tells; only for the rest the others are asked.
        if story.is_over() {
            continue;
        }
        let mut whole = readers.get_or_insert_with(|| Readers::open(all)).story(id);
        // Without its row nobody finds the message, and nothing tells whether it is over.
        if whole.accepted.is_none() || whole.is_over() {
            continue;
        }
        take(&file, id, &mut carried)?;
        if let Some((_, _, accepted)) = story.accepted {
            let at = accepted.message.received_at;
            let (first, last) = carried.accepted.unwrap_or((at, at));
            carried.accepted = Some((first.min(at), last.max(at)));
        }
    }
    Ok(carried)
}

/// Messages that may not be over: with recipients that their row does not tell to be delivered, and those whose row is
/// in another file.
fn candidates(file: &File) -> Result<Vec<MessageId>, HistoryError> {
    let ids: Vec<i64> = file.sql(|db| {
        db.prepare(
            "SELECT id FROM message WHERE open > 0 UNION \
             SELECT message FROM event WHERE message NOT IN (SELECT id FROM message)",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
    })?;
    Ok(ids.into_iter().map(|id| MessageId(id.cast_unsigned())).collect())
}

fn take(file: &File, id: MessageId, carried: &mut Carried) -> Result<(), HistoryError> {
    let key = number(id);
    if let Some(body) = file.message(id)? {
        let open = i64::from(
            record::read_accepted(&body)
                .map_or(u16::MAX, |a| u16::try_from(a.recipients.len()).unwrap_or(u16::MAX)),
        );
        carried.messages.push((key, open, body));
    }
    let events: Vec<_> = file.sql(|db| {
        db.prepare_cached("SELECT message, seq, body, transcript FROM event WHERE message = $1")?
            .query_map([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect()
    })?;
    carried.events.extend(events);
    Ok(())
}
