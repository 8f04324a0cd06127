//! What can be asked of the history.

use mail::{Address, MessageId, OrgId, Timestamp, domain_to_ascii};
use serde::{Deserialize, Serialize};

use crate::error::HistoryError;

/// How many timelines a query gives when it does not say.
const LIMIT_DEFAULT: usize = 50;
/// The most timelines a query can ask for.
const LIMIT_MAX: usize = 1000;

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
    /// Only this organisation's mail.
    pub org: Option<i64>,
    /// Accepted at or after this time, in milliseconds since 1970.
    pub since: Option<i64>,
    /// Accepted before this time, in milliseconds since 1970.
    pub until: Option<i64>,
    /// At most so many timelines (default 50, at most 1000).
    pub limit: Option<usize>,
}
