//! Fills the queue of a relay that does not run, for trying out what a long queue does.
#![allow(clippy::unwrap_used, reason = "a tool for a person, who sees where it stopped")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use mail::{Clock, Timestamp};
use posthouse_tests::fill::{Fill, To};

const HELP: &str = "cargo xtask fill --dir DATA_DIR [OPTIONS]

  --messages N     how many (default 1,000,000)
  --size OCTETS    content of each (default 4096)
  --domains N      for so many recipient domains, dN.fill.example (default 10)
  --host ADDRESS   instead: for this host and port; may be given several times
  --due SECONDS    from now until the first is due, each one after it a millisecond later (default 3600; -3600: overdue)
";

fn options() -> Result<(Fill, PathBuf), String> {
    let (mut messages, mut size, mut domains, mut due) = (1_000_000, 4096, 10, 3600_i64);
    let mut hosts: Vec<SocketAddr> = Vec::new();
    let mut dir = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value\n\n{HELP}"))?;
        let number = || value.replace([',', '_'], "").parse::<i64>().map_err(|e| format!("{arg}: {e}"));
        match arg.as_str() {
            "--dir" => dir = Some(PathBuf::from(&value)),
            "--messages" => messages = number()?.unsigned_abs(),
            "--size" => size = usize::try_from(number()?).map_err(|e| format!("{arg}: {e}"))?,
            "--domains" => domains = number()?.unsigned_abs().max(1),
            "--host" => hosts.push(value.parse().map_err(|e| format!("{arg}: {e}"))?),
            "--due" => due = number()?,
            _ => return Err(format!("unknown option {arg}\n\n{HELP}")),
        }
    }
    let to = if hosts.is_empty() { To::Domains(domains) } else { To::Hosts(hosts) };
    let due = Timestamp(Clock::system().now().0 + due * 1000);
    let dir = dir.ok_or_else(|| HELP.to_owned())?;
    Ok((Fill { messages, size, to, due }, dir))
}

fn main() -> ExitCode {
    match options() {
        Ok((fill, dir)) => {
            fill.run(&dir);
            println!("{} messages wait in {}", fill.messages, dir.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
