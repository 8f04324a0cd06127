//! Whatever a peer says and a sender chose, the report is in order: CRLF line ends, no long lines, octets over 127 only
//! where declared, three parts, and the fields of RFC 3464 each once.

use mail::{Disposition, EnhancedStatus, Notify, Outcome, Recipient, Remote, ReportKind, Ret};
use proptest::prelude::*;
use report::{Ending, Original};

use crate::mime;
use crate::sample::{NOW, make, message, reported};

fn address() -> impl Strategy<Value = mail::Address> {
    prop_oneof![
        "[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z]{1,20}\\.example",
        "\"[a-z @;,<>()\\[\\]]{1,30}\"@example\\.com",
        "[a-zàáảãạăằắâầấđèéẻẽẹêềếìíòóôồốơờớùúưừứỳý]{1,20}@(việt|example)\\.example",
    ]
    .prop_filter_map("no address", |text| mail::Address::parse(&text).ok())
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,200}",
        "(\\PC|\r|\n|\t|\0|\u{2028}|\u{85}| |=|\\.|-){0,200}",
        "[a-zé]{900,3000}",
        Just("\r\n.\r\n--=_\r\nAction: delivered\r\n\r\n".to_owned()),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    (0u16..9, 0u16..999, proptest::option::of(400u16..600), words()).prop_map(
        |(subject, detail, code, text)| Outcome {
            disposition: Disposition::Refused,
            status: EnhancedStatus::new(5, subject, detail),
            code,
            text,
        },
    )
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        "(([A-Z][a-z-]{0,9}: (\\PC){0,80}\r\n){0,5})\r\n(\\PC|\r\n){0,200}".prop_map(String::into_bytes),
        "X: [a-z]{990,1100}\r\n\r\n[a-z\r\n]{0,50}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_report_is_in_order(
        addresses in proptest::collection::vec((address(), outcome(), proptest::option::of(words())), 1..4),
        content in content(),
        (sender, smtputf8) in (address(), any::<bool>()),
        (envid, message_id) in (proptest::option::of(words()), proptest::option::of(words())),
        ret in prop_oneof![Just(None), Just(Some(Ret::Full)), Just(Some(Ret::Headers))],
        (kind, peer) in (0usize..3, words()),
    ) {
        let kind = [ReportKind::Failure, ReportKind::Delay, ReportKind::Success][kind];
        let ending = [Ending::Failed, Ending::Delayed { retry_until: NOW }, Ending::Relayed][kind as usize];
        let mut message = message();
        message.smtputf8 = smtputf8 || !sender.is_ascii();
        message.reverse_path = Some(sender.clone());
        (message.envid, message.header_message_id, message.ret) = (envid, message_id, ret);
        message.size = content.len() as u64;
        let notify = Notify::On { success: true, failure: true, delay: true };
        let recipients: Vec<Recipient> = addresses
            .iter()
            .map(|(address, _, orcpt)| Recipient { address: address.clone(), notify, orcpt: orcpt.clone() })
            .collect();
        let remote = Remote { name: peer, address: Some("[2001:db8::25]:25".parse().unwrap()) };
        let about: Vec<_> = recipients
            .iter()
            .zip(&addresses)
            .map(|(recipient, (_, outcome, _))| reported(recipient, ending, outcome, Some(&remote)))
            .collect();
        let dsn = make(kind, &message, Original::Full(&content), &about).unwrap();

        let parts = mime::parts(&dsn.content);
        prop_assert_eq!(parts.len(), 3);
        let declared = dsn.body == mail::Body::EightBitMime;
        prop_assert!(declared || dsn.content.is_ascii());
        let end = mail::headers(&dsn.content).end();
        prop_assert!(dsn.smtputf8 || dsn.content[..end.fields].is_ascii());
        for name in ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version"] {
            prop_assert!(mime::field(&dsn.content, name).is_some(), "{}", name);
        }
        prop_assert_eq!(mime::field(&dsn.content, "To").unwrap(), format!("<{sender}>"));

        let groups = mime::groups(&parts[1].content);
        prop_assert_eq!(groups.len(), recipients.len() + 1);
        for (group, recipient) in groups[1..].iter().zip(&recipients) {
            let values = |name: &str| {
                group.iter().filter(|f| f.0 == name).map(|f| f.1.as_str()).collect::<Vec<_>>()
            };
            let expected = ["failed", "delayed", "relayed"][kind as usize];
            prop_assert_eq!(values("Action"), [expected]);
            prop_assert_eq!(values("Status").len(), 1);
            prop_assert!(values("Status")[0].parse::<EnhancedStatus>().is_ok());
            prop_assert_eq!(values("Diagnostic-Code").len(), 1);
            prop_assert_eq!(values("Final-Recipient").len(), 1);
            if recipient.address.is_ascii() && !recipient.address.local().contains("  ") {
                let expected = format!("rfc822; {}", recipient.address);
                prop_assert_eq!(values("Final-Recipient")[0], expected);
            }
        }
        prop_assert!(parts[1].media_type.contains("global") || parts[1].content.is_ascii());
    }

    #[test]
    fn header_sections_come_back_byte_for_byte(content in content()) {
        let mut message = message();
        message.ret = Some(Ret::Headers);
        let recipient = Recipient::new("bob@example.com".parse().unwrap());
        let outcome = crate::sample::refused("no");
        let about = [reported(&recipient, Ending::Failed, &outcome, None)];
        let dsn = make(ReportKind::Failure, &message, Original::Full(&content), &about).unwrap();
        let end = mail::headers(&content).end();
        prop_assert_eq!(&mime::parts(&dsn.content)[2].content[..], &content[..end.fields]);
    }
}
