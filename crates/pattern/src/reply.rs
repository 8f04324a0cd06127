//! A pattern over a reply: its code, its enhanced status code, its words.

use std::borrow::Cow;

use mail::{EnhancedStatus, Outcome};
use regex::{Regex, RegexBuilder};

use crate::data::{DataError, Table};

/// The longest text that is looked at, in octets: what a peer says beyond that is of no use.
const TEXT_MAX: usize = 2000;

/// What a reply's pattern says; empty parts match everything, the others all have to match.
#[derive(Clone, Debug, Default)]
pub struct ReplyPattern {
    codes: Vec<Code>,
    statuses: Vec<Status>,
    /// One of them is enough; in lower case.
    words: Vec<Box<str>>,
    regex: Option<Regex>,
}

/// `421`, `45x`, `5xx`: from, to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Code(u16, u16);

/// `4.7.28`, `*.7.*`; none is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status([Option<u16>; 3]);

/// A reply made ready to be matched many times: lower case, one line.
#[derive(Clone, Debug)]
pub struct ReplyText {
    /// The reply code, if a peer gave one.
    pub code: Option<u16>,
    /// The enhanced status code; that in the text ("#5.1.0") when the reply has none of its own.
    pub status: EnhancedStatus,
    /// The words, in lower case, every run of white space one space.
    pub lower: String,
}

impl ReplyText {
    /// The reply of an outcome.
    pub fn of(outcome: &Outcome) -> Self {
        Self::kept(outcome, |_| true)
    }

    /// The same without the words that hold an address: a mailbox may be called anything, `no-spam@example.com` too.
    pub fn without_addresses(outcome: &Outcome) -> Self {
        Self::kept(outcome, |word| !word.contains('@'))
    }

    fn kept(outcome: &Outcome, keep: impl Fn(&str) -> bool) -> Self {
        let mut end = outcome.text.len().min(TEXT_MAX);
        while !outcome.text.is_char_boundary(end) {
            end -= 1;
        }
        let mut lower = String::with_capacity(end);
        for word in outcome.text[..end].split_whitespace().filter(|word| keep(word)) {
            if !lower.is_empty() {
                lower.push(' ');
            }
            lower.extend(word.chars().flat_map(char::to_lowercase));
        }
        let mut status = outcome.status;
        if status.subject == 0 && status.detail == 0 {
            status = status_in(&lower).filter(|said| said.class == status.class).unwrap_or(status);
        }
        Self { code: outcome.code, status, lower }
    }
}

/// An enhanced status code at the beginning of a text or behind a `#`, where some servers put it.
fn status_in(lower: &str) -> Option<EnhancedStatus> {
    let candidates = [Some(lower), lower.find('#').map(|at| &lower[at + 1..])];
    candidates.into_iter().flatten().find_map(|text| {
        let text = text.trim_start_matches(['(', '[', '<', ' ']);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        text[..end].trim_end_matches('.').parse().ok()
    })
}

impl ReplyPattern {
    /// Takes `code`, `status`, `text` and `regex` from a table.
    ///
    /// # Errors
    /// One of them is no pattern, or there is none at all.
    pub fn take(table: &mut Table<'_>) -> Result<Self, DataError> {
        let mut pattern = Self::default();
        for word in table.words("code")? {
            let code = Code::parse(&word)
                .ok_or_else(|| table.error(format!("{word:?} is no reply code, as in 421 or \"5xx\"")))?;
            pattern.codes.push(code);
        }
        for word in table.texts("status")? {
            let status = Status::parse(&word).ok_or_else(|| {
                table.error(format!("{word:?} is no enhanced status code, as in \"4.7.28\" or \"*.7.*\""))
            })?;
            pattern.statuses.push(status);
        }
        for words in table.texts("text")? {
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            if words.len() < 2 {
                return Err(
                    table.error(format!("the text {words:?} is too short: it would match everything"))
                );
            }
            pattern.words.push(words.into());
        }
        pattern.regex = table.parsed("regex", |text| {
            // What an operator writes by mistake must not take the memory of the relay.
            RegexBuilder::new(text).case_insensitive(true).size_limit(256 * 1024).build().map_err(|error| {
                let text = error.to_string();
                text.lines().last().map_or(text.clone(), str::to_owned)
            })
        })?;
        if pattern.codes.is_empty()
            && pattern.statuses.is_empty()
            && pattern.words.is_empty()
            && pattern.regex.is_none()
        {
            return Err(table.error(
                "one of `code`, `status`, `text` and `regex` is needed: this would match every reply",
            ));
        }
        Ok(pattern)
    }

    /// Whether the reply fits.
    pub fn matches(&self, reply: &ReplyText) -> bool {
        (self.codes.is_empty() || reply.code.is_some_and(|c| self.codes.iter().any(|r| r.0 <= c && c <= r.1)))
            && (self.statuses.is_empty() || self.statuses.iter().any(|s| s.matches(reply.status)))
            && (self.words.is_empty() || self.words.iter().any(|w| reply.lower.contains(&**w)))
            && self.regex.as_ref().is_none_or(|r| r.is_match(&reply.lower))
    }

