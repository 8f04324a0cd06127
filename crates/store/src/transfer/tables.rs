//! The store in PostgreSQL as one side of a transfer.

use std::collections::BTreeSet;

use mail::{MessageId, Timestamp};
use postgres::{CommitError, PgError, Pool, Row, Session, Tx};

use super::marks::{mark_of_postgres, set_mark_of_postgres};
use super::{Carried, Delivery, Key, Last, Mark, Queue, Recipient, Told, events_from, not_in_hand};
use crate::codec;
use crate::content::{CHUNK, ContentRef, seal};
use crate::error::StoreError;
use crate::pg::{day, make_partitions, migrate, read_error};

type Result<T> = std::result::Result<T, StoreError>;
type Pg<T> = std::result::Result<T, PgError>;

/// Rows of the outbox read at a time; each has many events.
const OUTBOX_ROWS: i64 = 16;
/// Octets of content in one statement.
const STATEMENT: usize = 8 << 20;

pub(super) struct Tables {
    pool: Pool,
}

/// Everything here may be done twice.
fn done<T>(result: std::result::Result<T, CommitError>) -> Result<T> {
    result.map_err(|error| match error {
        CommitError::NotCommitted(error) => read_error(&error),
        other => StoreError::Unavailable(other.to_string()),
    })
}

impl Tables {
    pub(super) async fn open(pool: Pool, now: Timestamp) -> Result<Self> {
        migrate(&pool).await?;
        make_partitions(&pool, now.0).await?;
        Ok(Self { pool })
    }

    async fn read<T, F, Fut>(&self, work: F) -> Result<T>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Pg<T>>,
    {
        self.pool.read(work).await.map_err(|e| read_error(&e))
    }

    async fn run(&self, sql: &str) -> Result<()> {
        done(self.pool.commit_idempotent(|tx| async move { tx.batch(sql).await }).await)
    }

    pub(super) async fn mark(&self) -> Result<Option<Mark>> {
        mark_of_postgres(&self.pool).await
    }

    pub(super) async fn set_mark(&self, mark: Option<&Mark>) -> Result<()> {
        set_mark_of_postgres(&self.pool, mark).await
    }

    pub(super) async fn fence(&self) -> Result<()> {
        self.run("UPDATE store.node SET fenced = greatest(fenced, epoch)").await
    }

    pub(super) async fn is_empty(&self) -> Result<bool> {
        let sql = "SELECT NOT EXISTS (SELECT FROM store.message) AND NOT EXISTS (SELECT FROM store.dedupe) \
            AND NOT EXISTS (SELECT FROM store.outbox)";
        self.read(|s| async move { Ok(s.query_one(sql, &[]).await?.get(0)) }).await
    }

    pub(super) async fn clear(&self) -> Result<()> {
        self.run(
            "TRUNCATE store.message, store.delivery, store.recipient, store.queue, store.content, store.dedupe, \
             store.outbox; DELETE FROM store.note WHERE node >= 0; DELETE FROM store.node WHERE id = 0",
        )
        .await
    }

    pub(super) async fn outbox(&self) -> Result<Option<Told>> {
        self.read(outbox).await
    }

    pub(super) async fn outbox_done(&self, node: u16, up_to: u64) -> Result<()> {
        let (node, up_to) = (i32::from(node), up_to.cast_signed());
        let work = |tx: Tx| async move {
            tx.execute("DELETE FROM store.outbox WHERE node = $1 AND seq <= $2", &[&node, &up_to]).await?;
            let sql = "UPDATE store.node SET outbox_done = greatest(outbox_done, $2) WHERE id = $1";
            tx.execute(sql, &[&node, &up_to]).await.map(drop)
        };
        done(self.pool.commit_idempotent(work).await)
    }

    pub(super) async fn messages(&self, after: Option<MessageId>, n: usize) -> Result<Vec<Carried>> {
        let after = after.map_or(i64::MIN, codec::id);
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.read(|session| messages(session, after, n)).await
    }

    pub(super) async fn count(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM store.message";
        let count: i64 = self.read(|s| async move { Ok(s.query_one(sql, &[]).await?.get(0)) }).await?;
        Ok(count.cast_unsigned())
    }

