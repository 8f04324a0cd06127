//! The dot-stuffing encoder (RFC 5321 section 4.5.2). It works on pieces and lets nothing out that another system
//! could take for the end of the message.

/// Content that cannot be sent by SMTP: a CR or LF on its own, or a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message has {what} at octet {at}, which cannot be sent by SMTP without being changed")]
pub struct Forbidden {
    /// What it is, in words.
    pub what: &'static str,
    /// Where, from the start of the content.
    pub at: u64,
}

/// Checks content that goes out without being encoded (BDAT).
///
/// # Errors
/// [`Forbidden`], for the same reasons as in [`DotEncoder`].
pub fn check(content: &[u8]) -> Result<(), Forbidden> {
    let mut at = 0;
    while let Some(found) = memchr::memchr3(b'\r', b'\n', 0, &content[at..]) {
        at += found;
        let what = match (content[at], content.get(at + 1)) {
            (b'\r', Some(b'\n')) => {
                at += 2;
                continue;
            }
            (b'\r', _) => "a carriage return (CR) without a line feed",
            (b'\n', _) => "a line feed (LF) without a carriage return",
            _ => "a NUL",
        };
        return Err(Forbidden { what, at: at as u64 });
    }
    Ok(())
}

/// Appends content that [`check`] has passed, encoded, with the line that ends it: what [`DotEncoder`] makes of it, faster,
/// as only dots are looked for.
pub fn encode_checked(content: &[u8], out: &mut Vec<u8>) {
    debug_assert_eq!(check(content), Ok(()), "the caller has checked it");
    out.reserve(content.len() + 8);
    if content.first() == Some(&b'.') {
        out.push(b'.');
    }
    let mut copied = 0;
    for at in memchr::memmem::find_iter(content, b"\n.") {
        out.extend_from_slice(&content[copied..=at]);
        out.push(b'.');
        copied = at + 1;
    }
    out.extend_from_slice(&content[copied..]);
    let ends_a_line = content.is_empty() || content.ends_with(b"\n");
    out.extend_from_slice(if ends_a_line { b".\r\n" } else { b"\r\n.\r\n" });
}

/// Encodes content piece by piece: a dot at the start of a line is doubled, and the end is marked by a line with a
/// dot alone.
#[derive(Clone, Debug)]
pub struct DotEncoder {
    before: Before,
    /// Octets taken so far.
    at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    LineStart,
    Cr,
    Other,
}

impl Default for DotEncoder {
    fn default() -> Self {
        Self { before: Before::LineStart, at: 0 }
    }
}

impl DotEncoder {
    /// Appends the encoded `piece` to `out`.
    ///
    /// # Errors
    /// [`Forbidden`]: the content must not be sent; `out` holds a part of the piece that must not be sent either.
    pub fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Forbidden> {
        let mut rest = piece;
        out.reserve(piece.len() + 8);
        while let Some(&first) = rest.first() {
            match self.before {
                Before::Cr if first == b'\n' => {
                    out.push(b'\n');
                    rest = &rest[1..];
                    self.before = Before::LineStart;
                    self.at += 1;
                    continue;
                }
                Before::Cr => return Err(self.forbidden("a carriage return (CR) without a line feed", -1)),
                Before::LineStart if first == b'.' => out.push(b'.'),
                Before::LineStart | Before::Other => {}
            }
            let end = memchr::memchr3(b'\r', b'\n', 0, rest);
            let line = &rest[..end.unwrap_or(rest.len())];
            out.extend_from_slice(line);
            self.at += line.len() as u64;
            let Some(end) = end else {
                self.before = Before::Other;
                break;
            };
            match rest[end] {
                b'\r' => out.push(b'\r'),
                b'\n' => return Err(self.forbidden("a line feed (LF) without a carriage return", 0)),
                _ => return Err(self.forbidden("a NUL", 0)),
            }
            self.before = Before::Cr;
            self.at += 1;
            rest = &rest[end + 1..];
        }
        Ok(())
    }

