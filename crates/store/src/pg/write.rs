//! What a group has come to, written: one statement for each kind of change, however many there are of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use mail::{DeliveryId, MessageId};
use postgres::{PgError, Tx};

use super::load::keys;
use super::objects::{IN_OBJECTS, place};
use super::schema::day;
use super::work::{Row, Slot, Work, storable};
use crate::codec;
use crate::content::CHUNK;
use crate::model::{Admission, NewDelivery};
use crate::settle::begins;

type Result<T> = std::result::Result<T, PgError>;

/// Content is sent in statements of about this size.
const CONTENT: usize = 4 << 20;

impl Work {
    /// Writes the rows of new messages. `sent`: their content is there, in object storage if they are `placed`.
    pub(crate) async fn insert(
        &mut self,
        tx: &Tx,
        admissions: &[&Admission],
        sent: bool,
        placed: &[MessageId],
    ) -> Result<()> {
        let stored: Vec<&Admission> =
            admissions.iter().filter(|admission| !admission.deliveries.is_empty()).copied().collect();
        self.effects.admitted += admissions.len() as u64;
        if stored.is_empty() {
            return Ok(());
        }
        for admission in &stored {
            let length = admission.content.len();
            self.effects.live += length.cast_signed();
            self.effects.content_bytes += length;
        }
        // They travel together. In this order, so that of several errors the one is told that came first: the others follow
        // from it.
        let unsent = if sent { &[][..] } else { &stored[..] };
        tokio::try_join!(
            biased;
            insert_messages(tx, &stored, placed),
            insert_deliveries(tx, &stored, self),
            insert_recipients(tx, &stored),
            insert_content(tx, unsent),
        )
        .map(drop)
    }

    /// Writes what has become of the rows that were there.
    pub(crate) async fn update(&mut self, tx: &Tx) -> Result<()> {
        let gone: Vec<(&DeliveryId, &Slot)> =
            self.slots.iter().filter(|(_, slot)| slot.now.is_none()).collect();
        let gone = delete(tx, &gone).await?;
        self.effects.live -= gone.octets;
        self.effects.objects_gone = gone.objects;
        let changed: Vec<(&DeliveryId, &Row)> = self
            .slots
            .iter()
            .filter_map(|(id, slot)| {
                slot.now.as_ref().filter(|now| **now != slot.before).map(|now| (id, now))
            })
            .collect();
        update_deliveries(tx, &changed).await?;
        self.update_recipients(tx).await
    }

    async fn update_recipients(&self, tx: &Tx) -> Result<()> {
        let still = |id: &DeliveryId| self.slots.get(id).is_some_and(|slot| slot.now.is_some());
        let statuses: Vec<_> = self.statuses.iter().filter(|((id, _), _)| still(id)).collect();
        if statuses.is_empty() {
            return Ok(());
        }
        let (messages, indices) = keys(statuses.iter().map(|((id, _), _)| id));
        let numbers: Vec<i32> = statuses.iter().map(|((_, n), _)| *n).collect();
        let codes: Vec<i32> = statuses.iter().map(|(_, (code, _))| *code).collect();
        let outcomes: Vec<Option<&[u8]>> =
            statuses.iter().map(|(_, (_, outcome))| outcome.as_deref()).collect();
        tx.execute(
            "UPDATE store.recipient r SET status = k.status, outcome = k.outcome
             FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::bytea[])
               AS k(message, delivery, n, status, outcome)
             WHERE r.message = k.message AND r.delivery = k.delivery AND r.n = k.n",
            &[&messages, &indices, &numbers, &codes, &outcomes],
        )
        .await
        .map(drop)
    }
}

async fn insert_messages(tx: &Tx, stored: &[&Admission], placed: &[MessageId]) -> Result<()> {
    let n = stored.len();
    let (mut ids, mut received) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let (mut senders, mut details) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let (mut lengths, mut crcs) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut places = Vec::with_capacity(n);
    for admission in stored {
        let message = &admission.message;
        let length = admission.content.len();
        let mut detail = Vec::new();
        codec::message_detail(message, length, &mut detail);
        ids.push(codec::id(message.id));
        received.push(message.received_at.0);
        senders.push(message.sender().to_owned());
        details.push(detail);
        lengths.push(length.cast_signed());
        places.push(place(message.id, placed));
        crcs.push(i64::from(admission.content.crc));
    }
    tx.execute(
        "INSERT INTO store.message (id, received_at, sender, place, length, crc, detail)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::bytea[])",
        &[&ids, &received, &senders, &places, &lengths, &crcs, &details],
    )
    .await
    .map(drop)
}

/// The columns of new deliveries.
#[derive(Default)]
struct Deliveries<'a> {
    messages: Vec<i64>,
    indices: Vec<i32>,
    queues: Vec<i64>,
    states: Vec<i32>,
    dues: Vec<Option<i64>>,
    nodes: Vec<Option<i32>>,
    epochs: Vec<Option<i64>>,
    reasons: Vec<Option<String>>,
    numbers: Vec<Option<i32>>,
    addresses: Vec<Option<&'a str>>,
    details: Vec<Option<Vec<u8>>>,
}

