//! A strict reader of reports: it accepts only what RFC 2045, 2046 and 5322 allow without doubt.

use mail::headers;

/// One part of a multipart, its transfer encoding undone.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) media_type: String,
    pub(crate) content: Vec<u8>,
}

/// The three parts of a report.
pub(crate) fn parts(report: &[u8]) -> Vec<Part> {
    assert_lines(report);
    let end = headers(report).end();
    assert_eq!(end.body, end.fields + 2, "a blank line ends the header");
    let content_type = field(report, "Content-Type").unwrap();
    assert!(content_type.starts_with("multipart/report; report-type=delivery-status;"), "{content_type}");
    let boundary = content_type.split("boundary=\"").nth(1).unwrap().trim_end_matches('"');
    assert!(boundary.len() <= 70);
    let body = &report[end.body..];
    let delimiter = format!("\r\n--{boundary}");
    let mut pieces = split(body, delimiter.as_bytes());
    assert_eq!(pieces.pop().unwrap(), b"--\r\n", "the closing delimiter is last");
    pieces.remove(0);
    pieces.into_iter().map(|piece| part(piece.strip_prefix(b"\r\n").unwrap())).collect()
}

/// A header field's unfolded text.
pub(crate) fn field(content: &[u8], name: &str) -> Option<String> {
    let mut found = headers(content).filter(|h| h.is(name));
    let text = found.next().map(|h| h.text());
    assert!(found.next().is_none(), "one {name} only");
    text
}

/// The groups of fields in a delivery-status part.
pub(crate) fn groups(status: &[u8]) -> Vec<Vec<(String, String)>> {
    let mut groups = Vec::new();
    let mut rest = status;
    while !rest.is_empty() {
        let end = headers(rest).end();
        assert!(end.fields > 0, "a group has fields: {:?}", String::from_utf8_lossy(rest));
        groups.push(
            headers(rest)
                .map(|h| (String::from_utf8(h.name.to_vec()).unwrap(), h.text()))
                .collect::<Vec<_>>(),
        );
        rest = &rest[end.body..];
    }
    groups
}

fn part(piece: &[u8]) -> Part {
    let end = headers(piece).end();
    assert_eq!(end.body, end.fields + 2, "a blank line ends a part's header");
    let media_type = field(piece, "Content-Type").unwrap();
    let raw = &piece[end.body..];
    let content = match field(piece, "Content-Transfer-Encoding").as_deref() {
        None => {
            assert!(raw.is_ascii(), "undeclared octets over 127");
            raw.to_vec()
        }
        Some("8bit") => raw.to_vec(),
        Some("quoted-printable") => unquote(raw),
        Some(other) => panic!("{other}"),
    };
    Part { media_type, content }
}

fn unquote(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'=' {
            assert!(byte.is_ascii_graphic() || b" \t\r\n".contains(&byte), "{byte} is not encoded");
            out.push(byte);
        } else if let Some(tail) = rest.strip_prefix(b"\r\n") {
            rest = tail;
        } else {
            out.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
            rest = &rest[2..];
        }
    }
    for line in split(raw, b"\r\n") {
        assert!(line.len() <= 76 && !line.ends_with(b" ") && !line.ends_with(b"\t"));
    }
    out
}

fn assert_lines(content: &[u8]) {
    for line in split(content, b"\r\n") {
        assert!(line.len() <= 998, "a line of {} octets", line.len());
        assert!(!line.iter().any(|b| b"\r\n\0".contains(b)), "{:?}", String::from_utf8_lossy(line));
    }
    assert!(content.ends_with(b"\r\n"));
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while let Some(found) = rest.windows(at.len()).position(|w| w == at) {
        pieces.push(&rest[..found]);
        rest = &rest[found + at.len()..];
    }
    pieces.push(rest);
    pieces
}
