//! Listings by filter. The deliveries are gone through in order of their ids, so many at a time, each time in a short
//! transaction, however rare the matches are.

use std::fmt::Write as _;
use std::sync::Arc;

use mail::{DeliveryId, Destination, State, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::codec;
use crate::filter::{QueueEntry, QueueFilter, like, pattern, says};

type Result<T> = rusqlite::Result<T>;

/// Rows looked at in one transaction.
const SCAN: usize = 20_000;

/// A part of a listing.
pub(crate) struct Part {
    pub(crate) entries: Vec<QueueEntry>,
    /// Where to go on; none at the end.
    pub(crate) next: Option<DeliveryId>,
}

/// A WHERE clause and its values.
struct Clause {
    sql: String,
    values: Vec<Value>,
}

impl Clause {
    /// Adds a condition; `?` stands for its value.
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        let numbered = condition.replace('?', &format!("?{}", self.values.len()));
        self.sql.push_str(" AND ");
        self.sql.push_str(&numbered);
    }
}

/// The next matches behind `after`, at most `limit`, looking at a bounded number of rows.
pub(crate) fn part(
    conn: &Connection,
    filter: &QueueFilter,
    after: Option<DeliveryId>,
    limit: usize,
) -> Result<Part> {
    let tx = conn.unchecked_transaction()?;
    let span = span(filter, after);
    // Where this part ends if it runs to the end of its span.
    let last = tx
        .prepare_cached(&format!(
            "SELECT message, idx FROM delivery d WHERE true{} ORDER BY message, idx LIMIT 1 OFFSET {}",
            span.sql,
            SCAN - 1
        ))?
        .query_row(params_from_iter(&span.values), |row| {
            Ok(DeliveryId { message: codec::message_id(row.get(0)?), index: row.get(1)? })
        })
        .optional()?;
    let mut entries = matches(&tx, filter, span, limit)?;
    for entry in &mut entries {
        entry.recipients = recipients(&tx, entry.id)?;
    }
    let next = if entries.len() >= limit { entries.last().map(|entry| entry.id) } else { last };
    Ok(Part { entries, next })
}

/// The conditions that the scan itself can use, on `d` alone.
fn span(filter: &QueueFilter, after: Option<DeliveryId>) -> Clause {
    let mut clause = Clause { sql: String::new(), values: Vec::new() };
    if let Some(after) = after {
        clause.and("(d.message, d.idx) > (?,", codec::id(after.message));
        clause.values.push(Value::from(i64::from(after.index)));
        let _ = write!(clause.sql, " ?{})", clause.values.len());
    }
    let mut messages: Vec<i64> = filter.messages.iter().map(|id| codec::id(*id)).collect();
    if messages.is_empty() {
        messages = filter.deliveries.iter().map(|id| codec::id(id.message)).collect();
    }
    if !messages.is_empty() {
        let list: Vec<String> = messages.iter().map(i64::to_string).collect();
        let _ = write!(clause.sql, " AND d.message IN ({})", list.join(","));
    }
    if !filter.states.is_empty() {
        let list: Vec<String> = filter.states.iter().map(|s| codec::state_code(*s).to_string()).collect();
        let _ = write!(clause.sql, " AND d.state IN ({})", list.join(","));
        if !filter.states.iter().any(|s| matches!(s, State::Active | State::Waiting)) {
            // Lets SQLite see that its index on these covers all.
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
        clause.and("q.stream = ?", i64::from(codec::stream_code(stream)));
    }
    if let Some(destination) = &filter.destination {
        clause.and("q.destination = ?", destination.to_string());
    }
    if !filter.destinations.is_empty() {
        let first = clause.values.len() + 1;
        let values = filter.destinations.iter().map(|to| Value::from(to.to_string()));
        clause.values.extend(values);
        let list: Vec<String> = (first..=clause.values.len()).map(|n| format!("?{n}")).collect();
        let _ = write!(clause.sql, " AND q.destination IN ({})", list.join(","));
    }
    if let Some(domain) = &filter.domain {
        let domain = mail::domain_to_ascii(domain).unwrap_or_else(|| domain.to_lowercase());
        let queue = Destination::Mx(domain.as_str().into()).to_string();
        clause.and("(q.destination = ?", queue);
        clause.values.push(Value::from(format!("%@{}", like(&domain))));
        let _ = write!(
            clause.sql,
            " OR (d.status = 0 AND d.address LIKE ?{n} ESCAPE '\\')
              OR EXISTS (SELECT 1 FROM recipient r WHERE d.n IS NULL AND r.message = d.message AND r.delivery = d.idx
                 AND r.status = 0 AND r.address LIKE ?{n} ESCAPE '\\'))",
            n = clause.values.len()
        );
    }
    if let Some(from) = &filter.from {
        clause.and("m.sender LIKE ? ESCAPE '\\'", pattern(from));
    }
    if let Some(to) = &filter.to {
        clause.and(
            "(d.address LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM recipient r
               WHERE d.n IS NULL AND r.message = d.message AND r.delivery = d.idx AND r.address LIKE ? ESCAPE '\\'))",
            pattern(to),
        );
    }
    if let Some(before) = filter.before {
        clause.and("m.received_at < ?", before.0);
    }
}

