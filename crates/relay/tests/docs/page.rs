//! A Markdown page: its blocks of code, its text without them, its headings.

use std::path::{Path, PathBuf};

/// A block of code, fenced or indented.
#[derive(Debug)]
pub(crate) struct Block {
    /// The line that it begins on, from 1.
    pub(crate) line: usize,
    /// What the fence says; nothing for an indented block.
    pub(crate) language: String,
    pub(crate) text: String,
}

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) blocks: Vec<Block>,
    /// Lines outside blocks, with their numbers.
    pub(crate) prose: Vec<(usize, String)>,
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every page that is written for people.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    collect(&root(), false, &mut paths);
    for folder in ["docs", "packaging"] {
        collect(&root().join(folder), true, &mut paths);
    }
    assert!(paths.len() > 20, "only {} pages were found", paths.len());
    paths.iter().map(|path| Page::read(path)).collect()
}

fn collect(folder: &Path, deep: bool, paths: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && deep {
            // What mdbook makes of the book.
            if path.file_name().is_some_and(|name| name != "book") {
                collect(&path, deep, paths);
            }
        } else if path.extension().is_some_and(|e| e == "md") {
            paths.push(path);
        }
    }
}

impl Page {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::of(path, &text)
    }

    /// Takes a text apart. Lists on these pages do not hold indented code, so four spaces after an empty line are a block.
    pub(crate) fn of(path: impl AsRef<Path>, text: &str) -> Self {
        let mut page = Self { path: path.as_ref().to_owned(), blocks: Vec::new(), prose: Vec::new() };
        let mut fence: Option<Block> = None;
        let mut indented: Option<Block> = None;
        let mut before_is_empty = true;
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            if let Some(mark) = line.strip_prefix("```") {
                match fence.take() {
                    Some(block) => page.blocks.push(block),
                    None => {
                        fence = Some(Block {
                            line: line_number,
                            language: mark.trim().into(),
                            text: String::new(),
                        });
                    }
                }
                continue;
            }
            if let Some(block) = &mut fence {
                block.text.push_str(line);
                block.text.push('\n');
                continue;
            }
            let code = line.strip_prefix("    ").filter(|_| before_is_empty || indented.is_some());
            before_is_empty = line.trim().is_empty();
            match (code, &mut indented) {
                (Some(code), Some(block)) => block.text.push_str(&format!("{code}\n")),
                (Some(code), None) => {
                    let text = format!("{code}\n");
                    indented = Some(Block { line: line_number, language: String::new(), text });
                }
                (None, Some(block)) if before_is_empty => block.text.push('\n'),
                (None, _) => {
                    page.blocks.extend(indented.take());
                    page.prose.push((line_number, line.to_owned()));
                }
            }
        }
        assert!(fence.is_none(), "{}: a fence is not closed", page.path.display());
        page.blocks.extend(indented);
        page
    }

    /// A place on the page, for people.
    pub(crate) fn place(&self, line: usize) -> String {
        let path = self.path.strip_prefix(root()).unwrap_or(&self.path);
        format!("{}:{line}", path.display())
    }

    /// The names by which links find headings, as mdBook and forges make them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.prose.iter().filter(|(_, line)| line.starts_with('#'));
        headings
            .map(|(_, line)| {
                let text = line.trim_start_matches('#').trim().to_lowercase();
                let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
                kept.map(|c| if c == ' ' { '-' } else { c }).collect()
            })
            .collect()
    }
}

#[test]
fn a_page_is_taken_apart() {
    let page =
        Page::of("a.md", "# A `b` c!\n\n    one\n\n    two\ntext\n```toml\n[x]\n```\n- item\n    not code\n");
    let blocks: Vec<_> = page.blocks.iter().map(|b| (b.line, b.language.as_str(), b.text.as_str())).collect();
    assert_eq!(blocks, [(3, "", "one\n\ntwo\n"), (7, "toml", "[x]\n")]);
    assert_eq!(page.anchors(), ["a-b-c"]);
    assert_eq!(page.prose.last().unwrap().1, "    not code");
}
