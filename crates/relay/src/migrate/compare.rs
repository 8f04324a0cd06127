//! Both sides from the first octet to the last, by counts and SHA-256.

use aws_lc_rs::digest::{Context, SHA256};
use mail::MessageId;
use serde::Serialize;
use store::transfer::Last;

use super::carry::both_keys;
use super::history::ROWS;
use super::sides::{Side, Sides};
use super::{MigrateError, Progress};

type Result<T> = std::result::Result<T, MigrateError>;

/// Messages and keys read at a time.
const MESSAGES: usize = 500;
const KEYS: usize = 5000;

/// A part of the data on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    /// What it is.
    pub(crate) what: String,
    /// How many there are, and the SHA-256 of all of them.
    pub(crate) source: Sum,
    /// The same of the target.
    pub(crate) target: Sum,
}

/// How many, and what they add up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sum {
    /// How many.
    pub(crate) count: u64,
    /// In hexadecimal.
    pub(crate) sha256: String,
}

/// What both sides have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Part by part.
    pub(crate) parts: Vec<Part>,
}

impl Report {
    /// # Errors
    /// [`MigrateError::Differs`], with what differs.
    pub(super) fn check(&self) -> Result<()> {
        let differ = self.parts.iter().filter(|part| part.source != part.target);
        let named: Vec<String> = differ
            .map(|part| format!("{} ({} and {})", part.what, part.source.count, part.target.count))
            .collect();
        if named.is_empty() { Ok(()) } else { Err(MigrateError::Differs(named.join(", "))) }
    }
}

/// Adds up.
struct Adding {
    what: String,
    count: u64,
    context: Context,
}

impl Adding {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), count: 0, context: Context::new(&SHA256) }
    }

    /// One more, with its length before it.
    fn add(&mut self, octets: &[u8]) {
        self.count += 1;
        self.context.update(&(octets.len() as u64).to_le_bytes());
        self.context.update(octets);
    }

    fn done(self) -> (String, Sum) {
        let hash = self.context.finish();
        let sha256 = hash.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
        (self.what, Sum { count: self.count, sha256 })
    }
}

/// Reads both sides. What is to be known at the end of a transfer is found out with it.
pub(super) async fn both(sides: &Sides, progress: &mut Progress, last: &mut Last) -> Result<Report> {
    let source = one(&sides.source, progress, last).await?;
    let target = one(&sides.target, progress, last).await?;
    let mut parts: Vec<Part> = source
        .into_iter()
        .zip(target)
        .map(|((what, source), (_, target))| Part { what, source, target })
        .collect();
    let (mut here, mut there) = (Adding::new("keys of return paths"), Adding::new(""));
    let (source, target) = both_keys(sides).await?;
    source.iter().for_each(|keys| here.add(keys));
    target.iter().for_each(|keys| there.add(keys));
    let ((what, source), (_, target)) = (here.done(), there.done());
    parts.push(Part { what, source, target });
    Ok(Report { parts })
}

async fn one(side: &Side, progress: &mut Progress, last: &mut Last) -> Result<Vec<(String, Sum)>> {
    let mut sums = queue(side, progress, last).await?;
    for table in directory::transfer::tables() {
        let mut rows = Adding::new(format!("directory: {table}"));
        let mut after = None;
        loop {
            let page = side.directory.rows(table, after.as_ref()).await?;
            let Some(end) = page.last() else { break };
            after = Some(end.clone());
            page.iter().for_each(|row| rows.add(&row.octets()));
        }
        sums.push(rows.done());
    }
    sums.push(history(side, progress, last).await?);
    Ok(sums)
}

async fn queue(side: &Side, progress: &mut Progress, last: &mut Last) -> Result<Vec<(String, Sum)>> {
    let mut messages = Adding::new("messages, with deliveries and recipients");
    let mut content = Adding::new("content");
    let (mut deliveries, mut recipients) = (0, 0);
    let mut after = None;
    loop {
        let page = side.store.messages(after, MESSAGES).await?;
        let Some(end) = page.last() else { break };
        after = Some(end.id);
        for message in page {
            seen(last, message.id);
            deliveries += message.deliveries() as u64;
            recipients += message.recipients() as u64;
            messages.add(&message.octets());
            match side.store.content(&message).await? {
                Some(octets) => content.add(&octets),
                None => content.add(b"damaged"),
            }
        }
        progress.at(|| format!("comparing, {}: {} messages", side.name, messages.count));
    }
    let mut keys = Adding::new("dedupe keys");
    let mut key = None;
    loop {
        let page = side.store.keys(key.as_ref(), KEYS).await?;
        let Some(end) = page.last() else { break };
        key = Some(end.clone());
        page.iter().for_each(|key| keys.add(&key.octets()));
    }
    let mut notes = Adding::new("notes");
    for (name, value) in side.store.notes().await? {
        notes.add(name.as_bytes());
        notes.add(&value);
    }
    let (what, sum) = messages.done();
    let of = |what: &str, count| (what.to_owned(), Sum { count, sha256: sum.sha256.clone() });
    let (deliveries, recipients) = (of("deliveries", deliveries), of("recipients", recipients));
    Ok(vec![(what, sum), deliveries, recipients, content.done(), keys.done(), notes.done()])
}

async fn history(side: &Side, progress: &mut Progress, last: &mut Last) -> Result<(String, Sum)> {
    let mut rows = Adding::new("history");
    let mut after = None;
    loop {
        let page = side.history.export(after, ROWS).await?;
        let Some(end) = page.last() else { break };
        after = Some(end.mark());
        for record in page {
            seen(last, record.message);
            rows.add(&octets(&record, last));
        }
        progress.at(|| format!("comparing, {}: {} rows of the history", side.name, rows.count));
    }
    Ok(rows.done())
}

/// A row in octets. The numbers of its events are noted: none of them may be given again.
fn octets(record: &::history::Record, last: &mut Last) -> Vec<u8> {
    let mut all = record.day.to_le_bytes().to_vec();
    all.extend(record.message.0.to_le_bytes());
    let mut text = |octets: &[u8]| {
        all.extend((octets.len() as u64).to_le_bytes());
        all.extend(octets);
    };
    match &record.raw {
        ::history::Raw::Message { body } => text(body),
        ::history::Raw::Event { number, body, transcript } => {
            text(&number.to_le_bytes());
            text(body);
            transcript.iter().for_each(|octets| text(octets));
            let node = u16::try_from(number >> 48).unwrap_or(0);
            let known = last.events.entry(node).or_default();
            *known = (*known).max(number & ((1 << 48) - 1));
        }
    }
    all
}

/// A message of a node that may have had events of which nothing else is known any more.
fn seen(last: &mut Last, id: MessageId) {
    last.id = last.id.max(Some(id));
    last.events.entry(id.node()).or_default();
}
