//! Reading a data file: typed values out of TOML tables, and for every mistake its line and what was meant.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::duration::parse_duration;

/// A data file is wrong; whose it is, its author knows by the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DataError {
    /// The line, from 1.
    pub line: usize,
    /// That line's text.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What to do, if it is known.
    pub help: Option<String>,
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        if !self.text.is_empty() {
            write!(f, "\n    {}", self.text)?;
        }
        Ok(())
    }
}

/// A table that is being read: each key is taken, and what nobody took is a mistake ([`Table::finish`]).
#[derive(Debug)]
pub struct Table<'s> {
    source: &'s str,
    span: Range<usize>,
    path: String,
    left: DeTable<'s>,
    asked: Vec<&'static str>,
}

impl<'s> Table<'s> {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not TOML.
    pub fn parse(source: &'s str) -> Result<Self, DataError> {
        match DeTable::parse(source) {
            Ok(root) => Ok(Self {
                source,
                span: 0..0,
                path: String::new(),
                left: root.into_inner(),
                asked: Vec::new(),
            }),
            Err(error) => {
                let at = error.span().unwrap_or(0..0);
                Err(Self::error_in(source, at, error.message().to_owned(), None))
            }
        }
    }

    fn error_in(source: &str, at: Range<usize>, message: String, help: Option<String>) -> DataError {
        let start = (0..=at.start.min(source.len())).rev().find(|&i| source.is_char_boundary(i)).unwrap_or(0);
        let line = source[..start].matches('\n').count() + 1;
        let text = source.lines().nth(line - 1).unwrap_or_default().trim().to_owned();
        DataError { line, text, message, help }
    }

    fn error_at(&self, at: Range<usize>, message: String) -> DataError {
        Self::error_in(self.source, at, message, None)
    }

    /// A mistake in this table as a whole.
    pub fn error(&self, message: impl Into<String>) -> DataError {
        self.error_at(self.span.clone(), message.into())
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { format!("`{key}`") } else { format!("`{}.{key}`", self.path) }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'s>>> {
        self.asked.push(key);
        self.left.remove(key)
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'s>>, wanted: &str) -> DataError {
        let is = value.get_ref().type_str();
        self.error_at(value.span(), format!("{} is {is}, but it has to be {wanted}", self.name(key)))
    }

    /// A text and its place.
    ///
    /// # Errors
    /// It is none.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, DataError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => match value.get_ref() {
                DeValue::String(text) => Ok(Some(text.clone().into_owned())),
                _ => Err(self.wrong(key, &value, "a text")),
            },
        }
    }

    /// A text or a list of texts.
    ///
    /// # Errors
    /// It is neither.
    pub fn texts(&mut self, key: &'static str) -> Result<Vec<String>, DataError> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        match value.get_ref() {
            DeValue::String(text) => Ok(vec![text.clone().into_owned()]),
            DeValue::Array(items) => items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => Ok(text.clone().into_owned()),
                    _ => Err(self.wrong(key, item, "a list of texts")),
                })
                .collect(),
            _ => Err(self.wrong(key, &value, "a text or a list of texts")),
        }
    }

    /// A number, or a list of numbers and texts, each as text: `421`, `[421, "5xx"]`.
    ///
    /// # Errors
    /// It is something else.
    pub fn words(&mut self, key: &'static str) -> Result<Vec<String>, DataError> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let word = |item: &Spanned<DeValue<'s>>| match item.get_ref() {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            DeValue::Integer(number) => Ok(number.as_str().to_owned()),
            _ => Err(self.wrong(key, item, "a number or a list of numbers")),
        };
        match value.get_ref() {
            DeValue::Array(items) => items.iter().map(word).collect(),
            _ => Ok(vec![word(&value)?]),
        }
    }

    /// Yes or no; no when it is not there.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&mut self, key: &'static str) -> Result<bool, DataError> {
        match self.take(key) {
            None => Ok(false),
            Some(value) => match value.get_ref() {
                DeValue::Boolean(flag) => Ok(*flag),
                _ => Err(self.wrong(key, &value, "true or false")),
            },
        }
    }

    /// A number from 1.
    ///
    /// # Errors
    /// It is none, or too large.
    pub fn number(&mut self, key: &'static str) -> Result<Option<u32>, DataError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(self.wrong(key, &value, "a number"));
        };
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(number @ 1..) => Ok(Some(number)),
            _ => {
                Err(self
                    .error_at(value.span(), format!("{} has to be from 1 to {}", self.name(key), u32::MAX)))
            }
        }
    }

    /// What a text stands for.
    ///
    /// # Errors
    /// It is no text, or stands for nothing: `read` says why.
    pub fn parsed<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, DataError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let DeValue::String(text) = value.get_ref() else { return Err(self.wrong(key, &value, "a text")) };
        match read(text) {
            Ok(read) => Ok(Some(read)),
            Err(error) => Err(self.error_at(value.span(), format!("{}: {error}", self.name(key)))),
        }
    }

    /// A duration: `"5m"`, `"90s"`, `"2h"`, `"1d"`.
    ///
    /// # Errors
    /// It is none.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, DataError> {
        self.parsed(key, |text| {
            parse_duration(text)
                .ok_or_else(|| format!("{text:?} is no duration, as in \"90s\", \"5m\" or \"2h\""))
        })
    }

    /// One of these words.
    ///
    /// # Errors
    /// It is another; the nearest is named.
    pub fn one_of(&mut self, key: &'static str, words: &[&str]) -> Result<Option<String>, DataError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let DeValue::String(text) = value.get_ref() else { return Err(self.wrong(key, &value, "a text")) };
        if words.contains(&text.as_ref()) {
            return Ok(Some(text.clone().into_owned()));
        }
        let mut error = self.error_at(value.span(), format!("{text:?} is no value of {}", self.name(key)));
        error.help = Some(meant(text, words));
        Err(error)
    }

    /// The tables of an array of tables: `[[key]]`.
    ///
    /// # Errors
    /// It is no array of tables.
    pub fn tables(&mut self, key: &'static str) -> Result<Items<'s>, DataError> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            return Err(self.error_at(span, format!("{} has to be written as [[{key}]]", self.name(key))));
        };
        items
            .into_iter()
            .map(|item| {
                let span = item.span();
                match item.into_inner() {
                    DeValue::Table(left) => Ok(self.below(key, span, left)),
                    _ => {
                        Err(self.error_at(span, format!("{} has to be written as [[{key}]]", self.name(key))))
                    }
                }
            })
            .collect()
    }

    /// The tables of a table, with their names, as they stand in the file: `[key.NAME]`.
    ///
    /// # Errors
    /// It is no table of tables.
    pub fn named(&mut self, key: &'static str) -> Result<Vec<(String, Table<'s>)>, DataError> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let span = value.span();
        let DeValue::Table(tables) = value.into_inner() else {
            return Err(self.error_at(span, format!("{} has to be written as [{key}.NAME]", self.name(key))));
        };
        let mut named: Vec<(Range<usize>, String, Table<'s>)> = Vec::new();
        for (name, value) in tables {
            let (at, span) = (name.span(), value.span());
            let name = name.into_inner().into_owned();
            let DeValue::Table(left) = value.into_inner() else {
                let message = format!("`{key}.{name}` has to be written as [{key}.{name}]");
                return Err(self.error_at(span, message));
            };
            let table = self.below(&format!("{key}.{name}"), at.clone(), left);
            named.push((at, name, table));
        }
        named.sort_by_key(|(at, _, _)| at.start);
        Ok(named.into_iter().map(|(_, name, table)| (name, table)).collect())
    }

    /// The table of this name, if it is there: `[key]`.
    ///
    /// # Errors
    /// It is no table.
    pub fn table(&mut self, key: &'static str) -> Result<Option<Table<'s>>, DataError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(left) => Ok(Some(self.below(key, span, left))),
            _ => Err(self.error_at(span, format!("{} has to be written as [{key}]", self.name(key)))),
        }
    }

    fn below(&self, key: &str, span: Range<usize>, left: DeTable<'s>) -> Table<'s> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Table { source: self.source, span, path, left, asked: Vec::new() }
    }

    /// The line that the table begins on, from 1.
    pub fn line(&self) -> usize {
        self.error("").line
    }

    /// Everything has been taken.
    ///
    /// # Errors
    /// There is a key that nobody took; the nearest right one is named.
    pub fn finish(self) -> Result<(), DataError> {
        let Some((key, _)) = self.left.iter().min_by_key(|(key, _)| key.span().start) else { return Ok(()) };
        let name: &str = key.get_ref();
        let mut error = self.error_at(key.span(), format!("unknown key {}", self.name(name)));
        error.help = Some(meant(name, &self.asked));
        Err(error)
    }
}

