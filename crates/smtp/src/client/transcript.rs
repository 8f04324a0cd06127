//! The record of a dialogue: bounded, with control characters and passwords taken out.

use mail::Reply;

/// No line is longer than this, in octets.
const LINE_MAX: usize = 1000;

/// Lines of a dialogue: `> ` what we said, `< ` what the peer said, `* ` what happened.
///
/// Over its limit, lines from the middle are left out: how it began and how it ended is what a reader needs.
#[derive(Debug)]
pub struct Transcript {
    text: String,
    limit: usize,
    left_out: usize,
    /// Where the line that says how many were left out begins.
    gap: Option<usize>,
}

impl Default for Transcript {
    fn default() -> Self {
        Self::new(16 << 10)
    }
}

impl Transcript {
    /// A record of at most about `limit` octets.
    pub fn new(limit: usize) -> Self {
        Self { text: String::new(), limit: limit.max(4 * LINE_MAX), left_out: 0, gap: None }
    }

    /// Forgets everything, keeps its memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.left_out = 0;
        self.gap = None;
    }

    /// What was recorded.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Commands that we sent, line by line.
    pub fn sent(&mut self, lines: &[u8]) {
        for line in lines.split(|&b| b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                self.line("> ", &String::from_utf8_lossy(line));
            }
        }
    }

    /// A reply of the peer.
    pub fn received(&mut self, reply: &Reply) {
        let mut lines = reply.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            let start = self.text.len();
            self.push_code(reply, separator);
            self.push_line(start, line);
        }
    }

    /// Something that happened: a connect, a handshake, a time-out.
    pub fn note(&mut self, text: &str) {
        self.line("* ", text);
    }

    fn push_code(&mut self, reply: &Reply, separator: char) {
        use std::fmt::Write;
        let written = match reply.enhanced {
            Some(enhanced) => write!(self.text, "< {}{separator}{enhanced} ", reply.code),
            None => write!(self.text, "< {}{separator}", reply.code),
        };
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }

    fn line(&mut self, mark: &str, text: &str) {
        let start = self.text.len();
        self.text.push_str(mark);
        self.push_line(start, text);
    }

    /// Adds the rest of the line that begins at `start`.
    fn push_line(&mut self, start: usize, text: &str) {
        push_clean(&mut self.text, &text[..text.floor_char_boundary(LINE_MAX)]);
        self.text.push_str(if text.len() > LINE_MAX { "…\n" } else { "\n" });
        self.bound(start);
    }

    /// Keeps the text within its limit; `newest` is where the line that was just written begins.
    fn bound(&mut self, newest: usize) {
        if self.text.len() <= self.limit {
            return;
        }
        let (from, skip) = match self.gap {
            Some(gap) => (gap, line_start(&self.text, gap + 1) - gap),
            None => (line_start(&self.text, self.limit / 4), 0),
        };
        let to = line_start(&self.text, self.limit * 5 / 8).min(newest);
        if to <= from + skip {
            return;
        }
        self.left_out += self.text[from + skip..to].matches('\n').count();
        self.text.replace_range(from..to, &format!("* ({} lines left out)\n", self.left_out));
        self.gap = Some(from);
    }
}

/// The first start of a line at or behind `at`.
fn line_start(text: &str, at: usize) -> usize {
    if at == 0 {
        return 0;
    }
    let at = at.min(text.len());
    text.as_bytes()[at - 1..].iter().position(|&b| b == b'\n').map_or(text.len(), |i| at + i)
}

/// Appends `text` without control characters and what terminals and readers take for line ends.
pub(super) fn push_clean(out: &mut String, text: &str) {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        out.push_str(text);
    } else {
        out.extend(text.chars().map(|c| if is_harmful(c) { '?' } else { c }));
    }
}

/// Control characters, line and paragraph separators, and marks that turn the direction of text.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_and_ends_are_kept() {
        let mut transcript = Transcript::new(5000);
        for n in 0..1000 {
            transcript.sent(format!("RCPT TO:<user{n}@example.com>\r\n").as_bytes());
            assert!(transcript.as_str().len() <= 5000, "{}", transcript.as_str().len());
        }
        let text = transcript.as_str();
        assert!(text.starts_with("> RCPT TO:<user0@"), "{text}");
        assert!(text.ends_with("> RCPT TO:<user999@example.com>\n"), "{text}");
        let kept = text.matches("RCPT").count();
        assert!(kept > 60 && text.contains(&format!("* ({} lines left out)", 1000 - kept)), "{text}");
        assert_eq!(text.matches("left out").count(), 1);
    }

    #[test]
    fn long_lines_are_cut() {
        let mut transcript = Transcript::new(0);
        for n in 0..100 {
            transcript.note(&"ü".repeat(5000));
            transcript.note(&format!("line {n}"));
            assert!(transcript.as_str().len() < 4 * LINE_MAX + 100, "{}", transcript.as_str().len());
            assert!(transcript.as_str().ends_with(&format!("üü…\n* line {n}\n")));
        }
    }

    #[test]
    fn nothing_reaches_a_terminal() {
        let mut transcript = Transcript::new(2000);
        transcript.note("a\u{1b}[2Jb\u{2028}c\u{202e}d\u{85}e");
        assert_eq!(transcript.as_str(), "* a?[2Jb?c?d?e\n");
        transcript.clear();
        transcript.sent(b"MAIL FROM:<a@b>\r\nDATA\r\n");
        transcript.received(&Reply { code: 250, enhanced: None, text: "one\ntwo".into() });
        assert_eq!(transcript.as_str(), "> MAIL FROM:<a@b>\n> DATA\n< 250-one\n< 250 two\n");
    }
}
