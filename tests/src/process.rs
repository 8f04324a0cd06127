//! A process that a test started: its output kept and searchable, its end certain.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mail::Clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Environment variable that every process of the tests carries, so that `cargo xtask test` can find what was left.
pub const MARK: &str = "POSTHOUSE_TEST_RUN";

type Log = Arc<(Mutex<Vec<String>>, Condvar)>;

/// A long-running process. Dropping it ends it and everything it started; if the test is failing, its output is shown.
pub struct Daemon {
    name: String,
    child: Child,
    log: Log,
    gone: Option<ExitStatus>,
    /// Sent first when the daemon is dropped; the rest of its process tree is killed after a short while.
    pub farewell: Signal,
}

impl Daemon {
    /// Starts `command` with its output captured.
    pub fn start(name: &str, mut command: Command) -> Self {
        if std::env::var_os(MARK).is_none() {
            command.env(MARK, "by-hand");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name} ({command:?}): {e}"));
        let log = Log::default();
        read_into(&log, child.stdout.take().unwrap());
        read_into(&log, child.stderr.take().unwrap());
        Self { name: name.to_owned(), child, log, gone: None, farewell: Signal::SIGTERM }
    }

    /// Starts `command` with its output in a file, as a service's goes to the journal: reading along costs the process
    /// nothing, which matters where it is measured.
    pub fn start_with_log_file(name: &str, mut command: Command, file: &Path) -> Self {
        let output = File::create(file).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name} ({command:?}): {e}"));
        let log = Log::default();
        follow(&log, File::open(file).unwrap());
        Self { name: name.to_owned(), child, log, gone: None, farewell: Signal::SIGTERM }
    }

    /// Process id of what was started; with a wrapper (strace, faketime) that is the wrapper's.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// All that was printed so far.
    pub fn output(&self) -> String {
        self.log.0.lock().unwrap().join("\n")
    }

    /// Waits for a line for which `pick` answers, among those from line number `from` on. Panics when the process ends first.
    pub fn wait_line<T>(
        &mut self,
        what: &str,
        within: Duration,
        from: usize,
        pick: impl Fn(&str) -> Option<T>,
    ) -> T {
        let clock = Clock::system();
        let log = Arc::clone(&self.log);
        let mut seen = from;
        let mut ended = false;
        let mut lines = log.0.lock().unwrap();
        loop {
            while seen < lines.len() {
                if let Some(found) = pick(&lines[seen]) {
                    return found;
                }
                seen += 1;
            }
            let left = within.saturating_sub(clock.mono().0);
            assert!(!left.is_zero(), "{}: {what}: not within {within:?}\n{}", self.name, lines.join("\n"));
            assert!(!ended, "{} ended before {what}: {:?}\n{}", self.name, self.gone, lines.join("\n"));
            lines = log.1.wait_timeout(lines, left.min(Duration::from_millis(50))).unwrap().0;
            ended = lines.len() == seen && self.exited().is_some();
        }
    }

    /// Number of lines printed so far: a place to wait from.
    pub fn lines(&self) -> usize {
        self.log.0.lock().unwrap().len()
    }

    /// Its exit status if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.gone.is_none() {
            self.gone = self.child.try_wait().unwrap();
        }
        self.gone
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let clock = Clock::system();
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(clock.mono().0 < within, "{} still runs after {within:?}\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// SIGKILL for it and everything under it, at once, and waits until they are gone.
    pub fn kill9(&mut self) {
        if self.exited().is_some() {
            return;
        }
        let family = descendants(self.pid());
        for pid in family.iter().rev() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        self.gone = Some(self.child.wait().unwrap());
        for pid in family {
            wait_gone(pid);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.exited().is_none() {
            let family = descendants(self.pid());
            self.signal(self.farewell);
            let clock = Clock::system();
            while clock.mono().0 < Duration::from_secs(5) && self.exited().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            if self.exited().is_none() {
                self.kill9();
            }
            for pid in family {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if std::thread::panicking() {
            let lines = self.log.0.lock().unwrap();
            let tail = &lines[lines.len().saturating_sub(120)..];
            eprintln!("--- {} ({:?}), last {} lines:\n{}", self.name, self.gone, tail.len(), tail.join("\n"));
        }
    }
}

fn read_into(log: &Log, from: impl Read + Send + 'static) {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            log.0.lock().unwrap().push(text);
            log.1.notify_all();
            line.clear();
        }
    });
}

