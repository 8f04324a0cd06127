//! What the tables tell of messages.

use std::collections::HashMap;

use mail::MessageId;
use postgres::{Pool, Session};

use super::signed;
use crate::error::HistoryError;
use crate::record;
use crate::timeline::Story;
use crate::{day, raw::Raw};

/// Messages whose stories are read by one statement.
pub(super) const CHUNK: usize = 100;

/// Everything that is known about these messages.
pub(super) async fn of(pool: &Pool, ids: &[MessageId]) -> Result<HashMap<MessageId, Story>, HistoryError> {
    let mut stories = HashMap::new();
    for chunk in ids.chunks(CHUNK) {
        let rows = pool.read(|session| async move { rows(&session, chunk).await }).await?;
        for (id, raw) in rows {
            let story: &mut Story = stories.entry(id).or_default();
            if let Err(bad) = add(story, raw) {
                tracing::error!(error = %bad.0, %id, "a part of a message's history cannot be read");
            }
        }
    }
    Ok(stories)
}

/// The rows of these messages. They are no older than the oldest of the ids.
async fn rows(session: &Session, ids: &[MessageId]) -> Result<Vec<(MessageId, Raw)>, postgres::PgError> {
    let first = ids.iter().map(|id| day::of_id(*id)).min().unwrap_or(0);
    let ids: Vec<i64> = ids.iter().map(|id| signed(*id)).collect();
    let (messages, events) = futures_util::future::try_join(
        session.query(
            "SELECT id, body FROM history.message WHERE day >= $1 AND id = ANY($2) ORDER BY day",
            &[&first, &ids],
        ),
        session.query(
            "SELECT message, number, body, transcript FROM history.event WHERE day >= $1 AND message = ANY($2)
             ORDER BY day",
            &[&first, &ids],
        ),
    )
    .await?;
    let mut all = Vec::with_capacity(messages.len() + events.len());
    for row in &messages {
        let id = MessageId(row.try_get::<_, i64>(0)?.cast_unsigned());
        all.push((id, Raw::Message { body: row.try_get(1)? }));
    }
    for row in &events {
        let id = MessageId(row.try_get::<_, i64>(0)?.cast_unsigned());
        let number = row.try_get::<_, i64>(1)?.cast_unsigned();
        all.push((id, Raw::Event { number, body: row.try_get(2)?, transcript: row.try_get(3)? }));
    }
    Ok(all)
}

fn add(story: &mut Story, raw: Raw) -> Result<(), record::Bad> {
    match raw {
        Raw::Message { body } => {
            let row = record::read_row(&body)?;
            story.events.extend(row.folded);
            story.accepted.get_or_insert((row.seq, row.at, row.accepted));
        }
        Raw::Event { number, body, transcript } => {
            story.events.push((number, record::read_event(&body, transcript.as_deref())?));
        }
    }
    Ok(())
}
