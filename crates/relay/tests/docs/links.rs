//! Links within the repository.

use std::path::Path;

use super::page::Page;

/// A link on a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) line: usize,
    pub(crate) target: String,
}

/// All links on a page but those to the Web.
pub(crate) fn targets(page: &Page) -> Vec<Link> {
    let mut found = Vec::new();
    for (line, text) in &page.prose {
        // What stands in backticks is no link.
        let plain: String = text.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for rest in plain.split("](").skip(1) {
            let Some(target) = rest.split(')').next() else { continue };
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push(Link { line: *line, target: target.to_owned() });
            }
        }
    }
    found
}

/// The links that lead nowhere.
pub(crate) fn broken(page: &Page) -> Vec<String> {
    let folder = page.path.parent().unwrap_or(Path::new("."));
    let leads_nowhere = |link: &Link| {
        let (file, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
        let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
        if anchor.is_empty() {
            return !path.exists();
        }
        !path.is_file() || !Page::read(&path).anchors().iter().any(|a| a == anchor)
    };
    let links = targets(page).into_iter().filter(leads_nowhere);
    links.map(|link| format!("{}: {} leads nowhere", page.place(link.line), link.target)).collect()
}

#[test]
fn broken_links_are_found() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("b.md"), "# Some heading\n").unwrap();
    let text =
        "[a](b.md) [b](b.md#some-heading) [c](https://example.com/x) `[d](no)`\n[e](b.md#other)\n[f](c.md)\n";
    let page = Page::of(dir.path().join("a.md"), text);
    let found = broken(&page);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains(":2: b.md#other") && found[1].contains(":3: c.md"), "{found:?}");
}
