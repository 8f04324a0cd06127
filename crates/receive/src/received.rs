//! The Received field (RFC 5321 section 4.4; `with` as in RFC 3848 and RFC 6531).

use std::fmt::Write;
use std::net::IpAddr;

use mail::{MessageId, Timestamp};
use smtp::server::Envelope;

use crate::backend::Client;

/// The protocol a message came by.
pub(crate) fn with(client: &Client, esmtp: bool, envelope: &Envelope) -> &'static str {
    match (envelope.smtputf8, client.tls.is_some(), client.identity.is_some()) {
        (true, false, false) => "UTF8SMTP",
        (true, true, false) => "UTF8SMTPS",
        (true, false, true) => "UTF8SMTPA",
        (true, true, true) => "UTF8SMTPSA",
        (false, true, true) => "ESMTPSA",
        (false, true, false) => "ESMTPS",
        (false, false, true) => "ESMTPA",
        (false, false, false) if esmtp => "ESMTP",
        (false, false, false) => "SMTP",
    }
}

/// The whole field with its line end.
pub(crate) fn field(
    client: &Client,
    esmtp: bool,
    envelope: &Envelope,
    hostname: &str,
    id: MessageId,
    now: Timestamp,
) -> String {
    let mut text = String::with_capacity(320);
    let helo = client.helo.as_deref().unwrap_or("unknown");
    // Writing into memory cannot fail.
    let _ = match client.peer.ip() {
        IpAddr::V4(v4) => write!(text, "Received: from {helo} ([{v4}])\r\n"),
        IpAddr::V6(v6) => write!(text, "Received: from {helo} ([IPv6:{v6}])\r\n"),
    };
    if let Some(tls) = &client.tls {
        let _ = write!(text, "\t(using {} with cipher {})\r\n", tls.version, tls.cipher);
    }
    let _ = write!(text, "\tby {hostname} (Posthouse) with {} id {id}", with(client, esmtp, envelope));
    // With several it would tell each who the others are.
    if let [recipient] = envelope.recipients.as_slice() {
        let _ = write!(text, "\r\n\tfor <{}>", recipient.address);
    }
    let _ = write!(text, ";\r\n\t{}\r\n", now.rfc5322());
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mail::{OrgId, Recipient, Stream, TlsInfo};

    use super::*;
    use crate::{BareNewline, Identity, ListenerConfig, Mode};

    fn envelope(recipients: &[&str]) -> Envelope {
        Envelope {
            reverse_path: None,
            recipients: recipients.iter().map(|r| Recipient::new(r.parse().unwrap())).collect(),
            size: None,
            body: None,
            smtputf8: false,
            ret: None,
            envid: None,
            require_tls: false,
        }
    }

    fn client() -> Client {
        let listener = ListenerConfig {
            name: "smtp".into(),
            mode: Mode::Smtp,
            auth: true,
            auth_without_tls: vec![],
            bare_newline: BareNewline::Refuse,
            proxy_protocol: vec![],
            xclient: vec![],
        };
        Client {
            listener: Arc::new(listener),
            peer: "192.0.2.1:4711".parse().unwrap(),
            helo: Some("client.example".into()),
            tls: None,
            identity: None,
        }
    }

    #[test]
    fn one_recipient_is_named_and_several_are_not() {
        let (id, now) = (MessageId(1), Timestamp(1_795_503_600_123));
        let one = field(&client(), true, &envelope(&["a@b.example"]), "relay.example", id, now);
        assert_eq!(
            one,
            "Received: from client.example ([192.0.2.1])\r\n\tby relay.example (Posthouse) with ESMTP id \
             0000000000001\r\n\tfor <a@b.example>;\r\n\tTue, 24 Nov 2026 07:00:00 +0000\r\n"
        );
        let two =
            field(&client(), true, &envelope(&["a@b.example", "c@d.example"]), "relay.example", id, now);
        assert!(!two.contains("example>"), "{two}");
    }

    #[test]
    fn protocols_are_named() {
        let mut client = client();
        let mut envelope = envelope(&[]);
        assert_eq!(with(&client, false, &envelope), "SMTP");
        let tls = TlsInfo { version: "TLSv1.3".into(), cipher: "X".into(), verified: String::new() };
        client.tls = Some(tls);
        client.peer = "[2001:db8::1]:1".parse().unwrap();
        assert_eq!(with(&client, true, &envelope), "ESMTPS");
        let text = field(&client, true, &envelope, "r", MessageId(1), Timestamp(0));
        assert!(text.contains("([IPv6:2001:db8::1])\r\n\t(using TLSv1.3 with cipher X)\r\n"), "{text}");
        client.identity =
            Some(Identity { org: OrgId::DEFAULT, login: "user".into(), stream: Stream::Transactional });
        assert_eq!(with(&client, true, &envelope), "ESMTPSA");
        envelope.smtputf8 = true;
        assert_eq!(with(&client, true, &envelope), "UTF8SMTPSA");
    }
}
