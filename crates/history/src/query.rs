//! What can be asked of the history, and how the answer is found.

use mail::{Accepted, Address, DeliveryId, MessageId, Timestamp, domain_to_ascii};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::error::HistoryError;
use crate::file::{File, number};
use crate::files::Listed;
use crate::index::{self, Key, folded};
use crate::record;
use crate::timeline::Story;
use crate::view::Timeline;

/// How many timelines a query gives when it does not say.
const LIMIT_DEFAULT: usize = 50;
/// The most timelines a query can ask for.
const LIMIT_MAX: usize = 1000;
/// An id is made before its message is accepted, and by a clock that may have been set since.
const SLACK_MS: i64 = 86_400_000;
/// Rows in one read of a listing by time.
const PAGE: usize = 500;

/// A question to the history. All that is given must match; newest messages come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceQuery {
    /// Whatever a person typed: a message or delivery id, an address (sender or recipient), a Message-ID or a
    /// recipient's domain.
    pub text: Option<String>,
    /// The envelope's sender; empty or `<>` is the null sender.
    pub sender: Option<String>,
    /// A recipient's address.
    pub recipient: Option<String>,
    /// A recipient's domain.
    pub domain: Option<String>,
    /// The Message-ID header field, with or without angle brackets.
    pub message_id: Option<String>,
    /// Our own id, as in the reply to the final dot; a delivery's id is its message's.
    pub id: Option<String>,
    /// Only this organisation's mail, by its number.
    pub org: Option<i64>,
    /// Accepted at or after this time, in milliseconds since 1970.
    pub since: Option<i64>,
    /// Accepted before this time, in milliseconds since 1970.
    pub until: Option<i64>,
    /// Only messages older than this one, by its id: the last one of the page before.
    pub before: Option<String>,
    /// At most so many timelines (default 50, at most 1000).
    pub limit: Option<usize>,
}

/// A query as it is carried out.
pub(crate) struct Plan {
    ids: Vec<MessageId>,
    /// One key of each group must match.
    groups: Vec<Vec<Key>>,
    org: Option<i64>,
    since: i64,
    until: i64,
    before: MessageId,
    limit: usize,
}

