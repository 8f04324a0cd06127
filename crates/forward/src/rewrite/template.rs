//! What a pattern's match is replaced with: text with `$1` or `${name}` in it. Other than in the regex crate, `$1x` is
//! group 1 and then `x`, as in every mail server's tables, and a group that does not exist is an error, not nothing.

use regex::{Captures, Regex};

use crate::rewrite::rules::RuleError;

/// A replacement, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Template {
    /// Takes `text` apart, for the groups that `pattern` has.
    pub(crate) fn parse(text: &str, pattern: &Regex) -> Result<Self, RuleError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                literal.push('$');
                rest = behind;
                continue;
            }
            let (name, behind) = name(rest).ok_or_else(|| RuleError::Dollar(text.to_owned()))?;
            rest = behind;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Group(group(name, pattern)?));
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }

    /// The text for a match.
    pub(crate) fn fill(&self, found: &Captures<'_>) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Group(number) => found.get(*number).map_or("", |m| m.as_str()),
            })
            .collect()
    }

    /// The text where it is always the same.
    pub(crate) fn constant(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// The digit or the name in braces behind a `$`, and what follows it.
fn name(rest: &str) -> Option<(&str, &str)> {
    if let Some(inner) = rest.strip_prefix('{') {
        return inner.split_once('}').filter(|(name, _)| !name.is_empty());
    }
    rest.starts_with(|c: char| c.is_ascii_digit()).then(|| rest.split_at(1))
}

fn group(name: &str, pattern: &Regex) -> Result<usize, RuleError> {
    let groups = pattern.captures_len();
    let number = match name.parse::<usize>() {
        Ok(number) => Some(number).filter(|n| *n < groups),
        Err(_) => pattern.capture_names().position(|n| n == Some(name)),
    };
    number.ok_or_else(|| RuleError::Group { name: name.to_owned(), groups: groups - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pattern: &str, template: &str, address: &str) -> Result<String, RuleError> {
        let pattern = Regex::new(pattern).unwrap();
        let template = Template::parse(template, &pattern)?;
        Ok(template.fill(&pattern.captures(address).unwrap()))
    }

    #[test]
    fn groups_by_number_and_by_name() {
        let two = "^(.+)@(?<host>.+)$";
        for (template, expected) in [
            ("$1@new.example", "ann@new.example"),
            ("$1x@${host}", "annx@old.example"),
            ("${1}.${2}@new.example", "ann.old.example@new.example"),
            ("$0", "ann@old.example"),
            ("a$$b@new.example", "a$b@new.example"),
            ("fixed@new.example", "fixed@new.example"),
        ] {
            assert_eq!(filled(two, template, "ann@old.example").as_deref(), Ok(expected), "{template}");
        }
        assert_eq!(filled("^(a)?(.*)$", "$1$2@x.example", "b").as_deref(), Ok("b@x.example"));
    }

    #[test]
    fn what_can_not_be_filled_in_is_said_at_once() {
        let one = "^(.+)@old$";
        for bad in ["$2@new.example", "${who}@new.example"] {
            assert!(matches!(filled(one, bad, "a@old"), Err(RuleError::Group { groups: 1, .. })), "{bad}");
        }
        for bad in ["a$", "$x@new.example", "${1@new.example", "${}@new.example"] {
            assert_eq!(filled(one, bad, "a@old"), Err(RuleError::Dollar(bad.to_owned())), "{bad}");
        }
    }
}
