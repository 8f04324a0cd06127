//! What can be asked of the history. How an answer is found is the engines' business.

use mail::{Accepted, Address, DeliveryId, MessageId, Timestamp, domain_to_ascii};
use serde::{Deserialize, Serialize};

use crate::day;
use crate::error::HistoryError;
use crate::key::{Key, folded};

/// How many timelines a query gives when it does not say.
const LIMIT_DEFAULT: usize = 50;
/// The most timelines a query can ask for.
const LIMIT_MAX: usize = 1000;
/// An id is made before its message is accepted, and by a clock that may have been set since.
pub(crate) const SLACK_MS: i64 = 86_400_000;
/// Rows in one read of a listing by time.
pub(crate) const PAGE: usize = 500;

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
    pub(crate) ids: Vec<MessageId>,
    /// One key of each group must match.
    pub(crate) groups: Vec<Vec<Key>>,
    pub(crate) org: Option<i64>,
    pub(crate) since: i64,
    pub(crate) until: i64,
    pub(crate) before: MessageId,
    pub(crate) limit: usize,
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

    /// Whether a message is one of those asked for.
    pub(crate) fn matches(&self, accepted: &Accepted) -> bool {
        let at = accepted.message.received_at.millis();
        at >= self.since
            && at < self.until
            && accepted.message.id < self.before
            && self.org.is_none_or(|org| org == accepted.message.org.0)
            && self.groups.iter().all(|keys| keys.iter().any(|key| key.matches(accepted)))
    }

    /// Between which ids, the second one excluded, the messages of the time that is asked for are.
    pub(crate) fn ids_in_time(&self) -> (MessageId, MessageId) {
        let edge = |ms: i64| day::first_at(Timestamp(ms));
        let first = edge(self.since.saturating_sub(SLACK_MS));
        let behind =
            if self.until == i64::MAX { self.before } else { edge(self.until.saturating_add(SLACK_MS)) };
        (first, behind.min(self.before))
    }

    /// The message that the query names by its id and by nothing else. It may have lost its row: its events are shown all
    /// the same.
    pub(crate) fn only_id(&self) -> Option<MessageId> {
        let nothing_else =
            self.groups.is_empty() && self.org.is_none() && self.since == i64::MIN && self.until == i64::MAX;
        self.ids.first().copied().filter(|id| nothing_else && *id < self.before)
    }
}

/// The newest messages found so far, as many as were asked for.
pub(crate) struct Found {
    ids: Vec<MessageId>,
    limit: usize,
}

impl Found {
    pub(crate) fn new(limit: usize) -> Self {
        Self { ids: Vec::new(), limit }
    }

    /// Whether this one would be among them.
    pub(crate) fn wants(&self, id: MessageId) -> bool {
        self.ids.len() < self.limit || self.ids.last().is_some_and(|last| id > *last)
    }

    pub(crate) fn add(&mut self, id: MessageId) {
        // Largest first; the same message may be found in several places.
        if let Err(place) = self.ids.binary_search_by(|known| id.cmp(known)) {
            self.ids.insert(place, id);
            self.ids.truncate(self.limit);
        }
    }

    /// Whether nothing below `bound` can change it any more.
    pub(crate) fn complete(&self, bound: MessageId) -> bool {
        !self.wants(MessageId(bound.0.saturating_sub(1)))
    }

    /// Newest first.
    pub(crate) fn into_ids(self) -> Vec<MessageId> {
        self.ids
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let mut found = Found::new(2);
        for id in [3, 5, 5, 1] {
            assert!(id == 1 || found.wants(MessageId(id)));
            found.add(MessageId(id));
        }
        assert!(!found.wants(MessageId(3)) && found.wants(MessageId(4)));
        assert!(found.complete(MessageId(4)) && !found.complete(MessageId(5)));
        found.add(MessageId(4));
        assert_eq!(found.into_ids(), [MessageId(5), MessageId(4)]);
        assert!(Found::new(0).complete(MessageId(9)));
    }
}
