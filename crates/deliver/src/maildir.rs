//! Final delivery into a Maildir: written to `tmp/`, on stable storage, renamed into `new/`.
//!
//! The file's name is made from the message's id and the recipient's number, so that a delivery that is repeated after
//! a crash replaces its own file instead of adding a second one. Content goes in as it is, line ends included.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mail::{Address, Attempt, Disposition, EnhancedStatus, HeaderScan, Outcome, RecipientOutcome, Remote};
use store::Content;

use crate::link::Job;
use crate::permit::{Permit, withheld};

/// Only the owner may read mail.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Read and written at once.
const PIECE: usize = 256 << 10;
/// How far a header section is searched for a loop.
const HEADERS_MAX: usize = 256 << 10;

/// One copy to be written.
#[derive(Debug)]
struct Copy {
    recipient: u16,
    mailbox: PathBuf,
    name: String,
    /// Header fields of the final delivery (RFC 5321 section 4.4).
    fields: String,
}

/// Delivers to the mailbox of each recipient.
pub(crate) async fn deliver(
    template: &str,
    hostname: &str,
    job: &Job,
    attempt: &mut Attempt,
    permit: &Permit,
) {
    let delivered_to = match job.content.read_all_up_to(HEADERS_MAX).await {
        Ok(start) => HeaderScan::of(&start).delivered_to,
        Err(error) => {
            let outcome = failed(&format!("the stored content cannot be read: {error}"), &error);
            let all = job.waiting.recipients.iter();
            attempt.outcomes.extend(all.map(|r| RecipientOutcome::new(r.number, outcome.clone())));
            return;
        }
    };
    let mut copies = Vec::with_capacity(job.waiting.recipients.len());
    for pending in &job.waiting.recipients {
        let address = &pending.recipient.address;
        let mailbox = match expand(template, address) {
            Ok(_) if goes_round(&delivered_to, address) => Err(loop_outcome(address)),
            other => other,
        };
        match mailbox {
            Ok(mailbox) => copies.push(Copy {
                recipient: pending.number,
                mailbox,
                name: file_name(hostname, job, pending.number),
                fields: format!(
                    "Return-Path: <{}>\r\nDelivered-To: {address}\r\n",
                    job.waiting.message.sender()
                ),
            }),
            Err(outcome) => attempt.outcomes.push(RecipientOutcome::new(pending.number, outcome)),
        }
    }
    if let Some(first) = copies.first() {
        attempt.remote = Some(Remote { name: first.mailbox.display().to_string(), address: None });
    }
    let (content, permit) = (job.content.clone(), permit.clone());
    let numbers: Vec<u16> = copies.iter().map(|copy| copy.recipient).collect();
    let written = tokio::task::spawn_blocking(move || {
        copies.iter().map(|copy| copy.write(&content, &permit)).collect::<Vec<Outcome>>()
    });
    let outcomes = written.await.unwrap_or_else(|error| {
        let text = format!("writing to the mailbox failed: {error}; this is a bug in Posthouse");
        vec![Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 3, 0), text); numbers.len()]
    });
    let outcomes = numbers.into_iter().zip(outcomes);
    attempt.outcomes.extend(outcomes.map(|(recipient, outcome)| RecipientOutcome::new(recipient, outcome)));
}

impl Copy {
    fn write(&self, content: &Content, permit: &Permit) -> Outcome {
        match self.try_write(content, permit) {
            Ok(None) => withheld(),
            Ok(Some(file)) => {
                let text = format!("written to {}", file.display());
                Outcome::own(Disposition::Delivered, EnhancedStatus::new(2, 0, 0), text)
            }
            Err(error) => failed(&format!("cannot write to {}: {error}", self.mailbox.display()), &error),
        }
    }

