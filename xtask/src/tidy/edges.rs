//! The table "may import" of ARCHITECTURE.md against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Every edge in a manifest that the table does not allow, and every crate that only one of them knows.
pub(super) fn faults(root: &Path) -> Result<Vec<String>, String> {
    let page =
        fs::read_to_string(root.join("ARCHITECTURE.md")).map_err(|e| format!("ARCHITECTURE.md: {e}"))?;
    let allowed = table(&page);
    let mut found = Edges::new();
    for entry in fs::read_dir(root.join("crates")).map_err(|e| e.to_string())?.flatten() {
        let manifest = entry.path().join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        found.insert(name, imports(&text).map_err(|e| format!("{}: {e}", manifest.display()))?);
    }
    Ok(compare(&allowed, &found))
}

/// Reads the rows `| crate | what | may, import |` under the heading that ends in `may import`.
fn table(page: &str) -> Edges {
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|l| l.starts_with('|'))
        .map(|l| l.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let after = rows.iter().position(|r| r.last() == Some(&"may import")).map_or(rows.len(), |i| i + 2);
    let mut edges = Edges::new();
    for row in rows[after..].iter().take_while(|r| r.len() == 3) {
        let known: BTreeSet<String> = edges.keys().cloned().collect();
        let may = match row[2] {
            "all of the above" => known,
            list => list.split(',').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect(),
        };
        edges.insert(row[0].to_owned(), may);
    }
    edges
}

/// What an edge that only tests use ends in.
const IN_TESTS: &str = " in tests";

/// The crates of this workspace that a manifest names in any of its dependency tables; those that only its tests use are
/// marked so.
fn imports(manifest: &str) -> Result<BTreeSet<String>, String> {
    let manifest: toml::Table = manifest.parse().map_err(|e| format!("{e}"))?;
    let mut names = BTreeSet::new();
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        if let Some(toml::Value::Table(table)) = manifest.get(section) {
            let mark = if section == "dev-dependencies" { IN_TESTS } else { "" };
            names.extend(table.keys().map(|name| format!("{name}{mark}")));
        }
    }
    Ok(names)
}

fn compare(allowed: &Edges, found: &Edges) -> Vec<String> {
    let mut faults = Vec::new();
    if allowed.is_empty() {
        faults.push("ARCHITECTURE.md has no table whose last column is \"may import\"".to_owned());
    }
    for (name, imports) in found {
        let Some(may) = allowed.get(name) else {
            faults.push(format!("crates/{name} is not in the table of ARCHITECTURE.md"));
            continue;
        };
        // Itself: with more features, for its own tests.
        let bare = |i: &str| i.strip_suffix(IN_TESTS).unwrap_or(i).to_owned();
        let foreign = |i: &&String| found.contains_key(&bare(i)) && bare(i) != *name;
        let is_allowed = |i: &String| may.contains(i) || may.contains(&bare(i));
        for other in imports.iter().filter(foreign).filter(|i| !is_allowed(i)) {
            faults.push(format!("crates/{name} imports {other}, which ARCHITECTURE.md does not allow"));
        }
    }
    for name in allowed.keys().filter(|n| !found.contains_key(*n)) {
        faults.push(format!("ARCHITECTURE.md speaks of crates/{name}, which is not there"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# x\n\n| crate | what it does | may import |\n|---|---|---|\n| mail | words | |\n| net | dials | mail |\n\
                        | check | judges | mail |\n| relay | all | all of the above |\n\n| a | b |\n|---|---|\n| c | d |\n";

    fn found(check: &[&str]) -> Edges {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        Edges::from([
            ("mail".into(), set(&["serde"])),
            ("net".into(), set(&["mail", "tokio"])),
            ("check".into(), set(check)),
            ("relay".into(), set(&["mail", "net", "check"])),
        ])
    }

    #[test]
    fn allowed_edges_pass() {
        assert_eq!(compare(&table(PAGE), &found(&["mail"])), Vec::<String>::new());
        assert_eq!(compare(&table(PAGE), &found(&["mail", "check"])), Vec::<String>::new(), "itself");
    }

    #[test]
    fn an_edge_beyond_the_table_is_a_fault() {
        let faults = compare(&table(PAGE), &found(&["mail", "net"]));
        assert_eq!(faults, ["crates/check imports net, which ARCHITECTURE.md does not allow"]);
    }

    #[test]
    fn crates_and_rows_must_match() {
        let mut crates = found(&["mail"]);
        crates.remove("net");
        crates.insert("new".into(), BTreeSet::new());
        let faults = compare(&table(PAGE), &crates).join("\n");
        assert!(
            faults.contains("crates/new is not in the table")
                && faults.contains("crates/net, which is not there")
        );
    }

    #[test]
    fn development_edges_count() {
        let names = imports("[dependencies]\nmail = {}\n[dev-dependencies]\nnet.workspace = true\n").unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["mail", "net in tests"]);
        let faults = compare(&table(PAGE), &found(&["mail", "net in tests"]));
        assert_eq!(faults, ["crates/check imports net in tests, which ARCHITECTURE.md does not allow"]);
        let page = PAGE.replace("| judges | mail |", "| judges | mail, net in tests |");
        assert_eq!(compare(&table(&page), &found(&["mail in tests", "net in tests"])), Vec::<String>::new());
        let faults = compare(&table(&page), &found(&["net"]));
        assert_eq!(
            faults,
            ["crates/check imports net, which ARCHITECTURE.md does not allow"],
            "not beyond tests"
        );
    }
}
