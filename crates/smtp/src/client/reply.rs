//! The reply parser: takes what a peer sends apart into replies, whatever it sends.

use bytes::BytesMut;
use mail::{EnhancedStatus, Reply};

use super::Fault;
use super::transcript::push_clean;

/// Longest line in octets. RFC 5321 section 4.5.3.1.5 says 512; many say more.
const LINE_MAX: usize = 4096;
/// Most lines of one reply.
const LINES_MAX: usize = 256;
/// How much of a reply's text is kept, in octets. The rest is read and dropped.
const TEXT_MAX: usize = 8192;

/// Takes replies (RFC 5321 section 4.2) out of a stream of octets.
///
/// Bare LF is taken for a line end. Memory is bounded by [`LINE_MAX`] of input and [`TEXT_MAX`] of text.
#[derive(Debug, Default)]
pub struct ReplyParser {
    code: u16,
    lines: usize,
    enhanced: Option<EnhancedStatus>,
    text: String,
    /// How much of the input was searched for a line end before.
    searched: usize,
}

impl ReplyParser {
    /// The next whole reply in `input`, or none until more is read. What was understood is taken out of `input`.
    ///
    /// # Errors
    /// [`Fault`]: the peer sent no reply, or an endless one.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, Fault> {
        loop {
            let found = memchr::memchr(b'\n', &input[self.searched.min(input.len())..]);
            let Some(found) = found else {
                self.searched = input.len();
                return if input.len() > LINE_MAX { Err(Fault::TooLong) } else { Ok(None) };
            };
            let length = self.searched + found + 1;
            self.searched = 0;
            if length > LINE_MAX {
                return Err(Fault::TooLong);
            }
            let line = input.split_to(length);
            if self.line(trim_line_end(&line))? {
                return Ok(Some(self.take()));
            }
        }
    }

    /// Whether it holds a part of a reply.
    pub fn is_midway(&self) -> bool {
        self.lines > 0
    }

    /// Takes one line; tells whether it was the last of its reply.
    fn line(&mut self, line: &[u8]) -> Result<bool, Fault> {
        let (code, is_last, text) = split_line(line).ok_or_else(|| Fault::Garbage(excerpt(line)))?;
        if self.lines == 0 {
            self.code = code;
        } else if code != self.code {
            return Err(Fault::MixedCodes(self.code, code));
        }
        if self.lines == LINES_MAX {
            return Err(Fault::TooLong);
        }
        let text = String::from_utf8_lossy(text);
        let (enhanced, text) = split_enhanced(code, &text);
        if self.lines == 0 {
            self.enhanced = enhanced;
        } else if self.text.len() < TEXT_MAX {
            self.text.push('\n');
        }
        self.lines += 1;
        let room = TEXT_MAX.saturating_sub(self.text.len());
        push_clean(&mut self.text, &text[..text.floor_char_boundary(room)]);
        Ok(is_last)
    }

    fn take(&mut self) -> Reply {
        self.lines = 0;
        Reply { code: self.code, enhanced: self.enhanced.take(), text: std::mem::take(&mut self.text) }
    }
}

