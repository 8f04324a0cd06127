//! MTA-STS's two texts: the TXT record (RFC 8461 section 3.1) and the policy (section 3.2).

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest that a policy may be believed: a year (RFC 8461 section 3.2).
pub const MAX_AGE_S: u32 = 31_557_600;
/// The longest policy that is read, in octets.
pub const POLICY_MAX: usize = 64 << 10;
/// Patterns of one policy that are kept.
const PATTERNS_MAX: usize = 100;

/// What a policy asks of senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StsMode {
    /// No mail to hosts that do not satisfy it.
    Enforce,
    /// Failures are reported, nothing else.
    Testing,
    /// The domain has no policy any more.
    None,
}

impl StsMode {
    /// As in the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StsPolicy {
    /// What it asks of senders.
    pub mode: StsMode,
    /// For how long it may be kept, in seconds, at most [`MAX_AGE_S`].
    pub max_age_s: u32,
    /// The mail exchangers: host names, or `*.` and a domain for all names one label below it. Lower case, A-labels.
    pub mx: Vec<String>,
}

/// The text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy is not valid: {0}")]
pub struct PolicyError(String);

impl StsPolicy {
    /// Whether it names `host` (lower case, A-labels). A wildcard stands for one label.
    pub fn names(&self, host: &str) -> bool {
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
            }
            None => pattern == host,
        })
    }

    /// It as lines of the policy file, for reports (RFC 8460 section 4.4).
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {}", self.mode.as_str())];
        lines.extend(self.mx.iter().map(|mx| format!("mx: {mx}")));
        lines.push(format!("max_age: {}", self.max_age_s));
        lines
    }
}

impl FromStr for StsPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let wrong = |why: String| PolicyError(why);
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for line in text.split('\n').map(str::trim).filter(|line| !line.is_empty()) {
            let (key, value) = line
                .split_once(':')
                .map(|(key, value)| (key.trim_end(), value.trim_start()))
                .ok_or_else(|| wrong(format!("no colon in {:?}", excerpt(line))))?;
            // Of what stands there twice, the first counts (RFC 8461 section 3.2).
            match key {
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" if mx.len() < PATTERNS_MAX => mx.push(pattern(value)?),
                "mx" => return Err(wrong(format!("it has more than {PATTERNS_MAX} mx lines"))),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(wrong("its version is not STSv1".into()));
        }
        let mode = match mode {
            Some("enforce") => StsMode::Enforce,
            Some("testing") => StsMode::Testing,
            Some("none") => StsMode::None,
            Some(other) => {
                return Err(wrong(format!("mode {:?} is none of enforce, testing, none", excerpt(other))));
            }
            None => return Err(wrong("it has no mode".into())),
        };
        let age = max_age.ok_or_else(|| wrong("it has no max_age".into()))?;
        let digits = (1..=10).contains(&age.len()) && age.bytes().all(|b| b.is_ascii_digit());
        let max_age_s = match age.parse::<u64>() {
            Ok(seconds) if digits => u32::try_from(seconds).unwrap_or(MAX_AGE_S).min(MAX_AGE_S),
            _ => return Err(wrong(format!("max_age {:?} is no number of seconds", excerpt(age)))),
        };
        if mx.is_empty() && mode != StsMode::None {
            return Err(wrong("it names no mx".into()));
        }
        Ok(Self { mode, max_age_s, mx })
    }
}

fn pattern(value: &str) -> Result<String, PolicyError> {
    let (star, name) = match value.strip_prefix("*.") {
        Some(parent) => ("*.", parent),
        None => ("", value),
    };
    let host = name.strip_suffix('.').unwrap_or(name);
    let ascii = (!host.contains('*')).then(|| mail::domain_to_ascii(host)).flatten();
    ascii
        .map(|host| format!("{star}{host}"))
        .ok_or_else(|| PolicyError(format!("mx {:?} is no host name", excerpt(value))))
}

/// Finds the id in a domain's `_mta-sts` TXT records. None where there is not exactly one that is right: then the domain
/// has no policy (RFC 8461 section 3.1).
pub fn record_id(records: &[String]) -> Option<String> {
    let mut ours = records.iter().filter_map(|record| fields(record, "STSv1"));
    let (Some(fields), None) = (ours.next(), ours.next()) else { return None };
    let id = fields.iter().find(|(key, _)| *key == "id").map(|(_, value)| *value)?;
    let right = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    right.then(|| id.to_owned())
}

/// The fields of a record that begins with this version; none for other records and malformed ones.
pub(crate) fn fields<'a>(record: &'a str, version: &str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut parts = record.split(';').map(str::trim);
    let (key, value) = parts.next()?.split_once('=')?;
    if key.trim_end() != "v" || value.trim_start() != version {
        return None;
    }
    let mut fields = Vec::new();
    for part in parts.filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else { continue };
        fields.push((key.trim_end(), value.trim_start()));
    }
    Some(fields)
}

