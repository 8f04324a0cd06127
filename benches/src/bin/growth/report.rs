//! The looks as a table and a chart.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::look::{After, Look};

/// Columns of the longest bar.
const WIDTH: f64 = 40.0;

pub(crate) fn write(out: &Path, size: usize, domains: u64, looks: &[Look], after: &After) {
    let text = markdown(size, domains, looks, after);
    println!("\n{text}");
    fs::create_dir_all(out).unwrap();
    fs::write(out.join("growth.md"), &text).unwrap();
    println!("written to {}", out.join("growth.md").display());
}

fn markdown(size: usize, domains: u64, looks: &[Look], after: &After) -> String {
    let mut text = format!("{size} octets of content each, one recipient, {domains} recipient domains.\n\n");
    text.push_str(
        "| waiting | CPU µs/message | messages/s | start ms | after a kill ms | horizon ms | page ms | queues ms | memory MB | rows, octets each | disk / live |\n",
    );
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|\n");
    for l in looks {
        let each = if l.waiting == 0 { 0.0 } else { l.rows as f64 / l.waiting as f64 };
        let share = if l.live == 0 {
            "–".into()
        } else {
            format!("{:.2}", (l.rows + l.content) as f64 / l.live as f64)
        };
        writeln!(
            text,
            "| {} | {:.1} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.0} | {each:.0} | {share} |",
            thousands(l.waiting),
            l.cpu_us,
            l.rate,
            l.start_ms,
            l.start_unclean_ms,
            l.horizon_ms,
            l.page_ms,
            l.queues_ms,
            l.memory_mb
        )
        .unwrap();
    }
    text.push_str("\n```text\nCPU µs for a message that comes and goes, beside so many that wait\n\n");
    let most = looks.iter().map(|l| l.cpu_us).fold(0.0, f64::max);
    for l in looks {
        let bar = "█".repeat((l.cpu_us / most * WIDTH).round() as usize);
        writeln!(text, "{:>10} {bar} {:.1}", thousands(l.waiting), l.cpu_us).unwrap();
    }
    text.push_str("```\n");
    writeln!(
        text,
        "\nThen nine of ten were settled, in no order ({} messages, {:.1} µs of CPU each, {:.0}/s): {:.2} times the live bytes stayed on disk.",
        thousands(after.settled),
        after.settle_us,
        after.rate,
        after.disk as f64 / after.live.max(1) as f64
    )
    .unwrap();
    text
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_bars_are_scaled() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        let looks = [(0, 10.0), (1000, 20.0)].map(|(waiting, cpu_us)| Look {
            waiting,
            cpu_us,
            live: waiting,
            rows: waiting,
            ..Look::default()
        });
        let text = markdown(512, 10, &looks, &After { settled: 9, disk: 130, live: 100, ..After::default() });
        assert!(text.contains(&format!("     1,000 {} 20.0\n", "█".repeat(40))), "{text}");
        assert!(text.contains(&format!("         0 {} 10.0\n", "█".repeat(20))), "{text}");
        assert!(text.contains("1.30 times the live bytes"));
    }
}
