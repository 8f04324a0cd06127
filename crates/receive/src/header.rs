//! The header section of a message on its way in: counted, and for submission completed, without keeping it in
//! memory. Works on pieces, wherever they are cut.

use memchr::memchr;

use crate::policy::Limits;

/// Longest part of a line that is held back until it is known whether a field begins there.
const NAME_MAX: usize = 998;

/// Why a header section is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// More octets than allowed.
    TooBig,
    /// More fields than allowed.
    TooMany,
    /// More Received fields than allowed: the message goes round in circles.
    Loop,
}

/// What to do with a field's octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Keep,
    /// Bcc: dropped.
    Drop,
    /// Message-ID: kept and remembered.
    Id,
    /// TLS-Required: kept and remembered.
    Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the start of a line or in what may be a field's name; `HeaderFilter::held` has it.
    Name,
    /// In a field's body.
    Body(Field),
    /// Behind the CR of an empty line.
    Blank,
    /// Behind the header section.
    Over,
}

/// Fields to add when they are missing.
#[derive(Clone, Debug)]
pub(crate) struct Additions {
    /// The value of Date.
    pub(crate) date: String,
    /// The value of Message-ID, without angle brackets.
    pub(crate) message_id: String,
}

/// Goes through a header section.
#[derive(Debug)]
pub(crate) struct HeaderFilter {
    at: At,
    held: Vec<u8>,
    /// The field that a continuation line belongs to.
    field: Option<Field>,
    /// The body of the first Message-ID field.
    id: Vec<u8>,
    /// The body of the first TLS-Required field.
    tls: Vec<u8>,
    has_tls: bool,
    has_id: bool,
    has_date: bool,
    octets: usize,
    fields: usize,
    received: usize,
    non_ascii: bool,
    additions: Option<Additions>,
}

impl HeaderFilter {
    /// With `additions`, missing fields are added and Bcc fields removed; without, nothing is touched.
    pub(crate) fn new(additions: Option<Additions>) -> Self {
        Self {
            at: At::Name,
            held: Vec::new(),
            field: None,
            id: Vec::new(),
            tls: Vec::new(),
            has_tls: false,
            has_id: false,
            has_date: false,
            octets: 0,
            fields: 0,
            received: 0,
            non_ascii: false,
            additions,
        }
    }

    /// Whether the header section is over; what follows is body.
    pub(crate) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Whether octets over 127 were found.
    pub(crate) fn non_ascii(&self) -> bool {
        self.non_ascii
    }

    /// The first Message-ID, without angle brackets; the one that was added when there was none.
    pub(crate) fn message_id(&self) -> Option<String> {
        if !self.has_id {
            return self.additions.as_ref().map(|a| a.message_id.clone());
        }
        let text: Vec<u8> = self.id.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        let text = String::from_utf8_lossy(&text);
        let text = text.trim();
        let id = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(text);
        Some(id.to_owned()).filter(|t| !t.is_empty())
    }

    /// Whether the sender would rather have the message delivered than protected: `TLS-Required: No` (RFC 8689 section
    /// 5). Any other value says nothing.
    pub(crate) fn tls_optional(&self) -> bool {
        self.tls.trim_ascii().eq_ignore_ascii_case(b"No")
    }

