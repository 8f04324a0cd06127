//! A change before it is committed: what it does to the snapshot, and the statements that do the same to the database.
//!
//! A change asks the snapshot, never the database, and so it is the same on both engines and can be made again: on
//! PostgreSQL, when the connection goes or another node was faster.

use std::sync::Arc;

use mail::{Actor, Timestamp};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::db::{Bad, Row, Value, Write, values};
use crate::error::DirectoryError;
use crate::snapshot::{Edit, Snapshot};
use crate::touched::Touched;

/// Longest name in the log of changes, in characters: PostgreSQL has a bound for what is in an index. What it was about is
/// told in full beside it.
const NAME_MAX: usize = 500;
/// How many commits the list of what they touched goes back; who is further behind reads everything.
const REMEMBERED: i64 = 10_000;

/// Takes the row that all changes take: whoever has it is the only one to change the directory until the commit. That it
/// writes matters on PostgreSQL: a transaction that only reads waits for no standby.
pub(crate) const TAKE_TURN: &str =
    "UPDATE directory.head SET turn = turn + 1 WHERE one = 1 RETURNING version, batch, ids, audits";

/// Which state of the directory this is. The number alone does not say: after a fail-over that lost a commit which nobody
/// was told of, the number is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) number: i64,
    /// Made up for each commit.
    pub(crate) batch: Arc<str>,
}

impl Default for Version {
    fn default() -> Self {
        Self { number: -1, batch: "".into() }
    }
}

impl Version {
    /// Whether nothing has been read from a database yet.
    pub(crate) fn is_none(&self) -> bool {
        self.number < 0
    }

    /// From the columns `version` and `batch`.
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, Bad> {
        Ok(Self { number: row.get(0)?, batch: row.get::<String>(1)?.into() })
    }
}

/// What [`TAKE_TURN`] answers.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) version: Version,
    /// The last number that was given to anything.
    ids: i64,
    /// The last number in the log of changes.
    audits: i64,
}

impl Turn {
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, Bad> {
        Ok(Self { version: Version::read(row)?, ids: row.get(2)?, audits: row.get(3)? })
    }
}

/// What a change sees and makes.
pub(crate) struct Draft {
    pub(crate) state: Snapshot,
    pub(crate) now: Timestamp,
    turn: Turn,
    writes: Vec<Write>,
    touched: Vec<Touched>,
}

impl Draft {
    /// Changes of `state`, which is what the database says at this turn.
    pub(crate) fn new(state: Snapshot, turn: Turn, now: Timestamp) -> Self {
        Self { state, now, turn, writes: Vec::new(), touched: Vec::new() }
    }

