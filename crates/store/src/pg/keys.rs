//! Dedupe keys: taken inside the transaction that admits, so that of two nodes one gets it and the other is told by whom.

use std::collections::BTreeMap;

use mail::MessageId;
use postgres::{PgError, Tx};

use super::inbox::Op;
use super::work::{Outcome, Placement, placements, wanted};
use crate::codec;
use crate::model::Dedupe;

type Result<T> = std::result::Result<T, PgError>;

/// Who has a key.
#[derive(Clone, Copy)]
struct Held {
    /// The message of the group that asked for it first.
    first: MessageId,
    expires: i64,
    /// The message that has had it.
    holder: Option<MessageId>,
}

/// Decides for each message that the group brings along whether it is stored.
pub(crate) async fn place(tx: &Tx, ops: &[Op], outcomes: &mut [Outcome], now: i64) -> Result<()> {
    let mut keys: BTreeMap<(i64, &[u8]), Held> = BTreeMap::new();
    for (op, outcome) in ops.iter().zip(outcomes.iter()) {
        for admission in wanted(&op.task, outcome) {
            if let Some(dedupe) = &admission.dedupe {
                let held = Held { first: admission.message.id, expires: dedupe.expires.0, holder: None };
                keys.entry(name(dedupe)).or_insert(held);
            }
        }
    }
    take(tx, &mut keys, now).await?;
    for (op, outcome) in ops.iter().zip(outcomes) {
        // What stands in an outcome decides what is wanted of it: asked before it is changed.
        let wanted = wanted(&op.task, outcome);
        for (admission, placement) in wanted.iter().zip(placements(outcome)) {
            let held = admission.dedupe.as_ref().and_then(|dedupe| keys.get(&name(dedupe)));
            *placement = match held {
                Some(Held { holder: Some(holder), .. }) => Placement::Duplicate(*holder),
                Some(Held { first, .. }) if *first != admission.message.id => Placement::Duplicate(*first),
                _ => Placement::Stored,
            };
        }
    }
    Ok(())
}

fn name(dedupe: &Dedupe) -> (i64, &[u8]) {
    (dedupe.org.0, &dedupe.key)
}

/// Takes the keys that are free, in their order; of the others notes who has them. Waits for another node that is about to
/// commit the same key.
async fn take(tx: &Tx, keys: &mut BTreeMap<(i64, &[u8]), Held>, now: i64) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let orgs: Vec<i64> = keys.keys().map(|(org, _)| *org).collect();
    let names: Vec<&[u8]> = keys.keys().map(|(_, key)| *key).collect();
    let expires: Vec<i64> = keys.values().map(|held| held.expires).collect();
    let messages: Vec<i64> = keys.values().map(|held| codec::id(held.first)).collect();
    let taken = tx
        .execute(
            "INSERT INTO store.dedupe AS d (org, key, expires, message)
             SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[])
             ON CONFLICT (org, key) DO UPDATE SET expires = excluded.expires, message = excluded.message
             WHERE d.expires <= $5",
            &[&orgs, &names, &expires, &messages, &now],
        )
        .await?;
    if taken == keys.len() as u64 {
        return Ok(());
    }
    let rows = tx
        .query(
            "SELECT k.place, d.message FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS k(org, key, place)
             JOIN store.dedupe d ON d.org = k.org AND d.key = k.key ORDER BY k.place",
            &[&orgs, &names],
        )
        .await?;
    let mut held: Vec<&mut Held> = keys.values_mut().collect();
    for row in rows {
        let place: i64 = row.try_get(0)?;
        let holder = codec::message_id(row.try_get(1)?);
        if let Some(key) = usize::try_from(place - 1).ok().and_then(|i| held.get_mut(i))
            && holder != key.first
        {
            key.holder = Some(holder);
        }
    }
    Ok(())
}
