//! Queue and directory on their way.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mail::Clock;
use store::transfer::Last;

use super::sides::{Sides, keys_file};
use super::{MigrateError, Progress, To};

type Result<T> = std::result::Result<T, MigrateError>;

/// Messages read at a time, and octets of content in one commit: more only when one message alone has more.
const MESSAGES: usize = 200;
const OCTETS: u64 = 8 << 20;
/// Dedupe keys at a time.
const KEYS: usize = 5000;
/// Under this name the nodes of a cluster share what a relay alone has in a file.
const SHARED_KEYS: &str = "forward.keys";

/// Messages with their content, dedupe keys, notes.
pub(super) async fn queue(
    sides: &Sides,
    clock: &Clock,
    progress: &mut Progress,
    last: &mut Last,
) -> Result<()> {
    let (from, to) = (&sides.source.store, &sides.target.store);
    let all = from.count().await?;
    // What has arrived went in the order of its ids.
    let mut after = to.last().await?;
    let mut arrived = to.count().await?;
    progress.say(&format!("queue: {all} messages, {arrived} of them are there"));
    loop {
        let page = from.messages(after, MESSAGES).await?;
        let Some(end) = page.last() else { break };
        after = Some(end.id);
        let (mut batch, mut octets) = (Vec::new(), 0);
        for message in page {
            if octets > 0 && octets + message.size() > OCTETS {
                to.put(&std::mem::take(&mut batch), clock.now()).await?;
                octets = 0;
            }
            octets += message.size();
            arrived += 1;
            let content = from.content(&message).await?;
            batch.push((message, content));
        }
        to.put(&batch, clock.now()).await?;
        progress.at(|| format!("queue: {arrived} of {all} messages"));
    }
    last.id = after;
    let mut key = None;
    loop {
        let page = from.keys(key.as_ref(), KEYS).await?;
        let Some(end) = page.last() else { break };
        key = Some(end.clone());
        to.put_keys(&page).await?;
    }
    Ok(to.put_notes(&from.notes().await?).await?)
}

/// All tables of the directory, and the keys that return paths are signed with.
pub(super) async fn directory(sides: &Sides, progress: &mut Progress) -> Result<()> {
    let (from, to) = (&sides.source.directory, &sides.target.directory);
    let mut carried = 0;
    for table in directory::transfer::tables() {
        let mut after = None;
        loop {
            let page = from.rows(table, after.as_ref()).await?;
            let Some(end) = page.last() else { break };
            after = Some(end.clone());
            to.put(table, &page).await?;
            carried += page.len();
            progress.at(|| format!("directory: {carried} rows"));
        }
    }
    let file = keys_file(&sides.data_dir);
    match sides.to {
        To::Postgres => {
            if let Some(keys) = read_keys(&file)? {
                to.set_shared_secret(SHARED_KEYS, &keys).await?;
            }
        }
        To::Embedded => {
            if let Some(keys) = from.shared_secret(SHARED_KEYS).await? {
                write_keys(&file, &keys)?;
            }
        }
    }
    Ok(())
}

/// The keys in `data_dir` and those in PostgreSQL.
pub(super) async fn both_keys(sides: &Sides) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>)> {
    let file = read_keys(&keys_file(&sides.data_dir))?;
    Ok(match sides.to {
        To::Postgres => (file, sides.target.directory.shared_secret(SHARED_KEYS).await?),
        To::Embedded => (sides.source.directory.shared_secret(SHARED_KEYS).await?, file),
    })
}

fn read_keys(file: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(keys) => Ok(Some(keys)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MigrateError::Io { path: file.to_owned(), source }),
    }
}

/// Nobody else may read them.
fn write_keys(file: &Path, keys: &[u8]) -> Result<()> {
    let unfinished = file.with_extension("keys.new");
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        new.write_all(keys)?;
        new.sync_all()?;
        fs::rename(&unfinished, file)?;
        file.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    };
    write().map_err(|source| MigrateError::Io { path: file.to_owned(), source })
}
