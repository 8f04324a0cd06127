//! Processes that the tests started and that outlived them. Every one carries a mark with the run's own name in its
//! environment, so that nothing else is ever touched.

use std::fs;

use crate::shell::{Done, command, run};

/// Name of the environment variable with the mark.
pub(crate) const MARK: &str = "POSTHOUSE_TEST_RUN";

/// Ends what is left of the run called `name`; an error when there was anything, because a test must clean up.
pub(crate) fn sweep(name: &str) -> Done {
    let wanted = format!("{MARK}={name}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(|e| e.to_string())?.flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|b| b.is_ascii_digit()) || pid == std::process::id().to_string() {
            continue;
        }
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|b| *b == 0).any(|v| v == wanted.as_bytes()) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    for (pid, line) in &found {
        eprintln!("left running by a test: {pid} {line}");
        run(command("kill", &["-9", pid]))?;
    }
    if found.is_empty() { Ok(()) } else { Err(format!("{} processes outlived the tests", found.len())) }
}