    /// What the first group of the regular expression caught, if there is one.
    pub fn caught<'r>(&self, reply: &'r ReplyText) -> Option<&'r str> {
        let caught = self.regex.as_ref()?.captures(&reply.lower)?.get(1)?;
        Some(&reply.lower[caught.range()])
    }

    /// In words, for listings: `421 4.7.28 "rate limit" /…/`.
    pub fn describe(&self) -> String {
        let codes = self.codes.iter().map(Code::describe);
        let statuses = self.statuses.iter().map(Status::describe);
        let words = self.words.iter().map(|w| Cow::Owned(format!("{w:?}")));
        let regex = self.regex.iter().map(|r| Cow::Owned(format!("/{r}/")));
        let parts = [codes.collect::<Vec<_>>(), statuses.collect(), words.collect(), regex.collect()];
        parts.iter().filter(|p| !p.is_empty()).map(|p| p.join(" or ")).collect::<Vec<_>>().join(", ")
    }
}

impl Code {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(['x', 'X']);
        let number: u16 = digits.parse().ok().filter(|_| text.len() == 3)?;
        let (low, high) = match digits.len() {
            3 => (number, number),
            2 => (number * 10, number * 10 + 9),
            _ => (number * 100, number * 100 + 99),
        };
        (200..=599).contains(&low).then_some(Code(low, high))
    }

    fn describe(&self) -> Cow<'static, str> {
        match self.1 - self.0 {
            0 => self.0.to_string().into(),
            9 => format!("{}x", self.0 / 10).into(),
            _ => format!("{}xx", self.0 / 100).into(),
        }
    }
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('.').collect();
        let [class, subject, detail] = parts[..] else { return None };
        let number = |text: &str, max: u16| match text {
            "*" => Some(None),
            _ => text.parse().ok().filter(|n| *n <= max).map(Some),
        };
        let class = number(class, 5).filter(|c| c.is_none_or(|c| matches!(c, 2 | 4 | 5)))?;
        Some(Self([class, number(subject, 999)?, number(detail, 999)?]))
    }

    fn matches(self, status: EnhancedStatus) -> bool {
        let parts = [u16::from(status.class), status.subject, status.detail];
        self.0.iter().zip(parts).all(|(wanted, is)| wanted.is_none_or(|w| w == is))
    }

    fn describe(&self) -> Cow<'static, str> {
        self.0.map(|p| p.map_or("*".to_owned(), |n| n.to_string())).join(".").into()
    }
}

#[cfg(test)]
mod tests {
    use mail::Disposition;
    use proptest::prelude::*;

    use super::*;

    fn reply(code: u16, status: &str, text: &str) -> ReplyText {
        ReplyText::of(&Outcome {
            disposition: Disposition::Refused,
            status: status.parse().unwrap(),
            code: Some(code),
            text: text.to_owned(),
        })
    }

    fn pattern(source: &str) -> Result<ReplyPattern, DataError> {
        let mut table = Table::parse(source)?;
        let pattern = ReplyPattern::take(&mut table)?;
        table.finish()?;
        Ok(pattern)
    }

    #[test]
    fn all_parts_have_to_match() {
        let rule =
            pattern("code = [421, \"45x\"]\nstatus = \"4.7.*\"\ntext = [\"Too  Fast\", \"slow down\"]")
                .unwrap();
        assert!(rule.matches(&reply(421, "4.7.0", "You are TOO\nfast.")));
        assert!(rule.matches(&reply(452, "4.7.28", "please slow down")));
        assert!(!rule.matches(&reply(421, "4.7.0", "fast too")));
        assert!(!rule.matches(&reply(421, "4.2.0", "too fast")));
        assert!(!rule.matches(&reply(440, "4.7.0", "too fast")));
        assert_eq!(rule.describe(), "421 or 45x, 4.7.*, \"too fast\" or \"slow down\"");
        let rule = pattern("regex = 'limit is (\\d+) connections'").unwrap();
        let full = reply(421, "4.7.0", "The Limit is 12 connections");
        assert!(rule.matches(&full));
        assert_eq!(rule.caught(&full), Some("12"));
    }

    #[test]
    fn a_status_in_the_text_counts_when_the_reply_has_none() {
        assert_eq!(reply(550, "5.0.0", "#5.1.0 Address rejected.").status.to_string(), "5.1.0");
        assert_eq!(reply(550, "5.0.0", "sorry (#5.1.1)").status.to_string(), "5.1.1");
        assert_eq!(reply(550, "5.0.0", "5.1.1.3 is blocked").status.to_string(), "5.0.0");
        assert_eq!(reply(550, "5.0.0", "#4.1.0 no").status.to_string(), "5.0.0");
        assert_eq!(reply(550, "5.7.1", "#5.1.0 no").status.to_string(), "5.7.1");
    }

    #[test]
    fn wrong_patterns_are_refused() {
        for (source, message) in [
            ("", "would match every reply"),
            ("code = 42", "no reply code"),
            ("code = \"xxx\"", "no reply code"),
            ("status = \"4.7\"", "no enhanced status code"),
            ("status = \"3.7.1\"", "no enhanced status code"),
            ("text = \" \"", "too short"),
            ("regex = '('", "`regex`"),
            ("regex = '(\\w{1000}){1000}'", "`regex`"),
        ] {
            let error = pattern(source).unwrap_err().to_string();
            assert!(error.contains(message), "{source}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_matched_without_a_panic(text in "\\PC{0,3000}", class in prop_oneof![Just(4u8), Just(5)]) {
            let outcome = Outcome {
                disposition: Disposition::Deferred,
                status: EnhancedStatus::new(class, 0, 0),
                code: None,
                text,
            };
            let reply = ReplyText::of(&outcome);
            prop_assert!(reply.lower.len() <= 4 * TEXT_MAX);
            prop_assert_eq!(reply.status.class, class);
        }
    }
}
