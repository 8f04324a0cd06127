//! What the engine keeps in object storage: large content goes there before its group, and what no row refers to any more
//! goes from there.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt;
use mail::MessageId;
use postgres::{PgError, Session, Tx};
use tokio::sync::mpsc;

use super::errors::committed;
use super::inbox::Op;
use super::shared::Shared;
use crate::codec;
use crate::error::StoreError;
use crate::objects::Objects;

/// In the table `content`,
pub(crate) const IN_TABLE: i32 = 0;
/// or in object storage: the values of the column `place`.
pub(crate) const IN_OBJECTS: i32 = 1;

/// Where the content of a message is, if that of `placed` is in object storage.
pub(crate) fn place(message: MessageId, placed: &[MessageId]) -> i32 {
    if placed.contains(&message) { IN_OBJECTS } else { IN_TABLE }
}

/// An object that is younger than this may have a commit under way; so much older than its message's row may be, none has.
pub(crate) const YOUNG_MS: i64 = 86_400_000;
/// Between two sweeps, whichever node makes them.
const SWEEP: &str = "6 hours";
/// Objects that are looked at, or deleted, at a time.
const MANY: usize = 500;

/// Object storage as the engine uses it.
pub(crate) struct Side {
    pub(crate) objects: Objects,
    /// Messages whose content is to be deleted.
    gone: mpsc::UnboundedSender<MessageId>,
}

impl Side {
    /// Deletes what it is told until it is dropped.
    pub(crate) fn start(objects: Objects) -> Self {
        let (gone, mut receiver) = mpsc::unbounded_channel();
        let side = Self { objects: objects.clone(), gone };
        tokio::spawn(async move {
            let mut some = Vec::new();
            while receiver.recv_many(&mut some, MANY).await > 0 {
                objects.delete_done(&some).await;
                some.clear();
            }
        });
        side
    }

    /// The commit stands after which no row refers to these.
    pub(crate) fn delete(&self, messages: impl IntoIterator<Item = MessageId>) {
        for message in messages {
            // Shutting down: a sweep finds them.
            let _ = self.gone.send(message);
        }
    }
}

/// Puts large content where it belongs, ahead of its group's transaction. Returns whose is there; what cannot be put there
/// goes into the database: rather a larger table than mail that is not taken.
pub(crate) async fn put(shared: &Arc<Shared>, ops: &[Op]) -> Vec<MessageId> {
    let Some(side) = &shared.objects else { return Vec::new() };
    let mut there = Vec::new();
    for admission in ops.iter().flat_map(|op| op.task.admissions()) {
        let wanted = side.objects.takes(admission.content.len()) && !admission.deliveries.is_empty();
        if !wanted {
            continue;
        }
        match side.objects.put(admission.message.id, admission.content.content()).await {
            Ok(()) => there.push(admission.message.id),
            Err(error) => {
                tracing::warn!(%error, message = %admission.message.id, "large content goes into the database");
            }
        }
    }
    there
}

/// Sweeps, if no node has done so lately.
pub(crate) async fn sweep_in_turn(shared: &Shared) -> Result<(), StoreError> {
    let turn = shared.objects.is_some()
        && committed(shared.pool.commit_idempotent(take_turn).await, "looking for objects")?;
    if turn {
        sweep(shared).await?;
    }
    Ok(())
}

/// Deletes objects that no row refers to, left by crashes and by commits that were given up. Returns how many went.
pub(crate) async fn sweep(shared: &Shared) -> Result<u64, StoreError> {
    let Some(side) = &shared.objects else { return Ok(0) };
    let before = mail::Timestamp(shared.clock.now().0 - YOUNG_MS);
    let mut old = side.objects.old(before).chunks(MANY);
    let mut swept = 0;
    while let Some(some) = old.next().await {
        let some = some.into_iter().collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<i64> = some.iter().map(|(message, _)| codec::id(*message)).collect();
        let lost = shared.read(|session| without_row(session, &ids)).await?;
        let orphans = some.into_iter().filter(|(message, _)| lost.contains(message)).map(|(_, path)| path);
        swept += side.objects.delete_orphans(orphans.collect()).await;
    }
    if swept > 0 {
        tracing::info!(swept, "objects deleted that no message referred to");
    }
    Ok(swept)
}

pub(crate) async fn take_turn(tx: Tx) -> Result<bool, PgError> {
    let sql = format!(
        "INSERT INTO store.turn AS t (name, at) VALUES ('sweep', now())
         ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE t.at < now() - interval '{SWEEP}'"
    );
    let taken = tx.execute(&sql, &[]).await? == 1;
    if !taken {
        tx.abandon();
    }
    Ok(taken)
}

async fn without_row(session: Session, ids: &[i64]) -> Result<HashSet<MessageId>, PgError> {
    let sql = "SELECT k.id FROM unnest($1::bigint[]) AS k(id)
         WHERE NOT EXISTS (SELECT FROM store.message m WHERE m.id = k.id AND m.place = $2)";
    let rows = session.query(sql, &[&ids, &IN_OBJECTS]).await?;
    rows.iter().map(|row| Ok(codec::message_id(row.try_get(0)?))).collect()
}

/// How many messages have their content in object storage, and how many octets that is.
pub(crate) async fn stored(session: Session) -> Result<(u64, u64), PgError> {
    let sql = "SELECT count(*), coalesce(sum(length), 0)::bigint FROM store.message WHERE place <> 0";
    let row = session.query_one(sql, &[]).await?;
    Ok((row.try_get::<_, i64>(0)?.cast_unsigned(), row.try_get::<_, i64>(1)?.cast_unsigned()))
}
