//! What aliases do to the wishes about reports: RFC 3461 section 5.2.7.

use std::fmt::Write as _;

use mail::{Address, Notify, Recipient};

/// The recipient that an alias with one address becomes: all parameters go along (RFC 3461 section 5.2.7.1).
pub(crate) fn forwarded(original: &Recipient, to: Address) -> Recipient {
    let orcpt = original.orcpt.clone().or_else(|| Some(orcpt_of(&original.address)));
    Recipient { address: to, notify: original.notify, orcpt }
}

/// One of several recipients that an alias becomes. Whoever asked to hear of success hears `expanded` from us, once, and
/// not from every member (RFC 3461 section 5.2.7.2).
pub(crate) fn expanded(original: &Recipient, to: Address) -> Recipient {
    let notify = match original.notify {
        Notify::On { success: true, failure: false, delay: false } => Notify::Never,
        Notify::On { failure, delay, .. } => Notify::On { success: false, failure, delay },
        other => other,
    };
    Recipient { notify, ..forwarded(original, to) }
}

/// The wishes of two recipients that turn out to be one: whatever either asked for.
pub(crate) fn merged(a: Notify, b: Notify) -> Notify {
    if a == b {
        return a;
    }
    let wants = |of: fn(Notify) -> bool| of(a) || of(b);
    match (a, b) {
        (Notify::Never, other) | (other, Notify::Never) => other,
        _ => Notify::On {
            success: wants(Notify::wants_success),
            failure: wants(Notify::wants_failure),
            delay: wants(Notify::wants_delay),
        },
    }
}

/// An ORCPT for a recipient that came without (RFC 3461 section 4.2; RFC 6533 section 3 for what is not ASCII): the
/// address that the sender knows, so that reports speak of it.
fn orcpt_of(address: &Address) -> String {
    let ascii = address.is_ascii();
    let mut text = if ascii { "rfc822;" } else { "utf-8;" }.to_owned();
    for c in address.as_str().chars() {
        let plain = c.is_ascii_graphic() && c != '+' && c != '=' && (ascii || c != '\\');
        let _ = match (plain, ascii) {
            (true, _) => write!(text, "{c}"),
            (false, true) => write!(text, "+{:02X}", u32::from(c)),
            (false, false) => write!(text, "\\x{{{:02X}}}", u32::from(c)),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_recipient_is_kept_or_made() {
        let to = || Address::parse("b@two.example").unwrap();
        let mut original = Recipient::new(Address::parse("a+b=c@one.example").unwrap());
        assert_eq!(forwarded(&original, to()).orcpt.as_deref(), Some("rfc822;a+2Bb+3Dc@one.example"));
        original.orcpt = Some("rfc822;first@one.example".to_owned());
        assert_eq!(forwarded(&original, to()).orcpt, original.orcpt);
        let viet = Recipient::new(Address::parse("dươ+ng@vd.example").unwrap());
        let expected = "utf-8;d\\x{1B0}\\x{1A1}\\x{2B}ng@vd.example";
        assert_eq!(forwarded(&viet, to()).orcpt.as_deref(), Some(expected));
    }

    #[test]
    fn success_is_not_asked_of_the_members() {
        let notify = |text: &str| {
            let mut original = Recipient::new(Address::parse("all@one.example").unwrap());
            original.notify = text.parse().unwrap();
            let to = Address::parse("b@two.example").unwrap();
            (expanded(&original, to.clone()).notify.to_param(), forwarded(&original, to).notify.to_param())
        };
        let both = |a: &str, b: &str| (Some(a.to_owned()), Some(b.to_owned()));
        assert_eq!(notify("SUCCESS"), both("NEVER", "SUCCESS"));
        assert_eq!(notify("SUCCESS,FAILURE"), both("FAILURE", "SUCCESS,FAILURE"));
        assert_eq!(notify("NEVER"), both("NEVER", "NEVER"));
    }

    #[test]
    fn of_two_wishes_neither_is_lost() {
        let success = Notify::On { success: true, failure: false, delay: false };
        assert_eq!(merged(Notify::Never, Notify::Unset), Notify::Unset);
        assert_eq!(merged(success, Notify::Never), success);
        let all = Notify::On { success: true, failure: true, delay: true };
        assert_eq!(merged(Notify::Unset, success), all);
        assert_eq!(merged(Notify::Unset, Notify::Unset), Notify::Unset);
    }
}
