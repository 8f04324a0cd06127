//! Reads an strace and proves that every acknowledgement was preceded by what makes it true.
//!
//! For a message with a known marking field, before the octets of its `250` are handed to the socket:
//! 1. the file that its content was written to was synced after the write;
//! 2. the queue's write-ahead log was written after that, with the message's sender in it, and synced after that;
//! 3. each of these files, if the trace saw it made, had its directory synced after that.
//!
//! Take away any one of these syncs and the proof fails; the scenarios do that with real traces.

mod parse;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use parse::{Call, parse};

/// The command line that traces what the proof needs into `output`.
pub fn command(output: &Path) -> Vec<OsString> {
    let calls = "trace=openat,creat,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,\
                 fsync,fdatasync,sync_file_range,rename,renameat,renameat2,copy_file_range";
    ["strace", "-f", "-yy", "-s", "400000", "-e", calls, "-e", "signal=none", "-o"]
        .into_iter()
        .map(OsString::from)
        .chain([output.as_os_str().to_owned()])
        .collect()
}

/// What a proof speaks about.
pub struct Proof<'a> {
    /// All calls in the order of their completion.
    pub calls: &'a [Call],
    /// The relay's data directory.
    pub data: &'a Path,
}

/// What was found for one acknowledged message.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Index of the call that synced the content.
    pub content_sync: usize,
    /// Index of the call that synced the write-ahead log.
    pub wal_sync: usize,
    /// Indices of the directory syncs it rests on.
    pub directory_syncs: Vec<usize>,
    /// Index of the call that sent the acknowledgement.
    pub acknowledged: usize,
}

impl Proof<'_> {
    /// Proves that the message marked `id`, whose sender is `id@…`, was safe when it was acknowledged; says what is
    /// missing otherwise.
    pub fn of(&self, id: &str) -> Result<Found, String> {
        let mark = format!("X-Proof-Id: {id}\\r\\n");
        let (at, content) = self
            .calls
            .iter()
            .enumerate()
            .find(|(_, c)| c.is_write() && c.text.contains(&mark) && self.is_ours(c.path()))
            .ok_or_else(|| format!("{id}: no write of its content into the data directory"))?;
        let name = queued_as(&content.text, &mark)
            .ok_or_else(|| format!("{id}: its Received field is not there"))?;
        let acknowledged = self.acknowledgement(id, name, at)?;
        let content_sync = self.first_sync(content.path(), at, acknowledged).ok_or_else(|| {
            format!("{id}: {} was not synced between write and 250", content.path().display())
        })?;
        // Its row. The log may be written again for others before the reply is on its way.
        let sender = format!("{id}@");
        let wal_write = (content_sync..acknowledged)
            .find(|i| {
                let call = &self.calls[*i];
                call.is_write() && self.is_wal(call.path()) && call.text.contains(&sender)
            })
            .ok_or_else(|| format!("{id}: no write to the queue's log between the content's sync and 250"))?;
        let wal = self.calls[wal_write].path();
        let wal_sync = self.first_sync(wal, wal_write, acknowledged).ok_or_else(|| {
            format!("{id}: {} was not synced after its row was written and before 250", wal.display())
        })?;
        let mut directory_syncs = Vec::new();
        for file in [content.path(), wal] {
            directory_syncs.extend(self.directory_of(id, file, acknowledged)?);
        }
        Ok(Found { content_sync, wal_sync, directory_syncs, acknowledged })
    }

    /// The `250` that answers the message. Others are on their way at the same time: it is the one that says its name.
    fn acknowledgement(&self, id: &str, name: &str, written: usize) -> Result<usize, String> {
        let said = format!("queued as {name}");
        (written..self.calls.len())
            .find(|i| {
                let call = &self.calls[*i];
                call.is_socket() && call.text.contains("\"250 2") && call.text.contains(&said)
            })
            .ok_or_else(|| format!("{id}: no acknowledgement in the trace"))
    }

    /// The first successful sync of `path` that began after call `after` had ended and ended before call `before` began.
    fn first_sync(&self, path: &Path, after: usize, before: usize) -> Option<usize> {
        (after + 1..before).find(|i| {
            let call = &self.calls[*i];
            call.is_sync()
                && call.path() == path
                && call.began >= self.calls[after].ended
                && call.ended <= self.calls[before].began
        })
    }

    fn directory_of(&self, id: &str, file: &Path, before: usize) -> Result<Option<usize>, String> {
        let made = (0..before).find(|i| self.calls[*i].makes(file));
        let Some(made) = made else { return Ok(None) };
        let directory = file.parent().unwrap_or(file);
        match self.first_sync(directory, made, before) {
            Some(sync) => Ok(Some(sync)),
            None => {
                Err(format!("{id}: {} was made, but its directory was not synced before 250", file.display()))
            }
        }
    }

    fn is_ours(&self, path: &Path) -> bool {
        path.starts_with(self.data)
    }

    fn is_wal(&self, path: &Path) -> bool {
        self.is_ours(path) && path.to_string_lossy().ends_with("queue.db-wal")
    }

    /// The calls without those at `drop`: for showing that the proof would fail.
    pub fn without(&self, drop: impl Fn(usize, &Call) -> bool) -> Vec<Call> {
        self.calls.iter().enumerate().filter(|(i, c)| !drop(*i, c)).map(|(_, c)| c.clone()).collect()
    }
}

/// The name that the relay gave to the message marked with `mark`, out of the Received field before it.
fn queued_as<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    let before = &text[..text.find(mark)?];
    let name = &before[before.rfind("(Posthouse) with ")?..];
    let name = &name[name.find(" id ")? + 4..];
    name.get(..13)
}

/// How often each file was synced: for counting syncs per message.
pub fn syncs(calls: &[Call]) -> HashMap<PathBuf, usize> {
    let mut counts = HashMap::new();
    for call in calls.iter().filter(|c| c.is_sync()) {
        *counts.entry(call.path().to_owned()).or_default() += 1;
    }
    counts
}

/// Files under `dir` that exist before the trace begins cannot be told from files that it makes: the relay must start empty.
pub fn assert_starts_empty(dir: &Path) {
    let found: HashSet<_> =
        std::fs::read_dir(dir).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    assert!(found.is_empty(), "the trace must begin with an empty data directory: {found:?}");
}

#[cfg(test)]
mod tests;
