//! What a message costs as the queue grows, by the store alone: filled from ten thousand to ten million waiting messages,
//! it is looked at each tenfold how long a start takes, what a message costs that comes and goes beside them, how long the
//! scheduler's questions take, and what is on disk and in memory.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot be taken ends the run, with the place where it happened"
)]

mod look;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use mail::{Clock, Timestamp};
use posthouse_tests::fill::{Fill, To};

const HELP: &str = "cargo xtask growth [OPTIONS]

  --to N         grow up to N messages (default 1,000,000)
  --size OCTETS  content of each (default 1024)
  --domains N    recipient domains that they are for (default 10)
  --dir DIR      where; must not exist (default: a temporary directory)
  --keep         leave it there
  --out DIR      where growth.md goes (default: target/bench)
";

struct Options {
    to: u64,
    size: usize,
    domains: u64,
    dir: Option<PathBuf>,
    keep: bool,
    out: PathBuf,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        to: 1_000_000,
        size: 1024,
        domains: 10,
        dir: None,
        keep: false,
        out: "target/bench".into(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.replace([',', '_'], "").parse().map_err(|e| format!("{arg}: {e}"));
        match arg.as_str() {
            "--to" => options.to = number(value()?)?,
            "--size" => options.size = usize::try_from(number(value()?)?).unwrap_or(0),
            "--domains" => options.domains = number(value()?)?.max(1),
            "--dir" => options.dir = Some(value()?.into()),
            "--keep" => options.keep = true,
            "--out" => options.out = value()?.into(),
            _ => return Err(format!("unknown option {arg}\n\n{HELP}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let temporary = tempfile::TempDir::with_prefix("growth-").unwrap();
    let dir = options.dir.clone().unwrap_or_else(|| temporary.path().join("data"));
    let clock = Clock::system();
    // The first are due soon after the fill would have ended, the last so many milliseconds later.
    let due = Timestamp(clock.now().0 + 24 * 3_600_000);
    let (mut filled, mut looks) = (0, Vec::new());
    for step in steps(options.to) {
        let began = clock.mono();
        let fill = Fill {
            messages: step - filled,
            size: options.size,
            to: To::Domains(options.domains),
            due: Timestamp(due.0 + filled.cast_signed()),
        };
        fill.run(&dir);
        eprintln!("{step} messages wait, after {:.0} s", clock.mono().since(began).as_secs_f64());
        filled = step;
        let look = look::look(&dir, &fill, step);
        eprintln!("  {look:?}");
        looks.push(look);
    }
    let after = look::settle_most(&dir);
    report::write(&options.out, options.size, options.domains, &looks, &after);
    if options.keep {
        let _ = temporary.keep();
    } else {
        let _ = std::fs::remove_dir_all(&dir);
    }
    ExitCode::SUCCESS
}

/// An empty queue, ten thousand, and ten times as many until there are as many as asked for.
fn steps(to: u64) -> Vec<u64> {
    let mut steps = vec![0];
    let mut n = 10_000;
    while n < to {
        steps.push(n);
        n *= 10;
    }
    steps.push(to);
    steps
}