fn matches(conn: &Connection, filter: &QueueFilter, span: Clause, limit: usize) -> Result<Vec<QueueEntry>> {
    let mut clause = Clause { sql: String::new(), values: span.values };
    conditions(filter, &mut clause);
    let all_match = clause.sql.is_empty()
        && filter.reason.is_none()
        && filter.credential.is_none()
        && filter.deliveries.is_empty();
    let scan = format!(
        "SELECT * FROM delivery d WHERE true{} ORDER BY message, idx LIMIT {}",
        span.sql,
        if all_match { limit.min(SCAN) } else { SCAN }
    );
    let sql = format!(
        "SELECT d.message, d.idx, d.state, d.due, d.attempts, d.crashes, d.reason,
           q.org, q.stream, q.destination, m.detail, m.received_at, m.sender, m.length
         FROM ({scan}) d JOIN queue q ON q.id = d.queue JOIN message m ON m.id = d.message
         WHERE true{} ORDER BY d.message, d.idx",
        clause.sql
    );
    let mut select = conn.prepare(&sql)?;
    let mut rows = select.query(params_from_iter(&clause.values))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let id = DeliveryId { message: codec::message_id(row.get(0)?), index: row.get(1)? };
        let reason: Option<String> = row.get(6)?;
        if !filter.deliveries.is_empty() && !filter.deliveries.contains(&id)
            || !reason_matches(conn, filter, id, reason.as_deref())?
        {
            continue;
        }
        let columns = codec::Columns {
            id: id.message,
            received_at: Timestamp(row.get(11)?),
            sender: row.get_ref(12)?.as_str()?,
            length: row.get::<_, i64>(13)?.cast_unsigned(),
        };
        let message = codec::message(columns, row.get_ref(10)?.as_blob()?)?;
        if filter.credential.is_some() && filter.credential != message.origin.credential {
            continue;
        }
        entries.push(QueueEntry {
            id,
            queue: codec::queue_key(row.get(7)?, row.get(8)?, row.get_ref(9)?.as_str()?)?,
            message: Arc::new(message),
            state: codec::state(row.get(2)?)?,
            reason,
            due: row.get::<_, Option<i64>>(3)?.map(Timestamp),
            attempts: row.get(4)?,
            crashes: row.get(5)?,
            node: None,
            recipients: Vec::new(),
        });
        if entries.len() >= limit {
            break;
        }
    }
    Ok(entries)
}

/// Whether the words stand in the delivery's reason or in a recipient's last reply.
fn reason_matches(
    conn: &Connection,
    filter: &QueueFilter,
    id: DeliveryId,
    reason: Option<&str>,
) -> Result<bool> {
    let Some(words) = &filter.reason else { return Ok(true) };
    let words = words.to_lowercase();
    if reason.is_some_and(|reason| reason.to_lowercase().contains(&words)) {
        return Ok(true);
    }
    Ok(recipients(conn, id)?
        .iter()
        .any(|(_, _, status)| codec::status_outcome(status).is_some_and(|outcome| says(outcome, &words))))
}

/// All recipients of a delivery.
fn recipients(
    conn: &Connection,
    id: DeliveryId,
) -> Result<Vec<(u16, mail::Recipient, mail::RecipientStatus)>> {
    conn.prepare_cached(
        "SELECT n, address, detail, status, outcome FROM delivery WHERE message = ?1 AND idx = ?2 AND n IS NOT NULL
         UNION ALL
         SELECT n, address, detail, status, outcome FROM recipient WHERE message = ?1 AND delivery = ?2 ORDER BY n",
    )?
    .query_map((codec::id(id.message), id.index), |row| {
        let recipient = codec::recipient(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_blob_or_null()?)?;
        let outcome = codec::outcome(row.get_ref(4)?.as_blob_or_null()?)?;
        Ok((row.get(0)?, recipient, codec::status(row.get(3)?, outcome)?))
    })?
    .collect()
}
