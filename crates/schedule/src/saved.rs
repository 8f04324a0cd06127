//! What outlives the process: windows, suspensions, warm-up counts, rate clocks. Small: of what has nothing to tell, nothing
//! is saved. Times are on the wall clock.

use std::sync::Arc;

use mail::{OrgId, Outcome, SourceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::effect::Path;

/// The scheduler's memory, to be saved every now and then and at the end, and given to [`crate::Scheduler::restore`] at the
/// start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedState {
    /// What was learned of paths.
    pub paths: Vec<SavedPath>,
    /// The day (UTC, since 1970) that the warm-up counts are of.
    pub warmup_day: i64,
    /// Messages of that day by source and a hash of the site.
    pub warmup: Vec<(SourceName, u64, u32)>,
    /// When organisations that have a rate may go on.
    pub orgs: Vec<(OrgId, SavedClock)>,
    /// When credentials that have a rate may go on.
    pub credentials: Vec<(Arc<str>, SavedClock)>,
    /// When destinations that have a rate may go on, by their text.
    pub routes: Vec<(String, SavedClock)>,
}

impl SavedState {
    /// An operator wants mail tried now while nothing runs: no path is closed when it goes on.
    pub fn lift(&mut self) {
        self.paths.iter_mut().for_each(|path| path.closed_until = None);
    }
}

/// The clocks of somebody who has a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedClock {
    /// Where the rate's clock stands: when the next attempt would be made if all were spread evenly.
    pub next: Timestamp,
    /// The last time that was given away to mail on disk.
    pub booked: Timestamp,
}

/// What was learned of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPath {
    /// Which.
    pub path: Path,
    /// Connections that it may have, in hundredths.
    pub window: u32,
    /// Where growth becomes slow, in hundredths.
    pub calm: u32,
    /// Failures, or slow-downs at one connection, in a row.
    pub failures: u32,
    /// Until when it is closed.
    pub closed_until: Option<Timestamp>,
    /// Why it is closed.
    pub cause: SavedCause,
    /// What it met last.
    pub failure: Option<Outcome>,
    /// Where the clock of its rate stands.
    pub next_message: Option<Timestamp>,
    /// Where the clock of its connection rate stands.
    pub next_connection: Option<Timestamp>,
}

/// Why a path is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedCause {
    /// No connection could be made.
    #[default]
    Unreachable,
    /// The site asked us to slow down.
    Slowed,
    /// The site does not want the source for a while.
    Unwanted,
}
