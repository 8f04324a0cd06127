//! Addresses that stand for others: aliases, and rewriting by regular expression.

use mail::{Address, domain_to_ascii};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mention, Named, Rule, Wrong};

/// Most addresses behind an alias.
const TO_MAX: usize = 1000;
/// Longest pattern, in octets.
const PATTERN_MAX: usize = 1000;

/// An address that stands for others. It counts where mail comes in, before routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// The recipient that is replaced: `"sales@example.net"`, or `"@example.net"` for every address there that has no alias
    /// of its own.
    pub from: String,
    /// Who gets the mail instead: `["ann@example.net", "bob@example.org"]`; `"@example.org"` keeps the part before the `@`.
    /// One that is `from` itself keeps it as a recipient.
    pub to: Vec<String>,
    /// Only for mail of this organisation. None: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
}

/// `user@domain` or `@domain`.
fn is_address_or_domain(text: &str) -> bool {
    match text.strip_prefix('@') {
        Some(domain) => domain_to_ascii(domain).is_some(),
        None => Address::parse(text).is_ok(),
    }
}

impl Rule for Alias {
    const KIND: &'static str = "alias";

    fn check(&self) -> Result<(), Wrong> {
        let help = "\"user@example.net\", or \"@example.net\" for a whole domain";
        if !is_address_or_domain(&self.from) {
            return Err(Wrong::new("from", format!("{:?} is no address", shown(&self.from)), help));
        }
        if self.to.is_empty() || self.to.len() > TO_MAX {
            return Err(Wrong::new("to", format!("an alias stands for 1 to {TO_MAX} addresses"), ""));
        }
        match self.to.iter().position(|to| !is_address_or_domain(to)) {
            Some(i) => {
                let what = format!("{:?} is no address", shown(&self.to[i]));
                Err(Wrong::new(format!("to[{i}]"), what, help))
            }
            None => Ok(()),
        }
    }

    fn mentions(&self) -> Vec<Mention> {
        self.org.iter().map(|name| Mention::new("org", Named::Org, name)).collect()
    }

    fn clashes(&self, other: &Self) -> bool {
        let same_org = match (&self.org, &other.org) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        };
        same_org && self.from.eq_ignore_ascii_case(&other.from)
    }
}

/// Which address a rewriting rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RewriteOf {
    /// The envelope's recipients.
    Recipient,
    /// The envelope's sender.
    Sender,
}

impl std::str::FromStr for RewriteOf {
    type Err = super::TextError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "recipient" => Ok(RewriteOf::Recipient),
            "sender" => Ok(RewriteOf::Sender),
            other => Err(super::TextError(format!("{:?} is neither recipient nor sender", shown(other)))),
        }
    }
}

/// Envelope addresses that are written anew by a regular expression. For a recipient it counts where no alias does; the
/// first pattern that matches is used, those of the organisation before those of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// A regular expression that matches the whole address, letters in either case: `'^(.+)@old\.example$'`.
    pub pattern: String,
    /// What the address becomes; `$1` is the first group: `"$1@new.example"`.
    pub replace: String,
    /// Which addresses: `["recipient"]`, `["sender"]` or both.
    #[serde(default = "recipients")]
    pub of: Vec<RewriteOf>,
    /// Only for mail of this organisation. None: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
}

fn recipients() -> Vec<RewriteOf> {
    vec![RewriteOf::Recipient]
}

impl Rule for Rewrite {
    const KIND: &'static str = "rewrite";

    fn check(&self) -> Result<(), Wrong> {
        if self.pattern.is_empty() || self.pattern.len() > PATTERN_MAX {
            let what = format!("a pattern has 1 to {PATTERN_MAX} octets");
            return Err(Wrong::new("pattern", what, "such as '^(.+)@old\\.example$'"));
        }
        let built =
            regex::RegexBuilder::new(&self.pattern).case_insensitive(true).size_limit(1 << 20).build();
        if let Err(error) = built {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            return Err(Wrong::new("pattern", format!("the pattern is no regular expression: {last}"), ""));
        }
        if self.replace.len() > PATTERN_MAX {
            return Err(Wrong::new("replace", format!("a replacement has at most {PATTERN_MAX} octets"), ""));
        }
        if self.of.is_empty() {
            return Err(Wrong::new("of", "a rewriting rule about no address", "of = [\"recipient\"]"));
        }
        Ok(())
    }

    fn mentions(&self) -> Vec<Mention> {
        self.org.iter().map(|name| Mention::new("org", Named::Org, name)).collect()
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