    pub(super) async fn content(&self, of: &Carried) -> Result<Option<Vec<u8>>> {
        if of.at.segment != 0 {
            return Err(StoreError::Invalid(format!(
                "the content of message {} is in an object store: [store.objects] cannot be migrated yet",
                of.id
            )));
        }
        let mut all = Vec::new();
        for n in 0_i32.. {
            if all.len() as u64 >= of.length {
                break;
            }
            let (day, id) = (day(of.id), codec::id(of.id));
            let sql = "SELECT data FROM store.content WHERE day = $1 AND message = $2 AND n = $3";
            let piece = self.read(|s| async move { s.query_opt(sql, &[&day, &id, &n]).await }).await?;
            match piece {
                Some(piece) => all.extend_from_slice(piece.get(0)),
                None => break,
            }
        }
        let whole = all.len() as u64 == of.length && seal(crc32c::crc32c(&all), of.id, of.length) == of.crc;
        Ok(whole.then_some(all))
    }

    pub(super) async fn last(&self) -> Result<Option<MessageId>> {
        let sql = "SELECT max(id) FROM store.message";
        let last: Option<i64> = self.read(|s| async move { Ok(s.query_one(sql, &[]).await?.get(0)) }).await?;
        Ok(last.map(codec::message_id))
    }

    pub(super) async fn put(&self, messages: &[(Carried, Option<Vec<u8>>)], now: Timestamp) -> Result<()> {
        done(self.pool.commit_idempotent(|tx| put(tx, messages, now)).await)
    }

    pub(super) async fn keys(&self, after: Option<&Key>, n: usize) -> Result<Vec<Key>> {
        let (org, key) = after.map_or((i64::MIN, Vec::new()), |k| (k.org, k.key.clone()));
        let (key, n) = (&key, i64::try_from(n).unwrap_or(i64::MAX));
        let sql = "SELECT org, key, expires, message FROM store.dedupe WHERE (org, key) > ($1, $2) \
            ORDER BY org, key LIMIT $3";
        let rows = self.read(|s| async move { s.query(sql, &[&org, key, &n]).await }).await?;
        let key =
            |row: &Row| Key { org: row.get(0), key: row.get(1), expires: row.get(2), message: row.get(3) };
        Ok(rows.iter().map(key).collect())
    }

    pub(super) async fn put_keys(&self, keys: &[Key]) -> Result<()> {
        let orgs: Vec<i64> = keys.iter().map(|k| k.org).collect();
        let names: Vec<&[u8]> = keys.iter().map(|k| &*k.key).collect();
        let expires: Vec<i64> = keys.iter().map(|k| k.expires).collect();
        let messages: Vec<i64> = keys.iter().map(|k| k.message).collect();
        let (orgs, names, expires, messages) = (&orgs, &names, &expires, &messages);
        let sql = "INSERT INTO store.dedupe (org, key, expires, message) \
            SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[]) \
            ON CONFLICT (org, key) DO UPDATE SET expires = excluded.expires, message = excluded.message";
        let work = |tx: Tx| async move { tx.execute(sql, &[orgs, names, expires, messages]).await.map(drop) };
        done(self.pool.commit_idempotent(work).await)
    }

