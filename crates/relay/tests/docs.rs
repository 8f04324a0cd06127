//! What the pages say, held against the program: configurations parse, command lines are accepted, links lead somewhere,
//! the book's summary is complete, and the reference of the commands is what the commands say of themselves.
//!
//! `UPDATE_DOCS=1 cargo nextest run -p relay --test docs` writes the reference of the commands anew.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as tests do")]

#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/links.rs"]
mod links;
#[path = "docs/page.rs"]
mod page;
#[path = "docs/reference.rs"]
mod reference;

use std::path::Path;

use page::{Page, pages, root};
use relay::config::Config;

/// Parses a configuration as if it stood in a directory of its own, which has the password files that it names.
fn parse(text: &str, what: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let keys = [
        ("password_file = \"", "secret\n"),
        ("client_secret_file = \"", "secret\n"),
        ("url_file = \"", "postgres://posthouse:secret@db1,db2/posthouse\n"),
    ];
    for line in text.lines() {
        let found = keys.iter().find_map(|(key, secret)| Some((line.trim().strip_prefix(key)?, secret)));
        let Some((name, secret)) = found.and_then(|(rest, secret)| Some((rest.split('"').next()?, secret)))
        else {
            continue;
        };
        assert!(!Path::new(name).is_absolute(), "{what}: {name} should be relative to the file");
        std::fs::write(dir.path().join(name), secret).unwrap();
    }
    Config::parse(text, Some(&dir.path().join("posthouse.toml")))
        .unwrap_or_else(|errors| panic!("{what}:\n{}", errors.render(false)))
}

#[test]
fn configurations_on_the_pages_are_accepted() {
    let mut seen = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "toml") {
            parse(&block.text, &page.place(block.line));
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} configurations were found");
}

#[test]
fn the_packaged_configuration_is_accepted_as_it_is_and_with_all_that_it_suggests() {
    let path = root().join("packaging/posthouse.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let config = parse(&text, "packaging/posthouse.toml");
    assert_eq!(config.user, "posthouse");
    assert_eq!(config.data_dir, Path::new("/var/lib/posthouse"));
    // What is commented out with "#" right before a key or a section is meant to be taken in.
    let suggests = |rest: &str| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase());
    let all: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| suggests(rest)).unwrap_or(line))
        .collect();
    let all = parse(&all.join("\n"), "packaging/posthouse.toml with all that it suggests");
    assert!(all.smarthost.contains_key("upstream") && all.acme.is_some());
}

#[test]
fn the_packaged_unit_starts_the_program_with_the_packaged_paths() {
    let unit = std::fs::read_to_string(root().join("packaging/posthouse.service")).unwrap();
    let page = Page::of("packaging/posthouse.service", &format!("```ini\n{unit}```\n"));
    let lines: Vec<String> = commands::of_page(&page).into_iter().map(|c| c.words.join(" ")).collect();
    assert_eq!(lines, ["/usr/bin/posthouse serve --config /etc/posthouse/posthouse.toml"]);
    for command in commands::of_page(&page) {
        command.check().unwrap();
    }
}

#[test]
fn command_lines_on_the_pages_are_accepted() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        for command in commands::of_page(&page) {
            seen += 1;
            wrong.extend(command.check().err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 60, "only {seen} command lines were found");
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let wrong: Vec<String> = pages.iter().flat_map(links::broken).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_summary_lists_every_page_of_the_book_once() {
    let book = root().join("docs/src");
    let listed = links::targets(&Page::read(&book.join("SUMMARY.md")));
    let mut listed: Vec<String> = listed.into_iter().map(|link| link.target).collect();
    listed.sort();
    let mut there: Vec<String> = pages()
        .iter()
        .filter_map(|page| page.path.strip_prefix(&book).ok().map(|p| p.display().to_string()))
        .filter(|path| path != "SUMMARY.md")
        .collect();
    there.sort();
    assert_eq!(listed, there);
}

#[test]
fn the_reference_of_the_commands_is_what_they_say_of_themselves() {
    let path = root().join("docs/src/reference/cli.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (by_hand, written) = page.split_once(reference::MARK).unwrap();
    let now = reference::write();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{by_hand}{}{now}", reference::MARK)).unwrap();
    } else {
        assert!(
            written == now,
            "docs/src/reference/cli.md is old: UPDATE_DOCS=1 cargo nextest run -p relay --test docs"
        );
    }
}
