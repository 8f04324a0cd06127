use mail::{
    Address, Body, DeliveryId, Destination, Disposition, EnhancedStatus, Message, MessageId, Notify, OrgId,
    Origin, Outcome, Protocol, Recipient, RecipientOutcome, Remote, Ret, Security, Stream, TlsInfo,
};

use super::*;

fn tls(verified: &str) -> TlsInfo {
    TlsInfo { version: "TLSv1.3".into(), cipher: "TLS_AES_256_GCM_SHA384".into(), verified: verified.into() }
}

/// Every field set.
fn accepted() -> Accepted {
    Accepted {
        message: Message {
            id: MessageId(0x0123_4567_89ab_cdef),
            org: OrgId(7),
            stream: Stream::Bulk,
            received_at: Timestamp(1_795_503_600_123),
            reverse_path: Some(Address::parse("ann@example.com").unwrap()),
            ret: Some(Ret::Headers),
            envid: Some("QQ314159".into()),
            body: Body::EightBitMime,
            smtputf8: true,
            size: 4096,
            header_message_id: Some("1@example.com".into()),
            require_tls: true,
            tls_optional: false,
            origin: Origin {
                protocol: Protocol::Submission,
                client: Some("192.0.2.7".parse().unwrap()),
                helo: Some("client.example".into()),
                credential: Some("shop".into()),
                tls: Some(tls("")),
                listener: Some("submission".into()),
            },
        },
        recipients: vec![
            Recipient::new(Address::parse("bob@example.org").unwrap()),
            Recipient {
                address: Address::parse("bücher@bücher.example").unwrap(),
                notify: Notify::On { success: true, failure: false, delay: true },
                orcpt: Some("rfc822;bob+40example.org".into()),
            },
        ],
        report_on: Some(MessageId(42)),
    }
}

