//! What people and programs read: tables, JSON, errors. Nothing that came by mail can move the cursor or break a line.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Writes to standard output; ends the program quietly when nobody reads any more.
pub(crate) fn write(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        let quiet = error.kind() == std::io::ErrorKind::BrokenPipe;
        if !quiet {
            self::error(&format!("standard output: {error}"));
        }
        std::process::exit(i32::from(!quiet));
    }
}

/// A line.
pub(crate) fn line(text: &str) {
    write(format!("{text}\n").as_bytes());
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&text),
        Err(error) => self::error(&error.to_string()),
    }
}

/// An error, on standard error.
pub(crate) fn error(text: &str) {
    // Config errors come with a head of their own.
    let head = if text.starts_with("error") || text.starts_with('\u{1b}') { "" } else { "error: " };
    let _ = writeln!(std::io::stderr(), "{head}{text}");
}

/// A remark, on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A text without anything that a terminal takes for a command; line breaks become spaces.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' | '\u{85}' => ' ',
            // Bidirectional controls could show an address that is not there.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// The same for a text of several lines.
pub(crate) fn clean_lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(clean)
}

/// A table.
pub(crate) struct Rows(Table);

impl Rows {
    pub(crate) fn new(head: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(head.iter().copied());
        if std::io::stdout().is_terminal() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        Self(table)
    }

    pub(crate) fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        self.0.add_row(cells.iter().map(|cell| clean(cell.as_ref())));
    }

    pub(crate) fn print(&mut self) {
        self.0.discover_columns();
        self.0.column_iter_mut().for_each(|column| {
            column.set_padding((0, 1));
        });
        for row in self.0.lines() {
            line(row.trim_end());
        }
    }
}

/// A yes or no for people.
pub(crate) fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// A list in one cell; `otherwise` when it is empty.
pub(crate) fn list(values: &[String], otherwise: &str) -> String {
    if values.is_empty() { otherwise.to_owned() } else { values.join(" ") }
}

/// A size for people.
pub(crate) fn size(octets: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| octets >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", octets / unit, octets % unit * 10 / unit),
        None => format!("{octets} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_a_mail_reaches_the_terminal_as_a_command() {
        assert_eq!(clean("a\u{1b}[2Jb\r\nc\u{202e}d\0\u{9b}"), "a\u{fffd}[2Jb  c\u{fffd}d\u{fffd}\u{fffd}");
        assert_eq!(clean("Grüße, 世界"), "Grüße, 世界");
    }

    #[test]
    fn sizes() {
        assert_eq!(
            (size(5), size(1536), size(50 << 20)),
            ("5 B".into(), "1.5 KiB".into(), "50.0 MiB".into())
        );
    }
}