    pub(super) async fn notes(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let sql = "SELECT DISTINCT ON (name COLLATE \"C\") name, value FROM store.note WHERE node >= 0 \
            ORDER BY name COLLATE \"C\", node";
        let rows = self.read(|s| async move { s.query(sql, &[]).await }).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    pub(super) async fn put_notes(&self, notes: &[(String, Vec<u8>)]) -> Result<()> {
        let names: Vec<&str> = notes.iter().map(|(name, _)| &**name).collect();
        let values: Vec<&[u8]> = notes.iter().map(|(_, value)| &**value).collect();
        let (names, values) = (&names, &values);
        let sql = "INSERT INTO store.note (node, name, value) SELECT 1, * FROM unnest($1::text[], $2::bytea[]) \
            ON CONFLICT (node, name) DO UPDATE SET value = excluded.value";
        done(self.pool.commit_idempotent(|tx| async move { tx.execute(sql, &[names, values]).await }).await)
            .map(drop)
    }

    pub(super) async fn finish(&self, last: &Last, now: Timestamp) -> Result<()> {
        done(self.pool.commit_idempotent(|tx| finish(tx, last, now)).await)
    }
}

async fn outbox(session: Session) -> Pg<Option<Told>> {
    let sql = "SELECT node, seq, event FROM store.outbox \
        WHERE node = (SELECT min(node) FROM store.outbox) ORDER BY seq LIMIT $1";
    let rows = session.query(sql, &[&OUTBOX_ROWS]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let node = u16::try_from(first.get::<_, i32>(0)).unwrap_or(0);
    let mut all = Vec::new();
    for row in &rows {
        let last = row.get::<_, i64>(1).cast_unsigned();
        let events = codec::unpack(row.get(2)).map_err(|e| PgError::Damaged(e.to_string()))?;
        let first = (last + 1).saturating_sub(events.len() as u64);
        all.extend((first..).zip(events));
    }
    Ok(Some((node, all)))
}

async fn messages(session: Session, after: i64, n: i64) -> Pg<Vec<Carried>> {
    let sql = "SELECT id, received_at, sender, place, length, crc, detail FROM store.message \
        WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = session.query(sql, &[&after, &n]).await?;
    let mut page: Vec<Carried> = rows.iter().map(message).collect();
    let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(page) };
    let (first, last) = (codec::id(first.id), codec::id(last.id));
    let sql = "SELECT d.message, d.idx, q.org, q.stream, q.destination, d.state, d.due, d.attempts, d.crashes, \
        d.warned, d.reason, d.n, d.address, d.status, d.detail, d.outcome \
        FROM store.delivery d JOIN store.queue q ON q.id = d.queue \
        WHERE d.message BETWEEN $1 AND $2 ORDER BY d.message, d.idx";
    for row in session.query(sql, &[&first, &last]).await? {
        let id = codec::message_id(row.get(0));
        let Ok(at) = page.binary_search_by_key(&id, |m| m.id) else { continue };
        let delivery = delivery(&row, page[at].received_at);
        page[at].deliveries.push(delivery);
    }
    let sql = "SELECT message, delivery, n, address, status, detail, outcome FROM store.recipient \
        WHERE message BETWEEN $1 AND $2 ORDER BY message, delivery, n";
    for row in session.query(sql, &[&first, &last]).await? {
        let id = codec::message_id(row.get(0));
        let index = number(row.get(1));
        let Ok(at) = page.binary_search_by_key(&id, |m| m.id) else { continue };
        if let Some(delivery) = page[at].deliveries.iter_mut().find(|d| d.index == index) {
            delivery.recipients.push(Recipient {
                number: row.get(2),
                address: row.get(3),
                status: row.get(4),
                detail: row.get(5),
                outcome: row.get(6),
            });
        }
    }
    Ok(page)
}

fn number(column: i32) -> u16 {
    u16::try_from(column).unwrap_or(u16::MAX)
}

fn message(row: &Row) -> Carried {
    let id = codec::message_id(row.get(0));
    let length = row.get::<_, i64>(4).cast_unsigned();
    let crc = u32::try_from(row.get::<_, i64>(5)).unwrap_or(0);
    let place = u64::try_from(row.get::<_, i32>(3)).unwrap_or(u64::MAX);
    Carried {
        id,
        received_at: row.get(1),
        sender: row.get(2),
        length,
        crc,
        detail: row.get(6),
        deliveries: Vec::new(),
        at: ContentRef { message: id, segment: place, offset: 0, length, crc },
    }
}

fn delivery(row: &Row, received_at: i64) -> Delivery {
    let state = u8::try_from(row.get::<_, i32>(5)).unwrap_or(u8::MAX);
    let (state, due) = not_in_hand(state, row.get(6), received_at);
    let only = row.get::<_, Option<String>>(12).map(|address| Recipient {
        number: row.get::<_, Option<i32>>(11).unwrap_or(0),
        address,
        status: row.get(13),
        detail: row.get(14),
        outcome: row.get(15),
    });
    Delivery {
        index: number(row.get(1)),
        queue: Queue { org: row.get(2), stream: row.get(3), destination: row.get(4) },
        state,
        due,
        attempts: i64::from(row.get::<_, i32>(7)),
        crashes: i64::from(row.get::<_, i32>(8)),
        warned: row.get(9),
        reason: row.get(10),
        recipients: only.into_iter().collect(),
    }
}

async fn put(tx: Tx, messages: &[(Carried, Option<Vec<u8>>)], now: Timestamp) -> Pg<()> {
    put_queues(&tx, messages, now).await?;
    put_messages(&tx, messages).await?;
    put_deliveries(&tx, messages).await?;
    put_recipients(&tx, messages).await?;
    put_content(&tx, messages).await
}

async fn put_queues(tx: &Tx, messages: &[(Carried, Option<Vec<u8>>)], now: Timestamp) -> Pg<()> {
    let queues: BTreeSet<&Queue> =
        messages.iter().flat_map(|(m, _)| &m.deliveries).map(|d| &d.queue).collect();
    let orgs: Vec<i64> = queues.iter().map(|q| q.org).collect();
    let streams: Vec<i32> = queues.iter().map(|q| q.stream).collect();
    let destinations: Vec<&str> = queues.iter().map(|q| &*q.destination).collect();
    let sql = "INSERT INTO store.queue (org, stream, destination, used) \
        SELECT org, stream, destination, $4 FROM unnest($1::bigint[], $2::int[], $3::text[]) \
            AS q (org, stream, destination) ON CONFLICT DO NOTHING";
    tx.execute(sql, &[&orgs, &streams, &destinations, &now.0]).await.map(drop)
}

async fn put_messages(tx: &Tx, messages: &[(Carried, Option<Vec<u8>>)]) -> Pg<()> {
    let all = || messages.iter().map(|(m, _)| m);
    let ids: Vec<i64> = all().map(|m| codec::id(m.id)).collect();
    let received: Vec<i64> = all().map(|m| m.received_at).collect();
    let senders: Vec<&str> = all().map(|m| &*m.sender).collect();
    let lengths: Vec<i64> = all().map(|m| m.length.cast_signed()).collect();
    let crcs: Vec<i64> = all().map(|m| i64::from(m.crc)).collect();
    let details: Vec<&[u8]> = all().map(|m| &*m.detail).collect();
    let sql = "INSERT INTO store.message (id, received_at, sender, place, length, crc, detail) \
        SELECT id, received_at, sender, 0, length, crc, detail \
        FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[]) \
            AS m (id, received_at, sender, length, crc, detail) ON CONFLICT DO NOTHING";
    tx.execute(sql, &[&ids, &received, &senders, &lengths, &crcs, &details]).await.map(drop)
}

/// A column of deliveries.
fn column<'a, T>(
    messages: &'a [(Carried, Option<Vec<u8>>)],
    of: impl Fn(&'a Carried, &'a Delivery, Option<&'a Recipient>) -> T,
) -> Vec<T> {
    let mut all = Vec::new();
    for (message, _) in messages {
        for delivery in &message.deliveries {
            let only = if let [only] = delivery.recipients.as_slice() { Some(only) } else { None };
            all.push(of(message, delivery, only));
        }
    }
    all
}

async fn put_deliveries(tx: &Tx, m: &[(Carried, Option<Vec<u8>>)]) -> Pg<()> {
    let narrow = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
    let sql = "INSERT INTO store.delivery (message, idx, queue, state, due, attempts, crashes, warned, reason, n, \
            address, status, detail, outcome) \
        SELECT d.message, d.idx, q.id, d.state, d.due, d.attempts, d.crashes, d.warned, d.reason, d.n, d.address, \
            d.status, d.detail, d.outcome \
        FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::int[], $5::text[], $6::int[], $7::bigint[], $8::int[], \
            $9::int[], $10::bool[], $11::text[], $12::int[], $13::text[], $14::int[], $15::bytea[], $16::bytea[]) \
            AS d (message, idx, org, stream, destination, state, due, attempts, crashes, warned, reason, n, address, \
            status, detail, outcome) \
        JOIN store.queue q ON q.org = d.org AND q.stream = d.stream AND q.destination = d.destination \
        ON CONFLICT DO NOTHING";
    tx.execute(
        sql,
        &[
            &column(m, |m, _, _| codec::id(m.id)),
            &column(m, |_, d, _| i32::from(d.index)),
            &column(m, |_, d, _| d.queue.org),
            &column(m, |_, d, _| d.queue.stream),
            &column(m, |_, d, _| &*d.queue.destination),
            &column(m, |_, d, _| i32::from(d.state)),
            &column(m, |_, d, _| d.due),
            &column(m, |_, d, _| narrow(d.attempts)),
            &column(m, |_, d, _| narrow(d.crashes)),
            &column(m, |_, d, _| d.warned),
            &column(m, |_, d, _| d.reason.as_deref()),
            &column(m, |_, _, only| only.map(|r| r.number)),
            &column(m, |_, _, only| only.map(|r| &*r.address)),
            &column(m, |_, _, only| only.map_or(0, |r| r.status)),
            &column(m, |_, _, only| only.and_then(|r| r.detail.as_deref())),
            &column(m, |_, _, only| only.and_then(|r| r.outcome.as_deref())),
        ],
    )
    .await
    .map(drop)
}

/// The recipients of deliveries that have several, or none.
async fn put_recipients(tx: &Tx, messages: &[(Carried, Option<Vec<u8>>)]) -> Pg<()> {
    let mut all = Vec::new();
    for (message, _) in messages {
        for delivery in message.deliveries.iter().filter(|d| d.recipients.len() != 1) {
            all.extend(
                delivery.recipients.iter().map(|r| (codec::id(message.id), i32::from(delivery.index), r)),
            );
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = all.iter().map(|a| a.0).collect();
    let indices: Vec<i32> = all.iter().map(|a| a.1).collect();
    let numbers: Vec<i32> = all.iter().map(|a| a.2.number).collect();
    let addresses: Vec<&str> = all.iter().map(|a| &*a.2.address).collect();
    let status: Vec<i32> = all.iter().map(|a| a.2.status).collect();
    let details: Vec<Option<&[u8]>> = all.iter().map(|a| a.2.detail.as_deref()).collect();
    let outcomes: Vec<Option<&[u8]>> = all.iter().map(|a| a.2.outcome.as_deref()).collect();
    let sql = "INSERT INTO store.recipient (message, delivery, n, address, status, detail, outcome) \
        SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::text[], $5::int[], $6::bytea[], $7::bytea[]) \
        ON CONFLICT DO NOTHING";
    tx.execute(sql, &[&ids, &indices, &numbers, &addresses, &status, &details, &outcomes]).await.map(drop)
}

/// In pieces, many to a statement. What cannot be read has none, and so is found out again.
async fn put_content(tx: &Tx, messages: &[(Carried, Option<Vec<u8>>)]) -> Pg<()> {
    let mut pieces = Vec::new();
    for (message, content) in messages {
        for (n, piece) in content.iter().flat_map(|content| content.chunks(CHUNK)).enumerate() {
            pieces.push((
                day(message.id),
                codec::id(message.id),
                i32::try_from(n).unwrap_or(i32::MAX),
                piece,
            ));
        }
    }
    let sql = "INSERT INTO store.content (day, message, n, data) \
        SELECT * FROM unnest($1::int[], $2::bigint[], $3::int[], $4::bytea[]) ON CONFLICT DO NOTHING";
    for some in pieces.chunks(STATEMENT / CHUNK) {
        let days: Vec<i32> = some.iter().map(|p| p.0).collect();
        let ids: Vec<i64> = some.iter().map(|p| p.1).collect();
        let numbers: Vec<i32> = some.iter().map(|p| p.2).collect();
        let data: Vec<&[u8]> = some.iter().map(|p| p.3).collect();
        tx.execute(sql, &[&days, &ids, &numbers, &data]).await?;
    }
    Ok(())
}

/// The sums of all that was carried here stand in the row of node 0, which is nobody's.
async fn finish(tx: Tx, last: &Last, now: Timestamp) -> Pg<()> {
    tx.batch(
        "UPDATE store.queue q SET waiting = s.waiting, due = s.due
           FROM (SELECT queue, count(*) AS waiting, min(due) AS due FROM store.delivery WHERE due IS NOT NULL
                 GROUP BY queue) s WHERE s.queue = q.id;
         DELETE FROM store.node WHERE id = 0;
         INSERT INTO store.node (id, fenced, epoch, clean, active, waiting, held, sandboxed, quarantined, live)
           SELECT 0, 0, 0, true, 0, count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
             count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4),
             (SELECT coalesce(sum(length), 0)::bigint FROM store.message) FROM store.delivery",
    )
    .await?;
    for (node, known) in last.events.iter().filter(|(node, _)| **node > 0) {
        let (node, from) = (i32::from(*node), events_from(*known, now).cast_signed());
        let sql = "INSERT INTO store.node AS n (id, fenced, epoch, clean, last_event, outbox_done) \
            VALUES ($1, 0, 0, true, $2, $2) ON CONFLICT (id) DO UPDATE SET \
            last_event = greatest(n.last_event, $2), outbox_done = greatest(n.outbox_done, $2)";
        tx.execute(sql, &[&node, &from]).await?;
    }
    Ok(())
}
