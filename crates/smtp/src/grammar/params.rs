//! MAIL and RCPT with their parameters: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY,
//! ORCPT (RFC 3461, RFC 6533), AUTH (RFC 4954), REQUIRETLS (RFC 8689).

use mail::{Body, Notify, Ret, ReversePath};

use super::path::{ForwardPath, bracketed, forward_path, reverse_path};
use super::{SyntaxError, xtext};

/// Longest ENVID in octets (RFC 3461 section 4.4).
const ENVID_MAX: usize = 100;
/// Longest ORCPT in octets (RFC 3461 section 4.2).
const ORCPT_MAX: usize = 500;

/// MAIL FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The sender.
    pub reverse_path: ReversePath,
    /// SIZE in octets.
    pub size: Option<u64>,
    /// BODY
    pub body: Option<Body>,
    /// SMTPUTF8
    pub smtputf8: bool,
    /// RET
    pub ret: Option<Ret>,
    /// ENVID as given, xtext.
    pub envid: Option<String>,
    /// REQUIRETLS
    pub require_tls: bool,
}

/// RCPT TO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    /// The recipient.
    pub path: ForwardPath,
    /// NOTIFY
    pub notify: Notify,
    /// ORCPT as given.
    pub orcpt: Option<String>,
}

const MAIL_EXPECTED: &str = "Expected MAIL FROM:<user@example.com>";
const RCPT_EXPECTED: &str = "Expected RCPT TO:<user@example.com>";

/// What stands behind `FROM:` or `TO:`.
fn after<'a>(rest: &'a str, keyword: &str, expected: &'static str) -> Result<&'a str, SyntaxError> {
    match rest.split_at_checked(keyword.len()) {
        Some((head, tail)) if head.eq_ignore_ascii_case(keyword) => Ok(tail.trim_start_matches(' ')),
        _ => Err(SyntaxError::Arguments(expected)),
    }
}

/// `KEYWORD` or `KEYWORD=value`, each once.
fn each<'a>(
    rest: &'a str,
    mut take: impl FnMut(&'a str, Option<&'a str>) -> Result<(), SyntaxError>,
) -> Result<(), SyntaxError> {
    let mut seen: [&str; 8] = [""; 8];
    for (count, word) in rest.split(' ').filter(|w| !w.is_empty()).enumerate() {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        if seen.iter().any(|s| s.eq_ignore_ascii_case(keyword)) {
            return Err(SyntaxError::Arguments("A parameter may be given once"));
        }
        *seen.get_mut(count).ok_or(SyntaxError::Arguments("Too many parameters"))? = keyword;
        take(keyword, value)?;
    }
    Ok(())
}

fn unknown(keyword: &str) -> SyntaxError {
    SyntaxError::Parameter(keyword.chars().take(32).collect())
}

pub(super) fn mail(rest: &str) -> Result<Mail, SyntaxError> {
    let (inner, rest) = bracketed(after(rest, "FROM:", MAIL_EXPECTED)?, MAIL_EXPECTED)?;
    let reverse_path = reverse_path(inner).map_err(SyntaxError::Sender)?;
    let mut mail = Mail {
        reverse_path,
        size: None,
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        require_tls: false,
    };
    each(rest, |keyword, value| {
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        if is("SIZE") {
            mail.size = Some(size(value)?);
        } else if is("BODY") {
            mail.body = Some(match value {
                Some(v) if v.eq_ignore_ascii_case("7BIT") => Body::SevenBit,
                Some(v) if v.eq_ignore_ascii_case("8BITMIME") => Body::EightBitMime,
                _ => return Err(SyntaxError::Arguments("BODY is 7BIT or 8BITMIME here")),
            });
        } else if is("SMTPUTF8") && value.is_none() {
            mail.smtputf8 = true;
        } else if is("REQUIRETLS") && value.is_none() {
            mail.require_tls = true;
        } else if is("RET") {
            mail.ret = Some(match value {
                Some(v) if v.eq_ignore_ascii_case("FULL") => Ret::Full,
                Some(v) if v.eq_ignore_ascii_case("HDRS") => Ret::Headers,
                _ => return Err(SyntaxError::Arguments("RET is FULL or HDRS")),
            });
        } else if is("ENVID") {
            let valid = |v: &&str| v.len() <= ENVID_MAX && is_printable_xtext(v);
            let envid =
                value.filter(valid).ok_or(SyntaxError::Arguments("ENVID needs up to 100 octets of xtext"))?;
            mail.envid = Some(envid.to_owned());
        } else if is("AUTH") {
            // Who wrote it first, says the client; we do not pass it on (RFC 4954 section 5 leaves us free to).
            value
                .filter(|v| is_printable_xtext(v))
                .ok_or(SyntaxError::Arguments("AUTH needs xtext or <>"))?;
        } else {
            return Err(unknown(keyword));
        }
        Ok(())
    })?;
    Ok(mail)
}

pub(super) fn rcpt(rest: &str) -> Result<Rcpt, SyntaxError> {
    let (inner, rest) = bracketed(after(rest, "TO:", RCPT_EXPECTED)?, RCPT_EXPECTED)?;
    let path = forward_path(inner).map_err(SyntaxError::Recipient)?;
    let mut rcpt = Rcpt { path, notify: Notify::Unset, orcpt: None };
    each(rest, |keyword, value| {
        if keyword.eq_ignore_ascii_case("NOTIFY") {
            let notify = value.and_then(|v| v.parse().ok());
            rcpt.notify =
                notify.ok_or(SyntaxError::Arguments("NOTIFY is NEVER or a list of SUCCESS,FAILURE,DELAY"))?;
        } else if keyword.eq_ignore_ascii_case("ORCPT") {
            let orcpt = value.filter(|v| v.len() <= ORCPT_MAX && is_original_recipient(v));
            let orcpt =
                orcpt.ok_or(SyntaxError::Arguments("ORCPT is a type, a semicolon and xtext: rfc822;a@b"))?;
            rcpt.orcpt = Some(orcpt.to_owned());
        } else {
            return Err(unknown(keyword));
        }
        Ok(())
    })?;
    Ok(rcpt)
}

/// Up to 20 digits; more than 64 bits can hold is too much for anybody.
fn size(value: Option<&str>) -> Result<u64, SyntaxError> {
    let digits = value.filter(|v| !v.is_empty() && v.len() <= 20 && v.bytes().all(|b| b.is_ascii_digit()));
    let digits = digits.ok_or(SyntaxError::Arguments("SIZE needs a number of octets"))?;
    Ok(digits.parse().unwrap_or(u64::MAX))
}

/// xtext that stands for printable ASCII: no line end can hide in it.
fn is_printable_xtext(text: &str) -> bool {
    xtext::decode(text).is_some_and(|octets| octets.iter().all(|o| (32..=126).contains(o)))
}

/// addr-type ";" xtext, or for the type `utf-8` UTF-8 as it is (RFC 6533 section 3).
fn is_original_recipient(text: &str) -> bool {
    let Some((kind, address)) = text.split_once(';') else { return false };
    let kind_is_word = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !kind_is_word || address.is_empty() {
        return false;
    }
    if kind.eq_ignore_ascii_case("utf-8") && !address.is_ascii() {
        return address.chars().all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '+' | '='));
    }
    is_printable_xtext(address)
}