fn attempt(disposition: Disposition, transcript: Option<&str>) -> Attempt {
    Attempt {
        delivery: DeliveryId { message: MessageId(0x0123_4567_89ab_cdef), index: 1 },
        destination: Destination::Mx("example.org".into()),
        started: Timestamp(1_795_503_600_200),
        duration_ms: 35,
        remote: Some(Remote {
            name: "mx.example.org".into(),
            address: Some("198.51.100.1:25".parse().unwrap()),
        }),
        tls: Some(tls("verified")),
        outcomes: vec![RecipientOutcome {
            recipient: 0,
            outcome: Outcome {
                disposition,
                status: EnhancedStatus::new(2, 0, 0),
                code: Some(250),
                text: "Ok".into(),
            },
            class: None,
        }],
        dsn: true,
        transcript: transcript.map(str::to_owned),
        source: Some("default".into()),
        security: Some(Security { level: "dane".into(), why: "TLSA".into() }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
        .collect()
}

/// A message's row as version 1 wrote it. If this test fails, a stored type has changed: files written before are no
/// longer read. Do not change the text; raise the version, keep the old types beside the new ones, and add a text.
const ROW_1: &str = "0105f8c7d5c5c168ef9bafcdf8acd191010e01f6c7d5c5c168010f616e6e406578616d706c652e636f6d01010108515133313431353901018020010d31406578616d706c652e636f6d010100c0000207010e636c69656e742e6578616d706c65010473686f700107544c5376312e3316544c535f4145535f3235365f47434d5f53484133383400010a7375626d697373696f6e020f626f62406578616d706c652e6f726700001762c3bc636865724062c3bc636865722e6578616d706c650201000101187266633832323b626f622b34306578616d706c652e6f7267012a06e0c9d5c5c168ef9bafcdf8acd19101010e6d783a6578616d706c652e6f726790c9d5c5c16823010e6d782e6578616d706c652e6f72670100c6336401190107544c5376312e3316544c535f4145535f3235365f47434d5f53484133383408766572696669656401000002000001fa01024f6b0100";
const EVENT_1: &str = "01e0c9d5c5c168ef9bafcdf8acd191010703616e6e0764697363617264";

fn row() -> Vec<u8> {
    let mut row = Vec::new();
    begin_row(&mut row, 5, Timestamp(1_795_503_600_124), &accepted()).unwrap();
    fold(&mut row, 6, Timestamp(1_795_503_600_240), &attempt(Disposition::Delivered, None)).unwrap();
    row
}

fn event() -> Event {
    Event {
        at: Timestamp(1_795_503_600_240),
        message: MessageId(0x0123_4567_89ab_cdef),
        kind: EventKind::Rerouted { by: "ann".into(), to: Destination::Discard },
    }
}

/// The same of version 2.
const ROW_2: &str = "0205f8c7d5c5c168ef9bafcdf8acd191010e01f6c7d5c5c168010f616e6e406578616d706c652e636f6d01010108515133313431353901018020010d31406578616d706c652e636f6d010100c0000207010e636c69656e742e6578616d706c65010473686f700107544c5376312e3316544c535f4145535f3235365f47434d5f53484133383400010a7375626d697373696f6e0100020f626f62406578616d706c652e6f726700001762c3bc636865724062c3bc636865722e6578616d706c650201000101187266633832323b626f622b34306578616d706c652e6f7267012a06e0c9d5c5c168ef9bafcdf8acd19101010e6d783a6578616d706c652e6f726790c9d5c5c16823010e6d782e6578616d706c652e6f72670100c6336401190107544c5376312e3316544c535f4145535f3235365f47434d5f53484133383408766572696669656401000002000001fa01024f6b000100010764656661756c74010464616e6504544c5341";
const EVENT_2: &str = "02e0c9d5c5c168ef9bafcdf8acd191010703616e6e0764697363617264";

#[test]
fn rows_of_version_2_are_read() {
    let mut event = event();
    let written = (hex(&row()), hex(&write_event(&mut event).unwrap().0));
    assert_eq!(written, (ROW_2.to_owned(), EVENT_2.to_owned()));
    let read = read_row(&bytes(ROW_2)).unwrap();
    assert_eq!((read.seq, read.at, &read.accepted), (5, Timestamp(1_795_503_600_124), &accepted()));
    assert_eq!(read.folded.len(), 1);
    assert_eq!(read.folded[0].0, 6);
    assert_eq!(read.folded[0].1.kind, EventKind::Attempt(Box::new(attempt(Disposition::Delivered, None))));
    assert_eq!(read_event(&bytes(EVENT_2), None).unwrap(), event);
}

#[test]
fn rows_of_version_1_are_read() {
    let read = read_row(&bytes(ROW_1)).unwrap();
    let mut then = accepted();
    then.message.require_tls = false;
    assert_eq!((read.seq, read.at, &read.accepted), (5, Timestamp(1_795_503_600_124), &then));
    assert_eq!(read_accepted(&bytes(ROW_1)).unwrap(), then);
    let mut then = attempt(Disposition::Delivered, None);
    (then.source, then.security, then.outcomes[0].class) = (None, None, None);
    assert_eq!(read.folded[0].1.kind, EventKind::Attempt(Box::new(then)));
    assert_eq!(read_event(&bytes(EVENT_1), None).unwrap(), event());
}

#[test]
fn transcripts_are_packed() {
    let dialogue = "S: 450 4.2.0 try later\r\n".repeat(200);
    let kind = EventKind::Attempt(Box::new(attempt(Disposition::Deferred, Some(&dialogue))));
    let event = Event { kind, ..event() };
    let (body, packed) = write_event(&mut event.clone()).unwrap();
    let packed = packed.unwrap();
    assert!(packed.len() * 10 < dialogue.len() && body.len() < 300);
    assert_eq!(read_event(&body, Some(&packed)).unwrap(), event);
}

#[test]
fn only_clean_deliveries_are_folded() {
    let kind = |disposition, transcript| EventKind::Attempt(Box::new(attempt(disposition, transcript)));
    assert!(folds(&kind(Disposition::Delivered, None)).is_some());
    assert!(folds(&kind(Disposition::Delivered, Some("asked for"))).is_none());
    assert!(folds(&kind(Disposition::Deferred, None)).is_none());
    assert!(folds(&kind(Disposition::Refused, None)).is_none());
    assert!(folds(&event().kind).is_none());
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let whole = row();
    for cut in 0..whole.len() {
        let _ = read_row(&whole[..cut]);
        let mut flipped = whole.clone();
        flipped[cut] ^= 0x55;
        let _ = (read_row(&flipped), read_event(&flipped, None), read_accepted(&flipped));
    }
    assert!(read_row(&[]).is_err());
    assert!(read_row(&[9, 1, 2]).is_err());
}
