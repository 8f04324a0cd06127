//! A consistent copy of the store while it works, and the way back.
//!
//! A backup is a directory with `queue.db`, `content/` and `MANIFEST`, a text that names each file with its size and
//! CRC32C and is written last: without it a backup is not complete.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::open::{CONTENT, DATABASE};
use super::schema::{self, fact};
use super::{Shared, sql_error};
use crate::content::{CHUNK, SegmentId, file_name, make_dir};
use crate::error::StoreError;
use crate::lock::Lock;
use crate::model::{BackupReport, RestoreReport};

const MANIFEST: &str = "MANIFEST";
const FIRST_LINE: &str = "posthouse store backup 1";
/// Event numbers of a restored store begin so far behind those of the backup, because the history may have seen more events
/// than the backup has, and takes a number it knows for an event it knows.
const EVENTS_AHEAD: i64 = 1 << 32;

type Result<T> = std::result::Result<T, StoreError>;

/// A file of a backup: its name there, its size, its CRC32C.
struct Entry {
    name: String,
    size: u64,
    crc: u32,
}

pub(crate) fn backup(shared: &Shared, to: &Path) -> Result<BackupReport> {
    empty_dir(to)?;
    make_dir(&to.join(CONTENT))?;
    // No content file is moved or deleted until they are copied.
    let _keep = shared.keep_files.read();
    let database = to.join(DATABASE);
    let name = database.to_str().ok_or_else(|| StoreError::Invalid("the path is not UTF-8".into()))?;
    shared.health.check()?;
    let conn = Connection::open_with_flags(&shared.database, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|e| sql_error("opening the queue", &e))?;
    conn.execute("VACUUM INTO ?1", [name]).map_err(|e| sql_error("copying the queue", &e))?;
    drop(conn);
    let (messages, segments) = referred(&database)?;
    let mut files = vec![checksum(&database, DATABASE.into())?];
    for (id, size) in &segments {
        let name = format!("{CONTENT}/{}", file_name(*id));
        match copy(&shared.segments.path(*id), &to.join(&name), *size) {
            Ok((size, crc)) => files.push(Entry { name, size, crc }),
            // Its messages are quarantined for that already, or will be.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!(segment = id, "a content file is missing; the backup goes on without it");
            }
            Err(e) => return Err(StoreError::io("copying content", &e)),
        }
    }
    sync(&database)?;
    sync(&to.join(CONTENT))?;
    write_manifest(to, &files)?;
    sync(to)?;
    let bytes = files.iter().map(|file| file.size).sum();
    Ok(BackupReport { messages, segments: files.len() as u64 - 1, bytes })
}

pub(crate) fn restore(from: &Path, dir: &Path) -> Result<RestoreReport> {
    let files = read_manifest(from)?;
    make_dir(dir)?;
    let _lock = Lock::take(dir)?;
    for there in [DATABASE, CONTENT] {
        if dir.join(there).exists() {
            return Err(StoreError::NotEmpty(dir.join(there)));
        }
    }
    // Under another name until all is there: a restore that was cut short leaves no store that looks whole.
    let part = dir.join("queue.db.part");
    make_dir(&dir.join(CONTENT))?;
    let restored = files.iter().try_for_each(|file| {
        let to = if file.name == DATABASE { part.clone() } else { dir.join(&file.name) };
        let (size, crc) = copy(&from.join(&file.name), &to, u64::MAX)
            .map_err(|e| StoreError::io(format!("restoring {}", file.name), &e))?;
        if (size, crc) == (file.size, file.crc) {
            return Ok(());
        }
        Err(bad(&from.join(&file.name), "is not as it was written"))
    });
    let prepared = restored.and_then(|()| prepare(&part));
    if let Err(error) = prepared {
        let _ = fs::remove_dir_all(dir.join(CONTENT));
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    sync(&part)?;
    sync(&dir.join(CONTENT))?;
    fs::rename(&part, dir.join(DATABASE)).map_err(|e| StoreError::io("restoring the queue", &e))?;
    sync(dir)?;
    let (messages, _) = referred(&dir.join(DATABASE))?;
    let bytes = files.iter().map(|file| file.size).sum();
    Ok(RestoreReport { messages, segments: files.len() as u64 - 1, bytes })
}

/// Makes the copy of the database one that starts cleanly.
fn prepare(file: &Path) -> Result<()> {
    let sql = |e: rusqlite::Error| sql_error("preparing the restored queue", &e);
    let conn = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sql)?;
    let found = schema::version(&conn).map_err(sql)?;
    if found > schema::VERSION {
        return Err(StoreError::Newer { file: file.to_owned(), found, known: schema::VERSION });
    }
    let done = schema::fact(&conn, fact::OUTBOX_DONE).map_err(sql)?.unwrap_or(0);
    let last: i64 =
        conn.query_row("SELECT coalesce(max(seq), 0) FROM outbox", [], |row| row.get(0)).map_err(sql)?;
    // The backup is no crash. Events in it that nobody had taken over get new numbers as well.
    let ahead = done.max(last) + EVENTS_AHEAD;
    let change = || -> rusqlite::Result<()> {
        let tx = conn.unchecked_transaction()?;
        tx.execute("UPDATE outbox SET seq = -seq", [])?;
        tx.execute("UPDATE outbox SET seq = ?1 - seq", [ahead])?;
        schema::set_fact(&tx, fact::OUTBOX_DONE, ahead)?;
        schema::set_fact(&tx, fact::CLEAN, 1)?;
        tx.commit()
    };
    change().map_err(sql)
}

