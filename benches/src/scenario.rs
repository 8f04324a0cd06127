//! The scenarios, and how one is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use mail::Clock;
use tempfile::TempDir;

use crate::Options;
use crate::contender::{Contender, Name};
use crate::load::{self, Generator};
use crate::measure::{self, Watch};
use crate::sink::Sink;

/// What load is put on.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    generator: Generator,
    sessions: usize,
    size: usize,
    /// Messages for Postfix and for Posthouse: enough for some seconds each.
    messages: (u64, u64),
}

const ALL: [Scenario; 6] = [
    Scenario {
        name: "new-connections",
        what: "4 KiB, 20 sessions, a new connection for each message",
        generator: Generator::NewConnections,
        sessions: 20,
        size: 4096,
        messages: (6_000, 30_000),
    },
    Scenario {
        name: "reused-connections",
        what: "4 KiB, 20 sessions, connections reused",
        generator: Generator::ReusedConnections,
        sessions: 20,
        size: 4096,
        messages: (6_000, 40_000),
    },
    Scenario {
        name: "one-client",
        what: "4 KiB, one client alone, a new connection for each message",
        generator: Generator::NewConnections,
        sessions: 1,
        size: 4096,
        messages: (1_000, 3_000),
    },
    Scenario {
        name: "large",
        what: "100 KiB, 20 sessions, a new connection for each message",
        generator: Generator::NewConnections,
        sessions: 20,
        size: 102_400,
        messages: (2_000, 6_000),
    },
    Scenario {
        name: "latency",
        what: "4 KiB, 20 sessions, a new connection for each message, our client",
        generator: Generator::Timed,
        sessions: 20,
        size: 4096,
        messages: (6_000, 30_000),
    },
    Scenario {
        name: "auth-tls",
        what: "4 KiB, 20 sessions, STARTTLS and AUTH PLAIN on every connection, no resumption, our client",
        generator: Generator::TlsAndAuth,
        sessions: 20,
        size: 4096,
        messages: (2_000, 8_000),
    },
];

/// What was measured in one go. Rates are messages a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) accepted: f64,
    pub(crate) end_to_end: f64,
    pub(crate) cpu_us: f64,
    pub(crate) memory_mb: f64,
    pub(crate) megabytes: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) syncs: Option<f64>,
}

/// The medians of a scenario, for each contender.
pub(crate) struct Outcome {
    pub(crate) scenario: &'static Scenario,
    pub(crate) of: BTreeMap<&'static str, Measured>,
    /// The same load straight into the sink, messages a second: what the tools themselves can do here.
    pub(crate) tools: f64,
}

/// All that a run found.
pub(crate) struct Results {
    pub(crate) outcomes: Vec<Outcome>,
    /// MB/s of a plain sequential write with an fdatasync every 4 MB.
    pub(crate) disk: f64,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
}

/// Runs every chosen scenario, the contenders in turn, and takes the medians.
pub(crate) fn run_all(options: &Options) -> Results {
    let scale = if options.quick { 10 } else { 1 };
    let dir = TempDir::with_prefix("bench-disk-").unwrap();
    let mut disks = vec![measure::disk_rate(dir.path(), 1024 / scale)];
    let mut outcomes = Vec::new();
    for scenario in &ALL {
        if options.only.as_ref().is_some_and(|only| !scenario.name.contains(only.as_str())) {
            continue;
        }
        eprintln!("\n{}: {}", scenario.name, scenario.what);
        let mut rounds: BTreeMap<&'static str, Vec<Measured>> = BTreeMap::new();
        for round in 1..=options.rounds {
            for name in chosen(options) {
                let measured = once(scenario, name, scale as u64);
                eprintln!("  round {round}, {}: {}", name.text(), one_line(&measured));
                rounds.entry(name.text()).or_default().push(measured);
            }
            if scenario.name == "large" {
                disks.push(measure::disk_rate(dir.path(), 1024 / scale));
            }
        }
        let mut of: BTreeMap<&'static str, Measured> =
            rounds.into_iter().map(|(n, m)| (n, medians(&m))).collect();
        for name in chosen(options) {
            let syncs = count_syncs(scenario, name, scale as u64);
            eprintln!("  {}: {syncs:.2} syncs a message", name.text());
            of.entry(name.text()).or_default().syncs = Some(syncs);
        }
        let tools = tools_alone(scenario, scale as u64);
        outcomes.push(Outcome { scenario, of, tools });
    }
    let disk = middle(&mut disks);
    Results { outcomes, disk, rounds: options.rounds, quick: options.quick }
}

fn chosen(options: &Options) -> impl Iterator<Item = Name> {
    [(Name::Postfix, options.postfix), (Name::Posthouse, options.posthouse)]
        .into_iter()
        .filter_map(|(name, wanted)| wanted.then_some(name))
}

fn messages(scenario: &Scenario, name: Name, scale: u64) -> u64 {
    let all = if name == Name::Postfix { scenario.messages.0 } else { scenario.messages.1 };
    (all / scale).max(100)
}

