//! `run`, `test`, `bench` and `soak`: what is called, in which order, and how long it took.

use std::process::Command;

use crate::shell::{Done, cache, command, have, run};
use crate::{leftovers, neighbours, tidy};

/// Builds the relay and starts it with everything on. A debug build: it is there in a fraction of the time.
pub(crate) fn quickstart(args: &[String]) -> Done {
    run(command("cargo", &["build", "--package", "relay", "--bin", "posthouse"]))?;
    let mut quickstart =
        command("cargo", &["run", "--quiet", "--package", "relay", "--bin", "posthouse", "--", "quickstart"]);
    quickstart.args(args);
    run(quickstart)
}

/// Everything that must hold before a change lands; with arguments, only the tests they choose.
pub(crate) fn test(filters: &[String]) -> Done {
    neighbours::install()?;
    nextest_is_here()?;
    let mut steps = Steps::default();
    if filters.is_empty() {
        steps.step("fmt", || run(command("cargo", &["fmt", "--all", "--check"])))?;
        steps.step("tidy", tidy::check)?;
        steps.step("clippy", || {
            run(command("cargo", &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
        })?;
        if have("cargo-deny") {
            steps.step("deny", || {
                run(command("cargo", &["deny", "--offline", "check", "licenses", "bans", "sources"]))
            })?;
        }
    }
    steps.step("build", || run(command("cargo", &["build", "--package", "relay", "--bin", "posthouse"])))?;
    steps.step("tests", || tests("default", filters))?;
    if filters.is_empty() {
        steps.step("doc tests", || run(command("cargo", &["test", "--workspace", "--doc", "--quiet"])))?;
    }
    steps.print();
    Ok(())
}

/// The slow suites: the same scenarios with every boundary tried instead of a few.
pub(crate) fn soak(filters: &[String]) -> Done {
    neighbours::install()?;
    nextest_is_here()?;
    run(command("cargo", &["build", "--package", "relay", "--bin", "posthouse"]))?;
    tests("soak", filters)
}

/// Relays before a real PostgreSQL cluster and every way for them to fail, one after the other; or what they carry.
pub(crate) fn cluster(args: &[String]) -> Done {
    let (figures, names) = cluster_args(args)?;
    neighbours::install()?;
    nextest_is_here()?;
    if !figures {
        run(command("cargo", &["build", "--package", "relay", "--bin", "posthouse"]))?;
        return tests("cluster", &names);
    }
    run(command("cargo", &["build", "--profile", "dist", "--package", "relay", "--bin", "posthouse"]))?;
    tests("figures", &[names, vec!["--cargo-profile".to_owned(), "dist".to_owned()]].concat())
}

/// Whether figures are wanted, and the names (parts of them will do) of the tests that are.
fn cluster_args(args: &[String]) -> Result<(bool, Vec<String>), String> {
    let (mut figures, mut names) = (false, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--figures" => figures = true,
            "--only" => names.push(args.next().ok_or("--only wants a name")?.clone()),
            unknown if unknown.starts_with('-') => return Err(format!("{unknown} is not an option of it")),
            name => names.push(name.to_owned()),
        }
    }
    Ok((figures, names))
}

/// Load beside Postfix, both as they are shipped and configured to be durable.
pub(crate) fn bench(args: &[String]) -> Done {
    neighbours::install()?;
    let packages = ["--profile", "dist", "--package", "relay", "--package", "posthouse-benches"];
    run(command("cargo", &[&["build"][..], &packages].concat()))?;
    let bench = ["run", "--profile", "dist", "--quiet", "--package", "posthouse-benches", "--"];
    let mut bench = command("cargo", &bench);
    bench.args(args);
    run(bench)
}

/// One of the smaller measuring tools: `growth`, `fill`.
pub(crate) fn tool(name: &str, args: &[String]) -> Done {
    let mut tool = command(
        "cargo",
        &["run", "--release", "--quiet", "--package", "posthouse-benches", "--bin", name, "--"],
    );
    tool.args(args);
    run(tool)
}

fn tests(profile: &str, filters: &[String]) -> Done {
    let name = format!("run-{}", std::process::id());
    let mut nextest = command("cargo", &["nextest", "run", "--workspace", "--profile", profile]);
    nextest.args(filters).env(leftovers::MARK, &name).env("POSTHOUSE_NEIGHBOURS", cache());
    // Programs that were only unpacked are found behind all others.
    let path = std::env::var("PATH").unwrap_or_default();
    nextest.env("PATH", format!("{path}:/usr/sbin:/sbin:{}", cache().join("root/usr/bin").display()));
    // The neighbours were installed just now: one that is missing is a failure.
    nextest.env("POSTHOUSE_STRICT", "1");
    if std::env::var_os("CI").is_some() {
        // A property that fails in CI fails again: new seeds are for people.
        nextest.env("PROPTEST_RNG_SEED", "20261124");
    }
    if profile == "soak" {
        nextest.env("POSTHOUSE_SOAK", "1");
    }
    let done = run(nextest);
    let clean = leftovers::sweep(&name);
    done.and(clean)
}

fn nextest_is_here() -> Done {
    if have("cargo-nextest")
        || Command::new("cargo").args(["nextest", "--version"]).output().is_ok_and(|o| o.status.success())
    {
        return Ok(());
    }
    run(command("cargo", &["install", "--locked", "cargo-nextest"]))
}

/// Steps with their times, for the summary at the end.
#[derive(Default)]
struct Steps(Vec<(&'static str, u64)>);

impl Steps {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Done) -> Done {
        let start = seconds();
        work().map_err(|why| format!("{name}: {why}"))?;
        self.0.push((name, seconds().saturating_sub(start)));
        Ok(())
    }

    fn print(&self) {
        println!("\nEverything holds:");
        for (name, seconds) in &self.0 {
            println!("  {name:<10} {seconds:>5} s");
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "shows a person how long a step took; nothing is decided by it")]
fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_of_the_cluster() {
        let of = |line: &str| cluster_args(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of(""), Ok((false, vec![])));
        assert_eq!(of("--only frozen short"), Ok((false, vec!["frozen".into(), "short".into()])));
        assert_eq!(of("--figures"), Ok((true, vec![])));
        assert!(of("--only").is_err() && of("--fast").is_err());
    }
}