/// Several tables.
pub type Items<'s> = Vec<Table<'s>>;

/// What may have been meant by a wrong word, for [`DataError::help`].
pub fn meant(wrong: &str, words: &[&str]) -> String {
    let near = words
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&wrong.to_lowercase(), word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    match near {
        Some((_, word)) => format!("did you mean `{word}`?"),
        None => format!("possible here: {}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Result<(), DataError> {
        let mut root = Table::parse(source)?;
        for (_, mut table) in root.named("provider")? {
            table.number("connections")?;
            table.duration("for")?;
            table.one_of("action", &["slow", "suspend"])?;
            table.texts("mx")?;
            for mut reply in table.tables("reply")? {
                reply.words("code")?;
                reply.flag("slow")?;
                reply.finish()?;
            }
            table.finish()?;
        }
        root.finish()
    }

    #[test]
    fn what_is_right_is_read() {
        read("[provider.a]\nconnections = 5\nfor = \"5m\"\nmx = \"x\"\n[[provider.a.reply]]\ncode = [421, \"5xx\"]\n")
            .unwrap();
    }

    #[test]
    fn mistakes_come_with_line_and_help() {
        for (source, line, message) in [
            ("[provider.a]\n\nconections = 5\n", 3, "did you mean `connections`?"),
            ("[provider.a]\nconnections = \"5\"\n", 2, "has to be a number"),
            ("[provider.a]\nconnections = 0\n", 2, "from 1 to"),
            ("[provider.a]\nfor = \"soon\"\n", 2, "no duration"),
            ("[provider.a]\naction = \"slwo\"\n", 2, "did you mean `slow`?"),
            ("[provider.a]\nmx = [1]\n", 2, "list of texts"),
            ("provider = 1\n", 1, "[provider.NAME]"),
            ("[provider]\na = 1\n", 2, "[provider.a]"),
            ("[provider.a]\nreply = 1\n", 2, "[[reply]]"),
            ("[provider.a]\n[[provider.a.reply]]\nslow = 1\n", 3, "true or false"),
            ("[providers.a]\n", 1, "did you mean `provider`?"),
            ("x = \n", 1, ""),
        ] {
            let error = read(source).unwrap_err();
            let text = error.to_string();
            assert!(error.line == line && text.contains(message), "{source:?}: {text}");
        }
    }
}
