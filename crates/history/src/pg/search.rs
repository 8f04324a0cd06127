//! How messages are found in the tables: day by day, newest first.

use mail::MessageId;
use postgres::{PgError, Pool, Session};

use super::{count, days, runs, signed, story};
use crate::error::HistoryError;
use crate::key::Hash;
use crate::query::{Found, PAGE, Plan, SLACK_MS};
use crate::view::Timeline;
use crate::{day, record};

/// Candidates that are looked at by one statement.
const LOOK: usize = 200;

/// Carries out a query: the messages, newest first.
pub(super) async fn run(pool: &Pool, plan: &Plan) -> Result<Vec<Timeline>, HistoryError> {
    let mut found = Found::new(plan.limit);
    if let Some(id) = plan.ids.first() {
        consider(pool, plan, None, &[*id], &mut found).await?;
    } else {
        let first = day::of(mail::Timestamp(plan.since.saturating_add(SLACK_MS.saturating_neg())));
        for day in days::list(pool).await?.into_iter().rev() {
            // A day's rows tell of no messages of later days; those of earlier ones may be among them.
            if day < first || found.complete(day::first_id(day + 1)) {
                break;
            }
            if plan.groups.is_empty() {
                by_time(pool, plan, day, &mut found).await?;
            } else {
                by_keys(pool, plan, day, &mut found).await?;
            }
        }
    }
    let mut ids = found.into_ids();
    if ids.is_empty() {
        ids.extend(plan.only_id());
    }
    let mut stories = story::of(pool, &ids).await?;
    let told = ids.into_iter().filter_map(|id| Some((id, stories.remove(&id)?)));
    Ok(told.filter(|(_, story)| !story.is_empty()).map(|(id, story)| story.tell(id)).collect())
}

/// Goes through those that may have the keys, from the newest on, in windows that are complete.
async fn by_keys(pool: &Pool, plan: &Plan, day: i32, found: &mut Found) -> Result<(), HistoryError> {
    let (first, mut before) = plan.ids_in_time();
    let mut groups: Vec<Vec<Hash>> =
        plan.groups.iter().map(|keys| keys.iter().map(crate::key::Key::hash).collect()).collect();
    loop {
        let mut windows = Vec::with_capacity(groups.len());
        for hashes in &groups {
            windows.push(pool.read(|s| async move { runs::find(&s, day, hashes, before).await }).await?);
        }
        // What has few messages decides where to look; the others are compared with what is found there.
        if windows.iter().any(|w| w.from.0 == 0) {
            let mut whole = windows.iter().map(|w| w.from.0 == 0);
            groups.retain(|_| whole.next() == Some(true));
            windows.retain(|w| w.from.0 == 0);
        }
        let from = windows.iter().map(|w| w.from).max().unwrap_or(MessageId(0));
        let candidates = in_all(windows.into_iter().map(|w| w.ids), from);
        for some in candidates.chunks(LOOK) {
            if !some.first().is_some_and(|id| found.wants(*id)) {
                return Ok(());
            }
            consider(pool, plan, Some(day), some, found).await?;
        }
        if from <= first || !found.wants(MessageId(from.0.saturating_sub(1))) {
            return Ok(());
        }
        before = from;
    }
}

/// Those from `from` on that are in all of these, newest first.
fn in_all(mut lists: impl Iterator<Item = Vec<u64>>, from: MessageId) -> Vec<MessageId> {
    let mut all = lists.next().unwrap_or_default();
    all.retain(|id| *id >= from.0);
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.dedup();
    for mut list in lists {
        list.sort_unstable();
        all.retain(|id| list.binary_search(id).is_ok());
    }
    all.into_iter().map(MessageId).collect()
}

/// Takes those of these messages that are there, on this day if one is given, and match.
async fn consider(
    pool: &Pool,
    plan: &Plan,
    day: Option<i32>,
    ids: &[MessageId],
    found: &mut Found,
) -> Result<(), HistoryError> {
    let from = day.unwrap_or_else(|| ids.iter().map(|id| day::of_id(*id)).min().unwrap_or(0));
    let to = day.unwrap_or(i32::MAX);
    let ids: Vec<i64> = ids.iter().map(|id| signed(*id)).collect();
    let ids = &ids;
    let bodies = pool
        .read(|session| async move {
            let rows = session
                .query(
                    "SELECT id, body FROM history.message WHERE day >= $1 AND day <= $2 AND id = ANY($3)",
                    &[&from, &to, ids],
                )
                .await?;
            read_bodies(&rows)
        })
        .await?;
    take(plan, bodies, found);
    Ok(())
}

/// The newest messages of the time that is asked for.
async fn by_time(pool: &Pool, plan: &Plan, day: i32, found: &mut Found) -> Result<(), HistoryError> {
    let (first, mut behind) = plan.ids_in_time();
    // Where all of a time are wanted, the first page has them.
    let rows = if plan.org.is_none() { plan.limit.clamp(1, PAGE) } else { PAGE };
    loop {
        let bodies = pool.read(|s| async move { page(&s, day, first, behind, rows).await }).await?;
        let Some((last, _)) = bodies.last() else { return Ok(()) };
        behind = *last;
        take(plan, bodies, found);
        if !found.wants(MessageId(behind.0.saturating_sub(1))) {
            return Ok(());
        }
    }
}

async fn page(
    session: &Session,
    day: i32,
    first: MessageId,
    behind: MessageId,
    rows: usize,
) -> Result<Vec<(MessageId, Vec<u8>)>, PgError> {
    let rows = session
        .query(
            "SELECT id, body FROM history.message WHERE day = $1 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4",
            &[&day, &signed(first), &signed(behind), &count(rows)],
        )
        .await?;
    read_bodies(&rows)
}

fn read_bodies(rows: &[postgres::Row]) -> Result<Vec<(MessageId, Vec<u8>)>, PgError> {
    rows.iter()
        .map(|row| Ok((MessageId(row.try_get::<_, i64>(0)?.cast_unsigned()), row.try_get(1)?)))
        .collect()
}

fn take(plan: &Plan, bodies: Vec<(MessageId, Vec<u8>)>, found: &mut Found) {
    for (id, body) in bodies {
        match record::read_accepted(&body) {
            Ok(accepted) if plan.matches(&accepted) => found.add(id),
            Ok(_) => {}
            Err(bad) => tracing::error!(error = %bad.0, %id, "a message's history cannot be read"),
        }
    }
}
