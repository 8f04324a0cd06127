//! Size, head and unfinished work of every source file.

use std::fs;
use std::path::Path;

use crate::shell::{capture, command};

/// Above this many lines a file should be looked at.
const USUAL: usize = 400;
/// Above this many it must say at its head why it is so long (`Long because …`).
const REASON: usize = 600;
/// Above this many it fails.
const MOST: usize = 800;

/// Faults of the Rust files that git knows or would take.
pub(super) fn faults(root: &Path) -> Result<Vec<String>, String> {
    let list =
        capture(command("git", &["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.rs"]))?;
    let mut faults = Vec::new();
    let mut long = 0;
    for name in list.lines() {
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        long += usize::from(text.lines().count() > USUAL);
        faults.extend(of_file(name, &text));
    }
    if long > 0 {
        eprintln!("tidy: {long} files are longer than the usual {USUAL} lines");
    }
    Ok(faults)
}

fn of_file(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    let head: Vec<&str> = text.lines().take_while(|l| l.starts_with("//!") || l.is_empty()).collect();
    let is_tests = name.ends_with("tests.rs") || name.contains("/tests/") || name.contains("/scenarios/");
    if head.is_empty() && !is_tests {
        faults.push(format!("{name} does not open by saying what it is for (//!)"));
    }
    if lines > MOST {
        faults.push(format!("{name} has {lines} lines; {MOST} is the most"));
    } else if lines > REASON && !head.iter().any(|l| l.contains("Long because")) {
        faults.push(format!(
            "{name} has {lines} lines; over {REASON} its head must say why: \"Long because …\""
        ));
    }
    for (number, line) in text.lines().enumerate() {
        // Put together here, so that this file does not find itself.
        for word in [
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("unimplemented", "!("),
            concat!("#[", "ignore"),
        ] {
            if line.contains(word) {
                faults.push(format!("{name}:{}: unfinished: {}", number + 1, line.trim()));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_steps() {
        let file = |lines: usize, head: &str| format!("//! {head}\n{}", "x\n".repeat(lines - 1));
        assert!(of_file("a.rs", &file(600, "Why.")).is_empty());
        assert_eq!(of_file("a.rs", &file(601, "Why.")).len(), 1);
        assert!(of_file("a.rs", &file(800, "Long because of a table.")).is_empty());
        assert_eq!(of_file("a.rs", &file(801, "Long because of a table.")).len(), 1);
    }

    #[test]
    fn unfinished_work_and_missing_heads_are_faults() {
        assert_eq!(of_file("a.rs", concat!("//! Head.\n// TO", "DO: later\n")).len(), 1);
        assert_eq!(of_file("a.rs", "fn main() {}\n").len(), 1);
        assert!(of_file("a/tests.rs", "use super::*;\n").is_empty());
    }
}