/// The start of foreign text, for messages.
fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "version: STSv1\r\nmode: enforce\r\nmx: mail.Example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n";

    #[test]
    fn a_policy_is_read() {
        let policy: StsPolicy = GOOD.parse().unwrap();
        assert_eq!((policy.mode, policy.max_age_s), (StsMode::Enforce, 604_800));
        assert_eq!(policy.mx, ["mail.example.com", "*.example.net"]);
        assert_eq!(policy.lines().join("\n").parse::<StsPolicy>().unwrap(), policy);
        for (host, named) in [
            ("mail.example.com", true),
            ("mx1.example.net", true),
            ("a.mx1.example.net", false),
            ("example.net", false),
            (".example.net", false),
            ("mail.example.com.evil.test", false),
            ("other.example.com", false),
        ] {
            assert_eq!(policy.names(host), named, "{host}");
        }
    }

    #[test]
    fn what_is_lenient_and_what_is_not() {
        for good in [
            "version:STSv1\nmode:none\nmax_age:0",
            "mode: testing\nmx: a.example\nversion: STSv1\nmax_age: 1\n",
            "version: STSv1\nmode: testing\nmx: a.example\nmax_age: 1\nfuture: thing\n\n",
            // The first of two counts.
            "version: STSv1\nmode: none\nmode: enforce\nmax_age: 1",
        ] {
            assert!(good.parse::<StsPolicy>().is_ok(), "{good}");
        }
        let long = "version: STSv1\nmode: none\nmax_age: 9999999999".parse::<StsPolicy>().unwrap();
        assert_eq!(long.max_age_s, MAX_AGE_S);
        for bad in [
            "",
            "<html>",
            "version: STSv2\nmode: none\nmax_age: 1",
            "version: STSv1\nmax_age: 1\nmx: a.example",
            "version: STSv1\nmode: strict\nmax_age: 1\nmx: a.example",
            "version: STSv1\nmode: enforce\nmax_age: 1",
            "version: STSv1\nmode: enforce\nmx: a.example",
            "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1",
            "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: +1",
            "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 99999999999",
            "version: STSv1\nmode: enforce\nmx: a.*.example\nmax_age: 1",
            "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1",
            "version: STSv1\nmode: enforce\nmx: a b.example\nmax_age: 1",
        ] {
            assert!(bad.parse::<StsPolicy>().is_err(), "{bad}");
        }
        let many = format!("version: STSv1\nmode: enforce\nmax_age: 1\n{}", "mx: a.example\n".repeat(101));
        assert!(many.parse::<StsPolicy>().is_err());
    }

    #[test]
    fn exactly_one_record_counts() {
        let id = |records: &[&str]| record_id(&records.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>());
        assert_eq!(id(&["v=STSv1; id=20160831085700Z;"]).as_deref(), Some("20160831085700Z"));
        assert_eq!(id(&["v=spf1 -all", "v=STSv1;id=1"]).as_deref(), Some("1"));
        assert_eq!(id(&["v=STSv1 ; id = 1 ; more=2"]).as_deref(), Some("1"));
        for none in [
            &[][..],
            &["v=STSv1; id=1", "v=STSv1; id=2"],
            &["v=STSv1"],
            &["v=STSv1; id="],
            &["v=STSv1; id=a-b"],
            &["v=STSv1; id=123456789012345678901234567890123"],
            &["v=STSv10; id=1"],
            &["id=1; v=STSv1"],
        ] {
            assert_eq!(id(none), None, "{none:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text in "((version|mode|mx|max_age|x) ?: ?(STSv1|enforce|none|[*a-zé.-]{0,9}|[0-9]{0,11})\r?\n?){0,9}") {
            if let Ok(policy) = text.parse::<StsPolicy>() {
                proptest::prop_assert!(policy.max_age_s <= MAX_AGE_S);
                proptest::prop_assert_eq!(policy.lines().join("\n").parse::<StsPolicy>().unwrap(), policy);
            }
        }

        #[test]
        fn a_record_is_one_or_none(text in "(v ?= ?(STSv1|TLSRPTv1)|;|id=|rua=|[a-z0-9:,@%. ]{0,9}|\n){0,12}") {
            let records: Vec<String> = text.split('\n').map(str::to_owned).collect();
            if let Some(id) = record_id(&records) {
                proptest::prop_assert!((1..=32).contains(&id.len()));
            }
            proptest::prop_assert!(crate::report_addresses(&records).len() <= 10);
        }
    }
}
