//! How a scenario is measured: the contenders in turn, round after round, and the medians of that.

use std::collections::BTreeMap;
use std::time::Duration;

use mail::Clock;
use posthouse_tests::wait::eventually;
use tempfile::TempDir;

use crate::Options;
use crate::contender::{Contender, Name};
use crate::load::{self, Generator, Load};
use crate::measure::{self, Watch};
use crate::place::Place;
use crate::scenario::{ALL, Measured, Outcome, Results, Scenario, Surroundings};

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
        // A thread of its own, as a network of its own belongs to the thread that makes it and to what that one starts.
        let outcome =
            std::thread::scope(|s| s.spawn(|| one(options, scenario, scale as u64)).join().unwrap());
        outcomes.extend(outcome);
        if scenario.name == "large" {
            disks.push(measure::disk_rate(dir.path(), 1024 / scale));
        }
    }
    let disk = middle(&mut disks);
    Results { outcomes, disk, rounds: options.rounds, quick: options.quick }
}

/// All rounds of a scenario; none when nobody takes part.
fn one(options: &Options, scenario: &'static Scenario, scale: u64) -> Option<Outcome> {
    let names: Vec<Name> = chosen(options, scenario).collect();
    if names.is_empty() {
        return None;
    }
    let place = Place::make(scenario.surroundings, scale);
    let mut rounds: BTreeMap<&'static str, Vec<Measured>> = BTreeMap::new();
    for round in 1..=options.rounds {
        for name in &names {
            let measured = once(scenario, &place, *name, scale);
            eprintln!("  round {round}, {}: {}", name.text(), one_line(&measured));
            rounds.entry(name.text()).or_default().push(measured);
        }
    }
    let mut of: BTreeMap<&'static str, Measured> =
        rounds.into_iter().map(|(n, m)| (n, medians(&m))).collect();
    for name in names {
        let syncs = count_syncs(scenario, &place, name, scale);
        eprintln!("  {}: {syncs:.2} syncs a message", name.text());
        of.entry(name.text()).or_default().syncs = Some(syncs);
    }
    let tools = tools_alone(scenario, &place, scale);
    Some(Outcome { scenario, of, tools })
}

fn chosen(options: &Options, scenario: &Scenario) -> impl Iterator<Item = Name> {
    let postfix = options.postfix && scenario.messages.0 > 0;
    [(Name::Postfix, postfix), (Name::Posthouse, options.posthouse)]
        .into_iter()
        .filter_map(|(name, wanted)| wanted.then_some(name))
}

fn messages(scenario: &Scenario, name: Name, scale: u64) -> u64 {
    let all = if name == Name::Postfix { scenario.messages.0 } else { scenario.messages.1 };
    (all / scale).max(100)
}

/// How many of the first `n` messages arrive at the good sink.
fn arriving(scenario: &Scenario, n: u64) -> u64 {
    if scenario.surroundings == Surroundings::Bad { n - n / 10 - n.div_ceil(10) } else { n }
}

#[allow(clippy::cast_precision_loss, reason = "counts of messages and microseconds")]
fn once(scenario: &Scenario, place: &Place, name: Name, scale: u64) -> Measured {
    let n = messages(scenario, name, scale);
    let sink = place.sink();
    let started = Clock::system();
    let contender =
        Contender::start(name, &place.setup(&sink), scenario.generator == Generator::TlsAndAuth, None);
    let banner = started.mono().0;
    let login = contender.login();
    let put = |count: u64| load::run(&load_of(scenario, count), contender.addr(), login.as_ref());
    let warm = n / 20;
    put(warm);
    let before_sink = arriving(scenario, warm);
    sink.wait(before_sink, Duration::from_secs(120));
    let roots = contender.roots();
    let cpu = || roots.iter().map(|r| measure::cpu(*r)).sum::<Duration>();
    let before = cpu();
    let watches: Vec<Watch> = roots.iter().map(|r| Watch::start(*r)).collect();
    let clock = Clock::system();
    let times = put(n);
    let accepted = clock.mono().0;
    let good = arriving(scenario, n);
    sink.wait(before_sink + good, Duration::from_secs(300));
    let arrived = clock.mono().0;
    let used = cpu() - before;
    let memory: u64 = watches.into_iter().map(Watch::stop).sum();
    contender.stop();
    let queued = matches!(scenario.surroundings, Surroundings::Queued(_));
    let bytes = (0..n).map(|i| scenario.size.of(i)).sum::<usize>();
    let n = n as f64;
    Measured {
        accepted: n / accepted.as_secs_f64(),
        end_to_end: good as f64 / arrived.as_secs_f64(),
        cpu_us: used.as_micros() as f64 / n,
        memory_mb: memory as f64 / 1e6,
        megabytes: bytes as f64 / 1e6 / accepted.as_secs_f64(),
        p50_ms: times.quantile_ms(0.5),
        p99_ms: times.quantile_ms(0.99),
        syncs: None,
        banner_ms: queued.then_some(banner.as_secs_f64() * 1e3),
    }
}

fn load_of(scenario: &Scenario, messages: u64) -> Load {
    Load {
        generator: scenario.generator,
        sessions: scenario.sessions,
        messages,
        size: scenario.size,
        recipients: scenario.surroundings.into(),
    }
}

/// The same load, shorter and with the syncs counted: a run of its own, because counting costs time.
#[allow(clippy::cast_precision_loss, reason = "counts")]
fn count_syncs(scenario: &Scenario, place: &Place, name: Name, scale: u64) -> f64 {
    let n = messages(scenario, name, scale) / 3;
    let dir = TempDir::with_prefix("bench-strace-").unwrap();
    let summary = dir.path().join("syncs");
    let sink = place.sink();
    let secure = scenario.generator == Generator::TlsAndAuth;
    let contender = Contender::start(name, &place.setup(&sink), secure, Some(&summary));
    let login = contender.login();
    load::run(&load_of(scenario, n), contender.addr(), login.as_ref());
    sink.wait(arriving(scenario, n), Duration::from_secs(300));
    contender.stop();
    measure::syncs(&summary) as f64 / n as f64
}

/// The load of a scenario straight into the sink. Without TLS, which smtp-sink does not speak.
#[allow(clippy::cast_precision_loss, reason = "a count of messages")]
fn tools_alone(scenario: &Scenario, place: &Place, scale: u64) -> f64 {
    let sink = place.sink();
    let n = messages(scenario, Name::Posthouse, scale);
    let mut load = load_of(scenario, n);
    if load.generator == Generator::TlsAndAuth {
        load.generator = Generator::Timed;
    }
    let clock = Clock::system();
    load::run(&load, sink.addr(), None);
    let rate = n as f64 / clock.mono().0.as_secs_f64();
    eventually("the sink has counted", Duration::from_secs(20), || (sink.count() >= n).then_some(()));
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
        banner_ms: some(|m| m.banner_ms),
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
    let banner = m.banner_ms.map_or(String::new(), |ms| format!(", banner after {ms:.0} ms"));
    format!(
        "{:.0}/s accepted, {:.0}/s end to end, {:.0} µs CPU, {:.0} MB, {:.1} MB/s{latency}{banner}",
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

    #[test]
    fn what_arrives_at_the_good_one() {
        let bad = ALL.iter().find(|s| s.name == "bad-neighbours").unwrap();
        for n in [1, 9, 10, 11, 100, 1234] {
            let good = (0..n).filter(|i| load::Recipients::Bad.of(*i).ends_with("@dest.example")).count();
            assert_eq!(arriving(bad, n), good as u64, "{n}");
        }
    }
}
