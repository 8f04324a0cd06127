//! The history on its way. How far it is stands in a file of `data_dir`, as going through all of it again may take long;
//! what is there already is not taken twice, so that the file may be older than the truth.

use std::fs;
use std::path::{Path, PathBuf};

use ::history::Mark;
use serde::{Deserialize, Serialize};

use super::sides::Sides;
use super::{MigrateError, Progress};

type Result<T> = std::result::Result<T, MigrateError>;

/// Rows at a time.
pub(super) const ROWS: usize = 2000;

/// How far a transfer is.
#[derive(Serialize, Deserialize)]
struct Place {
    /// Which transfer.
    name: String,
    behind: Mark,
}

/// Carries what is left.
pub(super) async fn carry(sides: &Sides, progress: &mut Progress) -> Result<()> {
    let file = sides.data_dir.join("migration.history");
    let (mut behind, mut carried) = (read(&file, &sides.name), 0);
    progress.say("history");
    loop {
        let page = sides.source.history.export(behind, ROWS).await?;
        let Some(mark) = page.last().map(::history::Record::mark) else { break };
        carried += page.len();
        sides.target.history.import(page).await?;
        behind = Some(mark);
        write(&file, &Place { name: sides.name.clone(), behind: mark })?;
        progress.at(|| format!("history: {carried} rows"));
    }
    match fs::remove_file(&file) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(MigrateError::Io { path: file, source })
        }
        _ => Ok(()),
    }
}

/// A file of another transfer, or one that nobody understands, says nothing.
fn read(file: &Path, name: &str) -> Option<Mark> {
    let place: Place = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (place.name == name).then_some(place.behind)
}

fn write(file: &PathBuf, place: &Place) -> Result<()> {
    let unfinished = file.with_extension("new");
    let text = serde_json::to_vec(place).unwrap_or_default();
    let done = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, file));
    done.map_err(|source| MigrateError::Io { path: file.clone(), source })
}
