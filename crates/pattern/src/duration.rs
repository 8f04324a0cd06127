//! Durations: as data files write them, and as replies say them.

use std::time::Duration;

/// The longest that a reply is believed: greylisting asks for at most a day (RFC 6647 section 5).
const SAID_MAX: Duration = Duration::from_secs(86_400);

/// `"90s"`, `"5m"`, `"2h"`, `"1d"`, `"500ms"`; none for anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at(digits);
    let amount: u32 = amount.parse().ok()?;
    let unit = match unit.trim() {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(86_400),
        _ => return None,
    };
    unit.checked_mul(amount)
}

/// The words after which a reply says how long to wait.
const LEADS: [&str; 11] = [
    "try again in ",
    "try again after ",
    "retry in ",
    "retry after ",
    "come back in ",
    "come back after ",
    "greylisted for ",
    "please wait ",
    "retry=",
    "retry-after ",
    "back in ",
];

/// How long a reply asks us to wait, in its own words: "try again in 300 seconds", "come back in 00:05:00", "retry in 5
/// minutes". None when it says nothing of the kind, or what no greylist asks for. `text` is in lower case.
pub fn duration_said(text: &str) -> Option<Duration> {
    LEADS.iter().find_map(|lead| {
        let mut rest = text;
        while let Some(at) = rest.find(lead) {
            rest = &rest[at + lead.len()..];
            if let Some(said) = amount(rest) {
                return Some(said);
            }
        }
        None
    })
}

/// `300 seconds`, `5 min`, `00:05:00`, `1 hour`; a number without a unit is seconds.
fn amount(text: &str) -> Option<Duration> {
    let text = ["at least ", "about ", "another ", "approximately ", "another "]
        .iter()
        .fold(text.trim_start(), |text, filler| text.strip_prefix(filler).unwrap_or(text));
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b':').count();
    let (number, rest) = text.split_at(digits);
    let number = number.trim_end_matches(':');
    let seconds = match number.split(':').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>()?[..]
    {
        [n] => u64::from(n).checked_mul(unit(rest)?)?,
        [minutes, seconds] => u64::from(minutes) * 60 + u64::from(seconds),
        [hours, minutes, seconds] => u64::from(hours) * 3600 + u64::from(minutes) * 60 + u64::from(seconds),
        _ => return None,
    };
    let said = Duration::from_secs(seconds);
    (said >= Duration::from_secs(1) && said <= SAID_MAX).then_some(said)
}

/// The seconds of the unit that a text begins with; 1 when there is none.
fn unit(text: &str) -> Option<u64> {
    let word: String = text.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    Some(match word.as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        // "try again after 2 attempts", "in 24x7".
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_in_files() {
        assert_eq!(parse_duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        for bad in ["", "5", "m", "-1s", "5 parsecs", "99999999999s", "1.5h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_in_replies() {
        for (text, seconds) in [
            ("greylisted, please try again in 300 seconds", 300),
            ("greylisting in action, please come back in 00:05:00", 300),
            ("try again in 5 minutes", 300),
            ("please retry after 1 hour.", 3600),
            ("please try again after at least 10 min", 600),
            ("greylisted for 59 seconds (see http://…)", 59),
            ("temporary failure, retry=60", 60),
            ("come back in 12:30 please", 750),
            ("try again in 86400", 86_400),
            ("try again in a while, or try again in 7m", 420),
        ] {
            assert_eq!(duration_said(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "try again later",
            "try again in a few minutes",
            "try again in 0 seconds",
            "try again in 40 days",
            "try again after 2 attempts",
            "try again in 99999999999999999999 s",
            "",
        ] {
            assert_eq!(duration_said(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(try again in |retry after |[0-9:]{0,12}| |\\PC){0,30}") {
            duration_said(&text);
            parse_duration(&text);
        }
    }
}
