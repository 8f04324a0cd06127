//! Listings by filter. The deliveries are gone through in order of their ids, so many at a time, however rare the matches
//! are.

use std::fmt::Write as _;
use std::sync::Arc;

use mail::{DeliveryId, Destination, Recipient, RecipientStatus, State, Timestamp};
use postgres::types::ToSql;
use postgres::{PgError, Row, Session};

use super::load::keys;
use super::read::{count, queue_key, state};
use crate::codec;
use crate::filter::{QueueEntry, QueueFilter, like, pattern, says};

type Result<T> = std::result::Result<T, PgError>;

/// Rows looked at in one go.
const SCAN: usize = 20_000;

/// A part of a listing.
pub(crate) struct Part {
    pub(crate) entries: Vec<QueueEntry>,
    /// Where to go on; none at the end.
    pub(crate) next: Option<DeliveryId>,
}

/// A WHERE clause and its values.
#[derive(Default)]
struct Clause {
    sql: String,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Clause {
    /// Adds a condition; `?` stands for its value.
    fn and(&mut self, condition: &str, value: impl ToSql + Sync + Send + 'static) {
        self.values.push(Box::new(value));
        let numbered = condition.replace('?', &format!("${}", self.values.len()));
        self.sql.push_str(" AND ");
        self.sql.push_str(&numbered);
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }
}

/// The next matches behind `after`, at most `limit`, looking at a bounded number of rows.
pub(crate) async fn part(
    session: Session,
    filter: &QueueFilter,
    after: Option<DeliveryId>,
    limit: usize,
) -> Result<Part> {
    // Where this part ends if it runs to the end of its span.
    let mut clause = span(filter, after);
    let last = session
        .query_opt(
            &format!(
                "SELECT message, idx FROM store.delivery d WHERE true{} ORDER BY message, idx LIMIT 1 OFFSET {}",
                clause.sql,
                SCAN - 1
            ),
            &clause.values(),
        )
        .await?;
    let last = last.map(|row| delivery_id(&row)).transpose()?;
    if let Some(last) = last {
        // What has come since between the two stays with this part.
        clause.and("(d.message, d.idx) <= (?,", codec::id(last.message));
        clause.values.push(Box::new(i32::from(last.index)));
        let _ = write!(clause.sql, " ${})", clause.values.len());
    }
    let entries = matches(&session, filter, clause, limit).await?;
    let next = if entries.len() >= limit { entries.last().map(|entry| entry.id) } else { last };
    Ok(Part { entries, next })
}

/// The conditions that the scan itself can use, on `d` alone.
fn span(filter: &QueueFilter, after: Option<DeliveryId>) -> Clause {
    let mut clause = Clause::default();
    if let Some(after) = after {
        clause.and("(d.message, d.idx) > (?,", codec::id(after.message));
        clause.values.push(Box::new(i32::from(after.index)));
        let _ = write!(clause.sql, " ${})", clause.values.len());
    }
    let mut messages: Vec<i64> = filter.messages.iter().map(|id| codec::id(*id)).collect();
    if messages.is_empty() {
        messages = filter.deliveries.iter().map(|id| codec::id(id.message)).collect();
    }
    if !messages.is_empty() {
        clause.and("d.message = ANY(?)", messages);
    }
    if !filter.states.is_empty() {
        let list: Vec<String> = filter.states.iter().map(|s| codec::state_code(*s).to_string()).collect();
        let _ = write!(clause.sql, " AND d.state IN ({})", list.join(","));
        if !filter.states.iter().any(|s| matches!(s, State::Active | State::Waiting)) {
            // Lets the server see that its index on these covers all.
            clause.sql.push_str(" AND d.state >= 2");
        }
    }
    clause
}

/// Adds the conditions that need the message, the queue or the recipients.
fn conditions(filter: &QueueFilter, clause: &mut Clause) {
    if let Some(org) = filter.org {
        clause.and("q.org = ?", org.0);
    }
    if let Some(stream) = filter.stream {
        clause.and("q.stream = ?", i32::from(codec::stream_code(stream)));
    }
    if let Some(destination) = &filter.destination {
        clause.and("q.destination = ?", destination.to_string());
    }
    if !filter.destinations.is_empty() {
        let destinations: Vec<String> = filter.destinations.iter().map(ToString::to_string).collect();
        clause.and("q.destination = ANY(?)", destinations);
    }
    if let Some(domain) = &filter.domain {
        let domain = mail::domain_to_ascii(domain).unwrap_or_else(|| domain.to_lowercase());
        clause.and("(q.destination = ?", Destination::Mx(domain.as_str().into()).to_string());
        clause.values.push(Box::new(format!("%@{}", like(&domain))));
        let _ = write!(
            clause.sql,
            " OR (d.status = 0 AND d.address ILIKE ${n})
              OR EXISTS (SELECT FROM store.recipient r WHERE d.n IS NULL AND r.message = d.message AND r.delivery = d.idx
                 AND r.status = 0 AND r.address ILIKE ${n}))",
            n = clause.values.len()
        );
    }
    if let Some(from) = &filter.from {
        clause.and("m.sender ILIKE ?", pattern(from));
    }
    if let Some(to) = &filter.to {
        clause.and(
            "(d.address ILIKE ? OR EXISTS (SELECT FROM store.recipient r
               WHERE d.n IS NULL AND r.message = d.message AND r.delivery = d.idx AND r.address ILIKE ?))",
            pattern(to),
        );
    }
    if let Some(before) = filter.before {
        clause.and("m.received_at < ?", before.0);
    }
}

