//! Header sections whole and in pieces, against the vocabulary's own reading.

use mail::{HeaderScan, headers};
use proptest::prelude::*;

use super::*;

fn additions() -> Additions {
    Additions { date: "Tue, 24 Nov 2026 07:00:00 +0000".into(), message_id: "new@relay.example".into() }
}

/// What is stored of `content`, and the filter.
fn run(content: &[u8], cuts: &[usize], submission: bool) -> (Vec<u8>, HeaderFilter) {
    let mut filter = HeaderFilter::new(submission.then(additions));
    let mut out = Vec::new();
    let mut bounds: Vec<usize> = cuts.iter().map(|c| c % (content.len() + 1)).collect();
    bounds.push(content.len());
    bounds.sort_unstable();
    let mut from = 0;
    for bound in bounds {
        let piece = &content[from..bound];
        let used = filter.push(piece, &mut out, &Limits::default()).unwrap();
        if submission {
            out.extend_from_slice(&piece[used..]);
        } else {
            assert!(out.is_empty(), "nothing is copied that nobody needs");
        }
        from = bound;
    }
    filter.finish(&mut out);
    (if submission { out } else { content.to_vec() }, filter)
}

const MAIL: &[u8] =
    b"From: a@b.example\r\nBcc: secret@c.example,\r\n\tother@c.example\r\nbCC : x@y.example\r\n\
    Subject: Bcc: is not here\r\n bcc: nor here\r\nMessage-Id:\r\n <x@y>\r\n\r\nBcc: body\r\n";

#[test]
fn submission_is_completed_and_bcc_removed() {
    for cut in 0..MAIL.len() {
        let (stored, filter) = run(MAIL, &[cut], true);
        let expected = "From: a@b.example\r\nSubject: Bcc: is not here\r\n bcc: nor here\r\nMessage-Id:\r\n <x@y>\r\n\
             Date: Tue, 24 Nov 2026 07:00:00 +0000\r\n\r\nBcc: body\r\n";
        assert_eq!(String::from_utf8(stored).unwrap(), expected, "cut at {cut}");
        assert_eq!(filter.message_id().as_deref(), Some("x@y"));
    }
}

/// RFC 8689 section 5.
#[test]
fn tls_required_no() {
    for (field, optional) in [
        ("TLS-Required: No\r\n", true),
        ("tls-required:no\r\n", true),
        ("TLS-Required:\r\n NO \r\n", true),
        ("TLS-Required: Nope\r\n", false),
        ("TLS-Required: Yes\r\n", false),
        ("TLS-Required: Yes\r\nTLS-Required: No\r\n", false),
        ("X-TLS-Required: No\r\n", false),
        ("Subject: x\r\n TLS-Required: No\r\n", false),
        ("Subject: x\r\n\r\nTLS-Required: No\r\n", false),
    ] {
        for submission in [false, true] {
            for cut in 0..field.len() {
                let (stored, filter) = run(field.as_bytes(), &[cut], submission);
                assert_eq!(filter.tls_optional(), optional, "{field:?} cut at {cut}");
                let stored = String::from_utf8(stored).unwrap();
                assert!(!optional || stored.starts_with(field), "it goes on with the message: {stored}");
            }
        }
    }
}

#[test]
fn relayed_mail_is_not_touched() {
    let (stored, filter) = run(MAIL, &[], false);
    assert_eq!(stored, MAIL);
    assert_eq!((filter.fields, filter.message_id().as_deref()), (5, Some("x@y")));
    assert_eq!(run(b"no header at all\r\n", &[3], false).0, b"no header at all\r\n");
}

#[test]
fn a_message_without_a_header_gets_one() {
    let added = "Date: Tue, 24 Nov 2026 07:00:00 +0000\r\nMessage-ID: <new@relay.example>\r\n";
    for (content, body) in [
        ("Hello there: you\r\nhow are you\r\n", "\r\nHello there: you\r\nhow are you\r\n"),
        (" indented\r\n", "\r\n indented\r\n"),
        ("\r\nbody\r\n", "\r\nbody\r\n"),
        ("", ""),
        ("\u{fc}ber: x\r\n", "\r\n\u{fc}ber: x\r\n"),
    ] {
        for cut in 0..=content.len() {
            let (stored, filter) = run(content.as_bytes(), &[cut], true);
            assert_eq!(
                String::from_utf8(stored).unwrap(),
                format!("{added}{body}"),
                "{content:?} cut at {cut}"
            );
            assert_eq!(filter.message_id().as_deref(), Some("new@relay.example"));
        }
    }
    let (stored, _) = run(b"Subject: x\r\n", &[], true);
    assert_eq!(String::from_utf8(stored).unwrap(), format!("Subject: x\r\n{added}"));
}

#[test]
fn limits_hold() {
    let limits = Limits { header_fields: 3, header_size: 100, received: 2, ..Limits::default() };
    let fault = |content: &[u8]| HeaderFilter::new(None).push(content, &mut Vec::new(), &limits).unwrap_err();
    assert_eq!(fault(&b"A: b\r\n".repeat(4)), HeaderFault::TooMany);
    assert_eq!(fault(&b"received: b\r\n".repeat(3)), HeaderFault::Loop);
    assert_eq!(fault(&[b"A: ".as_slice(), &[b'x'; 100]].concat()), HeaderFault::TooBig);
    assert!(HeaderFilter::new(None).push(&[b'x'; 2000], &mut Vec::new(), &Limits::default()).is_ok());
}

/// Lines with sound line ends, as the decoder hands them out.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let line = "(Received|Date|Bcc|Message-ID|Subject|message-id|DATE)?[: \tax\u{fc}<>@.]{0,8}";
    proptest::collection::vec(line, 0..8)
        .prop_map(|lines| lines.iter().flat_map(|l| [l.as_bytes(), b"\r\n"].concat()).collect())
}

proptest! {
    #[test]
    fn agrees_with_the_vocabulary(content in lines(), cuts in proptest::collection::vec(any::<usize>(), 0..5)) {
        let (stored, filter) = run(&content, &cuts, false);
        prop_assert_eq!(&stored, &content);
        let scan = HeaderScan::of(&content);
        prop_assert_eq!((filter.fields, filter.received), (scan.fields, scan.received));
        prop_assert_eq!(filter.has_date, scan.has_date);
        if scan.message_id.is_some() && filter.message_id().is_some() {
            prop_assert_eq!(filter.message_id(), scan.message_id);
        }
    }

    #[test]
    fn submission_is_complete(content in lines(), cuts in proptest::collection::vec(any::<usize>(), 0..5)) {
        let (stored, _) = run(&content, &cuts, true);
        let after = HeaderScan::of(&stored);
        prop_assert!(after.has_date && !after.has_bcc);
        prop_assert!(headers(&stored).any(|h| h.is("Message-ID")));
        let before = headers(&content).end().body;
        prop_assert!(stored.ends_with(&content[before..]), "the body is as it was");
    }
}
