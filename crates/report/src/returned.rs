//! What of the original comes back with a report: all of it, or its header section (RFC 3461 section 4.3, RFC 6522).

use mail::{Message, ReportKind, Ret, headers};

use crate::compose::{DsnRequest, Original};
use crate::encode;

/// The largest message that comes back whole because the sender asked for it (RET=FULL), in octets.
pub const RETURN_MAX: u64 = 1024 * 1024;

/// The largest message that comes back whole unasked, in octets.
pub const RETURN_MAX_UNASKED: u64 = 50_000;

/// How much of a header section comes back, in octets; whole fields.
pub const HEADERS_MAX: usize = 64 * 1024;

/// How much of the original a report brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// All of it.
    Full,
    /// Its header section, of which [`HEADERS_MAX`] octets are enough.
    Headers,
}

/// How much of the content to read for a report of this kind. Only failures bring back more than the header section.
pub fn returned(kind: ReportKind, message: &Message) -> Returned {
    let max = match message.ret {
        _ if kind != ReportKind::Failure => 0,
        Some(Ret::Headers) => 0,
        Some(Ret::Full) => RETURN_MAX,
        None => RETURN_MAX_UNASKED,
    };
    if message.size <= max { Returned::Full } else { Returned::Headers }
}

/// A MIME part of the report.
#[derive(Debug)]
pub(crate) struct Part {
    /// Its header fields.
    pub(crate) header: String,
    pub(crate) content: Vec<u8>,
    /// It has octets over 127.
    pub(crate) eight_bit: bool,
}

impl Part {
    pub(crate) fn seven_bit(header: String, content: Vec<u8>) -> Self {
        Self { header, content, eight_bit: false }
    }

    /// Text in quoted-printable.
    pub(crate) fn quoted_text(header: &str, text: &str) -> Self {
        Self::quoted(header, text.as_bytes())
    }

    fn quoted(header: &str, content: &[u8]) -> Self {
        let header = format!("{header}Content-Transfer-Encoding: quoted-printable\r\n");
        Self { header, content: encode::quoted_printable(content), eight_bit: false }
    }
}

/// The third part of the report.
pub(crate) fn part(request: &DsnRequest<'_>) -> Part {
    let content = match request.original {
        Original::Full(content) if returned(request.kind, request.message) == Returned::Full => {
            match full(content, request.message) {
                Some(part) => return part,
                None => content,
            }
        }
        Original::Full(content) | Original::Start(content) => content,
        Original::Lost => b"",
    };
    header_section(content, request.message)
}

/// The whole original, if it can travel as it is: a message inside a message must not be encoded (RFC 2046 section
/// 5.2.1). One with octets over 127 comes back whole only when asked for: the report then needs 8BITMIME.
fn full(content: &[u8], message: &Message) -> Option<Part> {
    if !encode::fits_lines(content) {
        return None;
    }
    let description = "Content-Description: Undelivered message\r\n";
    if content.is_ascii() {
        return Some(Part::seven_bit(
            format!("{description}Content-Type: message/rfc822\r\n"),
            content.to_vec(),
        ));
    }
    if message.smtputf8 && std::str::from_utf8(header_bytes(content)).is_ok() {
        // The media type for messages with UTF-8 in the header may be encoded (RFC 6532 section 3.7).
        let header = format!("{description}Content-Type: message/global\r\n");
        return Some(Part::quoted(&header, content));
    }
    if message.ret != Some(Ret::Full) {
        return None;
    }
    let header = format!("{description}Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n");
    Some(Part { header, content: content.to_vec(), eight_bit: true })
}

/// The original's header section, byte for byte; encoded if it could not travel otherwise (RFC 6522 section 4, RFC 6533
/// section 6).
fn header_section(content: &[u8], message: &Message) -> Part {
    let fields = header_bytes(content);
    let description = "Content-Description: Header of the message\r\n";
    let plain = format!("{description}Content-Type: text/rfc822-headers\r\n");
    if fields.is_ascii() && encode::fits_lines(fields) {
        Part::seven_bit(plain, fields.to_vec())
    } else if message.smtputf8 && std::str::from_utf8(fields).is_ok() {
        Part::quoted(&format!("{description}Content-Type: message/global-headers\r\n"), fields)
    } else {
        Part::quoted(&plain, fields)
    }
}

/// The header fields at the start of `content`, as many whole ones as may come back.
fn header_bytes(content: &[u8]) -> &[u8] {
    let mut length = 0;
    for header in headers(content) {
        if length + header.raw.len() > HEADERS_MAX {
            break;
        }
        length += header.raw.len();
    }
    &content[..length]
}
