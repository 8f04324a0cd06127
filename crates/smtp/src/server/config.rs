//! What a session is told at its start, and the EHLO replies made of it, each once per configuration.

use mail::Reply;

use crate::sasl::{ChannelBinding, ServerMechanisms};

/// What to do with a line feed that has no carriage return before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BareNewline {
    /// The message or command is refused.
    #[default]
    Refuse,
    /// It is read as CR LF before anything else looks at it; for old devices that submit.
    Normalise,
}

/// What an operator decided about sessions on a listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name.
    pub hostname: String,
    /// Whether there is a certificate.
    pub tls: bool,
    /// Whether anybody may authenticate here.
    pub auth: bool,
    /// Whether SCRAM is offered.
    pub scram: bool,
    /// Octets of a message.
    pub message_size_max: u64,
    /// Recipients of a message.
    pub recipients_max: usize,
    /// Messages in a session.
    pub messages_max: u32,
    /// Errors without an accepted message, after which the session is closed.
    pub errors_max: u32,
    /// Commands without an accepted message, after which the session is closed.
    pub idle_commands_max: u32,
    /// Bare line feeds.
    pub bare_newline: BareNewline,
}

/// [`Settings`] with the replies that follow from them. Made once, shared by all sessions of a listener.
#[derive(Debug)]
pub struct Config {
    pub(super) settings: Settings,
    pub(super) greeting: String,
    pub(super) helo: String,
    /// EHLO replies by [`Offer::index`].
    ehlo: Vec<String>,
}

/// The connection a session runs on, as far as it decides what may be said.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Whether it is under TLS.
    pub tls: bool,
    /// Channel bindings of TLS; empty when there are none.
    pub bindings: Vec<ChannelBinding>,
    /// Whether the client may authenticate in the clear.
    pub auth_in_clear: bool,
    /// Whether the client may use XCLIENT.
    pub xclient: bool,
}

/// What is true right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) starttls: bool,
    /// REQUIRETLS (RFC 8689 section 3): under TLS alone.
    pub(super) require_tls: bool,
    pub(super) mechanisms: ServerMechanisms,
    pub(super) xclient: bool,
}

impl Offer {
    fn index(self) -> usize {
        let m = self.mechanisms;
        [self.require_tls, self.starttls, self.xclient, m.plain, m.scram, m.scram_plus]
            .iter()
            .fold(0, |index, &bit| index << 1 | usize::from(bit))
    }

    fn of(index: usize) -> Self {
        let bit = |n: usize| index >> n & 1 == 1;
        let mechanisms = ServerMechanisms { plain: bit(2), scram: bit(1), scram_plus: bit(0) };
        Self { require_tls: bit(5), starttls: bit(4), xclient: bit(3), mechanisms }
    }
}

impl Config {
    /// Prepares the replies.
    pub fn new(settings: Settings) -> Self {
        let ehlo = (0..64).map(|index| ehlo_reply(&settings, Offer::of(index))).collect();
        Self {
            greeting: format!("220 {} ESMTP Posthouse\r\n", settings.hostname),
            helo: format!("250 {}\r\n", settings.hostname),
            settings,
            ehlo,
        }
    }

    /// The settings it was made of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is offered on `connection`, and to nobody twice.
    pub(super) fn offer(&self, connection: &Connection, authenticated: bool) -> Offer {
        let s = &self.settings;
        let may = s.auth && !authenticated && (connection.tls || connection.auth_in_clear);
        let mechanisms = ServerMechanisms {
            plain: may,
            scram: may && s.scram,
            scram_plus: may && s.scram && !connection.bindings.is_empty(),
        };
        Offer {
            starttls: s.tls && !connection.tls,
            require_tls: connection.tls,
            mechanisms,
            xclient: connection.xclient,
        }
    }

    pub(super) fn ehlo(&self, offer: Offer) -> &str {
        &self.ehlo[offer.index()]
    }
}

fn ehlo_reply(settings: &Settings, offer: Offer) -> String {
    let mut lines = vec![
        settings.hostname.clone(),
        "PIPELINING".into(),
        format!("SIZE {}", settings.message_size_max),
        "8BITMIME".into(),
        "SMTPUTF8".into(),
        "DSN".into(),
        "ENHANCEDSTATUSCODES".into(),
        "CHUNKING".into(),
        format!("LIMITS MAILMAX={} RCPTMAX={}", settings.messages_max, settings.recipients_max),
    ];
    if offer.starttls {
        lines.push("STARTTLS".into());
    }
    if offer.require_tls {
        lines.push("REQUIRETLS".into());
    }
    let m = offer.mechanisms;
    let names = [
        (m.scram_plus, "SCRAM-SHA-256-PLUS"),
        (m.scram, "SCRAM-SHA-256"),
        (m.plain, "PLAIN"),
        (m.plain, "LOGIN"),
    ];
    let names: Vec<&str> = names.iter().filter(|n| n.0).map(|n| n.1).collect();
    if !names.is_empty() {
        lines.push(format!("AUTH {}", names.join(" ")));
    }
    if offer.xclient {
        lines.push("XCLIENT ADDR PORT NAME HELO PROTO DESTADDR DESTPORT".into());
    }
    lines.push("HELP".into());
    let reply = Reply { code: 250, enhanced: None, text: lines.join("\n") };
    let mut out = bytes::BytesMut::new();
    crate::reply::write(&mut out, &reply, false);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_told_apart() {
        for index in 0..64 {
            assert_eq!(Offer::of(index).index(), index);
        }
    }
}