    /// Runs one change: all of it or nothing.
    pub(crate) fn run<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(T, Vec<Edit>), DirectoryError>,
    ) -> Result<T, DirectoryError> {
        let (mark, turn) = (self.writes.len(), self.turn.clone());
        let result = change(self).and_then(|done| {
            if self.writes[mark..].iter().any(|write| write.values.iter().any(Value::has_nul)) {
                return Err(DirectoryError::Invalid("a NUL has no place in any text".into()));
            }
            Ok(done)
        });
        match result {
            Ok((value, edits)) => {
                for edit in edits {
                    self.touched.push(edit.touches());
                    self.state.apply(edit);
                }
                Ok(value)
            }
            Err(e) => {
                self.writes.truncate(mark);
                self.turn = turn;
                Err(e)
            }
        }
    }

    /// Has a statement run when the change is committed.
    pub(crate) fn write(&mut self, sql: &'static str, values: Vec<Value>) {
        self.writes.push(Write { sql, values });
    }

    /// A number that was never given before.
    pub(crate) fn next_id(&mut self) -> i64 {
        self.turn.ids += 1;
        self.turn.ids
    }

    /// Puts a change on record. What is shown of `before` and `after` holds no secrets, because nothing serialises
    /// them.
    pub(crate) fn audit<T: Serialize>(
        &mut self,
        by: &Actor,
        action: &'static str,
        (what, name): (&'static str, &str),
        before: Option<&T>,
        after: Option<&T>,
    ) {
        let json = |value: Option<&T>| value.map(|v| serde_json::to_string(v).unwrap_or_default());
        self.record(by, action, (what, name), (json(before), json(after)));
    }

    /// Puts on record that something is different now. A secret is never shown, so that what is `replaced` is named.
    pub(crate) fn audit_set<T: Serialize>(
        &mut self,
        by: &Actor,
        (what, name): (&'static str, &str),
        before: &T,
        after: &T,
        replaced: Option<&'static str>,
    ) {
        let json = |value: &T| serde_json::to_value(value).unwrap_or_default();
        let (before, mut after) = (json(before), json(after));
        if let (Some(secret), Some(after)) = (replaced, after.as_object_mut()) {
            after.insert("replaced".into(), secret.into());
        }
        self.record(by, "set", (what, name), (Some(before.to_string()), Some(after.to_string())));
    }

    fn record(
        &mut self,
        by: &Actor,
        action: &'static str,
        (what, name): (&'static str, &str),
        (earlier, later): (Option<String>, Option<String>),
    ) {
        self.turn.audits += 1;
        let short: String = name.chars().take(NAME_MAX).collect();
        self.write(
            "INSERT INTO directory.audit (id, at, actor, action, what, name, earlier, later) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            values![self.turn.audits, self.now.millis(), by.as_str(), action, what, short, earlier, later],
        );
        tracing::info!(%by, action, what, name, "directory changed");
    }

    /// The statements that make the database what the snapshot is; none when there is nothing to do.
    pub(crate) fn finish(mut self, batch: &str) -> Option<(Snapshot, Vec<Write>)> {
        if self.writes.is_empty() {
            return None;
        }
        let number = self.turn.version.number + 1;
        let touched = serde_json::to_string(&self.touched).unwrap_or_default();
        self.write(
            "UPDATE directory.head SET version = $1, batch = $2, ids = $3, audits = $4 WHERE one = 1",
            values![number, batch, self.turn.ids, self.turn.audits],
        );
        self.write(
            "INSERT INTO directory.change (version, batch, touched) VALUES ($1, $2, $3)",
            values![number, batch, touched],
        );
        self.write("DELETE FROM directory.change WHERE version <= $1", values![number - REMEMBERED]);
        self.state.version = Version { number, batch: batch.into() };
        Some((self.state, self.writes))
    }
}

/// A change that somebody waits for.
pub(crate) trait Change: Send {
    /// Makes it. May be asked again, with another draft, as long as the one before was not committed.
    fn run(&mut self, draft: &mut Draft);
    /// Answers whoever asked, once it is committed or has failed.
    fn answer(self: Box<Self>, committed: Result<(), Failed>);
}

/// Why something was not committed.
#[derive(Clone, Debug)]
pub(crate) enum Failed {
    /// It was not, in these words.
    Not(String),
    /// Nobody can tell.
    Unknown(String),
}

impl From<Failed> for DirectoryError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Not(why) => DirectoryError::Commit(why),
            Failed::Unknown(why) => DirectoryError::Unknown(why),
        }
    }
}

/// A change, what came of it, and who waits.
pub(crate) struct Asked<T, F> {
    change: F,
    result: Result<T, DirectoryError>,
    done: oneshot::Sender<Result<T, DirectoryError>>,
}

impl<T, F> Asked<T, F>
where
    T: Send + 'static,
    F: Fn(&mut Draft) -> Result<(T, Vec<Edit>), DirectoryError> + Send + 'static,
{
    pub(crate) fn boxed(change: F, done: oneshot::Sender<Result<T, DirectoryError>>) -> Box<dyn Change> {
        Box::new(Self { change, result: Err(DirectoryError::Closed), done })
    }
}

impl<T, F> Change for Asked<T, F>
where
    T: Send,
    F: Fn(&mut Draft) -> Result<(T, Vec<Edit>), DirectoryError> + Send,
{
    fn run(&mut self, draft: &mut Draft) {
        self.result = draft.run(&self.change);
    }

    fn answer(self: Box<Self>, committed: Result<(), Failed>) {
        let Self { result, done, .. } = *self;
        // A change that was refused is refused whatever became of the others.
        let result = result.and_then(|value| committed.map(|()| value).map_err(Into::into));
        // Nobody waits any more: the change stands all the same.
        let _ = done.send(result);
    }
}
