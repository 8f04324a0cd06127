//! CPU and memory of a program and all the processes it has.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use posthouse_tests::process::descendants;

/// CPU time used by `root` and everything under it, those that have ended included.
pub(crate) fn cpu(root: i32) -> Duration {
    let ticks: u64 = descendants(root).into_iter().filter_map(ticks_of).sum();
    let per_second =
        u64::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap()).unwrap();
    Duration::from_micros(ticks * 1_000_000 / per_second)
}

/// User and system time, own and of children that have been waited for, in clock ticks.
fn ticks_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat[stat.rfind(')')? + 2..].split(' ').collect();
    Some(fields[11..15].iter().filter_map(|f| f.parse::<u64>().ok()).sum())
}

/// Memory of the whole program in bytes: proportional set size, which counts shared pages once.
fn memory(root: i32) -> u64 {
    let of = |pid: i32| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
    };
    descendants(root).into_iter().map(of).sum()
}

/// Looks at a program's memory a few times a second and keeps the highest.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    pub(crate) fn start(root: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut highest = 0;
            while !told.load(Ordering::Relaxed) {
                highest = highest.max(memory(root));
                std::thread::sleep(Duration::from_millis(200));
            }
            highest.max(memory(root))
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Total calls of fsync and fdatasync in the summary that `strace -c` wrote.
pub(crate) fn syncs(summary: &Path) -> u64 {
    let text = fs::read_to_string(summary).unwrap_or_default();
    let mut calls: HashMap<&str, u64> = HashMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, _, count, .., name] = words[..] {
            calls.insert(name, count.parse().unwrap_or(0));
        }
    }
    calls.get("fsync").copied().unwrap_or(0) + calls.get("fdatasync").copied().unwrap_or(0)
}

/// MB/s of a plain sequential write into `dir` with an fdatasync every 4 MB.
pub(crate) fn disk_rate(dir: &Path, megabytes: usize) -> f64 {
    use std::io::Write;
    let path = dir.join("sequential");
    let mut file = fs::File::create(&path).unwrap();
    let block = vec![0x5a; 1 << 20];
    let clock = mail::Clock::system();
    for n in 1..=megabytes {
        file.write_all(&block).unwrap();
        if n % 4 == 0 {
            file.sync_data().unwrap();
        }
    }
    let took = clock.mono().0.as_secs_f64();
    fs::remove_file(path).unwrap();
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let written = (megabytes << 20) as f64 / 1e6;
    written / took
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_with_work() {
        let me = i32::try_from(std::process::id()).unwrap();
        let before = cpu(me);
        let clock = mail::Clock::system();
        let mut x = 0u64;
        while clock.mono().0 < Duration::from_millis(300) {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(7));
        }
        assert!(cpu(me) - before >= Duration::from_millis(50));
    }

    #[test]
    fn the_summary_of_strace_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s");
        fs::write(&file, "% time     seconds  usecs/call     calls    errors syscall\n------ ----\n 90.00    0.10    10   1234           fdatasync\n 10.00    0.01     1     66         1 fsync\n------\n100.00    0.11   1300  total\n").unwrap();
        assert_eq!(syncs(&file), 1300);
    }
}
