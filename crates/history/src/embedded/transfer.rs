//! Rows to and from the other engine.

use std::collections::{BTreeMap, BTreeSet};

use mail::MessageId;
use rusqlite::params;

use super::file::{Carried, File, number};
use super::files::Listed;
use super::search::Readers;
use crate::day;
use crate::error::HistoryError;
use crate::raw::{self, Mark, Raw, Record};
use crate::record;

/// A file and the day of its name.
type Dated<'a> = (&'a File, i32);

/// At least `n` rows behind `after`. A message's rows of one day stay together.
pub(crate) fn export(files: &[Listed], after: Option<Mark>, n: usize) -> Result<Vec<Record>, HistoryError> {
    let readers = Readers::all(files)?;
    let files: Vec<Dated<'_>> = readers.0.iter().map(|(f, l)| (f, day::number(l.name.day))).collect();
    let mut records = Vec::new();
    for day in days(&files)? {
        let mut from = match after {
            Some(mark) if day < mark.day => continue,
            Some(mark) if day == mark.day => mark.message.0.saturating_add(1),
            _ => 0,
        };
        loop {
            let want = n.saturating_sub(records.len()).max(1);
            let ids = ids(&files, day, MessageId(from), want)?;
            for id in &ids {
                records.extend(rows(&files, day, *id)?);
            }
            if records.len() >= n {
                return Ok(records);
            }
            match ids.last() {
                Some(last) if ids.len() >= want => from = last.0.saturating_add(1),
                _ => break,
            }
        }
    }
    Ok(records)
}

/// A row belongs to its file's day, or, had the clock been set back, to that of its message's id.
fn days(files: &[Dated<'_>]) -> Result<BTreeSet<i32>, HistoryError> {
    let mut days = BTreeSet::new();
    for (file, of_file) in files {
        let mut day = *of_file;
        loop {
            days.insert(day);
            let next: Option<i64> = file.sql(|db| {
                db.prepare_cached(
                    "SELECT min(id) FROM (SELECT min(id) AS id FROM message WHERE id >= $1 \
                     UNION ALL SELECT min(message) FROM event WHERE message >= $1)",
                )?
                .query_row([number(day::first_id(day + 1))], |row| row.get(0))
            })?;
            match next {
                Some(id) => day = day::of_id(MessageId(id.cast_unsigned())),
                None => break,
            }
        }
    }
    Ok(days)
}

/// Where in a file the rows of a day are, if it has any: the first id, and the one behind the last.
fn range(of_file: i32, day: i32) -> Option<(MessageId, MessageId)> {
    let first = if of_file == day { MessageId(0) } else { day::first_id(day) };
    (of_file <= day).then(|| (first, day::first_id(day + 1)))
}

/// Messages that a day's rows tell of, in their order.
fn ids(files: &[Dated<'_>], day: i32, from: MessageId, n: usize) -> Result<Vec<MessageId>, HistoryError> {
    let mut all = BTreeSet::new();
    for (file, of_file) in files {
        let Some((first, behind)) = range(*of_file, day) else { continue };
        let found: Vec<i64> = file.sql(|db| {
            db.prepare_cached(
                "SELECT id FROM message WHERE id >= $1 AND id < $2 UNION \
                 SELECT message FROM event WHERE message >= $1 AND message < $2 ORDER BY 1 LIMIT $3",
            )?
            .query_map(
                params![number(first.max(from)), number(behind), i64::try_from(n).unwrap_or(i64::MAX)],
                |row| row.get(0),
            )?
            .collect()
        })?;
        all.extend(found.into_iter().map(|id| MessageId(id.cast_unsigned())));
    }
    Ok(all.into_iter().take(n).collect())
}

/// What a day tells of a message.
fn rows(files: &[Dated<'_>], day: i32, id: MessageId) -> Result<Vec<Record>, HistoryError> {
    let mut rows = Vec::new();
    for (file, of_file) in files {
        if range(*of_file, day).is_none_or(|(first, behind)| id < first || id >= behind) {
            continue;
        }
        rows.extend(file.message(id)?.map(|body| Raw::Message { body }));
        rows.extend(events(file, id)?);
    }
    Ok(raw::gather(day, id, rows))
}

fn events(file: &File, id: MessageId) -> Result<Vec<Raw>, HistoryError> {
    file.sql(|db| {
        db.prepare_cached("SELECT seq, body, transcript FROM event WHERE message = $1")?
            .query_map([number(id)], |row| {
                let number = row.get::<_, i64>(0)?.cast_unsigned();
                Ok(Raw::Event { number, body: row.get(1)?, transcript: row.get(2)? })
            })?
            .collect()
    })
}

/// Rows by their day.
pub(crate) fn by_day(records: Vec<Record>) -> BTreeMap<i32, Vec<Record>> {
    let mut days = BTreeMap::<i32, Vec<Record>>::new();
    for record in records {
        days.entry(record.day).or_default().push(record);
    }
    days
}

/// Those that none of the files of their day has.
pub(crate) fn missing(records: Vec<Record>, same_day: &[Listed]) -> Result<Carried, HistoryError> {
    let readers = Readers::all(same_day)?;
    let mut carried = Carried::default();
    for record in records {
        let id = record.message;
        match record.raw {
            Raw::Message { body } => {
                let mut there = false;
                for (file, _) in &readers.0 {
                    there |= file.message(id)?.is_some();
                }
                if there {
                    continue;
                }
                let open = record::open(&body);
                if let Ok(accepted) = record::read_accepted(&body) {
                    let at = accepted.message.received_at;
                    let (first, last) = carried.accepted.unwrap_or((at, at));
                    carried.accepted = Some((first.min(at), last.max(at)));
                }
                carried.messages.push((number(id), i64::from(open), body));
            }
            event @ Raw::Event { .. } => {
                let mut there = false;
                for (file, _) in &readers.0 {
                    there |= events(file, id)?.contains(&event);
                }
                if let (false, Raw::Event { number: n, body, transcript }) = (there, event) {
                    carried.events.push((number(id), n.cast_signed(), body, transcript));
                }
            }
        }
    }
    Ok(carried)
}