    /// Takes a piece. Where the header section is completed, what is to be stored of it is appended to `out`; else the
    /// piece itself is. Tells how much of the piece belonged to the header section: the rest is body.
    ///
    /// # Errors
    /// [`HeaderFault`]
    pub(crate) fn push(
        &mut self,
        piece: &[u8],
        out: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<usize, HeaderFault> {
        let mut used = 0;
        while used < piece.len() {
            used += match self.at {
                At::Name => self.name(&piece[used..], out),
                At::Body(field) => self.body(field, &piece[used..], out),
                At::Blank => {
                    self.end(out);
                    self.keep(b"\r\n", out);
                    1
                }
                At::Over => break,
            };
            if self.fields > limits.header_fields {
                return Err(HeaderFault::TooMany);
            }
            if self.received > limits.received {
                return Err(HeaderFault::Loop);
            }
        }
        self.octets += used;
        self.non_ascii |= !piece[..used].is_ascii();
        if self.octets > limits.header_size { Err(HeaderFault::TooBig) } else { Ok(used) }
    }

    /// There is no more content.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.is_over() {
            let held = std::mem::take(&mut self.held);
            self.end(out);
            self.keep(&held, out);
        }
    }

    /// What is to be stored; nobody asks for it where nothing is changed.
    fn keep(&self, octets: &[u8], out: &mut Vec<u8>) {
        if self.additions.is_some() {
            out.extend_from_slice(octets);
        }
    }

    /// Reads on in what may be a field's name; tells how much was read.
    fn name(&mut self, piece: &[u8], out: &mut Vec<u8>) -> usize {
        for (at, &octet) in piece.iter().enumerate() {
            let starts = self.held.is_empty();
            match octet {
                b'\r' if starts => {
                    self.at = At::Blank;
                    return at + 1;
                }
                b' ' | b'\t' if starts => {
                    let Some(field) = self.field else { return self.no_field(at, out) };
                    self.at = At::Body(field);
                    return at;
                }
                b':' if !starts => {
                    self.begin_field(out);
                    return at + 1;
                }
                b' ' | b'\t' => self.held.push(octet),
                // A word behind a space: a sentence, no name.
                33..=126
                    if self.held.last() != Some(&b' ')
                        && self.held.last() != Some(&b'\t')
                        && octet != b':' =>
                {
                    self.held.push(octet);
                }
                _ => return self.no_field(at, out),
            }
            if self.held.len() > NAME_MAX {
                return self.no_field(at + 1, out);
            }
        }
        piece.len()
    }

    /// This line is no header field: the header section ended without an empty line.
    fn no_field(&mut self, used: usize, out: &mut Vec<u8>) -> usize {
        let held = std::mem::take(&mut self.held);
        self.end(out);
        self.keep(b"\r\n", out);
        self.keep(&held, out);
        used
    }

    fn begin_field(&mut self, out: &mut Vec<u8>) {
        let name = self.held.trim_ascii_end();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let mut field = Field::Keep;
        if is("Received") {
            self.received += 1;
        } else if is("Date") {
            self.has_date = true;
        } else if is("Message-ID") && !self.has_id {
            self.has_id = true;
            field = Field::Id;
        } else if is("TLS-Required") && !self.has_tls {
            self.has_tls = true;
            field = Field::Tls;
        } else if self.additions.is_some() && (is("Bcc") || is("Resent-Bcc")) {
            field = Field::Drop;
        }
        self.fields += 1;
        if field != Field::Drop {
            self.keep(&self.held, out);
            self.keep(b":", out);
        }
        self.held.clear();
        self.field = Some(field);
        self.at = At::Body(field);
    }

    /// Reads on in a field's body; tells how much was read.
    fn body(&mut self, field: Field, piece: &[u8], out: &mut Vec<u8>) -> usize {
        let length = match memchr(b'\n', piece) {
            Some(at) => {
                self.at = At::Name;
                at + 1
            }
            None => piece.len(),
        };
        let octets = &piece[..length];
        if field != Field::Drop {
            self.keep(octets, out);
        }
        let remembered = match field {
            Field::Id => &mut self.id,
            Field::Tls => &mut self.tls,
            Field::Keep | Field::Drop => return length,
        };
        if remembered.len() + length <= NAME_MAX {
            remembered.extend_from_slice(octets);
        }
        length
    }

    /// Adds what is missing.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.at = At::Over;
        let Some(additions) = &self.additions else { return };
        if !self.has_date {
            out.extend_from_slice(format!("Date: {}\r\n", additions.date).as_bytes());
        }
        if !self.has_id {
            out.extend_from_slice(format!("Message-ID: <{}>\r\n", additions.message_id).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
