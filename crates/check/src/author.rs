//! The From header field of mail whose sender domains are limited: a limit on the envelope alone would let anyone
//! write whatever name people see.

use directory::Snapshot;
use mail::{EnhancedStatus, Reply, domain_to_ascii};

use crate::authorise::{Access, domain_is_allowed};

/// May mail on these grounds carry these From header fields (RFC 5322 section 3.6.2; their unfolded bodies)? Where
/// nothing is limited, whatever they say is fine.
///
/// # Errors
/// The refusal for the end of DATA.
pub fn check(directory: &Snapshot, access: &Access, from: &[String]) -> Result<(), Reply> {
    let limited = match access {
        Access::Stranger => false,
        Access::Network(org) => !org.trusted,
        Access::Login(credential, org) => !org.trusted || !credential.from_domains.is_empty(),
    };
    if !limited {
        return Ok(());
    }
    let refuse = |why: String| Err(Reply::new(550, EnhancedStatus::new(5, 7, 1), why));
    let [from] = from else {
        return refuse(format!("a message has one From header field; this one has {}", from.len()));
    };
    match domains(from) {
        Some(domains) if !domains.is_empty() => {
            for domain in domains {
                if let Err(why) = domain_is_allowed(directory, access, &domain) {
                    return refuse(format!("the From header field is not allowed: {why}"));
                }
            }
            Ok(())
        }
        _ => refuse("the From header field cannot be read; write: From: Name <user@example.com>".into()),
    }
}

/// In place of a quoted string: fine in a name or a local part, refused in a domain.
const QUOTED: char = '\u{1}';

/// The domains of all mailboxes in a From field, lower case and A-labels. None when any part of it could be read in
/// more than one way. What is quoted stands as one octet that no domain may hold, a comment as a space.
pub fn domains(field: &str) -> Option<Vec<String>> {
    let mut domains = Vec::new();
    let mut mailbox = String::new();
    let mut in_angles: Option<String> = None;
    let mut seen_angles = false;
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        let inside = in_angles.is_some();
        match c {
            '"' => {
                quoted(&mut chars)?;
                in_angles.as_mut().unwrap_or(&mut mailbox).push(QUOTED);
            }
            '(' => {
                comment(&mut chars)?;
                in_angles.as_mut().unwrap_or(&mut mailbox).push(' ');
            }
            '<' if !inside && !seen_angles => in_angles = Some(String::new()),
            '>' if inside => {
                domains.push(domain_of(&in_angles.take()?)?);
                seen_angles = true;
            }
            '<' | '>' | ';' | '\\' => return None,
            // The name of a group.
            ':' if !inside => return None,
            ',' if !inside => {
                if !seen_angles {
                    domains.push(domain_of(&mailbox)?);
                }
                (mailbox, seen_angles) = (String::new(), false);
            }
            c if seen_angles && !c.is_whitespace() => return None,
            c => in_angles.as_mut().unwrap_or(&mut mailbox).push(c),
        }
    }
    if in_angles.is_some() {
        return None;
    }
    if !seen_angles {
        domains.push(domain_of(&mailbox)?);
    }
    Some(domains)
}

/// The domain of `local@domain`; what is quoted has been replaced.
fn domain_of(mailbox: &str) -> Option<String> {
    let (local, domain) = mailbox.trim().split_once('@')?;
    if local.is_empty() || local.contains(char::is_whitespace) {
        return None;
    }
    domain_to_ascii(domain)
}

/// Goes behind the closing quote.
fn quoted(chars: &mut std::str::Chars<'_>) -> Option<()> {
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next()?;
            }
            '"' => return Some(()),
            _ => {}
        }
    }
    None
}

/// Goes behind the closing bracket; comments nest.
fn comment(chars: &mut std::str::Chars<'_>) -> Option<()> {
    let mut depth = 1;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next()?;
            }
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
        /// What is taken for a domain is one, and stands there; no mailbox is overlooked.
        #[test]
        fn no_mailbox_is_overlooked(field in "[ab.@<>(),:;\"\\\\ ]{0,24}") {
            let Some(domains) = domains(&field) else { return Ok(()) };
            prop_assert!(!domains.is_empty());
            for domain in &domains {
                prop_assert_eq!(domain_to_ascii(domain), Some(domain.clone()));
                prop_assert!(field.contains(domain.as_str()));
            }
            if !field.contains(['"', '(', '<']) {
                prop_assert_eq!(field.matches('@').count(), domains.len());
            }
        }
    }

    #[test]
    fn every_mailbox_counts() {
        for (field, wanted) in [
            ("a@example.com", Some(vec!["example.com"])),
            (")@\"\"()", None),
            ("a@exa\"m\"ple.com", None),
            ("\"a\"@example.com", Some(vec!["example.com"])),
            ("Ann <a@Example.COM>", Some(vec!["example.com"])),
            ("\"x@evil.example\" <a@example.com>", Some(vec!["example.com"])),
            ("x@evil.example <a@example.com>", Some(vec!["example.com"])),
            ("(b@evil.example) a@example.com (c, d)", Some(vec!["example.com"])),
            ("a@example.com, B <b@example.org>", Some(vec!["example.com", "example.org"])),
            ("\"a, b\" <a@example.com>", Some(vec!["example.com"])),
            ("\"odd one\"@example.com", Some(vec!["example.com"])),
            ("bücher <a@bücher.example>", Some(vec!["xn--bcher-kva.example"])),
            ("", None),
            ("Ann", None),
            ("<>", None),
            ("a@example.com b@evil.example", None),
            ("<a@example.com> <b@evil.example>", None),
            ("<a@example.com> b@evil.example", None),
            ("<a@example.com", None),
            ("a@example.com>", None),
            ("group: a@example.com;", None),
            ("<@evil.example:a@example.com>", None),
            ("\"unfinished <a@example.com>", None),
            ("(unfinished a@example.com", None),
            ("a@example.com,", None),
            ("a@[192.0.2.1]", None),
            ("a@exam(comment)ple.com", None),
        ] {
            let wanted = wanted.map(|w| w.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(domains(field), wanted, "{field}");
        }
    }
}
