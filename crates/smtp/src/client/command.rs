//! The envelope as commands: MAIL and RCPT with the parameters that the peer understands.

use std::fmt::Write as _;

use bytes::BytesMut;
use mail::{Body, Message, Recipient, Ret};

use super::Capabilities;

/// Appends `MAIL FROM:<…> …`; with `require_tls`, REQUIRETLS too (RFC 8689 section 2).
pub(super) fn mail(out: &mut BytesMut, message: &Message, caps: &Capabilities, require_tls: bool) {
    put(out, "MAIL FROM:<");
    put(out, message.sender());
    put(out, ">");
    if caps.size.is_some() {
        let written = write!(out, " SIZE={}", message.size);
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
    }
    if message.body == Body::EightBitMime && caps.eight_bit_mime {
        put(out, " BODY=8BITMIME");
    }
    if needs_utf8(message) && caps.smtputf8 {
        put(out, " SMTPUTF8");
    }
    if require_tls {
        put(out, " REQUIRETLS");
    }
    if caps.dsn {
        match message.ret {
            Some(Ret::Full) => put(out, " RET=FULL"),
            Some(Ret::Headers) => put(out, " RET=HDRS"),
            None => {}
        }
        if let Some(envid) = message.envid.as_deref().filter(|v| is_safe(v)) {
            put(out, " ENVID=");
            put(out, envid);
        }
    }
    put(out, "\r\n");
}

/// Appends `RCPT TO:<…> …`.
pub(super) fn rcpt(out: &mut BytesMut, recipient: &Recipient, caps: &Capabilities) {
    put(out, "RCPT TO:<");
    put(out, recipient.address.as_str());
    put(out, ">");
    if caps.dsn {
        if let Some(notify) = recipient.notify.to_param().filter(|p| !p.is_empty()) {
            put(out, " NOTIFY=");
            put(out, &notify);
        }
        let allowed = |v: &&str| is_safe(v) && (caps.smtputf8 || v.is_ascii());
        if let Some(orcpt) = recipient.orcpt.as_deref().filter(allowed) {
            put(out, " ORCPT=");
            put(out, orcpt);
        }
    }
    put(out, "\r\n");
}

/// Appends the whole content as one chunk (RFC 3030 section 2). It ends in a line end, as it would by DATA.
pub(super) fn chunk(out: &mut BytesMut, content: &[u8]) {
    let end: &[u8] = if content.ends_with(b"\r\n") { b"" } else { b"\r\n" };
    let octets = content.len() + end.len();
    out.reserve(octets + 32);
    let written = write!(out, "BDAT {octets} LAST\r\n");
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
    out.extend_from_slice(content);
    out.extend_from_slice(end);
}

/// Whether the message as a whole cannot go without SMTPUTF8.
pub(super) fn needs_utf8(message: &Message) -> bool {
    message.smtputf8 || !message.sender().is_ascii()
}

/// A value that ends where it should: no blanks, no control characters. What came in was checked; this holds for
/// whatever wrote the envelope.
fn is_safe(value: &str) -> bool {
    !value.is_empty() && value.len() <= 1000 && value.chars().all(|c| !c.is_control() && !c.is_whitespace())
}

fn put(out: &mut BytesMut, text: &str) {
    out.extend_from_slice(text.as_bytes());
}