/// The messages in a database, and how far each segment is referred to.
fn referred(database: &Path) -> Result<(u64, BTreeMap<SegmentId, u64>)> {
    let sql = |e: rusqlite::Error| sql_error("reading the copy of the queue", &e);
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sql)?;
    let read = || -> rusqlite::Result<_> {
        let messages: i64 = conn.query_row("SELECT count(*) FROM message", [], |row| row.get(0))?;
        let segments = conn
            .prepare("SELECT segment, max(offset + length) FROM message GROUP BY segment")?
            .query_map([], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok((messages.cast_unsigned(), segments))
    };
    read().map_err(sql)
}

/// Copies at most `most` octets onto stable storage. Returns how many, and their CRC32C.
fn copy(from: &Path, to: &Path, most: u64) -> std::io::Result<(u64, u32)> {
    let mut source = File::open(from)?.take(most);
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut buffer = vec![0; CHUNK];
    let (mut size, mut crc) = (0, 0);
    loop {
        let n = source.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        target.write_all(&buffer[..n])?;
        crc = crc32c::crc32c_append(crc, &buffer[..n]);
        size += n as u64;
    }
    target.sync_all()?;
    Ok((size, crc))
}

fn checksum(file: &Path, name: String) -> Result<Entry> {
    let failed = |e: std::io::Error| StoreError::io(format!("reading {}", file.display()), &e);
    let mut source = File::open(file).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    let (mut size, mut crc) = (0, 0);
    loop {
        let n = source.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            return Ok(Entry { name, size, crc });
        }
        crc = crc32c::crc32c_append(crc, &buffer[..n]);
        size += n as u64;
    }
}

fn write_manifest(dir: &Path, files: &[Entry]) -> Result<()> {
    let mut text = format!("{FIRST_LINE}\n");
    for Entry { name, size, crc } in files {
        let _ = writeln!(text, "{size} {crc:08x} {name}");
    }
    let path = dir.join(MANIFEST);
    fs::write(&path, text).map_err(|e| StoreError::io(format!("writing {}", path.display()), &e))?;
    sync(&path)
}

fn read_manifest(dir: &Path) -> Result<Vec<Entry>> {
    let path = dir.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(|e| bad(&path, &format!("no complete backup: {e}")))?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(bad(&path, "this is no backup that this version can read"));
    }
    let entries: Option<Vec<Entry>> = lines
        .map(|line| {
            let (size, rest) = line.split_once(' ')?;
            let (crc, name) = rest.split_once(' ')?;
            let is_ours = name == DATABASE
                || name.strip_prefix("content/").is_some_and(|n| !n.contains('/') && n.ends_with(".seg"));
            let (size, crc) = (size.parse().ok()?, u32::from_str_radix(crc, 16).ok()?);
            is_ours.then(|| Entry { name: name.into(), size, crc })
        })
        .collect();
    entries
        .filter(|entries| entries.iter().any(|entry| entry.name == DATABASE))
        .ok_or_else(|| bad(&path, "the list of files is damaged"))
}

fn empty_dir(dir: &Path) -> Result<()> {
    make_dir(dir)?;
    let mut entries =
        fs::read_dir(dir).map_err(|e| StoreError::io(format!("reading {}", dir.display()), &e))?;
    if entries.next().is_some() { Err(StoreError::NotEmpty(PathBuf::from(dir))) } else { Ok(()) }
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| StoreError::io(format!("fsync of {}", path.display()), &e))
}

fn bad(path: &Path, reason: &str) -> StoreError {
    StoreError::BadBackup { path: path.to_owned(), reason: reason.to_owned() }
}
