//! A message as programs on this machine write it, made into one that can travel: line ends, missing fields, Bcc.

use mail::{Timestamp, headers};

/// A message with CRLF line ends.
#[derive(Debug)]
pub(super) struct Letter {
    content: Vec<u8>,
}

/// The fields that name recipients.
const RECIPIENTS: [&str; 3] = ["To", "Cc", "Bcc"];
/// The same for a message that is sent on; when there is one of these, those above are the story of another sending.
const RESENT: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];

impl Letter {
    /// Makes line ends CRLF, leaves an mbox line at the start out, and with `dot_ends` stops at a line with a dot alone.
    ///
    /// # Errors
    /// In words: there are octets in it that no mail may hold.
    pub(super) fn read(input: &[u8], dot_ends: bool) -> Result<Self, String> {
        let mut content = Vec::with_capacity(input.len() + input.len() / 32 + 2);
        for (i, line) in input.split_inclusive(|&b| b == b'\n').enumerate() {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if dot_ends && line == b"." {
                break;
            }
            if i == 0 && (line.starts_with(b"From ") || line.starts_with(b">From ")) {
                continue;
            }
            if line.contains(&b'\r') || line.contains(&0) {
                return Err(format!(
                    "line {} of the message holds a carriage return or a NUL in its middle",
                    i + 1
                ));
            }
            content.extend_from_slice(line);
            content.extend_from_slice(b"\r\n");
        }
        let end = headers(&content).end();
        if end.body == end.fields && end.fields < content.len() {
            // The first line is no field, or a field follows that is none: what is there is the body.
            content.splice(end.fields..end.fields, *b"\r\n");
        }
        Ok(Self { content })
    }

    /// The addresses in the fields that name recipients.
    ///
    /// # Errors
    /// In words: a field cannot be read.
    pub(super) fn recipients(&self) -> Result<Vec<String>, String> {
        let has = |names: &[&str]| headers(&self.content).any(|h| names.iter().any(|n| h.is(n)));
        let names = if has(&RESENT) { &RESENT } else { &RECIPIENTS };
        let mut all = Vec::new();
        for header in headers(&self.content).filter(|h| names.iter().any(|n| h.is(n))) {
            addresses(&header.text(), &mut all)?;
        }
        Ok(all)
    }

    /// Takes the Bcc fields out.
    pub(super) fn remove_bcc(&mut self) {
        let mut kept = Vec::with_capacity(self.content.len());
        let mut read = 0;
        for header in headers(&self.content) {
            read += header.raw.len();
            if !header.is("Bcc") && !header.is("Resent-Bcc") {
                kept.extend_from_slice(header.raw);
            }
        }
        kept.extend_from_slice(&self.content[read..]);
        self.content = kept;
    }

    /// Adds From, Date and Message-ID where they are missing.
    pub(super) fn complete(&mut self, sender: &str, full_name: Option<&str>, hostname: &str, now: Timestamp) {
        let has = |name: &str| headers(&self.content).any(|h| h.is(name));
        let mut fields = String::new();
        if !has("From") {
            let sender =
                if sender.is_empty() { format!("MAILER-DAEMON@{hostname}") } else { sender.to_owned() };
            match full_name.map(quoted).filter(|name| !name.is_empty()) {
                Some(name) => fields.push_str(&format!("From: {name} <{sender}>\r\n")),
                None => fields.push_str(&format!("From: {sender}\r\n")),
            }
        }
        if !has("Date") {
            fields.push_str(&format!("Date: {}\r\n", now.rfc5322()));
        }
        if !has("Message-ID") {
            fields.push_str(&format!("Message-ID: <{}.{}@{hostname}>\r\n", now.millis(), std::process::id()));
        }
        let end = headers(&self.content).end();
        self.content.splice(end.fields..end.fields, fields.into_bytes());
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.content
    }
}

/// A display name that is safe in a field.
fn quoted(name: &str) -> String {
    let plain: String = name.chars().filter(|c| !c.is_control()).collect();
    if plain.is_empty() || plain.chars().all(|c| c.is_alphanumeric() || c == ' ' || c == '-') {
        return plain;
    }
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The addresses of an address list (RFC 5322 section 3.4): display names, comments and group names left out.
fn addresses(list: &str, out: &mut Vec<String>) -> Result<(), String> {
    let bad = || format!("not an address list: {}", crate::cli::output::clean(list));
    let mut plain = String::new();
    let mut angle: Option<String> = None;
    let mut depth = 0usize;
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if depth > 0 => drop(chars.next()),
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or_else(bad)?,
            _ if depth > 0 => {}
            '"' => {
                let text = quoted_string(&mut chars).ok_or_else(bad)?;
                angle.as_mut().unwrap_or(&mut plain).push_str(&text);
            }
            '<' => {
                let mut inside = String::new();
                loop {
                    match chars.next().ok_or_else(bad)? {
                        '>' => break,
                        '"' => inside.push_str(&quoted_string(&mut chars).ok_or_else(bad)?),
                        other => inside.push(other),
                    }
                }
                angle = Some(inside);
            }
            // What came before is the name of a group.
            ':' => plain.clear(),
            ',' | ';' => finish(&mut plain, &mut angle, out),
            other => plain.push(other),
        }
    }
    if depth > 0 {
        return Err(bad());
    }
    finish(&mut plain, &mut angle, out);
    Ok(())
}