async fn matches(
    session: &Session,
    filter: &QueueFilter,
    span: Clause,
    limit: usize,
) -> Result<Vec<QueueEntry>> {
    let mut clause = Clause { sql: String::new(), values: span.values };
    conditions(filter, &mut clause);
    // Those that the server looks at may be more than the caller wants only if it is we who look at them at last.
    let by_us = filter.reason.is_some() || filter.credential.is_some() || !filter.deliveries.is_empty();
    let sql = format!(
        "SELECT d.message, d.idx, d.state, d.due, d.attempts, d.crashes, d.reason,
           q.org, q.stream, q.destination, m.detail, m.received_at, m.sender, m.length, d.node
         FROM store.delivery d JOIN store.queue q ON q.id = d.queue JOIN store.message m ON m.id = d.message
         WHERE true{}{} ORDER BY d.message, d.idx LIMIT {}",
        span.sql,
        clause.sql,
        if by_us { SCAN } else { limit.min(SCAN) }
    );
    let rows = session.query(&sql, &clause.values()).await?;
    let mut entries = rows.iter().map(entry).collect::<Result<Vec<_>>>()?;
    entries.retain(|entry| {
        (filter.deliveries.is_empty() || filter.deliveries.contains(&entry.id))
            && (filter.credential.is_none() || filter.credential == entry.message.origin.credential)
    });
    if filter.reason.is_none() {
        entries.truncate(limit);
    }
    add_recipients(session, &mut entries).await?;
    if let Some(words) = &filter.reason {
        let words = words.to_lowercase();
        entries.retain(|entry| reason_matches(entry, &words));
        entries.truncate(limit);
    }
    Ok(entries)
}

fn delivery_id(row: &Row) -> Result<DeliveryId> {
    let index: i32 = row.try_get(1)?;
    let message = codec::message_id(row.try_get(0)?);
    Ok(DeliveryId { message, index: u16::try_from(index).unwrap_or(u16::MAX) })
}

fn entry(row: &Row) -> Result<QueueEntry> {
    let id = delivery_id(row)?;
    let columns = codec::Columns {
        id: id.message,
        received_at: Timestamp(row.try_get(11)?),
        sender: row.try_get(12)?,
        length: row.try_get::<_, i64>(13)?.cast_unsigned(),
    };
    Ok(QueueEntry {
        id,
        queue: queue_key(row, 7)?,
        message: Arc::new(codec::message(columns, row.try_get(10)?)?),
        state: state(row.try_get(2)?)?,
        reason: row.try_get(6)?,
        due: row.try_get::<_, Option<i64>>(3)?.map(Timestamp),
        attempts: count(row.try_get(4)?),
        crashes: count(row.try_get(5)?),
        node: row.try_get::<_, Option<i32>>(14)?.and_then(|node| u16::try_from(node).ok()),
        recipients: Vec::new(),
    })
}

/// Whether the words stand in the delivery's reason or in a recipient's last reply.
fn reason_matches(entry: &QueueEntry, words: &str) -> bool {
    entry.reason.as_ref().is_some_and(|reason| reason.to_lowercase().contains(words))
        || entry
            .recipients
            .iter()
            .any(|(_, _, status)| codec::status_outcome(status).is_some_and(|outcome| says(outcome, words)))
}

/// Adds all recipients of the deliveries.
async fn add_recipients(session: &Session, entries: &mut [QueueEntry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let (messages, indices) = keys(entries.iter().map(|entry| &entry.id));
    let rows = session
        .query(
            "SELECT k.place, d.n, d.address, d.detail, d.status, d.outcome
             FROM unnest($1::bigint[], $2::int[]) WITH ORDINALITY AS k(message, idx, place)
             JOIN store.delivery d ON d.message = k.message AND d.idx = k.idx WHERE d.n IS NOT NULL
             UNION ALL
             SELECT k.place, r.n, r.address, r.detail, r.status, r.outcome
             FROM unnest($1::bigint[], $2::int[]) WITH ORDINALITY AS k(message, idx, place)
             JOIN store.recipient r ON r.message = k.message AND r.delivery = k.idx
             ORDER BY 1, 2",
            &[&messages, &indices],
        )
        .await?;
    for row in &rows {
        let place = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or(usize::MAX);
        if let Some(entry) = entries.get_mut(place) {
            entry.recipients.push(recipient(row)?);
        }
    }
    Ok(())
}

fn recipient(row: &Row) -> Result<(u16, Recipient, RecipientStatus)> {
    let n: i32 = row.try_get(1)?;
    let status: i32 = row.try_get(4)?;
    let outcome = codec::outcome(row.try_get(5)?)?;
    let status = codec::status(u8::try_from(status).unwrap_or(u8::MAX), outcome)?;
    Ok((u16::try_from(n).unwrap_or(u16::MAX), codec::recipient(row.try_get(2)?, row.try_get(3)?)?, status))
}
