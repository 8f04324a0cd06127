//! A reply in what a program wrote about a failure: `host mx.example.com[192.0.2.1] said: 550 5.1.1 User unknown`.

use mail::EnhancedStatus;

use super::one_line;

/// What somebody said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The reply code.
    pub(super) code: Option<u16>,
    /// The enhanced status code.
    pub(super) status: Option<EnhancedStatus>,
    /// The words, on one line, without the codes in front.
    pub(super) text: String,
}

/// What stands before a reply in the words of programs, in lower case.
const LEADS: [&str; 10] = [
    " said: ",
    "remote host said: ",
    "other server returned was: ",
    "response from the remote server was: ",
    "smtp error from remote mail server after ",
    "smtp; ",
    "smtp;",
    "reason: ",
    "#<",
    "#",
];

impl Said {
    pub(super) fn of(text: &str) -> Self {
        let text = one_line(text);
        let lower = text.to_ascii_lowercase();
        // Where the reply begins: at the start, behind words that lead to one, or behind any colon.
        let starts = LEADS.iter().filter_map(|lead| lower.find(lead).map(|at| at + lead.len()));
        let colons = lower.match_indices(": ").map(|(at, found)| at + found.len());
        let found = std::iter::once(0).chain(starts).chain(colons).find_map(|at| Self::reply(&text[at..]));
        found.unwrap_or_else(|| Self { code: None, status: hash_status(&text), text: text.clone() })
    }

    /// `550 5.1.1 text`, `550-5.1.1 text`, `5.1.1 text`; none when it does not begin with a code.
    fn reply(text: &str) -> Option<Self> {
        let mut rest = text.trim_start();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let ends = rest.as_bytes().get(digits).is_none_or(|b| matches!(b, b' ' | b'-' | b'#'));
        let code = (digits == 3 && ends).then(|| rest[..3].parse::<u16>().ok()).flatten();
        let code = code.filter(|code| (200..=599).contains(code));
        if code.is_some() {
            rest = rest[3..].trim_start_matches(['-', ' ', '#']);
            // Some programs repeat it: "550 550 5.1.1 …".
            if let Some(again) = rest.strip_prefix(&text.trim_start()[..3]) {
                rest = again.trim_start_matches(['-', ' ', '#']);
            }
        }
        let word = rest.split([' ', ';']).next().unwrap_or_default();
        let status: Option<EnhancedStatus> = word.parse().ok();
        if status.is_some() {
            rest = rest[word.len()..].trim_start_matches([' ', ';']);
        }
        if code.is_none() && status.is_none() {
            return None;
        }
        let status = status.or_else(|| hash_status(rest));
        Some(Self { code, status, text: without_codes(rest, code, status) })
    }
}

/// A status behind a `#`, as qmail writes it: `(#5.1.1)`.
fn hash_status(text: &str) -> Option<EnhancedStatus> {
    text.match_indices('#').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].trim_end_matches('.').parse().ok()
    })
}

/// The words of a reply of several lines without the codes in front of each.
fn without_codes(text: &str, code: Option<u16>, status: Option<EnhancedStatus>) -> String {
    let code = code.map(|code| format!("{code}-")).unwrap_or_default();
    let status = status.map(|status| status.to_string()).unwrap_or_default();
    let words = text.split(' ').map(|word| {
        let bare = if code.is_empty() { word } else { word.strip_prefix(code.as_str()).unwrap_or(word) };
        if bare == status { "" } else { bare }
    });
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_found_in_what_programs_write() {
        for (text, code, status, words) in [
            ("550 5.1.1 User unknown", Some(550), "5.1.1", "User unknown"),
            ("smtp; 550 5.1.1 User unknown", Some(550), "5.1.1", "User unknown"),
            (
                "smtp;550-5.1.1 The account 550-5.1.1 does not 550 5.1.1 exist",
                Some(550),
                "5.1.1",
                "The account does not 550 exist",
            ),
            (
                "host mx.example.com[192.0.2.1] said: 550 5.7.1 No (in reply to RCPT TO command)",
                Some(550),
                "5.7.1",
                "No (in reply to RCPT TO command)",
            ),
            (
                "Remote host said: 554 delivery error: dd no account [0]",
                Some(554),
                "",
                "delivery error: dd no account [0]",
            ),
            ("SMTP error from remote mail server after RCPT TO:<a@b.c>: 550 no", Some(550), "", "no"),
            ("The error that the other server returned was: 550 550 5.1.1 gone", Some(550), "5.1.1", "gone"),
            (
                "Sorry, no mailbox here by that name. (#5.1.1)",
                None,
                "5.1.1",
                "Sorry, no mailbox here by that name. (#5.1.1)",
            ),
            (
                "mx.example.com #550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##",
                Some(550),
                "5.1.1",
                "RESOLVER.ADR.RecipNotFound; not found ##",
            ),
            ("unknown user: \"bob\"", None, "", "unknown user: \"bob\""),
            ("192.0.2.1 does not like recipient.", None, "", "192.0.2.1 does not like recipient."),
            ("", None, "", ""),
        ] {
            let said = Said::of(text);
            let got = said.status.map(|status| status.to_string()).unwrap_or_default();
            assert_eq!((said.code, got.as_str(), said.text.as_str()), (code, status, words), "{text}");
        }
    }
}
