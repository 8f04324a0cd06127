//! Whole-program load: Posthouse and Postfix, both durable, one after the other in one run on one machine, driven by
//! Postfix's own smtp-source and by a client of ours, into Postfix's smtp-sink.
//!
//! Rates and CPU say nothing by themselves on a machine that other work shares; the ratios between the two do.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot be taken ends the run, with the place where it happened"
)]

mod contender;
mod load;
mod measure;
mod place;
mod report;
mod run;
mod scenario;
mod sink;

use std::process::ExitCode;

use posthouse_tests::neighbours;

const HELP: &str = "cargo xtask bench [OPTIONS]

  --quick          a tenth of the messages, one round: shows that it works, proves little
  --rounds N       measure every scenario so often (default 3); the median is shown
  --only NAME      only the scenarios whose name holds NAME
  --without-postfix, --without-posthouse
  --out DIR        where results.json and results.md go (default: target/bench)
";

/// What was asked for on the command line.
pub(crate) struct Options {
    quick: bool,
    rounds: usize,
    only: Option<String>,
    postfix: bool,
    posthouse: bool,
    out: std::path::PathBuf,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        quick: false,
        rounds: 3,
        only: None,
        postfix: true,
        posthouse: true,
        out: "target/bench".into(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--quick" => (options.quick, options.rounds) = (true, 1),
            "--rounds" => options.rounds = value()?.parse().map_err(|e| format!("--rounds: {e}"))?,
            "--only" => options.only = Some(value()?),
            "--without-postfix" => options.postfix = false,
            "--without-posthouse" => options.posthouse = false,
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
    if let Some(why) = neighbours::missing(&[
        "root",
        "postfix",
        "smtp-source",
        "smtp-sink",
        "dovecot",
        "strace",
        "knotd",
        "ip",
    ]) {
        eprintln!("the bench cannot run here: {why}");
        return ExitCode::FAILURE;
    }
    let results = run::run_all(&options);
    report::write(&options.out, &results);
    ExitCode::SUCCESS
}
