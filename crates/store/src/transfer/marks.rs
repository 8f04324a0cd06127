//! What keeps relays from data that is on its way.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use postgres::{PgError, Pool, Session};

use crate::error::StoreError;
use crate::pg::read_error;

/// In the data directory.
const NAME: &str = "migration";
/// In PostgreSQL it is a note of no node.
const SELECT: &str = "SELECT value FROM store.note WHERE node = -1 AND name = 'migration'";

/// What data that is or was carried to another engine is marked with. The name is the transfer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is being carried away. A relay that is started here all the same goes on with it, and the transfer begins anew.
    Leaving(String),
    /// It has not arrived completely.
    Arriving(String),
    /// All of it is in the other engine.
    Gone(String),
}

impl Mark {
    fn text(&self) -> String {
        match self {
            Self::Leaving(name) => format!("leaving {name}\n"),
            Self::Arriving(name) => format!("arriving {name}\n"),
            Self::Gone(name) => format!("gone {name}\n"),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let (what, name) = text.trim().split_once(' ')?;
        let name = name.to_owned();
        Some(match what {
            "leaving" => Self::Leaving(name),
            "arriving" => Self::Arriving(name),
            "gone" => Self::Gone(name),
            _ => return None,
        })
    }
}

fn unreadable(place: &str) -> StoreError {
    StoreError::Invalid(format!("{place} is marked with what this version does not understand"))
}

/// What a data directory is marked with.
///
/// # Errors
/// `Io`; `Invalid` for what nobody understands.
pub fn mark_of_dir(dir: &Path) -> Result<Option<Mark>, StoreError> {
    let path = dir.join(NAME);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(format!("reading {}", path.display()), &error)),
        Ok(text) => Mark::read(&text).map(Some).ok_or_else(|| unreadable(&path.display().to_string())),
    }
}

/// Marks a data directory, on stable storage.
pub(super) fn set_mark_of_dir(dir: &Path, mark: Option<&Mark>) -> Result<(), StoreError> {
    let path = dir.join(NAME);
    let write = || match mark {
        Some(mark) => {
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(mark.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        }
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        },
    };
    let done = write().and_then(|()| File::open(dir)?.sync_all());
    done.map_err(|e| StoreError::io(format!("writing {}", path.display()), &e))
}

/// What the data in PostgreSQL is marked with; none also where there is no data.
///
/// # Errors
/// `Unavailable`, `Server`; `Invalid` for what nobody understands.
pub async fn mark_of_postgres(pool: &Pool) -> Result<Option<Mark>, StoreError> {
    let value = pool.read(mark_in).await.map_err(|e| read_error(&e))?;
    let Some(value) = value else { return Ok(None) };
    let mark = std::str::from_utf8(&value).ok().and_then(Mark::read);
    mark.map(Some).ok_or_else(|| unreadable("the data in PostgreSQL"))
}

async fn mark_in(session: Session) -> Result<Option<Vec<u8>>, PgError> {
    let there = session.query_one("SELECT to_regclass('store.note') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    Ok(session.query_opt(SELECT, &[]).await?.map(|row| row.get(0)))
}

/// Marks the data in PostgreSQL.
pub(super) async fn set_mark_of_postgres(pool: &Pool, mark: Option<&Mark>) -> Result<(), StoreError> {
    let value = mark.map(|mark| mark.text().into_bytes());
    let value = &value;
    let done = pool.commit_idempotent(|tx| async move {
        match value {
            Some(value) => {
                let sql = "INSERT INTO store.note (node, name, value) VALUES (-1, 'migration', $1) \
                    ON CONFLICT (node, name) DO UPDATE SET value = excluded.value";
                tx.execute(sql, &[value]).await
            }
            None => tx.execute("DELETE FROM store.note WHERE node = -1 AND name = 'migration'", &[]).await,
        }
    });
    done.await.map(drop).map_err(|e| StoreError::Unavailable(e.to_string()))
}

/// A relay is about to work with this data, which is so marked.
fn refuse(mark: &Mark, other: &str) -> Result<(), StoreError> {
    let why = match mark {
        Mark::Leaving(_) => return Ok(()),
        Mark::Arriving(_) => {
            "a migration to here was not finished: finish it with posthouse migrate, or go on where the data still is".into()
        }
        Mark::Gone(_) => format!(
            "what was here has been migrated: it is in {other} now. Set store.engine accordingly, or bring it back with \
             posthouse migrate"
        ),
    };
    Err(StoreError::Invalid(why))
}

/// Refuses a data directory from which the data has gone, or in which not all of it has arrived.
pub(crate) fn refuse_dir(dir: &Path) -> Result<(), StoreError> {
    let Some(mark) = mark_of_dir(dir)? else { return Ok(()) };
    refuse(&mark, "PostgreSQL")
}

/// What was being carried away from this directory stays: a relay goes on with it.
pub(crate) fn stays_in_dir(dir: &Path) -> Result<(), StoreError> {
    if let Some(Mark::Leaving(_)) = mark_of_dir(dir)? {
        tracing::warn!("a migration away from here was not finished: it has to begin anew");
        set_mark_of_dir(dir, None)?;
    }
    Ok(())
}

/// The same for PostgreSQL.
pub(crate) async fn refuse_postgres(pool: &Pool) -> Result<(), StoreError> {
    let Some(mark) = mark_of_postgres(pool).await? else { return Ok(()) };
    refuse(&mark, "a data directory")?;
    tracing::warn!("a migration away from here was not finished: it has to begin anew");
    set_mark_of_postgres(pool, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lasts_and_says_who_may_open() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(mark_of_dir(dir).unwrap(), None);
        refuse_dir(dir).unwrap();
        let name = || "20260101T000000Z".to_owned();
        for (mark, opens) in
            [(Mark::Leaving(name()), true), (Mark::Arriving(name()), false), (Mark::Gone(name()), false)]
        {
            set_mark_of_dir(dir, Some(&mark)).unwrap();
            assert_eq!(mark_of_dir(dir).unwrap(), Some(mark));
            assert_eq!(refuse_dir(dir).is_ok(), opens);
        }
        set_mark_of_dir(dir, Some(&Mark::Leaving(name()))).unwrap();
        stays_in_dir(dir).unwrap();
        assert_eq!(mark_of_dir(dir).unwrap(), None);
        fs::write(dir.join(NAME), "flying away").unwrap();
        assert!(refuse_dir(dir).is_err());
    }
}