/// The rest of a quoted string, with its quotes.
fn quoted_string(chars: &mut std::str::Chars<'_>) -> Option<String> {
    let mut text = String::from('"');
    loop {
        let c = chars.next()?;
        text.push(c);
        match c {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            _ => {}
        }
    }
}

fn finish(plain: &mut String, angle: &mut Option<String>, out: &mut Vec<String>) {
    let address = angle.take().unwrap_or_else(|| plain.clone());
    plain.clear();
    let address: String = address.trim().to_owned();
    if !address.is_empty() {
        out.push(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        addresses(text, &mut out).map(|()| out)
    }

    #[test]
    fn address_lists_are_read() {
        for (text, expected) in [
            ("ann@example.com", vec!["ann@example.com"]),
            (
                "Ann <ann@example.com>, \"B, ob\" <bob@example.com>",
                vec!["ann@example.com", "bob@example.com"],
            ),
            ("ann@example.com (Ann, of (all) people), bob", vec!["ann@example.com", "bob"]),
            ("friends: ann@example.com, <bob@example.com>;", vec!["ann@example.com", "bob@example.com"]),
            ("undisclosed-recipients:;", vec![]),
            (
                "\"a b\"@example.com, <\"c>d\"@example.com>",
                vec!["\"a b\"@example.com", "\"c>d\"@example.com"],
            ),
            (" , ,", vec![]),
        ] {
            assert_eq!(list(text).unwrap(), expected, "{text}");
        }
        for bad in ["(", ")", "\"", "<a@b", "a \\\" (\\"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    fn letter(text: &str) -> Letter {
        Letter::read(text.as_bytes(), true).unwrap()
    }

    fn text(letter: Letter) -> String {
        String::from_utf8(letter.into_bytes()).unwrap()
    }

    #[test]
    fn recipients_come_from_the_header_and_bcc_goes() {
        let mut it = letter("To: a@x\nCc: b@x,\n c@x\nBcc: d@x\nSubject: s\n\nBcc: stays\n");
        assert_eq!(it.recipients().unwrap(), ["a@x", "b@x", "c@x", "d@x"]);
        it.remove_bcc();
        assert_eq!(text(it), "To: a@x\r\nCc: b@x,\r\n c@x\r\nSubject: s\r\n\r\nBcc: stays\r\n");
        let it = letter("To: a@x\nResent-To: e@x\n\n");
        assert_eq!(it.recipients().unwrap(), ["e@x"]);
    }

    #[test]
    fn lines_become_what_smtp_wants() {
        assert_eq!(text(letter("From root Mon\nA: b\n\nx\n.\nnever")), "A: b\r\n\r\nx\r\n");
        assert_eq!(text(Letter::read(b"A: b\r\n\r\n.\n.x", false).unwrap()), "A: b\r\n\r\n.\r\n.x\r\n");
        assert_eq!(text(letter("just text\n")), "\r\njust text\r\n");
        assert_eq!(text(letter("A: b\nno field\n")), "A: b\r\n\r\nno field\r\n");
        assert!(Letter::read(b"A: b\rc\n", true).is_err());
        assert!(Letter::read(b"A: b\0c\n", true).is_err());
    }

    #[test]
    fn missing_fields_are_added_and_nothing_can_be_injected() {
        let now = Timestamp(1_795_503_600_123);
        let mut it = letter("Subject: s\n\nbody\n");
        it.complete("ann@example.com", Some("Ann\r\nBcc: x \"the\" A."), "relay.example", now);
        let all = text(it);
        assert!(
            all.starts_with(
                "Subject: s\r\nFrom: \"AnnBcc: x \\\"the\\\" A.\" <ann@example.com>\r\nDate: Tue, 24 Nov"
            ),
            "{all}"
        );
        assert!(all.ends_with("@relay.example>\r\n\r\nbody\r\n"), "{all}");
        let mut it = letter("From: a@b\nDate: d\nMessage-ID: <m>\n\n");
        it.complete("ann@example.com", None, "relay.example", now);
        assert_eq!(text(it), "From: a@b\r\nDate: d\r\nMessage-ID: <m>\r\n\r\n");
    }
}
