//! Aliases and patterns as the operator writes them.

use mail::{Address, AddressError, OrgId};
use regex::{Regex, RegexBuilder};

use crate::rewrite::template::Template;

/// Longest pattern and longest replacement in characters.
const TEXT_MAX: usize = 1000;
/// The memory that a compiled pattern may take, in octets.
const PATTERN_OCTETS_MAX: usize = 1024 * 1024;
/// Aliases in a row that are followed when nothing else is said.
const DEPTH: usize = 10;
/// The deepest that may be asked for.
const DEPTH_MAX: usize = 100;
/// Recipients that the aliases of one message may make when nothing else is said.
const RECIPIENTS: usize = 1000;

/// Everything that a [`crate::Rewriter`] is made of.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Aliases and catch-alls, in any order.
    pub aliases: Vec<Alias>,
    /// Patterns; the first that matches counts.
    pub rewrites: Vec<Rewrite>,
    /// How many aliases in a row are followed, from 1 to 100.
    pub depth: usize,
    /// How many recipients aliases may make of one message's envelope.
    pub recipients: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { aliases: Vec::new(), rewrites: Vec::new(), depth: DEPTH, recipients: RECIPIENTS }
    }
}

/// An alias: mail for one address, or for a whole domain, goes to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// For the mail of this organisation; none for everyone's.
    pub org: Option<OrgId>,
    /// Whose mail.
    pub from: AliasFrom,
    /// Where it goes; at least one.
    pub to: Vec<AliasTo>,
}

/// What an alias stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AliasFrom {
    /// One address; the local part in any case.
    Address(Address),
    /// Every address of a domain (A-labels) that has no alias of its own: `@example.net`.
    Domain(Box<str>),
}

/// Where an alias leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AliasTo {
    /// This address.
    Address(Address),
    /// The same local part in this domain: `@example.org`.
    Domain(Box<str>),
}

/// A pattern that addresses are rewritten with.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// For the mail of this organisation; none for everyone's.
    pub org: Option<OrgId>,
    /// Recipients are rewritten.
    pub recipients: bool,
    /// The envelope's sender is rewritten.
    pub senders: bool,
    pub(crate) text: Box<str>,
    pub(crate) pattern: Regex,
    pub(crate) replace: Template,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// An address of an alias.
    #[error("{text:?} is not an address or @domain: {reason}")]
    Address {
        /// As it was written.
        text: String,
        /// What is wrong with it.
        reason: AddressError,
    },
    /// An alias that leads nowhere.
    #[error("the alias {0} needs at least one address in `to`")]
    Nowhere(String),
    /// An alias that stands twice.
    #[error("the alias {0} is defined twice; write all its addresses into one")]
    Twice(String),
    /// A pattern that can't be read.
    #[error("the pattern {pattern:?} is not a regular expression: {reason}")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// What is wrong with it, in a line.
        reason: String,
    },
    /// A pattern or replacement of absurd length.
    #[error("a pattern and its replacement may have {TEXT_MAX} characters at most")]
    Long,
    /// A pattern that would take too much memory.
    #[error(
        "the pattern {0:?} is too large when compiled; write it with fewer repetitions such as {{1,500}}"
    )]
    Large(String),
    /// A rewriting of nothing.
    #[error("the rewriting of {0:?} says neither recipient nor sender in `of`")]
    OfNothing(String),
    /// A replacement with a `$` that means nothing.
    #[error(
        "in the replacement {0:?}, $ needs a digit or a name in braces behind it; a plain $ is written $$"
    )]
    Dollar(String),
    /// A replacement with a group that the pattern has not.
    #[error("the replacement speaks of group {name}, but the pattern has {groups}")]
    Group {
        /// As it was written.
        name: String,
        /// How many there are.
        groups: usize,
    },
    /// A replacement that can never be an address.
    #[error("the replacement {text:?} does not make an address: {reason}")]
    Replacement {
        /// As it was written.
        text: String,
        /// What is wrong with it.
        reason: AddressError,
    },
    /// A depth out of its bounds.
    #[error("aliases can be followed from 1 to {DEPTH_MAX} deep")]
    Depth,
}

impl Alias {
    /// Reads an alias: `from` is an address or `@domain`; each of `to` too, where `@domain` keeps the local part.
    ///
    /// # Errors
    /// Words for the operator.
    pub fn parse<T: AsRef<str>>(from: &str, to: &[T], org: Option<OrgId>) -> Result<Self, RuleError> {
        let from = match address_or_domain(from)? {
            Ok(address) => AliasFrom::Address(address),
            Err(domain) => AliasFrom::Domain(domain),
        };
        let to = to
            .iter()
            .map(|text| match address_or_domain(text.as_ref())? {
                Ok(address) => Ok(AliasTo::Address(address)),
                Err(domain) => Ok(AliasTo::Domain(domain)),
            })
            .collect::<Result<Vec<_>, RuleError>>()?;
        let alias = Self { org, from, to };
        if alias.to.is_empty() { Err(RuleError::Nowhere(alias.name())) } else { Ok(alias) }
    }

    /// `sales@example.net` or `@example.net`.
    pub fn name(&self) -> String {
        match &self.from {
            AliasFrom::Address(address) => address.to_string(),
            AliasFrom::Domain(domain) => format!("@{domain}"),
        }
    }
}

