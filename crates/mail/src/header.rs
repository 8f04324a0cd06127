//! A look at a message's header fields without changing a byte (RFC 5322 section 2.2).

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The field's name as written.
    pub name: &'a [u8],
    /// Its body, folding and all, without the final line end.
    pub value: &'a [u8],
    /// The whole field with its final line end.
    pub raw: &'a [u8],
}

impl Header<'_> {
    /// Whether it has this name, whatever the case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Its body, unfolded and trimmed; octets that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        let joined: Vec<u8> = self.value.iter().copied().filter(|&b| b != b'\r' && b != b'\n').collect();
        String::from_utf8_lossy(&joined).trim().to_owned()
    }
}

/// Where the header section of `content` ends and the body begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderEnd {
    /// Length of the header fields with their line ends.
    pub fields: usize,
    /// Where the body begins: behind the empty line, if there is one.
    pub body: usize,
}

/// The header fields of `content`, up to the first empty line or the first line that cannot belong to a header.
pub fn headers(content: &[u8]) -> Headers<'_> {
    Headers { rest: content, at: 0, all: content }
}

/// Iterator over header fields; see [`headers`].
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    all: &'a [u8],
    rest: &'a [u8],
    at: usize,
}

impl Headers<'_> {
    /// Goes to the end and tells where it is.
    pub fn end(mut self) -> HeaderEnd {
        while self.next().is_some() {}
        let blank = if self.rest.starts_with(b"\r\n") { 2 } else { 0 };
        HeaderEnd { fields: self.at, body: self.at + blank }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let first = line_length(self.rest);
        let colon = self.rest[..first].iter().position(|&b| b == b':')?;
        let name = trim_end(&self.rest[..colon]);
        if name.is_empty() || !name.iter().all(|&b| (33..=126).contains(&b)) {
            return None;
        }
        let mut length = first;
        while matches!(self.rest.get(length), Some(b' ' | b'\t')) {
            length += line_length(&self.rest[length..]);
        }
        let raw = &self.rest[..length];
        self.at += length;
        self.rest = &self.all[self.at..];
        let value = raw[colon + 1..].strip_suffix(b"\r\n").unwrap_or(&raw[colon + 1..]);
        Some(Header { name, value, raw })
    }
}

/// Length of the first line with its CRLF.
fn line_length(text: &[u8]) -> usize {
    let mut from = 0;
    while let Some(found) = text[from..].iter().position(|&b| b == b'\n') {
        let end = from + found + 1;
        if end >= 2 && text[end - 2] == b'\r' {
            return end;
        }
        from = end;
    }
    text.len()
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |i| i + 1);
    &bytes[..end]
}

/// What the pipeline needs to know of a header section, found in one pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderScan {
    /// Received fields; over the limit means a loop (RFC 5321 section 6.3).
    pub received: usize,
    /// Whether there is a Date field.
    pub has_date: bool,
    /// Whether there is a Bcc field.
    pub has_bcc: bool,
    /// The first Message-ID, without angle brackets.
    pub message_id: Option<String>,
    /// Addresses in Delivered-To fields.
    pub delivered_to: Vec<String>,
    /// Whether there are octets over 127: the headers need SMTPUTF8 (RFC 6532), or are raw 8-bit.
    pub non_ascii: bool,
    /// Number of fields.
    pub fields: usize,
}

impl HeaderScan {
    /// Looks at the header section at the start of `content`.
    pub fn of(content: &[u8]) -> Self {
        let mut scan = Self::default();
        for header in headers(content) {
            scan.fields += 1;
            scan.non_ascii |= !header.raw.is_ascii();
            if header.is("Received") {
                scan.received += 1;
            } else if header.is("Date") {
                scan.has_date = true;
            } else if header.is("Bcc") {
                scan.has_bcc = true;
            } else if header.is("Delivered-To") {
                scan.delivered_to.push(header.text().to_ascii_lowercase());
            } else if header.is("Message-ID") && scan.message_id.is_none() {
                let text = header.text();
                let id = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(&text);
                scan.message_id = Some(id.to_owned()).filter(|t| !t.is_empty());
            }
        }
        scan
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAIL: &[u8] =
        b"Received: from a\r\n\tby b\r\nReceived: from c by d\r\nSubject: a\r\n b\r\nMessage-Id: <x@y>\r\n\
        Bcc: secret@example.com\r\nDelivered-To: Me@Example.com\r\n\r\nDate: not a header\r\n";

    #[test]
    fn finds_what_is_there() {
        let scan = HeaderScan::of(MAIL);
        assert_eq!((scan.received, scan.has_date, scan.has_bcc, scan.fields), (2, false, true, 6));
        assert_eq!(scan.message_id.as_deref(), Some("x@y"));
        assert_eq!(scan.delivered_to, ["me@example.com"]);
        let end = headers(MAIL).end();
        assert_eq!(&MAIL[end.body..], b"Date: not a header\r\n");
        assert_eq!(end.body, end.fields + 2);
    }

    #[test]
    fn a_body_without_headers_has_none() {
        assert_eq!(headers(b"Hello\r\nthere: you\r\n").count(), 0);
        assert_eq!(headers(b"\r\nA: b\r\n").end(), HeaderEnd { fields: 0, body: 2 });
        assert_eq!(headers(b"A: b").count(), 1);
    }

    proptest! {
        #[test]
        fn fields_tile_the_section(content in proptest::collection::vec(any::<u8>(), 0..300)) {
            let total: usize = headers(&content).map(|h| h.raw.len()).sum();
            prop_assert_eq!(total, headers(&content).end().fields);
        }
    }
}
