//! A rule about replies: what it looks like, whose it is, what is done about it.

use std::sync::Arc;
use std::time::Duration;

use pattern::{DataError, ReplyPattern, Table};

use super::ReplyView;

/// A rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    /// Empty: every host's.
    pub(super) providers: Vec<Arc<str>>,
    pub(super) pattern: ReplyPattern,
    pub(super) action: Action,
    /// Where the reply is documented or was seen, and what it means.
    pub(super) source: String,
    pub(super) operators: bool,
    /// The line it stands on, for mistakes that show only later.
    pub(super) line: usize,
}

/// What a reply asks for. All of it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Action {
    /// The path is too fast.
    pub(super) slow: bool,
    /// The path is closed for so long.
    pub(super) suspend: Option<Duration>,
    /// There are too many connections; the regular expression's first group catches how many are allowed.
    pub(super) full: bool,
    /// The recipient is tried again after so long, or after what the reply says.
    pub(super) retry: Option<Duration>,
    /// A deferral that will never end.
    pub(super) bounce: bool,
    /// A refusal that is not for good.
    pub(super) keep: bool,
}

impl Action {
    fn take(table: &mut Table<'_>) -> Result<Self, DataError> {
        let action = Self {
            slow: table.flag("slow")?,
            suspend: table.duration("suspend")?,
            full: table.flag("full")?,
            retry: table.duration("retry")?,
            bounce: table.flag("bounce")?,
            keep: table.flag("keep")?,
        };
        if [action.retry.is_some(), action.bounce, action.keep].iter().filter(|set| **set).count() > 1 {
            return Err(table.error("only one of `retry`, `bounce` and `keep` can be done for a recipient"));
        }
        Ok(action)
    }

    fn describe(&self) -> String {
        let after = |d: Duration| format!("{} s", d.as_secs());
        let parts = [
            self.slow.then(|| "slow down".to_owned()),
            self.full.then(|| "fewer connections".to_owned()),
            self.suspend.map(|d| format!("suspend this source here for {}", after(d))),
            self.retry.map(|d| format!("try again after {}, or after what the reply says", after(d))),
            self.bounce.then(|| "give up".to_owned()),
            self.keep.then(|| "keep trying".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "nothing special".to_owned() } else { parts.join(", ") }
    }
}

impl Rule {
    /// Reads a rule; none when it says only that the rule of this name is off.
    pub(super) fn take(
        table: &mut Table<'_>,
        operators: bool,
    ) -> Result<(Arc<str>, Option<Self>), DataError> {
        let Some(name) = table.text("name")?.filter(|name| !name.is_empty()) else {
            return Err(table.error(
                "a reply needs a `name`: it stands in listings, and another file can replace it by that",
            ));
        };
        let name: Arc<str> = name.into();
        if table.flag("off")? {
            return Ok((name, None));
        }
        let rule = Self {
            name: name.clone(),
            providers: table.texts("providers")?.into_iter().map(Arc::from).collect(),
            pattern: ReplyPattern::take(table)?,
            action: Action::take(table)?,
            source: table.text("source")?.unwrap_or_default(),
            operators,
            line: table.line(),
        };
        Ok((name, Some(rule)))
    }

    pub(super) fn view(&self) -> ReplyView {
        ReplyView {
            name: self.name.clone(),
            pattern: self.pattern.describe(),
            action: self.action.describe(),
            source: self.source.clone(),
            operators: self.operators,
        }
    }
}
