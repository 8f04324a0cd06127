//! What the documentation says can be typed can be typed: every configuration loads, every command and option exists.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use posthouse_tests::relay::binary;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every page of documentation.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "README.vi.md"].iter().map(|p| root().join(p)).collect();
    let mut dirs = vec![root().join("docs")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The fenced blocks of a page: the word behind the fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(word), None) => open = Some((word.trim().to_owned(), String::new())),
            (None, Some((_, text))) => text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn every_configuration_in_the_documentation_loads() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, (_, config)) in blocks(&text).into_iter().filter(|(word, _)| word == "toml").enumerate()
        {
            let dir = tempfile::tempdir().unwrap();
            for line in config.lines() {
                // Files that it names must be there; what is in them is not the point here.
                let Some((key, value)) = line.split_once('=') else { continue };
                let value = value.split('#').next().unwrap_or_default().trim().trim_matches('"');
                if key.trim().ends_with("_file") && !value.is_empty() && !value.starts_with('/') {
                    fs::write(dir.path().join(value), "secret\n").unwrap();
                }
            }
            let file = dir.path().join("posthouse.toml");
            fs::write(&file, completed(&config)).unwrap();
            let mut show = Command::new(binary());
            show.args(["config", "show", "--config"]).arg(&file).env("NO_COLOR", "1");
            let output = show.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success(),
                "{}, configuration {}:\n{config}\n{said}",
                page.display(),
                number + 1
            );
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} configurations were found");
}

/// A part of a file may name smart hosts that another part defines.
fn completed(config: &str) -> String {
    let mut whole = config.to_owned();
    for part in config.split("smarthost:").skip(1) {
        let name = part.split('"').next().unwrap_or_default();
        if !whole.contains(&format!("[smarthost.{name}]")) {
            whole.push_str(&format!("\n[smarthost.{name}]\nhosts = [\"mx.{name}.example:587\"]\n"));
        }
    }
    whole
}

#[test]
fn every_command_in_the_documentation_exists_with_its_options() {
    let mut seen = 0;
    for page in pages() {
        for line in fs::read_to_string(&page).unwrap().lines() {
            let Some(line) =
                line.strip_prefix("    ").or_else(|| line.strip_prefix("posthouse ").map(|_| line))
            else {
                continue;
            };
            let line = line.trim_start_matches(['$', '#', ' ']).trim_start_matches("sudo ");
            let Some(rest) = line.strip_prefix("posthouse ") else { continue };
            let rest = rest.split(" #").next().unwrap_or_default();
            let words: Vec<&str> =
                rest.split_whitespace().take_while(|w| !["|", ">", "<", "&&"].contains(w)).collect();
            let is_name =
                |w: &&&str| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !w.starts_with('-');
            let names: Vec<&str> = words.iter().take_while(is_name).copied().take(2).collect();
            if names.is_empty() || names[0] == "sendmail" {
                continue;
            }
            let help = help(&names).or_else(|| help(&names[..1]));
            let help = help.unwrap_or_else(|| panic!("{}: no such command: {line}", page.display()));
            for option in words.iter().filter_map(|w| w.trim_matches(['[', ']']).strip_prefix("--")) {
                let option =
                    format!("--{}", option.split(['=', '[', ']', '|', '.', '…']).next().unwrap_or_default());
                assert!(
                    help.contains(&option),
                    "{}: {line}: there is no {option} in\n{help}",
                    page.display()
                );
            }
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} commands were found");
}

fn help(names: &[&str]) -> Option<String> {
    let output = Command::new(binary()).args(names).arg("--help").env("NO_COLOR", "1").output().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_reference_of_the_configuration_is_the_program_s_own() {
    let written = fs::read_to_string(root().join("docs/src/reference/config.md")).unwrap();
    let output = Command::new(binary()).args(["config", "reference"]).env("NO_COLOR", "1").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        written.contains(printed.trim()),
        "docs/src/reference/config.md is not what `posthouse config reference` prints; write it again"
    );
}
