//! An original message, its recipients and their ends, to report on.

use std::net::IpAddr;

use mail::{
    Address, Body, Disposition, EnhancedStatus, Message, MessageId, Notify, OrgId, Origin, Outcome, Protocol,
    Recipient, Remote, ReportKind, Stream, Timestamp,
};
use report::{Dsn, DsnRequest, Ending, Original, Reported};

pub(crate) const NOW: Timestamp = Timestamp(1_795_503_600_000);
pub(crate) const ATTEMPTED: Timestamp = Timestamp(1_795_503_599_000);

pub(crate) const ORIGINAL: &[u8] = b"Received: from client.example by relay.example.net\r\n\
    \twith ESMTP id 0123456789abc; Tue, 24 Nov 2026 06:00:00 +0000\r\n\
    From: Anna <anna@example.net>\r\nTo: bob@example.com\r\nSubject:  two  spaces\t\r\n\
    Message-ID: <1@example.net>\r\n\r\nHello Bob\r\n.\r\n--not a boundary\r\n";

pub(crate) fn message() -> Message {
    Message {
        id: MessageId(0x0123_4567_89ab_cdef),
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: Timestamp(1_795_500_000_000),
        reverse_path: Some("anna@example.net".parse().unwrap()),
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size: ORIGINAL.len() as u64,
        header_message_id: Some("1@example.net".into()),
        require_tls: false,
        tls_optional: false,
        origin: Origin {
            protocol: Protocol::Submission,
            client: Some(IpAddr::from([192, 0, 2, 7])),
            helo: Some("client.example".into()),
            credential: Some("anna".into()),
            tls: None,
            listener: Some("submission".into()),
        },
    }
}

pub(crate) fn recipient(address: &str, notify: Notify, orcpt: Option<&str>) -> Recipient {
    Recipient { address: Address::parse(address).unwrap(), notify, orcpt: orcpt.map(str::to_owned) }
}

pub(crate) fn refused(text: &str) -> Outcome {
    Outcome {
        disposition: Disposition::Refused,
        status: EnhancedStatus::new(5, 1, 1),
        code: Some(550),
        text: text.into(),
    }
}

pub(crate) fn remote() -> Remote {
    Remote { name: "mx1.example.com".into(), address: Some("192.0.2.25:25".parse().unwrap()) }
}

pub(crate) fn reported<'a>(
    recipient: &'a Recipient,
    ending: Ending,
    outcome: &'a Outcome,
    remote: Option<&'a Remote>,
) -> Reported<'a> {
    Reported { recipient, ending, outcome, remote, attempted_at: ATTEMPTED }
}

pub(crate) fn make(
    kind: ReportKind,
    message: &Message,
    original: Original<'_>,
    recipients: &[Reported<'_>],
) -> Option<Dsn> {
    report::dsn(&DsnRequest {
        kind,
        hostname: "relay.example.net",
        report: MessageId(0x0fed_cba9_8765_4321),
        now: NOW,
        message,
        original,
        recipients,
    })
}

pub(crate) fn text(dsn: &Dsn) -> String {
    String::from_utf8(dsn.content.clone()).unwrap().replace("\r\n", "\n")
}
