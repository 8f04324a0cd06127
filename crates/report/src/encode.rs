//! Text that others chose, made safe for our lines: no control characters, no bare CR or LF, no line over 998 octets
//! (RFC 5322 section 2.1.1), ASCII where the place allows no more.

/// Longest line in octets, without its CRLF.
pub(crate) const LINE_MAX: usize = 998;

/// Where quoted-printable and folded lines end (RFC 2045 section 6.7, rule 5).
const SOFT_MAX: usize = 76;

/// A host name for our own fields: A-labels; a name that is none is replaced.
pub(crate) fn host(name: &str) -> String {
    mail::domain_to_ascii(name).unwrap_or_else(|| "localhost.invalid".into())
}

/// Text on one line: runs of white space and control characters become one space, and it is cut at `max` characters.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    let mut length = 0;
    let mut space = false;
    for c in text.chars() {
        if c.is_whitespace() || is_unsafe(c) {
            space = !line.is_empty();
            continue;
        }
        if length >= max {
            line.push_str(" ...");
            break;
        }
        if std::mem::take(&mut space) {
            line.push(' ');
            length += 1;
        }
        line.push(c);
        length += 1;
    }
    line
}

/// Characters that act on a terminal or a line instead of being shown: controls, line separators, and those that
/// turn the direction of writing.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// ASCII alone; anything else becomes `?`.
pub(crate) fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// A header field, folded at spaces where it gets long. A single word longer than a line can be is cut.
pub(crate) fn field(name: &str, value: &str) -> String {
    let mut field = format!("{name}:");
    let mut column = field.len();
    for (nth, word) in value.split(' ').filter(|w| !w.is_empty()).enumerate() {
        let mut cut = word.len().min(LINE_MAX - 80);
        while !word.is_char_boundary(cut) {
            cut -= 1;
        }
        let word = &word[..cut];
        if nth > 0 && column + 1 + word.len() > SOFT_MAX {
            field.push_str("\r\n");
            column = 0;
        }
        field.push(' ');
        field.push_str(word);
        column += 1 + word.len();
    }
    field.push_str("\r\n");
    field
}

/// Whether every line ends in CRLF (the last one may be open), has at most 998 octets, and there is no NUL, bare CR or
/// bare LF.
pub(crate) fn fits_lines(bytes: &[u8]) -> bool {
    let mut line = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => {
                line = 0;
                at += 2;
                continue;
            }
            b'\r' | b'\n' | 0 => return false,
            _ => line += 1,
        }
        if line > LINE_MAX {
            return false;
        }
        at += 1;
    }
    true
}

/// Quoted-printable (RFC 2045 section 6.7). `text` keeps CRLF as line ends; otherwise every octet that is not
/// printable is encoded, so that what was there comes back to the byte.
pub(crate) fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4);
    let mut column = 0;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            column = 0;
            at += 2;
            continue;
        }
        let byte = rest[0];
        let ends_line = rest.len() == 1 || rest[1..].starts_with(b"\r\n");
        let plain = match byte {
            b'=' => false,
            b' ' | b'\t' => !ends_line,
            _ => byte.is_ascii_graphic(),
        };
        let width = if plain { 1 } else { 3 };
        // One column is kept for the soft line break.
        if column + width > SOFT_MAX - 1 {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if plain {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        column += width;
        at += 1;
    }
    out
}

/// xtext (RFC 3461 section 4) decoded; none when it is not xtext or does not decode to UTF-8.
pub(crate) fn xtext_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'+' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = rest.next().filter(|d| !d.is_ascii_lowercase())?;
            char::from(digit).to_digit(16)
        };
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// An address in the 7-bit form of RFC 6533 section 3, `utf-8-addr-xtext`: everything but printable ASCII, and `\`, `+`
/// and `=`, as `\x{HEX}`.
pub(crate) fn utf8_addr_xtext(address: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(address.len() * 2);
    for c in address.chars() {
        if c.is_ascii_graphic() && !matches!(c, '\\' | '+' | '=') {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:02X}}}", u32::from(c));
        }
    }
    out
}

/// Words filled into lines of at most 72 characters where possible; lines end in CRLF.
pub(crate) fn fill(text: &str, indent: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > 72 {
            out.push_str("\r\n");
            column = 0;
        }
        if column == 0 {
            out.push_str(indent);
            column = indent.len();
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push_str("\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line(" a\r\n.\r\nb\u{2028}c\u{1b}[31m\u{202e}d ", 100), "a . b c [31m d");
        assert_eq!(one_line("abcdef", 3), "abc ...");
        assert_eq!(one_line("\r\n\t", 9), "");
    }

    #[test]
    fn fields_fold_at_spaces() {
        let long = "word ".repeat(40);
        let folded = field("Diagnostic-Code", &long);
        assert!(folded.split("\r\n").all(|line| line.len() <= SOFT_MAX), "{folded}");
        assert_eq!(folded.replace("\r\n ", " ").trim_end(), format!("Diagnostic-Code: {}", long.trim_end()));
        assert!(fits_lines(field("X", &"é".repeat(3000)).as_bytes()));
        assert_eq!(field("X", ""), "X:\r\n");
    }

    #[test]
    fn quoted_printable_keeps_every_byte() {
        assert_eq!(quoted_printable(b"a=b \r\nc\td"), b"a=3Db=20\r\nc\td");
        assert_eq!(quoted_printable(b"x\ny\rz\0"), b"x=0Ay=0Dz=00");
        let long = quoted_printable("Việt ".repeat(60).as_bytes());
        assert!(long.split(|&b| b == b'\n').all(|line| line.len() <= SOFT_MAX + 1));
    }

    #[test]
    fn xtext() {
        assert_eq!(xtext_decode("QQ+2B3+3D").as_deref(), Some("QQ+3="));
        for bad in ["a+", "a+4", "a+g0", "a+2b", "+FF"] {
            assert_eq!(xtext_decode(bad), None, "{bad}");
        }
        assert_eq!(utf8_addr_xtext("dươ+ng@vd.vn"), "d\\x{1B0}\\x{1A1}\\x{2B}ng@vd.vn");
    }

    #[test]
    fn bad_lines_are_seen() {
        assert!(fits_lines(b"a\r\n\r\nb"));
        assert!(fits_lines(&[b'a'; LINE_MAX]));
        assert!(!fits_lines(&[b'a'; LINE_MAX + 1]));
        for bad in [&b"a\nb"[..], b"a\rb", b"a\r", b"a\r\r\n", b"a\0"] {
            assert!(!fits_lines(bad), "{bad:?}");
        }
    }
}
