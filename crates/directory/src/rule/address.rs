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

/// What is compared when an alias is looked for: one address may be written in several ways.
fn looked_up(from: &str) -> Option<String> {
    match from.strip_prefix('@') {
        Some(domain) => domain_to_ascii(domain).map(|domain| format!("@{domain}")),
        None => {
            let address = Address::parse(from).ok()?;
            Some(format!("{}@{}", address.local().to_lowercase(), address.domain()))
        }
    }
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
        same_org && looked_up(&self.from) == looked_up(&other.from)
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
        // By itself first: else a parenthesis too many would close the group around it.
        let built = regular_expression(&self.pattern)
            .and_then(|_| regular_expression(&format!(r"\A(?:{})\z", self.pattern)))
            .map_err(|what| Wrong::new("pattern", what, ""))?;
        if self.replace.len() > PATTERN_MAX {
            return Err(Wrong::new("replace", format!("a replacement has at most {PATTERN_MAX} octets"), ""));
        }
        if let Some(what) = replacement_fault(&self.replace, &built) {
            let help =
                "$1 to $9 and ${name} are groups of the pattern, $0 is the address, $$ is a dollar sign";
            return Err(Wrong::new("replace", what, help));
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

fn regular_expression(pattern: &str) -> Result<regex::Regex, String> {
    let built = regex::RegexBuilder::new(pattern).case_insensitive(true).size_limit(1 << 20).build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("the pattern is no regular expression: {last}")
    })
}

/// What keeps a replacement from being filled in, or from ever making an address.
fn replacement_fault(replace: &str, pattern: &regex::Regex) -> Option<String> {
    let (mut rest, mut groups) = (replace, 0);
    while let Some((_, behind)) = rest.split_once('$') {
        if let Some(behind) = behind.strip_prefix('$') {
            rest = behind;
            continue;
        }
        let name = match behind.strip_prefix('{') {
            Some(inner) => inner.split_once('}'),
            None if behind.starts_with(|c: char| c.is_ascii_digit()) => Some(behind.split_at(1)),
            None => None,
        };
        let Some((name, behind)) = name else {
            return Some(format!(
                "a $ in {:?} has neither a digit nor a name in braces behind it",
                shown(replace)
            ));
        };
        let known = match name.parse::<usize>() {
            Ok(number) => number < pattern.captures_len(),
            Err(_) => pattern.capture_names().flatten().any(|known| known == name),
        };
        if !known {
            return Some(format!(
                "{:?} speaks of the group {}, which the pattern has not",
                shown(replace),
                shown(name)
            ));
        }
        (rest, groups) = (behind, groups + 1);
    }
    let fixed = replace.replace("$$", "$");
    let is_address = groups > 0 || Address::parse(&fixed).is_ok();
    (!is_address).then(|| format!("{:?} is no address", shown(&fixed)))
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fine(pattern: &str, replace: &str) -> bool {
        let of = vec![RewriteOf::Recipient];
        Rewrite { pattern: pattern.into(), replace: replace.into(), of, org: None }.check().is_ok()
    }

    #[test]
    fn one_address_has_one_alias_however_it_is_written() {
        let alias = |from: &str| Alias { from: from.into(), ..Alias::default() };
        assert!(alias("Đạt@việt.example").clashes(&alias("đạt@xn--vit-5kz.example")));
        assert!(alias("@VIỆT.example").clashes(&alias("@xn--vit-5kz.example")));
        assert!(!alias("a@x.example").clashes(&alias("@x.example")));
        let of_acme = Alias { org: Some("acme".into()), ..alias("a@x.example") };
        assert!(!alias("a@x.example").clashes(&of_acme));
    }

    #[test]
    fn a_replacement_that_can_not_be_filled_in_is_refused() {
        let pattern = r"^(.+)@(?<host>old\.example)$";
        for fine in ["$1@new.example", "${1}x@${host}", "$0", "a$$b@new.example", "fixed@new.example"] {
            assert!(is_fine(pattern, fine), "{fine}");
        }
        for bad in
            ["$3@new.example", "${who}@new.example", "$x@new.example", "${1@new.example", "a$", "nobody"]
        {
            assert!(!is_fine(pattern, bad), "{bad}");
        }
        for bad in ["(", "a)|(b", "(a{1,900}){1,900}"] {
            assert!(!is_fine(bad, "a@b.example"), "{bad}");
        }
    }
}