    /// Where it is; none when the permit was missing.
    fn try_write(&self, content: &Content, permit: &Permit) -> io::Result<Option<PathBuf>> {
        let (tmp, new) = (self.mailbox.join("tmp"), self.mailbox.join("new"));
        for directory in [&tmp, &new, &self.mailbox.join("cur")] {
            make_directory(directory)?;
        }
        let (from, to) = (tmp.join(&self.name), new.join(&self.name));
        let moved = self.fill(&from, content).and_then(|()| {
            if permit.is_given() { std::fs::rename(&from, &to).map(|()| true) } else { Ok(false) }
        });
        if !matches!(moved, Ok(true)) {
            if let Err(error) = std::fs::remove_file(&from) {
                tracing::debug!(%error, path = %from.display(), "an unfinished file stays behind");
            }
            return moved.map(|_| None);
        }
        File::open(&new)?.sync_all()?;
        Ok(Some(to))
    }

    fn fill(&self, path: &Path, content: &Content) -> io::Result<()> {
        let mut file = create(path)?;
        let mut offset = 0;
        let mut first = self.fields.clone().into_bytes();
        while offset < content.len() || !first.is_empty() {
            let piece = content.chunk_blocking(offset, PIECE)?;
            if first.is_empty() {
                file.write_all(&piece)?;
            } else {
                first.extend_from_slice(&piece);
                file.write_all(&first)?;
                first.clear();
            }
            offset += piece.len() as u64;
        }
        file.sync_all()
    }
}

/// A new file. What a crash left under this name goes first; a link that somebody else put there is not followed.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            options.open(path)
        }
        other => other,
    }
}

/// Makes a directory and those above it, and puts their names on stable storage.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    make_directory(parent)?;
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

/// `SECONDS.MESSAGE-RECIPIENT.HOST,S=SIZE`, the same for every attempt at this delivery.
fn file_name(hostname: &str, job: &Job, recipient: u16) -> String {
    let message = &job.waiting.message;
    let host: String = hostname
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' })
        .collect();
    format!("{}.{}-{recipient}.{host},S={}", message.received_at.millis() / 1000, message.id, message.size)
}

/// The mailbox of a recipient: the template with `{domain}` and `{user}` filled in.
///
/// # Errors
/// The outcome when a field would lead elsewhere.
pub(crate) fn expand(template: &str, address: &Address) -> Result<PathBuf, Outcome> {
    let user = unquoted(address.local()).to_lowercase();
    for field in [user.as_str(), address.domain()] {
        let leads_elsewhere = field.is_empty()
            || field.starts_with('.')
            || field.contains("..")
            || field.contains(|c: char| matches!(c, '/' | '\\') || c.is_control());
        if leads_elsewhere {
            let text = format!("{address} can have no mailbox here: its name is no name for a directory");
            return Err(Outcome::own(Disposition::Refused, EnhancedStatus::new(5, 1, 3), text));
        }
    }
    // One pass, so that a field's own braces stay what they are.
    let mut path = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        path.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(behind) = rest.strip_prefix("{domain}") {
            path.push_str(address.domain());
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix("{user}") {
            path.push_str(&user);
            rest = behind;
        } else {
            path.push('{');
            rest = &rest[1..];
        }
    }
    path.push_str(rest);
    Ok(path.into())
}

/// A quoted local part means the same without its quotes where it needs none.
fn unquoted(local: &str) -> String {
    let Some(inner) = local.strip_prefix('"').and_then(|l| l.strip_suffix('"')) else {
        return local.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

fn goes_round(delivered_to: &[String], address: &Address) -> bool {
    let own = address.as_str().to_ascii_lowercase();
    delivered_to.iter().any(|seen| seen.trim_matches(['<', '>']) == own)
}

fn loop_outcome(address: &Address) -> Outcome {
    let text = format!("mail loop: the message was delivered to {address} before");
    Outcome::own(Disposition::Refused, EnhancedStatus::new(5, 4, 6), text)
}

/// Whatever the disk says can be mended.
fn failed(text: &str, error: &io::Error) -> Outcome {
    let status = match error.kind() {
        io::ErrorKind::QuotaExceeded => EnhancedStatus::new(4, 2, 2),
        io::ErrorKind::StorageFull => EnhancedStatus::new(4, 3, 1),
        _ => EnhancedStatus::new(4, 3, 0),
    };
    Outcome::own(Disposition::Deferred, status, text)
}

#[cfg(test)]
mod tests;
