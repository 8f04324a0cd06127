//! A copy of the history while it is written.

use std::fs::{DirBuilder, File as Plain, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::file::File;
use super::files::Listed;
use crate::error::HistoryError;

/// Copies every file into `to`, which must not be there. How many octets it took.
pub(crate) fn copy(files: &[Listed], to: &Path) -> Result<u64, HistoryError> {
    let at_fault = |path: &Path| {
        let path = path.to_owned();
        move |source| HistoryError::Io { path, source }
    };
    DirBuilder::new().mode(0o700).create(to).map_err(at_fault(to))?;
    let mut bytes = 0;
    for listed in files {
        // Dropped at retention since it was listed: it is no part of the history any more.
        let Ok(file) = File::read(&listed.path) else { continue };
        let target = to.join(listed.name.file());
        // Made here, so that nobody else can read it while SQLite fills it; it takes an empty file.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target);
        let made = made.map_err(at_fault(&target))?;
        file.sql(|db| db.execute("VACUUM INTO $1", [target.to_string_lossy()]))?;
        made.sync_all().map_err(at_fault(&target))?;
        bytes += made.metadata().map_err(at_fault(&target))?.len();
    }
    Plain::open(to).and_then(|folder| folder.sync_all()).map_err(at_fault(to))?;
    Ok(bytes)
}
