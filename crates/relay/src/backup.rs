//! A copy of everything, and back: queue and content by the store, directory and history beside them, certificates, ACME
//! accounts and the keys of return paths as files.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::types::BackupReport;
use api::{Kind, Problem};
use store::{Store, StoreError};

use crate::service::Relay;

/// What is copied file by file, where it is there.
const FOLDERS: [&str; 2] = ["history", "tls"];
/// The directory's database.
const DIRECTORY: &str = "directory.db";
/// The keys that return paths are signed with: without them no late bounce of mail sent before is believed.
const KEYS: &str = "forward.keys";

fn failed(what: &str, path: &Path, error: &io::Error) -> Problem {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Problem::new(kind, format!("{what} {}: {error}", path.display()))
}

/// Copies everything into `to`, which is empty or not there, while mail goes on.
pub(crate) async fn backup(relay: &Relay, to: PathBuf) -> Result<BackupReport, Problem> {
    let data_dir = relay.config.load().data_dir.clone();
    if to.starts_with(&data_dir) {
        return Err(Problem::invalid("a backup inside data_dir would be lost with it: give another place"));
    }
    let stored = relay.store.backup(to.clone()).await?;
    relay.directory.backup(to.join(DIRECTORY)).await?;
    relay.history.backup(to.join("history")).await?;
    let from = to.clone();
    let copied = tokio::task::spawn_blocking(move || {
        let mut bytes = 0;
        for folder in FOLDERS.iter().filter(|f| **f != "history") {
            bytes += copy_folder(&data_dir.join(folder), &to.join(folder))?;
        }
        bytes += copy_keys(&data_dir, &to)?;
        Ok(bytes)
    });
    let copied: Result<u64, Problem> =
        copied.await.map_err(|e| Problem::new(Kind::Internal, e.to_string()))?;
    Ok(BackupReport {
        path: from.display().to_string(),
        messages: stored.messages,
        bytes: stored.bytes + copied? + folder_size(&from.join("history")),
    })
}

/// Puts a backup back into a data directory that is empty or not there. Blocking.
pub(crate) fn restore(from: &Path, data_dir: &Path) -> Result<BackupReport, Problem> {
    if data_dir.join(DIRECTORY).exists() {
        return Err(StoreError::NotEmpty(data_dir.to_owned()).into());
    }
    let stored = Store::restore(from, data_dir)?;
    let mut bytes = stored.bytes + copy_file(&from.join(DIRECTORY), &data_dir.join(DIRECTORY))?;
    for folder in FOLDERS {
        bytes += copy_folder(&from.join(folder), &data_dir.join(folder))?;
    }
    bytes += copy_keys(from, data_dir)?;
    sync_folder(data_dir)?;
    Ok(BackupReport { path: data_dir.display().to_string(), messages: stored.messages, bytes })
}

/// Copies a folder with what is in it, private and synced. One that is not there is nothing to copy.
fn copy_folder(from: &Path, to: &Path) -> Result<u64, Problem> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other.map_err(|e| failed("cannot read", from, &e))?,
    };
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(to)
        .map_err(|e| failed("cannot make", to, &e))?;
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.map_err(|e| failed("cannot read", from, &e))?;
        let kind = entry.file_type().map_err(|e| failed("cannot read", &entry.path(), &e))?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            bytes += copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            bytes += copy_file(&entry.path(), &target)?;
        }
    }
    sync_folder(to)?;
    Ok(bytes)
}

/// Backups of older versions have none.
fn copy_keys(from: &Path, to: &Path) -> Result<u64, Problem> {
    if from.join(KEYS).exists() { copy_file(&from.join(KEYS), &to.join(KEYS)) } else { Ok(0) }
}

fn copy_file(from: &Path, to: &Path) -> Result<u64, Problem> {
    let bytes = fs::copy(from, to).map_err(|e| failed("cannot copy", from, &e))?;
    let private = fs::set_permissions(to, fs::Permissions::from_mode(0o600));
    let synced = private.and_then(|()| fs::File::open(to)?.sync_all());
    synced.map_err(|e| failed("cannot write", to, &e))?;
    Ok(bytes)
}

fn sync_folder(folder: &Path) -> Result<(), Problem> {
    fs::File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed("cannot sync", folder, &e))
}

fn folder_size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}