/// Reads a growing file line by line for as long as anybody else holds the log.
fn follow(log: &Log, file: File) {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        while Arc::strong_count(&log) > 1 {
            match file.read_until(b'\n', &mut line) {
                Ok(n) if n > 0 && line.ends_with(b"\n") => {
                    log.0.lock().unwrap().push(String::from_utf8_lossy(&line).trim_end().to_owned());
                    log.1.notify_all();
                    line.clear();
                }
                Ok(_) => std::thread::sleep(Duration::from_millis(50)),
                Err(_) => return,
            }
        }
    });
}

/// A process and all that it started, parents first.
pub fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = vec![root];
    let mut at = 0;
    while at < family.len() {
        family.extend(children.remove(&family[at]).unwrap_or_default());
        at += 1;
    }
    family
}

/// SIGSTOP for these processes, and waits until every thread of them stands still.
pub fn freeze(pids: &[i32]) {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGSTOP);
    }
    crate::wait::eventually("every thread stands still", Duration::from_secs(10), || {
        pids.iter().all(|pid| stands_still(*pid)).then_some(())
    });
}

fn stands_still(pid: i32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let still = |stat: String| stat.rfind(") ").is_some_and(|at| stat[at + 2..].starts_with(['T', 'D', 'Z']));
    tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("stat")).ok()).all(still)
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (comm) state ppid …; the name may hold spaces and parentheses
    stat[stat.rfind(')')? + 2..].split(' ').nth(1)?.parse().ok()
}

fn wait_gone(pid: i32) {
    crate::wait::eventually(&format!("process {pid} is gone"), Duration::from_secs(10), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        let is_zombie = stat.is_none_or(|s| s[s.rfind(')').unwrap_or(0)..].starts_with(") Z"));
        // Its first thread may be one while others still have its sockets.
        let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        (is_zombie && threads <= 1).then_some(())
    });
}

/// Runs a command to its end and returns its output; panics when it fails or takes over `within`.
pub fn run(what: &str, command: Command, within: Duration) -> String {
    let mut daemon = Daemon::start(what, command);
    let status = daemon.wait_exit(within);
    let output = eventually_closed(&daemon);
    assert!(status.success(), "{what} failed ({status}):\n{output}");
    output
}

/// Runs a command to its end, whatever that is: exit status and output.
pub fn try_run(what: &str, command: Command, within: Duration) -> (ExitStatus, String) {
    let mut daemon = Daemon::start(what, command);
    let status = daemon.wait_exit(within);
    (status, eventually_closed(&daemon))
}

/// The output of a process that has ended: its pipes are read until both are closed.
fn eventually_closed(daemon: &Daemon) -> String {
    crate::wait::eventually("the output is read", Duration::from_secs(10), || {
        (Arc::strong_count(&daemon.log) == 1).then_some(())
    });
    daemon.output()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_are_found_and_kept() {
        let mut daemon = Daemon::start("sh", sh("echo one; echo two=2 >&2; exec sleep 60"));
        let two =
            daemon.wait_line("two", Duration::from_secs(5), 0, |l| l.strip_prefix("two=").map(str::to_owned));
        assert_eq!(two, "2");
        daemon.kill9();
        assert!(daemon.output().contains("one"));
    }

    #[test]
    fn kill9_reaches_the_grandchildren() {
        let mut daemon = Daemon::start("sh", sh("sleep 61 & echo pid=$!; wait"));
        let pid = daemon.wait_line("pid", Duration::from_secs(5), 0, |l| {
            l.strip_prefix("pid=").and_then(|p| p.parse::<i32>().ok())
        });
        daemon.kill9();
        wait_gone(pid);
    }

    #[test]
    fn run_gives_the_whole_output() {
        let out = run("sh", sh("for i in $(seq 1000); do echo line $i; done"), Duration::from_secs(5));
        assert_eq!(out.lines().count(), 1000);
    }
}
