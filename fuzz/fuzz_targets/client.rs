//! A client session whose peer says anything: no password leaves without TLS, every recipient ends with one outcome,
//! nobody counts as delivered before the content went out, and it never loops.
#![no_main]

use std::sync::Arc;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mail::{Address, Body, Disposition, Message, MessageId, OrgId, Origin, Protocol, Recipient, Stream, Timestamp};
use smtp::client::{Login, Lost, OpenStep, Opening, OpeningConfig, Results, Sending, Session, Step, TlsPolicy, Transcript};
use smtp::sasl::Password;

fn message() -> Message {
    Message {
        id: MessageId(1),
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: Timestamp(0),
        reverse_path: None,
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size: 10,
        header_message_id: None,
        require_tls: false,
        tls_optional: false,
        origin: Origin {
            protocol: Protocol::Smtp,
            client: None,
            helo: None,
            credential: None,
            tls: None,
            listener: None,
        },
    }
}

/// Feeds an opening until it is ready or fails.
fn open(choices: u8, pieces: &mut dyn Iterator<Item = &[u8]>, input: &mut BytesMut) -> Option<Session> {
    let login = Login {
        username: "user".into(),
        secret: Password("secret".into()),
        is_token: choices & 1 != 0,
        in_the_clear: false,
    };
    let tls = [TlsPolicy::Never, TlsPolicy::WhenOffered, TlsPolicy::Required][usize::from(choices >> 1) % 3];
    let config = OpeningConfig {
        hostname: "relay.example".into(),
        lmtp: choices & 16 != 0,
        tls,
        tls_active: false,
        binding: None,
        login: (choices & 32 != 0).then(|| Arc::new(login)),
    };
    let mut opening = Opening::new(config, Transcript::new(0));
    let mut in_tls = false;
    for _ in 0..1000 {
        let step = opening.input(input);
        let said = String::from_utf8(opening.output().split().to_vec()).expect("what we say is text");
        assert!(in_tls || !["AUTH PLAIN", "AUTH LOGIN", "AUTH XOAUTH2"].iter().any(|a| said.contains(a)));
        match step {
            Ok(OpenStep::Ready) => return Some(opening.into_session()),
            Ok(OpenStep::StartTls) => {
                assert!(input.is_empty());
                in_tls = true;
                opening.tls_started(None);
            }
            Ok(OpenStep::Read(_)) => input.extend_from_slice(pieces.next()?),
            Err(_) => return None,
        }
    }
    panic!("it loops");
}

fuzz_target!(|input: (u8, Vec<&[u8]>)| {
    let (choices, pieces) = input;
    let mut pieces = pieces.into_iter();
    let mut read = BytesMut::new();
    let Some(mut session) = open(choices, &mut pieces, &mut read) else { return };
    let to: Vec<(u16, Recipient)> = (0..3)
        .map(|n| (n, Recipient::new(Address::parse(&format!("r{n}@d{n}.example")).expect("an address"))))
        .collect();
    for _ in 0..3 {
        if !session.is_usable() {
            return;
        }
        let by_chunk = choices & 64 != 0 && choices & 16 == 0 && session.capabilities().chunking;
        let sending = Sending {
            limit: 10,
            require_tls: choices & 128 != 0,
            chunk: by_chunk.then_some(b"Subject: x\r\n\r\n"),
        };
        let Ok(taken) = session.begin(&message(), to.iter().map(|(n, r)| (*n, r)), sending) else { return };
        let mut sent = false;
        loop {
            match session.input(&mut read) {
                Ok(Step::Finished) => break,
                Ok(Step::Content) => {
                    assert!(!sent && !by_chunk, "content is sent once");
                    sent = true;
                    session.content_sent(10);
                }
                Ok(Step::Read(_)) => match pieces.next() {
                    Some(piece) => read.extend_from_slice(piece),
                    None => {
                        session.lost(&Lost::Closed);
                        break;
                    }
                },
                Err(fault) => {
                    session.lost(&Lost::Fault(fault));
                    break;
                }
            }
            sent |= session.output().windows(6).any(|w| w == b" LAST\r");
            session.output().clear();
        }
        sent |= by_chunk && session.content_is_out();
        let mut results = Results::default();
        session.results(&mut results);
        assert_eq!(results.outcomes.len() + results.postponed.len(), taken);
        let delivered = |o: &mail::RecipientOutcome| o.outcome.disposition == Disposition::Delivered;
        assert!(sent || !results.outcomes.iter().any(delivered));
        assert!(session.transcript().as_str().len() < 10_000);
    }
});
