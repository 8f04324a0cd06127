//! The lines of `strace -f -yy`, put together again where two threads interrupted each other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One finished system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Thread that made it.
    pub thread: i32,
    /// Its name.
    pub name: String,
    /// All between the parentheses.
    pub text: String,
    /// Its result; errors are negative.
    pub result: i64,
    /// Line number at which it began.
    pub began: usize,
    /// Line number at which it ended.
    pub ended: usize,
    path: PathBuf,
}

impl Call {
    /// The file behind its first argument, or the one that it opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_write(&self) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2")
            && self.result > 0
            && !self.is_socket()
    }

    pub(super) fn is_socket(&self) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "sendto" | "sendmsg" | "sendmmsg")
            && self.path.to_string_lossy().starts_with("TCP")
    }

    pub(super) fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync") && self.result == 0
    }

    /// Whether it synced `file` with success.
    pub fn is_sync_of(&self, file: &Path) -> bool {
        self.is_sync() && self.path == file
    }

    /// Whether it is the making of `file`.
    pub(super) fn makes(&self, file: &Path) -> bool {
        match self.name.as_str() {
            "openat" | "creat" => {
                self.result >= 0
                    && self.path == file
                    && (self.name == "creat" || self.text.contains("O_CREAT"))
            }
            "rename" | "renameat" | "renameat2" => {
                self.result == 0 && self.text.split('"').nth(3).is_some_and(|to| Path::new(to) == file)
            }
            _ => false,
        }
    }
}

/// Reads a whole trace.
pub fn parse(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut halves: HashMap<i32, (String, usize)> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.trim_start().split_once(char::is_whitespace) else { continue };
        let Ok(thread) = thread.parse::<i32>() else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            halves.insert(thread, (begun.to_owned(), number));
            continue;
        }
        let (whole, began) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let Some((begun, began)) = halves.remove(&thread) else { continue };
                let Some((_, tail)) = resumed.split_once(" resumed>") else { continue };
                (begun + tail, began)
            }
            None => (rest.to_owned(), number),
        };
        calls.extend(call(thread, &whole, began, number));
    }
    calls
}

fn call(thread: i32, whole: &str, began: usize, ended: usize) -> Option<Call> {
    let (name, rest) = whole.split_once('(')?;
    let close = rest.rfind(") = ").or_else(|| rest.rfind(')'))?;
    let (text, tail) = rest.split_at(close);
    let tail = tail.split_once('=').map_or("", |(_, t)| t.trim());
    let result = tail.split([' ', '<']).next()?.parse().ok()?;
    let opened = matches!(name, "openat" | "creat");
    let path =
        if opened { descriptor(tail).unwrap_or_default() } else { descriptor(text).unwrap_or_default() };
    Some(Call { thread, name: name.to_owned(), text: text.to_owned(), result, began, ended, path })
}

/// The path in `5</path>` or the addresses in `5<TCP:[…]>` at the beginning of `text`.
fn descriptor(text: &str) -> Option<PathBuf> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let inner = rest.strip_prefix('<')?;
    // The addresses of a socket hold "->".
    let end = if inner.starts_with("TCP") { inner.find("]>").map(|i| i + 1) } else { inner.find('>') }?;
    Some(PathBuf::from(&inner[..end]))
}
