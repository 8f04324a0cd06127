//! The results as a table for people and as JSON for comparing.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::contender::Name;
use crate::scenario::{Measured, Results};

/// Prints the table and writes it with the JSON into `dir`.
pub(crate) fn write(dir: &Path, results: &Results) {
    let text = markdown(results);
    println!("\n{text}");
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("results.md"), &text).unwrap();
    fs::write(dir.join("results.json"), serde_json::to_string_pretty(&as_json(results)).unwrap()).unwrap();
    println!("written to {}", dir.display());
}

fn markdown(results: &Results) -> String {
    let mut text = String::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let quick = if results.quick { " (quick: shows that it works, proves little)" } else { "" };
    writeln!(text, "{cores} cores, median of {} rounds{quick}.", results.rounds).unwrap();
    writeln!(text, "Plain sequential write with an fdatasync every 4 MB: {:.0} MB/s.", results.disk).unwrap();
    for outcome in &results.outcomes {
        let (scenario, tools) = (outcome.scenario, outcome.tools);
        writeln!(
            text,
            "\n### {}\n\n{}. The same load straight into the sink: {tools:.0}/s.\n",
            scenario.name, scenario.what
        )
        .unwrap();
        writeln!(text, "| | accepted/s | end to end/s | CPU µs/message | peak memory MB | syncs/message | accepted MB/s | dot to 250, p50 / p99 ms |").unwrap();
        writeln!(text, "|---|---|---|---|---|---|---|---|").unwrap();
        for (name, m) in &outcome.of {
            row(&mut text, name, m);
        }
        let of = |name: Name| outcome.of.get(name.text());
        if let (Some(postfix), Some(posthouse)) = (of(Name::Postfix), of(Name::Posthouse)) {
            writeln!(
                text,
                "| **ratio** | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} | {:.1} | |",
                posthouse.accepted / postfix.accepted,
                posthouse.end_to_end / postfix.end_to_end,
                posthouse.cpu_us / postfix.cpu_us,
                posthouse.memory_mb / postfix.memory_mb,
                posthouse.syncs.unwrap_or(0.0) / postfix.syncs.unwrap_or(1.0).max(1e-9),
                posthouse.megabytes / postfix.megabytes
            )
            .unwrap();
        }
        if let Some(ms) = outcome.of.values().find_map(|m| m.banner_ms) {
            writeln!(text, "\nThe banner came {ms:.0} ms after the start of the program.").unwrap();
        }
    }
    text
}

fn row(text: &mut String, name: &str, m: &Measured) {
    let latency = match (m.p50_ms, m.p99_ms) {
        (Some(p50), Some(p99)) => format!("{p50:.1} / {p99:.1}"),
        _ => "–".to_owned(),
    };
    writeln!(
        text,
        "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.1} | {latency} |",
        m.accepted,
        m.end_to_end,
        m.cpu_us,
        m.memory_mb,
        m.syncs.unwrap_or(0.0),
        m.megabytes
    )
    .unwrap();
}

fn as_json(results: &Results) -> serde_json::Value {
    let scenarios: Vec<_> = results
        .outcomes
        .iter()
        .map(|o| {
            let of: serde_json::Map<_, _> =
                o.of.iter().map(|(n, m)| ((*n).to_owned(), measured(m))).collect();
            json!({ "name": o.scenario.name, "what": o.scenario.what, "tools_per_second": o.tools, "of": of })
        })
        .collect();
    json!({ "rounds": results.rounds, "quick": results.quick, "disk_megabytes_per_second": results.disk, "scenarios": scenarios })
}

fn measured(m: &Measured) -> serde_json::Value {
    json!({ "accepted_per_second": m.accepted, "end_to_end_per_second": m.end_to_end, "cpu_us_per_message": m.cpu_us,
            "memory_mb_max": m.memory_mb, "syncs_per_message": m.syncs, "accepted_megabytes_per_second": m.megabytes,
            "accept_p50_ms": m.p50_ms, "accept_p99_ms": m.p99_ms, "banner_ms": m.banner_ms })
}
