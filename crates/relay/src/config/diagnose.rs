//! Errors that show the place in the file: path, line, the text, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use toml::de::{DeTable, DeValue};

/// The text a configuration was read from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file; none when there is no file and all is by default.
    pub path: Option<PathBuf>,
    /// Its text.
    pub text: Arc<str>,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong, in a sentence.
    pub message: String,
    /// Where in the text, in octets.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
}

impl ConfigError {
    /// An error at a place in the text.
    pub fn new(message: impl Into<String>, span: Option<Range<usize>>) -> Self {
        Self { message: message.into(), span, help: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All that is wrong with a configuration. Shown as text without colours.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    /// What is wrong, in the order of the file.
    pub errors: Vec<ConfigError>,
    /// The text it is wrong in.
    pub source: Source,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl ConfigErrors {
    /// One error that has no place in the text.
    pub fn plain(message: impl Into<String>, path: Option<&Path>) -> Self {
        let source = Source { path: path.map(Path::to_owned), text: "".into() };
        Self { errors: vec![ConfigError::new(message, None)], source }
    }

    /// The errors with the lines of the file they are in, for a terminal that shows `colour` or not.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(160);
        let path =
            self.source.path.as_ref().map_or_else(|| "configuration".into(), |p| p.display().to_string());
        let mut out = Vec::new();
        for error in &self.errors {
            let title = Level::ERROR.primary_title(error.message.as_str());
            let mut group = match &error.span {
                Some(span) => title.element(
                    Snippet::source(&*self.source.text)
                        .path(path.as_str())
                        .annotation(AnnotationKind::Primary.span(span.clone())),
                ),
                None => annotate_snippets::Group::with_title(title),
            };
            if let Some(help) = &error.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            out.push(renderer.render(&[group]));
        }
        out.join("\n\n")
    }
}

impl Source {
    /// Where the value of a key is: `span("smarthost.upstream.hosts[0]")`. When the key is not in the file, the place of
    /// the nearest table above it; none when even that is not there.
    pub fn span(&self, key: &str) -> Option<Range<usize>> {
        let root = DeTable::parse(&self.text).ok()?;
        let mut at = None;
        let mut table = Some(root.get_ref());
        let mut value: Option<&DeValue<'_>> = None;
        for step in steps(key) {
            let next = match (step, table, value) {
                (Step::Key(name), Some(table), _) => table.get(name),
                (Step::Index(index), _, Some(DeValue::Array(array))) => array.get(index),
                _ => None,
            };
            let Some(next) = next else { break };
            at = Some(next.span());
            value = Some(next.get_ref());
            table = next.get_ref().as_table();
        }
        at.map(|span| self.first_line(span))
    }

    /// `FILE:LINE` of a key, for messages in one line.
    pub fn place(&self, key: &str) -> String {
        let path = self.path.as_ref().map_or_else(|| "default".into(), |p| p.display().to_string());
        match self.span(key) {
            Some(span) => {
                let line = self.text[..span.start].matches('\n').count() + 1;
                format!("{path}:{line}")
            }
            None => path,
        }
    }

    /// A table of several lines is shown by its first.
    pub(super) fn first_line(&self, span: Range<usize>) -> Range<usize> {
        let end = self.text[span.clone()].find('\n').map_or(span.end, |i| span.start + i);
        span.start..end
    }
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// The steps of `listener[0].address[1]`.
fn steps(key: &str) -> impl Iterator<Item = Step<'_>> {
    key.split('.').flat_map(|part| {
        let mut pieces = part.split('[');
        let name = pieces.next().unwrap_or_default();
        let indices = pieces.filter_map(|i| i.trim_end_matches(']').parse().ok().map(Step::Index));
        std::iter::once(Step::Key(name)).chain(indices)
    })
}

/// The nearest of `names` to `wrong`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1) || name.starts_with(&wrong))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
