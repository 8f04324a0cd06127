//! Command lines on pages: found as a person would see them, and given to the real parser.

use clap::error::ErrorKind;

use super::page::Page;

/// A `posthouse …` on a page.
#[derive(Debug)]
pub(crate) struct Line {
    place: String,
    pub(crate) words: Vec<String>,
    /// It stands in a sentence, where it may be cut short.
    in_prose: bool,
}

/// All of a page: in blocks whole, in sentences with whatever the sentence needs of them.
pub(crate) fn of_page(page: &Page) -> Vec<Line> {
    let mut found = Vec::new();
    let is_reference = page.path.ends_with("docs/src/reference/cli.md");
    for block in page.blocks.iter().filter(|b| matches!(b.language.as_str(), "" | "sh" | "ini" | "console")) {
        for (offset, line) in joined(&block.text) {
            let place = page.place(block.line + offset);
            let lines = in_shell(&line).into_iter();
            found.extend(lines.map(|words| Line { place: place.clone(), words, in_prose: false }));
        }
    }
    for (line, text) in &page.prose {
        // That reference is written by the parser itself.
        for span in text.split('`').skip(1).step_by(2).filter(|_| !is_reference) {
            let whole = !span.contains(['…', '|', '[']);
            for words in in_shell(span).into_iter().filter(|words| whole && words.len() > 1) {
                found.push(Line { place: page.place(*line), words, in_prose: true });
            }
        }
    }
    found
}

/// Lines with those that end in a backslash made one; each with the number of its first.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match lines.last_mut().filter(|_| open) {
            Some((_, whole)) => whole.push_str(part),
            None => lines.push((number, part.to_owned())),
        }
        open = goes_on;
    }
    lines
}

/// The commands of this program in a line of shell, or of a systemd unit.
fn in_shell(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    for token in tokens(line) {
        match token.as_str() {
            "|" | "&&" | "||" | ";" | "$" => commands.push(Vec::new()),
            _ => commands.last_mut().unwrap().push(token),
        }
    }
    let ours = |words: Vec<String>| {
        let mut words = words.into_iter().peekable();
        while words.next_if(|w| w == "sudo" || w.contains('=') && !w.contains('/')).is_some() {}
        let mut words: Vec<String> = words.collect();
        let first = words.first_mut()?;
        if let Some((_, program)) = first.split_once('=').filter(|(key, _)| key.starts_with("Exec")) {
            *first = program.to_owned();
        }
        let is_ours = first == "posthouse" || first.ends_with("/posthouse") && !first.contains('=');
        is_ours.then(|| words.into_iter().take_while(|w| !matches!(w.as_str(), "<" | ">" | ">>")).collect())
    };
    commands.into_iter().filter_map(ours).collect()
}

/// The words of a line, as a shell sees them; a comment ends it.
fn tokens(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, '#') if word.is_none() => break,
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            (None, '|' | ';' | '&' | '<' | '>') => {
                words.extend(word.take());
                let double = chars.next_if_eq(&c);
                words.push([Some(c), double].into_iter().flatten().collect());
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

impl Line {
    /// Gives it to the parser.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Err(error) = relay::cli::command().try_get_matches_from(&self.words) else { return Ok(()) };
        let kind = error.kind();
        let is_fine = match kind {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => self.in_prose,
            _ => false,
        };
        if is_fine { Ok(()) } else { Err(format!("{}: {}\n{error}", self.place, self.words.join(" "))) }
    }
}

#[test]
fn command_lines_are_found_and_wrong_ones_refused() {
    let text = "Run `posthouse queue` or `posthouse frobnicate`.\n\n    sudo posthouse trace 'a b' --json | jq .  # --nonsense\n    \
                x | posthouse credential add \\\n    shop --password-stdin < F\n    posthouse queue hold\n    \
                posthouse queue list --colour red\n";
    let page = Page::of("a.md", text);
    let lines = of_page(&page);
    let words: Vec<String> = lines.iter().map(|l| l.words.join(" ")).collect();
    assert_eq!(
        words,
        [
            "posthouse trace a b --json",
            "posthouse credential add shop --password-stdin",
            "posthouse queue hold",
            "posthouse queue list --colour red",
            "posthouse queue",
            "posthouse frobnicate"
        ]
    );
    let fine: Vec<bool> = lines.iter().map(|l| l.check().is_ok()).collect();
    assert_eq!(fine, [true, true, true, false, true, false]);
}
