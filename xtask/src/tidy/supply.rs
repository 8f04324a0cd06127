//! The rules of deny.toml that can be held without a network or another tool: licences, banned crates, sources. Where
//! cargo-deny is installed, `cargo xtask test` calls it too.

use std::fs;
use std::path::Path;

use crate::shell::{capture, command};

struct Rules {
    licences: Vec<String>,
    banned: Vec<String>,
}

/// Faults of every crate that the build uses.
pub(super) fn faults(root: &Path) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(root.join("deny.toml")).map_err(|e| format!("deny.toml: {e}"))?;
    let rules = rules(&text)?;
    // `cargo metadata` also lists what weak features might pull in; the tree is what is built.
    let tree =
        command("cargo", &["tree", "--workspace", "--locked", "--prefix", "none", "--format", "{p}|{l}"]);
    let mut lines: Vec<String> = capture(tree)?
        .lines()
        .filter(|l| !l.is_empty())
        .map(|l| l.trim_end_matches(" (*)").to_owned())
        .collect();
    lines.sort();
    lines.dedup();
    Ok(lines.iter().flat_map(|line| of_package(&rules, line)).collect())
}

fn rules(text: &str) -> Result<Rules, String> {
    let deny: toml::Table = text.parse().map_err(|e| format!("deny.toml: {e}"))?;
    let strings = |value: Option<&toml::Value>, key: Option<&str>| -> Vec<String> {
        let list = value.and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let text = |v: &toml::Value| match key {
            Some(key) => v.get(key).and_then(toml::Value::as_str).map(str::to_owned),
            None => v.as_str().map(str::to_owned),
        };
        list.iter().filter_map(text).collect()
    };
    let section = |name: &str, key: &str| deny.get(name).and_then(|s| s.get(key));
    Ok(Rules {
        licences: strings(section("licenses", "allow"), None),
        banned: strings(section("bans", "deny"), Some("crate")),
    })
}

/// Judges a line `name vVERSION|licence`; what does not come from the registry has its place in parentheses after the
/// version, `(proc-macro)` aside.
fn of_package(rules: &Rules, line: &str) -> Vec<String> {
    let (package, licence) = line.rsplit_once('|').unwrap_or((line, ""));
    let name = package.split(' ').next().unwrap_or_default();
    let place = package
        .replace(" (proc-macro)", "")
        .split_once(" (")
        .map(|(_, p)| p.trim_end_matches(')').to_owned());
    let mut faults = Vec::new();
    if rules.banned.iter().any(|b| b == name) {
        faults.push(format!("the crate {name} is banned by deny.toml"));
    }
    match place {
        Some(path) if path.starts_with('/') => return faults,
        Some(source) => {
            faults.push(format!("the crate {name} does not come from the registry but from {source}"))
        }
        None => {}
    }
    if !permitted(&rules.licences, licence) {
        faults.push(format!("the crate {name} has a licence that deny.toml does not allow: {licence}"));
    }
    faults
}

/// Whether an SPDX expression can be satisfied with the allowed licences. `OR` binds weaker than `AND`.
fn permitted(allowed: &[String], expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(allowed, &words, &mut at)
}

fn either(allowed: &[String], words: &[&str], at: &mut usize) -> bool {
    let mut ok = both(allowed, words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        ok |= both(allowed, words, at);
    }
    ok
}

fn both(allowed: &[String], words: &[&str], at: &mut usize) -> bool {
    let mut ok = one(allowed, words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        ok &= one(allowed, words, at);
    }
    ok
}

fn one(allowed: &[String], words: &[&str], at: &mut usize) -> bool {
    let word = words.get(*at).copied().unwrap_or_default();
    *at += 1;
    if word == "(" {
        let ok = either(allowed, words, at);
        *at += 1;
        return ok;
    }
    let mut whole = word.to_owned();
    if words.get(*at) == Some(&"WITH") {
        whole = format!("{word} WITH {}", words.get(*at + 1).copied().unwrap_or_default());
        *at += 2;
    }
    allowed.contains(&whole) || allowed.iter().any(|a| a == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned(), "ISC".to_owned()];
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-3.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(permitted(&allowed, good), "{good}");
        }
        for bad in ["AGPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR AGPL-3.0) AND MIT", "none named"] {
            assert!(!permitted(&allowed, bad), "{bad}");
        }
    }

    #[test]
    fn banned_crates_and_foreign_sources_are_faults() {
        let rules = rules(
            "[licenses]\nallow = [\"MIT\"]\n[bans]\ndeny = [{ crate = \"openssl-sys\", reason = \"x\" }]",
        )
        .unwrap();
        assert!(of_package(&rules, "a v1.0.0|MIT").is_empty());
        assert!(of_package(&rules, "a v1.0.0 (proc-macro)|MIT").is_empty());
        assert!(of_package(&rules, "mail v0.1.0 (/somewhere/crates/mail)|Apache-2.0").is_empty());
        assert_eq!(of_package(&rules, "openssl-sys v1.0.0|MIT").len(), 1);
        assert_eq!(of_package(&rules, "a v1.0.0 (https://github.com/x/a#123)|MIT").len(), 1);
        assert_eq!(of_package(&rules, "a v1.0.0|AGPL-3.0").len(), 1);
    }
}
