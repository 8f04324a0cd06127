//! The files of the history: their names, which of them are read, and where damaged ones go.

use std::path::{Path, PathBuf};

use jiff::civil::Date;
use mail::Timestamp;

use super::file::{File, Span};
use crate::day;
use crate::error::HistoryError;

/// A file's place in time: `2026-11-24-001.db` is the first of that day in UTC. Files sort by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) day: Date,
    pub(crate) number: u32,
}

impl Name {
    pub(crate) fn parse(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".db")?;
        let (day, number) = stem.rsplit_once('-')?;
        let name = Self { day: day.parse().ok()?, number: number.parse().ok()? };
        (name.file() == format!("{stem}.db")).then_some(name)
    }

    pub(crate) fn file(self) -> String {
        format!("{}-{:03}.db", self.day, self.number)
    }

    /// The end of its day.
    pub(crate) fn end(self) -> Timestamp {
        day::begin(day::number(self.day) + 1)
    }
}

/// A file that is read, as it was when it was listed; of the one that is written, only the name is sure.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) path: PathBuf,
    pub(crate) name: Name,
    pub(crate) span: Span,
    pub(crate) bytes: u64,
}

/// All files of the directory, oldest first. Damaged ones are set aside, those of a newer version passed over.
pub(crate) fn list(dir: &Path) -> Result<Vec<Listed>, HistoryError> {
    let at_fault = |source| HistoryError::Io { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at_fault)? {
        let path = entry.map_err(at_fault)?.path();
        names.extend(Name::parse(&path).map(|name| (name, path)));
    }
    names.sort_unstable();
    let mut files = Vec::new();
    for (name, path) in names {
        match look(&path) {
            Ok((span, bytes)) => files.push(Listed { path, name, span, bytes }),
            Err(e) if e.is_damage() => set_aside(&path, &e),
            Err(e) => tracing::error!(error = %e, "a file of the history cannot be read and is passed over"),
        }
    }
    Ok(files)
}

fn look(path: &Path) -> Result<(Span, u64), HistoryError> {
    // For writing, as only that can take in what a crash left in the write-ahead log.
    let file = File::open(path)?;
    Ok((file.span()?, file.size()?))
}

/// Renames a damaged file, so that it is kept for a person to look at and never opened again.
pub(crate) fn set_aside(path: &Path, why: &HistoryError) {
    let aside = (1..1000).map(|n| path.with_extension(format!("db.damaged-{n}"))).find(|p| !p.exists());
    let aside = aside.unwrap_or_else(|| path.with_extension("db.damaged"));
    match std::fs::rename(path, &aside) {
        Ok(()) => tracing::error!(
            error = %why, kept = %aside.display(),
            "a file of the history is damaged and was set aside: what became of its messages cannot be told; mail is not affected"
        ),
        Err(e) => {
            tracing::error!(error = %why, rename = %e, path = %path.display(), "a file of the history is damaged")
        }
    }
    for extension in ["db-wal", "db-shm"] {
        // The log belongs to the damaged file; left behind it would be taken for a new one's.
        let _ = std::fs::remove_file(path.with_extension(extension));
    }
}

/// Removes a file and what SQLite keeps beside it.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    for extension in ["db-wal", "db-shm"] {
        match std::fs::remove_file(path.with_extension(extension)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    std::fs::remove_file(path)
}

/// The first name of a day, or the next one behind `after`, that nothing in the directory bears yet.
pub(crate) fn fresh(dir: &Path, day: Date, after: Option<Name>) -> PathBuf {
    let (day, number) = match after {
        Some(name) if name.day >= day => (name.day, name.number + 1),
        _ => (day, 1),
    };
    let free = |n: &u32| {
        let path = dir.join(Name { day, number: *n }.file());
        !path.exists() && !path.with_extension("db.damaged-1").exists()
    };
    let number = (number..).find(free).unwrap_or(number);
    dir.join(Name { day, number }.file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = Name::parse(Path::new("/x/2026-11-24-001.db")).unwrap();
        assert_eq!(name.file(), "2026-11-24-001.db");
        assert_eq!(name.end().to_string(), "2026-11-25T00:00:00.000Z");
        assert_eq!(day::date(day::of(Timestamp(name.end().millis() - 1))), name.day);
        let big = Name { number: 1000, ..name };
        assert_eq!(Name::parse(Path::new(&big.file())), Some(big));
        for bad in [
            "2026-11-24.db",
            "2026-11-24-1.db",
            "2026-13-24-001.db",
            "x.db",
            "2026-11-24-001.db-wal",
            "2026-11-24-001.db.damaged-1",
        ] {
            assert_eq!(Name::parse(Path::new(bad)), None, "{bad}");
        }
    }
}