impl Plan {
    pub(crate) fn new(query: &TraceQuery) -> Result<Self, HistoryError> {
        let mut plan = Self {
            ids: Vec::new(),
            groups: Vec::new(),
            org: query.org,
            since: query.since.unwrap_or(i64::MIN),
            until: query.until.unwrap_or(i64::MAX),
            before: MessageId(i64::MAX as u64),
            limit: query.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX),
        };
        let id_of = |text: &String| {
            let unknown = || HistoryError::Query(format!("{text:?} is no message id: 13 letters and digits"));
            parse_id(text).ok_or_else(unknown)
        };
        if let Some(text) = &query.before {
            plan.before = id_of(text)?;
        }
        if let Some(text) = &query.id {
            plan.ids.push(id_of(text)?);
        }
        if let Some(text) = query.text.as_deref().map(str::trim).filter(|t| !t.is_empty()) {
            match parse_id(text) {
                Some(id) => plan.ids.push(id),
                None => plan.groups.push(guess(text)),
            }
        }
        let given = [
            query.sender.as_deref().map(|t| Key::Sender(address(t))),
            query.recipient.as_deref().map(|t| Key::Recipient(address(t))),
            query.domain.as_deref().map(|t| Key::Domain(domain(t))),
            query.message_id.as_deref().map(|t| Key::MessageId(bare(t).to_owned())),
        ];
        plan.groups.extend(given.into_iter().flatten().map(|key| vec![key]));
        if plan.ids.windows(2).any(|w| w[0] != w[1]) {
            return Err(HistoryError::Query("the query names two messages".into()));
        }
        Ok(plan)
    }

    fn matches(&self, accepted: &Accepted) -> bool {
        let at = accepted.message.received_at.millis();
        at >= self.since
            && at < self.until
            && accepted.message.id < self.before
            && self.org.is_none_or(|org| org == accepted.message.org.0)
            && self.groups.iter().all(|keys| keys.iter().any(|key| key.matches(accepted)))
    }

    /// Finds the messages, newest first.
    pub(crate) fn run(&self, files: &[Listed]) -> Vec<Timeline> {
        let readers = Readers::open(files);
        let mut found: Vec<MessageId> = Vec::new();
        for (file, listed) in readers.0.iter().rev() {
            if found.len() >= self.limit {
                break;
            }
            // Of the file that is written the span may have grown; its name tells enough.
            let over = listed.name.end().millis() + SLACK_MS < self.since
                && listed.span.last_at.millis() < self.since;
            let result = if over { Ok(()) } else { self.search(file, &mut found) };
            if let Err(e) = result {
                tracing::error!(error = %e, "a file of the history cannot be searched");
            }
        }
        // A message told of by id may have lost its row: its events are shown all the same.
        let whole_query =
            self.groups.is_empty() && self.org.is_none() && self.since == i64::MIN && self.until == i64::MAX;
        let id = self.ids.first().filter(|id| **id < self.before);
        if let (true, true, Some(id)) = (found.is_empty(), whole_query, id) {
            found.push(*id);
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found.truncate(self.limit);
        let stories = found.into_iter().map(|id| (id, readers.story(id)));
        stories.filter(|(_, story)| !story.is_empty()).map(|(id, story)| story.tell(id)).collect()
    }

    fn search(&self, file: &File, found: &mut Vec<MessageId>) -> Result<(), HistoryError> {
        if let Some(id) = self.ids.first() {
            return self.consider(file, *id, found);
        }
        if self.groups.is_empty() {
            return self.by_time(file, found);
        }
        let mut candidates: Option<Vec<u64>> = None;
        for keys in &self.groups {
            let mut ids = Vec::new();
            for key in keys {
                file.sql(|db| index::find(db, key.hash(), &mut ids))?;
            }
            ids.sort_unstable();
            ids.dedup();
            if let Some(before) = &candidates {
                ids.retain(|id| before.binary_search(id).is_ok());
            }
            candidates = Some(ids);
        }
        for id in candidates.unwrap_or_default().into_iter().rev() {
            if found.len() >= self.limit {
                break;
            }
            self.consider(file, MessageId(id), found)?;
        }
        Ok(())
    }

    /// Takes a message that is in this file and matches.
    fn consider(&self, file: &File, id: MessageId, found: &mut Vec<MessageId>) -> Result<(), HistoryError> {
        let Some(body) = file.message(id)? else { return Ok(()) };
        let accepted = record::read_accepted(&body).map_err(|bad| file.damaged(bad.0))?;
        if self.matches(&accepted) {
            found.push(id);
        }
        Ok(())
    }

    /// The newest messages of the time that is asked for.
    fn by_time(&self, file: &File, found: &mut Vec<MessageId>) -> Result<(), HistoryError> {
        let edge = |ms: i64| number(MessageId::first_at(Timestamp(ms)));
        let first = edge(self.since.saturating_sub(SLACK_MS));
        let behind =
            if self.until == i64::MAX { i64::MAX } else { edge(self.until.saturating_add(SLACK_MS)) };
        let mut behind = behind.min(number(self.before));
        while found.len() < self.limit {
            let rows: Vec<(i64, Vec<u8>)> = file.sql(|db| {
                db.prepare_cached(
                    "SELECT id, body FROM message WHERE id >= $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                )?
                .query_map(params![first, behind, i64::try_from(PAGE).unwrap_or(1)], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect()
            })?;
            let Some((last, _)) = rows.last() else { break };
            behind = *last;
            for (id, body) in rows {
                let accepted = record::read_accepted(&body).map_err(|bad| file.damaged(bad.0))?;
                if self.matches(&accepted) && found.len() < self.limit {
                    found.push(MessageId(u64::try_from(id).unwrap_or(0)));
                }
            }
        }
        Ok(())
    }
}

/// All files, open for reading, oldest first.
pub(crate) struct Readers(Vec<(File, Listed)>);

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

fn parse_id(text: &str) -> Option<MessageId> {
    let (message, index) = text.split_once('-').unwrap_or((text, "0"));
    let index = index.parse().ok()?;
    Some(DeliveryId { message: message.parse().ok()?, index }.message)
}

/// What a person may have meant.
fn guess(text: &str) -> Vec<Key> {
    if text == "<>" {
        return vec![Key::Sender(String::new())];
    }
    if bare(text).contains('@') && !text.starts_with('@') {
        let folded = address(bare(text));
        return vec![
            Key::Sender(folded.clone()),
            Key::Recipient(folded),
            Key::MessageId(bare(text).to_owned()),
        ];
    }
    vec![Key::Domain(domain(text)), Key::MessageId(bare(text).to_owned())]
}

fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(text)
}

fn address(text: &str) -> String {
    let text = bare(text);
    Address::parse(text).map_or_else(|_| text.to_lowercase(), |a| folded(&a))
}

fn domain(text: &str) -> String {
    let text = text.trim().trim_start_matches('@');
    domain_to_ascii(text).unwrap_or_else(|| text.to_lowercase())
}
