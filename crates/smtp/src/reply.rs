//! Writes replies (RFC 5321 section 4.2, RFC 2034): codes on every line, no octet that could end a line early.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use mail::Reply;

/// Longest text in a reply line, so that the line stays under 512 octets (RFC 5321 section 4.5.3.1.5).
const TEXT_MAX: usize = 400;

/// Appends `reply` to `out`. Non-ASCII text stays only where `utf8` says that the client takes it (RFC 6531 section
/// 3.7.4.2).
pub fn write(out: &mut BytesMut, reply: &Reply, utf8: bool) {
    let mut lines = reply.text.split('\n').flat_map(wrap).peekable();
    while let Some(line) = lines.next() {
        let separator = if lines.peek().is_some() { '-' } else { ' ' };
        // Writing into memory cannot fail.
        let _ = write!(out, "{:03}{separator}", reply.code);
        if let Some(enhanced) = reply.enhanced {
            let _ = write!(out, "{enhanced} ");
        }
        for c in line.chars() {
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || !(utf8 || c.is_ascii()) {
                out.put_u8(b'?');
            } else {
                out.put_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        out.put_slice(b"\r\n");
    }
}

/// Cuts a line that is too long, at a space where there is one.
fn wrap(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line.trim_end_matches('\r'));
    std::iter::from_fn(move || {
        let text = rest?;
        if text.len() <= TEXT_MAX {
            rest = None;
            return Some(text);
        }
        let end = text.floor_char_boundary(TEXT_MAX);
        let cut = text[..end].rfind(' ').filter(|&at| at > 0).unwrap_or(end);
        rest = Some(text[cut..].trim_start_matches(' '));
        Some(&text[..cut])
    })
}

#[cfg(test)]
mod tests {
    use mail::EnhancedStatus;
    use proptest::prelude::*;

    use super::*;

    fn text(reply: &Reply, utf8: bool) -> String {
        let mut out = BytesMut::new();
        write(&mut out, reply, utf8);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn codes_stand_on_every_line() {
        let reply = Reply::new(550, EnhancedStatus::new(5, 7, 1), "No.\nAsk the postmaster.");
        assert_eq!(text(&reply, false), "550-5.7.1 No.\r\n550 5.7.1 Ask the postmaster.\r\n");
        let plain = Reply { code: 220, enhanced: None, text: String::new() };
        assert_eq!(text(&plain, false), "220 \r\n");
    }

    #[test]
    fn nothing_is_injected() {
        let reply = Reply::new(550, EnhancedStatus::new(5, 1, 1), "a\r250 ok\u{85}\u{2028}\0é");
        assert_eq!(text(&reply, false), "550 5.1.1 a?250 ok????\r\n");
        assert_eq!(text(&reply, true), "550 5.1.1 a?250 ok???é\r\n");
    }

    proptest! {
        #[test]
        fn lines_are_short_and_well_formed(reply_text in "[ -~\n\r\u{e9}]{0,1500}", utf8: bool) {
            let reply = Reply::new(450, EnhancedStatus::new(4, 0, 0), reply_text);
            let written = text(&reply, utf8);
            let lines: Vec<&str> = written.strip_suffix("\r\n").unwrap().split("\r\n").collect();
            for (i, line) in lines.iter().enumerate() {
                prop_assert!(line.len() <= 510 && !line.contains(['\r', '\n']));
                let codes = if i + 1 == lines.len() { "450 4.0.0 " } else { "450-4.0.0 " };
                prop_assert!(line.starts_with(codes));
            }
        }
    }
}