impl Rewrite {
    /// Reads a pattern and what its match becomes. The pattern has to match the whole address, whether it says `^` and `$`
    /// or not, and letters match in either case unless it says `(?-i)`. In the replacement `$1` to `$9` and `${name}` are
    /// groups, `$0` is the address, `$$` is a dollar sign.
    ///
    /// # Errors
    /// Words for the operator.
    pub fn parse(
        pattern: &str,
        replace: &str,
        recipients: bool,
        senders: bool,
        org: Option<OrgId>,
    ) -> Result<Self, RuleError> {
        if pattern.len() > TEXT_MAX || replace.len() > TEXT_MAX {
            return Err(RuleError::Long);
        }
        if !recipients && !senders {
            return Err(RuleError::OfNothing(pattern.to_owned()));
        }
        // By itself first: else a parenthesis too many would close the group around it.
        compiled(pattern, pattern)?;
        let compiled = compiled(&format!(r"\A(?:{pattern})\z"), pattern)?;
        let template = Template::parse(replace, &compiled)?;
        if let Some(reason) = template.constant().and_then(|text| Address::parse(text).err()) {
            return Err(RuleError::Replacement { text: replace.to_owned(), reason });
        }
        Ok(Self { org, recipients, senders, text: pattern.into(), pattern: compiled, replace: template })
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        &self.text
    }

    /// What the address becomes; none when the pattern does not match it. The error is the text that is no address.
    pub(crate) fn apply(&self, address: &Address) -> Option<Result<Address, String>> {
        let found = self.pattern.captures(address.as_str())?;
        let text = self.replace.fill(&found);
        Some(Address::parse(&text).map_err(|reason| {
            format!(
                "the pattern {:?} makes {text:?} of {address}, which is not an address: {reason}",
                self.text
            )
        }))
    }
}

impl Rules {
    pub(crate) fn check(&self) -> Result<(), RuleError> {
        if (1..=DEPTH_MAX).contains(&self.depth) { Ok(()) } else { Err(RuleError::Depth) }
    }
}

fn address_or_domain(text: &str) -> Result<Result<Address, Box<str>>, RuleError> {
    let bad = |reason| RuleError::Address { text: text.to_owned(), reason };
    match text.strip_prefix('@') {
        Some(domain) => {
            let ascii = mail::domain_to_ascii(domain).ok_or_else(|| bad(AddressError::Domain))?;
            Ok(Err(ascii.into_boxed_str()))
        }
        None => Address::parse(text).map(Ok).map_err(bad),
    }
}

fn compiled(pattern: &str, written: &str) -> Result<Regex, RuleError> {
    RegexBuilder::new(pattern)
        .case_insensitive(true)
        .size_limit(PATTERN_OCTETS_MAX)
        .dfa_size_limit(PATTERN_OCTETS_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => RuleError::Large(written.to_owned()),
            error => {
                // The crate draws the pattern over several lines; what is wrong stands on the last one.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                RuleError::Pattern { pattern: written.to_owned(), reason }
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(pattern: &str, replace: &str) -> Result<Rewrite, RuleError> {
        Rewrite::parse(pattern, replace, true, false, None)
    }

    fn words(result: Result<Rewrite, RuleError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn faults_are_told_in_words() {
        assert_eq!(
            words(rewrite("^(.+@old.example$", "$1")),
            "the pattern \"^(.+@old.example$\" is not a regular expression: unclosed group"
        );
        assert_eq!(
            words(rewrite("a)|(b", "x@y.example")),
            "the pattern \"a)|(b\" is not a regular expression: unopened group"
        );
        assert!(words(rewrite("^((a{1,500}){1,500})@x$", "$1@y.example")).contains("too large"));
        assert!(words(rewrite(&"a".repeat(1001), "x@y.example")).contains("1000 characters"));
        assert_eq!(
            words(rewrite("^(.+)@old.example$", "$2@new.example")),
            "the replacement speaks of group 2, but the pattern has 1"
        );
        assert!(words(rewrite("^.+@old.example$", "nobody")).contains("does not make an address"));
        assert!(words(Rewrite::parse("a", "b@c.example", false, false, None)).contains("neither"));
        let alias = |from: &str, to: &[&str]| Alias::parse(from, to, None).unwrap_err().to_string();
        assert!(alias("sales", &["a@b.example"]).contains("\"sales\" is not an address or @domain"));
        assert!(alias("@bad_.-", &["a@b.example"]).contains("the domain is not valid"));
        assert!(alias("a@b.example", &[]).contains("at least one address"));
        assert!(alias("a@b.example", &["a@b.example", "x@"]).contains("\"x@\""));
    }

    #[test]
    fn a_pattern_matches_the_whole_address_only() {
        let rule = rewrite(r"(.+)@old\.example", "$1@new.example").unwrap();
        let of = |text: &str| rule.apply(&Address::parse(text).unwrap());
        assert_eq!(of("ann@old.example").unwrap().unwrap().as_str(), "ann@new.example");
        assert_eq!(of("Ann@OLD.example").unwrap().unwrap().as_str(), "Ann@new.example");
        assert!(of("ann@old.example.evil.example").is_none());
        let either = rewrite("a@x.example|b@x.example", "c@x.example").unwrap();
        assert!(either.apply(&Address::parse("aa@x.example").unwrap()).is_none());
        assert!(either.apply(&Address::parse("b@x.example.org").unwrap()).is_none());
    }
}
