//! The parts of a message, as far as a report is made of them: bounded in depth, number and size.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail::headers;

/// How deep multiparts may stand in each other.
const DEPTH_MAX: usize = 5;

/// How many parts are looked at.
const PARTS_MAX: usize = 64;

/// Lenient about padding and what is left over: whatever a part's author got wrong, the beginning is of use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A message taken apart.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// All of it, header first.
    pub(super) content: &'a [u8],
    /// Its leaves: what is no multipart, in order.
    pub(super) parts: Vec<Part<'a>>,
}

/// A leaf.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// `text/plain`, in lower case, without parameters.
    pub(super) media: String,
    /// Its content, the transfer encoding undone, lines ended by CRLF.
    pub(super) content: Cow<'a, [u8]>,
}

/// Every line ended by CRLF.
pub(super) fn crlf(content: &[u8]) -> Cow<'_, [u8]> {
    let is_bare = |at: usize| content[at] == b'\n' && (at == 0 || content[at - 1] != b'\r');
    if !(0..content.len()).any(is_bare) {
        return Cow::Borrowed(content);
    }
    let mut out = Vec::with_capacity(content.len() + content.len() / 32);
    for (at, &byte) in content.iter().enumerate() {
        if is_bare(at) {
            out.push(b'\r');
        }
        out.push(byte);
    }
    Cow::Owned(out)
}

impl<'a> Message<'a> {
    pub(super) fn of(content: &'a [u8]) -> Self {
        let mut parts = Vec::new();
        collect(content, DEPTH_MAX, &mut parts);
        Self { content, parts }
    }

    /// A field of its header, the first of that name.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        headers(self.content).find(|header| header.is(name)).map(|header| header.text())
    }

    /// The part for people as text: the first in plain text, or else the first in HTML without its marks.
    pub(super) fn text(&self) -> Option<String> {
        let of = |media: &str| self.parts.iter().find(|part| part.media == media);
        let (part, is_html) = match of("text/plain") {
            Some(part) => (part, false),
            None => (of("text/html")?, true),
        };
        let text = match std::str::from_utf8(&part.content) {
            Ok(text) => text.to_owned(),
            Err(_) => part.content.iter().map(|&b| char::from(b)).collect(),
        };
        Some(if is_html { without_marks(&text) } else { text })
    }
}

/// The leaves of `entity`, a header section and a body.
fn collect<'a>(entity: &'a [u8], depth: usize, parts: &mut Vec<Part<'a>>) {
    let end = headers(entity).end();
    let field = |name: &str| headers(&entity[..end.fields]).find(|h| h.is(name)).map(|h| h.text());
    let content_type = field("Content-Type").unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let body = &entity[end.body..];
    let boundary = parameter(&content_type, "boundary").filter(|_| media.starts_with("multipart/"));
    if let (Some(boundary), true) = (boundary, depth > 0) {
        for piece in pieces(body, &boundary) {
            if parts.len() >= PARTS_MAX {
                return;
            }
            collect(piece, depth - 1, parts);
        }
        return;
    }
    let encoding = field("Content-Transfer-Encoding").unwrap_or_default().to_ascii_lowercase();
    let content = match encoding.as_str() {
        "quoted-printable" => Cow::Owned(crlf(&quoted_printable(body)).into_owned()),
        "base64" => Cow::Owned(crlf(&base64(body)).into_owned()),
        _ => Cow::Borrowed(body),
    };
    let media = if media.is_empty() { "text/plain".to_owned() } else { media };
    parts.push(Part { media, content });
}

/// A parameter of a field: `boundary="a b"`.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (found, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"').unwrap_or(quoted.len());
                (quoted[..end].to_owned(), quoted.get(end + 1..).unwrap_or_default())
            }
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if key.trim_matches([' ', '\t', ';']).eq_ignore_ascii_case(name) {
            return Some(found).filter(|found| !found.is_empty() && found.len() <= 200);
        }
        rest = next;
    }
}

/// What stands between the delimiters of a multipart; the last piece may be open.
fn pieces<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut begin = None;
    let mut at = 0;
    while at < body.len() {
        let end = body[at..].iter().position(|&b| b == b'\n').map_or(body.len(), |i| at + i + 1);
        let line = body[at..end].trim_ascii_end();
        let rest = line.strip_prefix(b"--").and_then(|l| l.strip_prefix(boundary.as_bytes()));
        if let Some(rest) = rest.filter(|rest| rest.is_empty() || *rest == b"--") {
            if let Some(begin) = begin {
                // The line end before a delimiter belongs to it.
                let piece = &body[begin..at.max(begin)];
                pieces.push(piece.strip_suffix(b"\r\n").unwrap_or(piece));
            }
            begin = Some(end);
            if !rest.is_empty() || pieces.len() > PARTS_MAX {
                return pieces;
            }
        }
        at = end;
    }
    pieces.extend(begin.filter(|begin| *begin < body.len()).map(|begin| &body[begin..]));
    pieces
}

fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'=' {
            out.push(text[at]);
            at += 1;
            continue;
        }
        let hex = |i: usize| text.get(i).and_then(|&b| char::from(b).to_digit(16));
        if let (Some(high), Some(low)) = (hex(at + 1), hex(at + 2)) {
            out.push((high * 16 + low) as u8);
            at += 3;
        } else if text[at + 1..].starts_with(b"\r\n") {
            at += 3;
        } else {
            out.push(b'=');
            at += 1;
        }
    }
    out
}

fn base64(text: &[u8]) -> Vec<u8> {
    let is_one = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    let mut clean: Vec<u8> = text.iter().copied().take_while(|b| *b != b'=').filter(is_one).collect();
    if clean.len() % 4 == 1 {
        clean.pop();
    }
    BASE64.decode(&clean).unwrap_or_default()
}

/// HTML as lines of text without empty ones, well enough to find an address and a reply in it.
fn without_marks(html: &str) -> String {
    let mut out = String::with_capacity(html.len() / 2);
    let mut rest = html;
    let text =
        |text: &str, out: &mut String| out.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
    while let Some(at) = rest.find('<') {
        text(&rest[..at], &mut out);
        let Some(end) = rest[at..].find('>') else {
            rest = "";
            break;
        };
        let mark = rest[at + 1..at + end].trim_start_matches('/').to_ascii_lowercase();
        if ["br", "p", "div", "tr", "li", "h1", "h2"]
            .iter()
            .any(|name| mark.split([' ', '/']).next() == Some(name))
        {
            out.push('\n');
        }
        rest = &rest[at + end + 1..];
    }
    text(rest, &mut out);
    let lines: Vec<&str> = out.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let out = lines.join("\r\n");
    out.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&nbsp;", " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
}
