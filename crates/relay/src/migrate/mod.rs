//! `posthouse migrate`: everything that a relay keeps, carried from `data_dir` to PostgreSQL or back, while none runs.
//!
//! The data is copied, never moved: the source stays as it was until somebody deletes it. Both sides are marked, so that no
//! relay works on what is half there or what has gone ([`store::transfer::Mark`]). What is put may be put again, so that
//! whoever was interrupted goes on by asking again; and at the end both sides are read from the first octet to the last
//! and compared.

mod carry;
mod compare;
mod history;
mod sides;

use std::path::PathBuf;

use mail::Clock;
use store::transfer::{Last, Mark};

pub(crate) use compare::Report;
use sides::Sides;

use crate::config::Config;

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum To {
    /// From `data_dir` to the PostgreSQL of `store.url`.
    Postgres,
    /// Back.
    Embedded,
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    /// The operator: in this state of things it would lose or mix something.
    #[error("{0}")]
    Refused(String),
    /// The operator: a relay runs.
    #[error("{0}: stop it first")]
    Running(String),
    /// The disk, one of the databases, or a fault of ours: what has arrived is not what was there.
    #[error("the two sides differ: {0}")]
    Differs(String),
    /// The disk.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error(transparent)]
    Directory(#[from] directory::DirectoryError),
    #[error(transparent)]
    History(#[from] ::history::HistoryError),
    #[error(transparent)]
    Postgres(#[from] postgres::PgError),
    #[error(transparent)]
    Cluster(#[from] cluster::ClusterError),
}

/// Tells how far it is.
pub(crate) struct Progress {
    clock: Clock,
    tell: fn(&str),
    told: mail::Mono,
}

impl Progress {
    pub(crate) fn new(clock: Clock, tell: fn(&str)) -> Self {
        let told = clock.mono();
        Self { clock, tell, told }
    }

    /// Something has begun or ended.
    fn say(&mut self, text: &str) {
        self.told = self.clock.mono();
        (self.tell)(text);
    }

    /// It goes on: told every few seconds.
    fn at(&mut self, text: impl FnOnce() -> String) {
        const EVERY: std::time::Duration = std::time::Duration::from_secs(5);
        if self.clock.mono().since(self.told) >= EVERY {
            self.say(&text());
        }
    }
}

/// Carries everything, or what is left of it, and compares.
///
/// # Errors
/// See [`MigrateError`]. Whatever it is, asking again goes on where this ended.
pub(crate) async fn migrate(
    config: &Config,
    to: To,
    clock: &Clock,
    progress: &mut Progress,
) -> Result<Report, MigrateError> {
    let sides = Sides::prepare(config, to, clock, progress).await?;
    let mut last = Last::default();
    carry::queue(&sides, clock, progress, &mut last).await?;
    carry::directory(&sides, progress).await?;
    history::carry(&sides, progress).await?;
    progress.say("comparing both sides");
    let report = compare::both(&sides, progress, &mut last).await?;
    report.check()?;
    sides.target.store.finish(&last, clock.now()).await?;
    sides.target.directory.finish(&sides.source.directory).await?;
    // In this order: interrupted in between, the source is not used any more and the target not yet.
    sides.source.store.set_mark(Some(&Mark::Gone(sides.name.clone()))).await?;
    sides.target.store.set_mark(None).await?;
    sides.close().await;
    Ok(report)
}

/// Compares both sides, and changes nothing.
///
/// # Errors
/// See [`MigrateError`].
pub(crate) async fn verify(
    config: &Config,
    to: To,
    clock: &Clock,
    progress: &mut Progress,
) -> Result<Report, MigrateError> {
    let sides = Sides::look(config, to, clock).await?;
    let report = compare::both(&sides, progress, &mut Last::default()).await?;
    sides.close().await;
    report.check()?;
    Ok(report)
}
