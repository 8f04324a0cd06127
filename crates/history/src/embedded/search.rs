//! How messages are found in the files.

use mail::MessageId;
use rusqlite::params;

use super::file::{File, number};
use super::files::Listed;
use super::runs;
use crate::day;
use crate::error::HistoryError;
use crate::query::{Found, PAGE, Plan, SLACK_MS};
use crate::record;
use crate::timeline::Story;
use crate::view::Timeline;

/// Carries out a query: the messages, newest first.
pub(crate) fn run(plan: &Plan, files: &[Listed]) -> Vec<Timeline> {
    let readers = Readers::open(files);
    let mut found = Found::new(plan.limit);
    for (file, listed) in readers.0.iter().rev() {
        let end = listed.name.end().plus(std::time::Duration::from_millis(SLACK_MS.unsigned_abs()));
        // An old file cannot have newer messages; a new one may have old messages, whose rows moved into it.
        if found.complete(day::first_at(end)) {
            break;
        }
        // Of the file that is written the span may have grown; its name tells enough.
        if end.millis() < plan.since && listed.span.last_at.millis() < plan.since {
            continue;
        }
        if let Err(e) = search(plan, file, &mut found) {
            tracing::error!(error = %e, "a file of the history cannot be searched");
        }
    }
    let mut ids = found.into_ids();
    if ids.is_empty() {
        ids.extend(plan.only_id());
    }
    let stories = ids.into_iter().map(|id| (id, readers.story(id)));
    stories.filter(|(_, story)| !story.is_empty()).map(|(id, story)| story.tell(id)).collect()
}

fn search(plan: &Plan, file: &File, found: &mut Found) -> Result<(), HistoryError> {
    if let Some(id) = plan.ids.first() {
        return consider(plan, file, *id, found);
    }
    if plan.groups.is_empty() {
        return by_time(plan, file, found);
    }
    let mut candidates: Option<Vec<u64>> = None;
    for keys in &plan.groups {
        let mut ids = Vec::new();
        for key in keys {
            file.sql(|db| runs::find(db, key.hash(), &mut ids))?;
        }
        ids.sort_unstable();
        ids.dedup();
        if let Some(before) = &candidates {
            ids.retain(|id| before.binary_search(id).is_ok());
        }
        candidates = Some(ids);
    }
    for id in candidates.unwrap_or_default().into_iter().rev().map(MessageId) {
        if !found.wants(id) {
            break;
        }
        consider(plan, file, id, found)?;
    }
    Ok(())
}

/// Takes a message that is in this file and matches.
fn consider(plan: &Plan, file: &File, id: MessageId, found: &mut Found) -> Result<(), HistoryError> {
    let Some(body) = file.message(id)? else { return Ok(()) };
    let accepted = record::read_accepted(&body).map_err(|bad| file.damaged(bad.0))?;
    if plan.matches(&accepted) {
        found.add(id);
    }
    Ok(())
}

/// The newest messages of the time that is asked for.
fn by_time(plan: &Plan, file: &File, found: &mut Found) -> Result<(), HistoryError> {
    let (first, behind) = plan.ids_in_time();
    let (first, mut behind) = (number(first), number(behind));
    loop {
        let rows: Vec<(i64, Vec<u8>)> = file.sql(|db| {
            db.prepare_cached(
                "SELECT id, body FROM message WHERE id >= $1 AND id < $2 ORDER BY id DESC LIMIT $3",
            )?
            .query_map(params![first, behind, i64::try_from(PAGE).unwrap_or(1)], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect()
        })?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        behind = *last;
        for (id, body) in rows {
            let id = MessageId(id.cast_unsigned());
            if !found.wants(id) {
                return Ok(());
            }
            let accepted = record::read_accepted(&body).map_err(|bad| file.damaged(bad.0))?;
            if plan.matches(&accepted) {
                found.add(id);
            }
        }
    }
}

/// All files, open for reading, oldest first.
pub(crate) struct Readers(pub(super) Vec<(File, Listed)>);

impl Readers {
    pub(crate) fn open(files: &[Listed]) -> Self {
        let open = |listed: &Listed| match File::read(&listed.path) {
            Ok(file) => Some((file, listed.clone())),
            // It may just have been dropped.
            Err(_) if !listed.path.exists() => None,
            Err(e) => {
                tracing::error!(error = %e, "a file of the history cannot be read and is passed over");
                None
            }
        };
        Self(files.iter().filter_map(open).collect())
    }

    /// All files or none: for whoever must not miss one.
    pub(crate) fn all(files: &[Listed]) -> Result<Self, HistoryError> {
        let open = |listed: &Listed| Ok((File::read(&listed.path)?, listed.clone()));
        Ok(Self(files.iter().map(open).collect::<Result<_, HistoryError>>()?))
    }

    /// Everything that the files know about a message.
    pub(crate) fn story(&self, id: MessageId) -> Story {
        let mut story = Story::default();
        for (file, _) in &self.0 {
            if let Err(e) = add(file, id, &mut story) {
                tracing::error!(error = %e, %id, "a part of a message's history cannot be read");
            }
        }
        story
    }
}

/// Adds what one file knows about a message.
pub(crate) fn add(file: &File, id: MessageId, story: &mut Story) -> Result<(), HistoryError> {
    if let Some(body) = file.message(id)? {
        let row = record::read_row(&body).map_err(|bad| file.damaged(bad.0))?;
        story.events.extend(row.folded);
        story.accepted.get_or_insert((row.seq, row.at, row.accepted));
    }
    file.events(id, &mut story.events)
}