/// Code, whether it is the last line, and the text behind. None: no reply line.
fn split_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// The enhanced status code at the start of a line (RFC 2034 section 4), if it is one and says the same as the code.
fn split_enhanced(code: u16, text: &str) -> (Option<EnhancedStatus>, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word.parse::<EnhancedStatus>() {
        Ok(status) if u16::from(status.class) == code / 100 => (Some(status), rest),
        _ => (None, text),
    }
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The start of what a peer sent, fit to be shown.
pub(super) fn excerpt(octets: &[u8]) -> String {
    let mut text = String::new();
    push_clean(&mut text, &String::from_utf8_lossy(&octets[..octets.len().min(80)]));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(octets: &[u8]) -> Result<Vec<Reply>, Fault> {
        let (mut parser, mut input) = (ReplyParser::default(), BytesMut::from(octets));
        std::iter::from_fn(|| parser.next(&mut input).transpose()).collect()
    }

    fn one(text: &str) -> Reply {
        all(text.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn replies() {
        assert_eq!(one("250 ok\r\n"), Reply { code: 250, enhanced: None, text: "ok".into() });
        assert_eq!(one("354\r\n"), Reply { code: 354, enhanced: None, text: String::new() });
        assert_eq!(
            one("550-5.1.1 no such\r\n550 5.1.1 user\n"),
            Reply::new(550, EnhancedStatus::new(5, 1, 1), "no such\nuser")
        );
        assert_eq!(one("550 5.1.1\r\n"), Reply::new(550, EnhancedStatus::new(5, 1, 1), ""));
        // An enhanced code of another class than the reply's is only text.
        assert_eq!(one("450 5.1.1 x\r\n").text, "5.1.1 x");
        assert_eq!(one("220 2.0.0.example ready\r\n").text, "2.0.0.example ready");
        assert_eq!(all(b"250 a\r\n250 b\r\n35").unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_reply() {
        for bad in
            ["HTTP/1.1 400\r\n", "\r\n", "25\r\n", "250x\r\n", "150 x\r\n", "600 x\r\n", "2\u{0}0 x\r\n"]
        {
            assert!(matches!(all(bad.as_bytes()), Err(Fault::Garbage(_))), "{bad:?}");
        }
        assert_eq!(all(b"250-a\r\n550 b\r\n"), Err(Fault::MixedCodes(250, 550)));
    }

    #[test]
    fn hostile_replies_are_bounded_and_clean() {
        let (mut parser, mut input) = (ReplyParser::default(), BytesMut::new());
        let fault = (0..1_000_000).find_map(|_| {
            input.extend_from_slice(b"250-xxxxxxxxxxxx");
            parser.next(&mut input).err()
        });
        assert_eq!(fault, Some(Fault::TooLong));
        assert!(input.len() < 2 * LINE_MAX);
        assert_eq!(all(&b"250-x\r\n".repeat(10_000)), Err(Fault::TooLong));

        let long = [b"250-".to_vec(), vec![b'x'; 4000], b"\r\n".to_vec()].concat().repeat(100);
        let reply = all(&[long, b"250 end\r\n".to_vec()].concat()).unwrap().remove(0);
        assert!(reply.text.len() <= TEXT_MAX);

        assert_eq!(one("550 a\u{1b}[31mb\u{0}c\rd\u{2028}\r\n").text, "a?[31mb?c?d?");
        assert_eq!(all(b"550 \xff\xfe\r\n").unwrap()[0].text, "\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_octets_in_any_pieces(octets in proptest::collection::vec(any::<u8>(), 0..400), cut in 1usize..50) {
            let whole = all(&octets);
            let (mut parser, mut input, mut got) = (ReplyParser::default(), BytesMut::new(), Ok(Vec::new()));
            'pieces: for piece in octets.chunks(cut) {
                input.extend_from_slice(piece);
                loop {
                    match parser.next(&mut input) {
                        Ok(Some(reply)) => got.as_mut().unwrap().push(reply),
                        Ok(None) => break,
                        Err(fault) => { got = Err(fault); break 'pieces; }
                    }
                }
            }
            prop_assert_eq!(whole, got);
        }

        #[test]
        fn replies_are_understood_however_they_are_cut(
            lines in proptest::collection::vec(("[245][0-9][0-9]", "[ -~]{0,40}"), 1..20), cut in 1usize..20,
        ) {
            let octets: String = lines.iter().map(|(code, text)| format!("{code} {text}\r\n")).collect();
            let (mut parser, mut input, mut got) = (ReplyParser::default(), BytesMut::new(), Vec::new());
            for piece in octets.as_bytes().chunks(cut) {
                input.extend_from_slice(piece);
                while let Some(reply) = parser.next(&mut input).unwrap() {
                    got.push(reply.code.to_string());
                }
            }
            prop_assert_eq!(got, lines.into_iter().map(|l| l.0).collect::<Vec<_>>());
        }
    }
}