impl<'a> Deliveries<'a> {
    fn push(&mut self, id: DeliveryId, delivery: &'a NewDelivery, work: &mut Work) -> Result<()> {
        let queue = work.number(&delivery.queue)?;
        let (state, due, reason) = begins(&delivery.state);
        let mine = (state == mail::State::Active).then_some(work.me());
        let only = match delivery.recipients.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        self.messages.push(codec::id(id.message));
        self.indices.push(i32::from(id.index));
        self.queues.push(queue);
        self.states.push(i32::from(codec::state_code(state)));
        self.dues.push(due);
        self.nodes.push(mine.map(|(node, _)| node));
        self.epochs.push(mine.map(|(_, epoch)| epoch));
        self.reasons.push(reason.map(storable));
        self.numbers.push(only.map(|(n, _)| i32::from(*n)));
        self.addresses.push(only.map(|(_, recipient)| recipient.address.as_str()));
        self.details.push(only.and_then(|(_, recipient)| detail(recipient)));
        work.effects.moved(None, Some((queue, state, due)));
        Ok(())
    }
}

async fn insert_deliveries(tx: &Tx, stored: &[&Admission], work: &mut Work) -> Result<()> {
    let mut d = Deliveries::default();
    for admission in stored {
        for (index, delivery) in (0..).zip(&admission.deliveries) {
            d.push(DeliveryId { message: admission.message.id, index }, delivery, work)?;
        }
    }
    tx.execute(
        "INSERT INTO store.delivery (message, idx, queue, state, due, node, epoch, reason, n, address, detail)
         SELECT * FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::int[], $5::bigint[], $6::int[],
           $7::bigint[], $8::text[], $9::int[], $10::text[], $11::bytea[])",
        &[
            &d.messages,
            &d.indices,
            &d.queues,
            &d.states,
            &d.dues,
            &d.nodes,
            &d.epochs,
            &d.reasons,
            &d.numbers,
            &d.addresses,
            &d.details,
        ],
    )
    .await
    .map(drop)
}

/// Several recipients have rows of their own.
async fn insert_recipients(tx: &Tx, stored: &[&Admission]) -> Result<()> {
    let (mut messages, mut indices, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut addresses, mut details) = (Vec::new(), Vec::new());
    for admission in stored {
        for (index, delivery) in (0..).zip(&admission.deliveries).filter(|(_, d)| d.recipients.len() != 1) {
            for (n, recipient) in &delivery.recipients {
                messages.push(codec::id(admission.message.id));
                indices.push(index);
                numbers.push(i32::from(*n));
                addresses.push(recipient.address.as_str());
                details.push(detail(recipient));
            }
        }
    }
    if messages.is_empty() {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO store.recipient (message, delivery, n, address, detail)
         SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::text[], $5::bytea[])",
        &[&messages, &indices, &numbers, &addresses, &details],
    )
    .await
    .map(drop)
}

fn detail(recipient: &mail::Recipient) -> Option<Vec<u8>> {
    let mut blob = Vec::new();
    codec::recipient_detail(recipient, &mut blob).map(|_| blob)
}

/// Pieces of content on their way.
#[derive(Default)]
struct Pieces {
    days: Vec<i32>,
    messages: Vec<i64>,
    numbers: Vec<i32>,
    data: Vec<Bytes>,
    bytes: usize,
}

impl Pieces {
    async fn send(&mut self, tx: &Tx) -> Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        let data: Vec<&[u8]> = self.data.iter().map(AsRef::as_ref).collect();
        tx.execute(
            "INSERT INTO store.content (day, message, n, data)
             SELECT * FROM unnest($1::int[], $2::bigint[], $3::int[], $4::bytea[]) ON CONFLICT DO NOTHING",
            &[&self.days, &self.messages, &self.numbers, &data],
        )
        .await?;
        *self = Self::default();
        Ok(())
    }
}

/// Writes content in pieces. That of an earlier try which was committed after all is there.
pub(crate) async fn insert_content(tx: &Tx, stored: &[&Admission]) -> Result<()> {
    let mut pieces = Pieces::default();
    for admission in stored {
        let (message, content) = (admission.message.id, admission.content.content());
        let mut offset = 0;
        for n in 0.. {
            if offset >= content.len() {
                break;
            }
            let piece = content
                .chunk(offset, CHUNK)
                .await
                .map_err(|e| PgError::Bug(format!("reading the spool: {e}")))?;
            offset += piece.len() as u64;
            pieces.bytes += piece.len();
            pieces.days.push(day(message));
            pieces.messages.push(codec::id(message));
            pieces.numbers.push(n);
            pieces.data.push(piece);
            if pieces.bytes >= CONTENT {
                pieces.send(tx).await?;
            }
        }
    }
    pieces.send(tx).await
}

