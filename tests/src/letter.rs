//! Messages to send, and the judgement of what arrived.

use aws_lc_rs::digest;

/// Every letter begins with this header field, so that the far end's copy can be told apart from what was put in front.
const MARK: &str = "X-Proof-Id: ";

/// A message with a known id; what arrives is compared with it octet for octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The value of its X-Proof-Id field.
    pub id: String,
    /// Header section and body with CRLF line ends, as it goes into DATA before dot-stuffing.
    pub bytes: Vec<u8>,
}

impl Letter {
    /// A plain letter of about `size` octets.
    pub fn new(id: impl Into<String>, size: usize) -> Self {
        let id = id.into();
        let mut bytes = Self::head(&id).into_bytes();
        let mut line = 0u32;
        while bytes.len() < size {
            let text =
                format!("{line:08} the quick brown fox jumps over the lazy dog, and so do the others\r\n");
            let room = size - bytes.len();
            if room < text.len() + 2 {
                bytes.extend(std::iter::repeat_n(b'.', room.saturating_sub(2)));
                bytes.extend_from_slice(b"\r\n");
                break;
            }
            bytes.extend_from_slice(text.as_bytes());
            line += 1;
        }
        Self { id, bytes }
    }

    /// A letter with everything in it that careless relays change: dots at line starts, trailing blanks, empty lines at both
    /// ends, lines of 998 octets, eight-bit text, folded and odd header fields, no final text.
    pub fn odd(id: impl Into<String>) -> Self {
        let id = id.into();
        let mut bytes = Self::head(&id).into_bytes();
        bytes.truncate(bytes.len() - 2);
        bytes.extend_from_slice(
            b"X-Folded: one\r\n\ttwo\r\n   three  \r\nx-MiXeD-cAsE:no blank\r\nX-Empty:\r\nX-Empty: \r\n",
        );
        bytes.extend_from_slice(b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
        bytes.extend_from_slice(b"\r\n\r\n.\r\n..\r\n...\r\n.hidden\r\n trailing blanks   \r\n\t\r\nFrom here on\r\n>From there\r\n");
        bytes.extend_from_slice("tiếng Việt có dấu, naïve café, 雪\r\n".as_bytes());
        bytes.extend(std::iter::repeat_n(b'x', 998));
        bytes.extend_from_slice(b"\r\n.");
        bytes.extend(std::iter::repeat_n(b'y', 997));
        bytes.extend_from_slice(b"\r\n\r\n.\r\n\r\n\r\n");
        Self { id, bytes }
    }

    /// A letter made of `lines`, which get CRLF; the marking field is put first.
    pub fn of(id: impl Into<String>, lines: &[&str]) -> Self {
        let id = id.into();
        let mut bytes = format!("{MARK}{id}\r\n").into_bytes();
        for line in lines {
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        Self { id, bytes }
    }

    fn head(id: &str) -> String {
        format!(
            "{MARK}{id}\r\nFrom: Sender <sender@client.example>\r\nTo: someone@dest.example\r\n\
             Subject: letter {id}\r\nDate: Tue, 24 Nov 2026 07:00:00 +0000\r\nMessage-ID: <{id}@client.example>\r\n\r\n"
        )
    }

    /// SHA-256 of the letter, in hexadecimal.
    pub fn hash(&self) -> String {
        sha256(&self.bytes)
    }

    /// Takes the letter out of what arrived: the id, and the octets from the marking field on. Panics when what stands
    /// before it is anything but trace fields, or when there is no letter.
    pub fn from_arrived(data: &[u8]) -> Self {
        let at = mark_at(data).unwrap_or_else(|| panic!("no letter in:\n{}", String::from_utf8_lossy(data)));
        let before = String::from_utf8_lossy(&data[..at]);
        for line in before.split_inclusive("\r\n") {
            let folded = line.starts_with([' ', '\t']);
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            let trace =
                ["received", "return-path", "delivered-to", "envelope-to", "delivery-date", "x-original-to"];
            assert!(
                folded || trace.contains(&name.as_str()),
                "not a trace field before the letter: {line:?}"
            );
        }
        let bytes = data[at..].to_vec();
        let end = bytes.windows(2).position(|w| w == b"\r\n").unwrap_or(bytes.len());
        let id = String::from_utf8_lossy(&bytes[MARK.len()..end]).into_owned();
        Self { id, bytes }
    }

    /// Panics with the first difference unless `data` is this letter behind trace fields.
    pub fn assert_arrived(&self, data: &[u8]) {
        let arrived = Self::from_arrived(data);
        if let Some(difference) = difference(&self.bytes, &arrived.bytes) {
            panic!("letter {} was changed on its way: {difference}", self.id);
        }
    }
}

fn mark_at(data: &[u8]) -> Option<usize> {
    let mark = MARK.as_bytes();
    data.windows(mark.len())
        .enumerate()
        .find(|(i, w)| *w == mark && (*i == 0 || data[*i - 1] == b'\n'))
        .map(|(i, _)| i)
}

/// Says where two contents differ, with the octets around the place; `None` when they are equal.
pub fn difference(sent: &[u8], arrived: &[u8]) -> Option<String> {
    if sent == arrived {
        return None;
    }
    let at = sent.iter().zip(arrived).position(|(a, b)| a != b).unwrap_or(sent.len().min(arrived.len()));
    let around = |bytes: &[u8]| {
        let from = at.saturating_sub(30).min(bytes.len());
        let to = (at + 30).min(bytes.len());
        bytes[from..to].escape_ascii().to_string()
    };
    Some(format!(
        "at octet {at}: sent {} octets …{}… arrived {} octets …{}…",
        sent.len(),
        around(sent),
        arrived.len(),
        around(arrived)
    ))
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_found_behind_trace_fields() {
        let letter = Letter::odd("a1");
        let mut data = b"Return-Path: <a@b>\r\nReceived: from x\r\n\tby y; now\r\n".to_vec();
        data.extend_from_slice(&letter.bytes);
        letter.assert_arrived(&data);
        assert_eq!(Letter::from_arrived(&data), letter);
    }

    #[test]
    #[should_panic(expected = "was changed")]
    fn one_changed_octet_is_noticed() {
        let letter = Letter::new("a2", 500);
        let mut data = letter.bytes.clone();
        *data.last_mut().unwrap() = b' ';
        letter.assert_arrived(&data);
    }

    #[test]
    #[should_panic(expected = "not a trace field")]
    fn an_added_field_is_noticed() {
        let letter = Letter::new("a3", 500);
        letter.assert_arrived(&[b"X-Scanned: yes\r\n", letter.bytes.as_slice()].concat());
    }

    #[test]
    fn sizes_are_as_asked() {
        for size in [400, 4096, 102_400] {
            assert_eq!(Letter::new("a4", size).bytes.len(), size);
        }
    }
}