#[allow(clippy::cast_precision_loss, reason = "counts of messages and microseconds")]
fn once(scenario: &Scenario, name: Name, scale: u64) -> Measured {
    let n = messages(scenario, name, scale);
    let sink = Sink::start();
    let contender = Contender::start(name, sink.addr(), scenario.generator == Generator::TlsAndAuth, None);
    let login = contender.login();
    let put = |count: u64| {
        load::run(
            scenario.generator,
            contender.addr(),
            scenario.sessions,
            count,
            scenario.size,
            login.as_ref(),
        )
    };
    let warm = n / 20;
    put(warm);
    sink.wait(warm, Duration::from_secs(120));
    let roots = contender.roots();
    let cpu = || roots.iter().map(|r| measure::cpu(*r)).sum::<Duration>();
    let before = cpu();
    let watches: Vec<Watch> = roots.iter().map(|r| Watch::start(*r)).collect();
    let clock = Clock::system();
    let times = put(n);
    let accepted = clock.mono().0;
    sink.wait(warm + n, Duration::from_secs(300));
    let arrived = clock.mono().0;
    let used = cpu() - before;
    let memory: u64 = watches.into_iter().map(Watch::stop).sum();
    contender.stop();
    let n = n as f64;
    Measured {
        accepted: n / accepted.as_secs_f64(),
        end_to_end: n / arrived.as_secs_f64(),
        cpu_us: used.as_micros() as f64 / n,
        memory_mb: memory as f64 / 1e6,
        megabytes: n * scenario.size as f64 / 1e6 / accepted.as_secs_f64(),
        p50_ms: times.quantile_ms(0.5),
        p99_ms: times.quantile_ms(0.99),
        syncs: None,
    }
}

/// The same load, shorter and with the syncs counted: a run of its own, because counting costs time.
#[allow(clippy::cast_precision_loss, reason = "counts")]
fn count_syncs(scenario: &Scenario, name: Name, scale: u64) -> f64 {
    let n = messages(scenario, name, scale) / 3;
    let dir = TempDir::with_prefix("bench-strace-").unwrap();
    let summary = dir.path().join("syncs");
    let sink = Sink::start();
    let contender =
        Contender::start(name, sink.addr(), scenario.generator == Generator::TlsAndAuth, Some(&summary));
    let login = contender.login();
    load::run(scenario.generator, contender.addr(), scenario.sessions, n, scenario.size, login.as_ref());
    sink.wait(n, Duration::from_secs(300));
    contender.stop();
    measure::syncs(&summary) as f64 / n as f64
}

/// The load of a scenario straight into the sink. Without TLS, which smtp-sink does not speak.
#[allow(clippy::cast_precision_loss, reason = "a count of messages")]
fn tools_alone(scenario: &Scenario, scale: u64) -> f64 {
    let sink = Sink::start();
    let n = messages(scenario, Name::Posthouse, scale);
    let generator = match scenario.generator {
        Generator::TlsAndAuth => Generator::Timed,
        other => other,
    };
    let clock = Clock::system();
    load::run(generator, sink.addr(), scenario.sessions, n, scenario.size, None);
    let rate = n as f64 / clock.mono().0.as_secs_f64();
    eprintln!("  the tools alone: {rate:.0}/s");
    rate
}

fn medians(all: &[Measured]) -> Measured {
    let of = |pick: fn(&Measured) -> f64| middle(&mut all.iter().map(pick).collect::<Vec<_>>());
    let some = |pick: fn(&Measured) -> Option<f64>| {
        let mut values: Vec<f64> = all.iter().filter_map(pick).collect();
        (!values.is_empty()).then(|| middle(&mut values))
    };
    Measured {
        accepted: of(|m| m.accepted),
        end_to_end: of(|m| m.end_to_end),
        cpu_us: of(|m| m.cpu_us),
        memory_mb: all.iter().map(|m| m.memory_mb).fold(0.0, f64::max),
        megabytes: of(|m| m.megabytes),
        p50_ms: some(|m| m.p50_ms),
        p99_ms: some(|m| m.p99_ms),
        syncs: None,
    }
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn one_line(m: &Measured) -> String {
    let latency = match (m.p50_ms, m.p99_ms) {
        (Some(p50), Some(p99)) => format!(", dot to 250 p50 {p50:.1} ms, p99 {p99:.1} ms"),
        _ => String::new(),
    };
    format!(
        "{:.0}/s accepted, {:.0}/s end to end, {:.0} µs CPU, {:.0} MB, {:.1} MB/s{latency}",
        m.accepted, m.end_to_end, m.cpu_us, m.memory_mb, m.megabytes
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_three_rounds() {
        let all = [3.0, 1.0, 2.0].map(|x| Measured {
            accepted: x,
            memory_mb: x,
            p99_ms: Some(x),
            ..Measured::default()
        });
        let m = medians(&all);
        assert!((m.accepted - 2.0).abs() < 1e-9 && (m.memory_mb - 3.0).abs() < 1e-9);
        assert_eq!(m.p99_ms, Some(2.0));
        assert_eq!(m.p50_ms, None);
    }
}
