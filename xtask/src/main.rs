//! `cargo xtask`: the one entry for running, testing and measuring Posthouse. Plain Rust over the programs it calls, so that
//! it builds in seconds.

mod leftovers;
mod neighbours;
mod shell;
mod tidy;
mod verify;

use std::process::ExitCode;

const HELP: &str = "cargo xtask COMMAND

  run [ARGS…]        build the relay and start `posthouse quickstart`
  test [FILTER…]     install what the tests need (asking first on a terminal), then fmt, clippy, tidy, deny and all tests;
                     with filters (nextest's), only those tests
  tidy               crate edges against ARCHITECTURE.md, file sizes, licences and sources
  neighbours         only install what the tests need
  bench [--quick]    load beside Postfix in one run, release build
  growth [--to N]    what a message costs as the queue grows to N, by the store alone
  fill --dir DIR     fill the queue of a relay that does not run
  cluster-test [--only NAME…] [--figures]
                     relays before a real PostgreSQL cluster: killed, frozen, cut off, without power; prints how long each
                     fail-over took. With --figures what such a cluster carries, by the release build; nothing is judged
  soak               the slow fault suites: every fsync boundary, power cuts, 100,000 queued
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = args.split_first().map_or(("", [].as_slice()), |(c, r)| (c.as_str(), r));
    let done = match command {
        "run" => verify::quickstart(rest),
        "test" => verify::test(rest),
        "tidy" => tidy::check(),
        "neighbours" => neighbours::install(),
        "bench" => verify::bench(rest),
        "growth" | "fill" => verify::tool(command, rest),
        "soak" => verify::soak(rest),
        "cluster-test" => verify::cluster(rest),
        _ => {
            print!("{HELP}");
            return if matches!(command, "" | "help" | "--help" | "-h") {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(2)
            };
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nxtask {command}: {why}");
            ExitCode::FAILURE
        }
    }
}