async fn update_deliveries(tx: &Tx, changed: &[(&DeliveryId, &Row)]) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let (messages, indices) = keys(changed.iter().map(|(id, _)| *id));
    let rows = || changed.iter().map(|(_, row)| row);
    let queues: Vec<i64> = rows().map(|row| row.queue).collect();
    let states: Vec<i32> = rows().map(|row| i32::from(codec::state_code(row.state))).collect();
    let dues: Vec<Option<i64>> = rows().map(|row| row.due).collect();
    let attempts: Vec<i32> = rows().map(|row| row.attempts).collect();
    let crashes: Vec<i32> = rows().map(|row| row.crashes).collect();
    let warned: Vec<bool> = rows().map(|row| row.warned).collect();
    let reasons: Vec<Option<&str>> = rows().map(|row| row.reason.as_deref()).collect();
    let nodes: Vec<Option<i32>> = rows().map(|row| row.owner.map(|(node, _)| node)).collect();
    let epochs: Vec<Option<i64>> = rows().map(|row| row.owner.map(|(_, epoch)| epoch)).collect();
    let statuses: Vec<i32> = rows().map(|row| row.status).collect();
    let told: Vec<bool> = rows().map(|row| row.outcome.is_some()).collect();
    let outcomes: Vec<Option<&[u8]>> =
        rows().map(|row| row.outcome.as_ref().and_then(|outcome| outcome.as_deref())).collect();
    tx.execute(
        "UPDATE store.delivery d SET queue = k.queue, state = k.state, due = k.due, attempts = k.attempts,
           crashes = k.crashes, warned = k.warned, reason = k.reason, node = k.node, epoch = k.epoch,
           status = k.status, outcome = CASE WHEN k.told THEN k.outcome ELSE d.outcome END
         FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::int[], $5::bigint[], $6::int[], $7::int[],
           $8::boolean[], $9::text[], $10::int[], $11::bigint[], $12::int[], $13::boolean[], $14::bytea[])
           AS k(message, idx, queue, state, due, attempts, crashes, warned, reason, node, epoch, status, told, outcome)
         WHERE d.message = k.message AND d.idx = k.idx",
        &[
            &messages, &indices, &queues, &states, &dues, &attempts, &crashes, &warned, &reasons, &nodes, &epochs,
            &statuses, &told, &outcomes,
        ],
    )
    .await
    .map(drop)
}

/// What went with deliveries that are gone.
#[derive(Default)]
struct Gone {
    /// How many octets of content.
    octets: i64,
    /// Messages whose content is in object storage, to be deleted once this is committed.
    objects: Vec<MessageId>,
}

/// Deletes deliveries, and with the last one of a message the message and its content.
async fn delete(tx: &Tx, gone: &[(&DeliveryId, &Slot)]) -> Result<Gone> {
    if gone.is_empty() {
        return Ok(Gone::default());
    }
    let (messages, indices) = keys(gone.iter().map(|(id, _)| *id));
    tx.execute(
        "DELETE FROM store.delivery d USING unnest($1::bigint[], $2::int[]) AS k(message, idx)
         WHERE d.message = k.message AND d.idx = k.idx",
        &[&messages, &indices],
    )
    .await?;
    let (of, several) = keys(gone.iter().filter(|(_, slot)| slot.only.is_none()).map(|(id, _)| *id));
    if !of.is_empty() {
        tx.execute(
            "DELETE FROM store.recipient r USING unnest($1::bigint[], $2::int[]) AS k(message, idx)
             WHERE r.message = k.message AND r.delivery = k.idx",
            &[&of, &several],
        )
        .await?;
    }
    // Two nodes may each delete one of the last two deliveries of a message: the second to come here sees that.
    tx.execute("SELECT FROM store.message WHERE id = ANY($1) ORDER BY id FOR UPDATE", &[&messages]).await?;
    let rows = tx
        .query(
            "DELETE FROM store.message m WHERE id = ANY($1)
               AND NOT EXISTS (SELECT FROM store.delivery d WHERE d.message = m.id) RETURNING id, length, place",
            &[&messages],
        )
        .await?;
    let (mut gone, mut messages) = (Gone::default(), Vec::with_capacity(rows.len()));
    for row in rows {
        let message = codec::message_id(row.try_get(0)?);
        let (length, place): (i64, i32) = (row.try_get(1)?, row.try_get(2)?);
        gone.octets += length;
        if place == IN_OBJECTS {
            gone.objects.push(message);
        } else if length > 0 {
            messages.push(message);
        }
    }
    delete_content(tx, &messages).await?;
    Ok(gone)
}

/// Deletes the content of messages, day by day: so that no other partition is looked at.
pub(crate) async fn delete_content(tx: &Tx, messages: &[MessageId]) -> Result<()> {
    let mut days = BTreeMap::<i32, Vec<i64>>::new();
    for message in messages {
        days.entry(day(*message)).or_default().push(codec::id(*message));
    }
    for (day, ids) in days {
        tx.execute("DELETE FROM store.content WHERE day = $1 AND message = ANY($2)", &[&day, &ids]).await?;
    }
    Ok(())
}

/// Where the content of a message is, as the engine's callers hold it: the place in place of an offset.
pub(crate) fn content_ref(
    message: MessageId,
    place: i32,
    length: u64,
    crc: u32,
) -> crate::content::ContentRef {
    let segment = u64::from(day(message).unsigned_abs());
    crate::content::ContentRef { message, segment, offset: u64::from(place.unsigned_abs()), length, crc }
}