    /// Appends what ends the message.
    ///
    /// # Errors
    /// [`Forbidden`]: the content ends in a lone CR.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), Forbidden> {
        match self.before {
            Before::Cr => Err(self.forbidden("a carriage return (CR) without a line feed", -1)),
            Before::LineStart => {
                out.extend_from_slice(b".\r\n");
                Ok(())
            }
            Before::Other => {
                out.extend_from_slice(b"\r\n.\r\n");
                Ok(())
            }
        }
    }

    fn forbidden(&self, what: &'static str, back: i64) -> Forbidden {
        Forbidden { what, at: self.at.saturating_add_signed(back) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(content: &[u8], cut: usize) -> Result<Vec<u8>, Forbidden> {
        let (mut encoder, mut out) = (DotEncoder::default(), Vec::new());
        for piece in content.chunks(cut) {
            encoder.encode(piece, &mut out)?;
        }
        encoder.finish(&mut out)?;
        Ok(out)
    }

    /// What a receiver makes of it: lines up to the one with a dot alone, leading dots removed.
    fn decode(wire: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = wire;
        loop {
            let end = rest.windows(2).position(|w| w == b"\r\n").expect("the wire ends in CRLF") + 2;
            let line = &rest[..end];
            rest = &rest[end..];
            if line == b".\r\n" {
                assert!(rest.is_empty(), "octets behind the end");
                return out;
            }
            out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
    }

    #[test]
    fn known_cases() {
        assert_eq!(encode(b"", 1).unwrap(), b".\r\n");
        assert_eq!(encode(b"a\r\n", 9).unwrap(), b"a\r\n.\r\n");
        assert_eq!(encode(b"a", 9).unwrap(), b"a\r\n.\r\n");
        assert_eq!(encode(b".\r\n..\r\n.a\r\nb.\r\n", 1).unwrap(), b"..\r\n...\r\n..a\r\nb.\r\n.\r\n");
    }

    /// The smuggling sequences of CONFORMANCE: none leaves, wherever the pieces are cut.
    #[test]
    fn smuggling_sequences_never_leave() {
        for bad in [
            &b"\n.\n"[..],
            b"\n.\r",
            b"\r.\n",
            b"\r.\r",
            b"\n.\r\n",
            b"\r.\r\n",
            b"\r\n.\n",
            b"\r\n.\r",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
            b"\r\r\n.\r\r\n",
            b"\r\n.\r\r\n",
        ] {
            let content = [b"Subject: x\r\n\r\nbody", bad, b"MAIL FROM:<a@b>\r\n"].concat();
            for cut in 1..content.len() {
                encode(&content, cut).expect_err("forbidden");
            }
            check(&content).expect_err("forbidden");
        }
        assert!(encode(b"a\r", 1).is_err());
        let error = encode(b"ab\r\ncd\0", 3).unwrap_err();
        assert_eq!((error.what, error.at), ("a NUL", 6));
        assert_eq!(encode(b"ab\rcd", 3).unwrap_err().at, 2);
    }

    proptest! {
        #[test]
        fn what_leaves_is_what_came(
            lines in proptest::collection::vec("[.ab]{0,5}", 0..30), cut in 1usize..20, last in "[.ab]{0,3}",
        ) {
            let mut content = lines.iter().map(|l| format!("{l}\r\n")).collect::<String>();
            content.push_str(&last);
            let original = content.clone().into_bytes();
            let wire = encode(&original, cut).unwrap();
            let mut expected = content.into_bytes();
            if !last.is_empty() {
                expected.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(decode(&wire), expected);
            let mut at_once = Vec::new();
            encode_checked(&original, &mut at_once);
            prop_assert_eq!(at_once, wire);
        }

        #[test]
        fn no_bare_line_end_leaves(content in proptest::collection::vec(prop::sample::select(b"\r\n\0.a".to_vec()), 0..20), cut in 1usize..5) {
            let lone = |w: &[u8]| (0..w.len()).any(|i| match w[i] {
                b'\r' => w.get(i + 1) != Some(&b'\n'),
                b'\n' => i == 0 || w[i - 1] != b'\r',
                0 => true,
                _ => false,
            });
            let whole = encode(&content, content.len().max(1)).map(drop);
            prop_assert_eq!(check(&content), whole);
            match encode(&content, cut) {
                Ok(wire) => prop_assert!(!lone(&wire) && !lone(&content)),
                Err(_) => prop_assert!(lone(&content)),
            }
        }
    }
}
