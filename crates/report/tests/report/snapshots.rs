//! Whole reports, to be read; and who gets none.

use mail::{Body, Disposition, EnhancedStatus, Notify, Outcome, ReportKind, Ret, Timestamp};
use report::{Ending, Original, Returned};

use crate::mime;
use crate::sample::{ORIGINAL, make, message, recipient, refused, remote, reported, text};

const ASKED: Notify = Notify::On { success: true, failure: true, delay: true };

#[test]
fn failure() {
    let mut message = message();
    message.envid = Some("QQ+2B314+3D".into());
    let bob = recipient("bob@example.com", Notify::Unset, Some("rfc822;Bob+2Bx@example.com"));
    let carol = recipient("carol@example.org", Notify::Unset, None);
    let outcome = refused(
        "No such user here\nSee https://example.com/help for what to do about it, which is a longer story",
    );
    let late = Outcome::own(
        Disposition::Deferred,
        EnhancedStatus::new(4, 4, 1),
        "no server of example.org could be reached: connection timed out",
    );
    let remote = remote();
    let dsn = make(
        ReportKind::Failure,
        &message,
        Original::Full(ORIGINAL),
        &[
            reported(&bob, Ending::Failed, &outcome, Some(&remote)),
            reported(&carol, Ending::Expired, &late, None),
        ],
    )
    .unwrap();
    assert_eq!((dsn.body, dsn.smtputf8, dsn.recipients), (Body::SevenBit, false, 2));
    let parts = mime::parts(&dsn.content);
    assert_eq!(parts[2].content, ORIGINAL, "the original comes back byte for byte");
    insta::assert_snapshot!(text(&dsn));
}

#[test]
fn delay() {
    let bob = recipient("bob@example.com", Notify::Unset, None);
    let outcome = Outcome {
        disposition: Disposition::Deferred,
        status: EnhancedStatus::new(4, 0, 0),
        code: Some(451),
        text: "greylisted, come back later".into(),
    };
    let retry_until = Timestamp(1_795_932_000_000);
    let remote = remote();
    let dsn = make(
        ReportKind::Delay,
        &message(),
        Original::Start(ORIGINAL),
        &[reported(&bob, Ending::Delayed { retry_until }, &outcome, Some(&remote))],
    )
    .unwrap();
    insta::assert_snapshot!(text(&dsn));
}

#[test]
fn success() {
    let outcome = Outcome {
        disposition: Disposition::Delivered,
        status: EnhancedStatus::new(2, 0, 0),
        code: Some(250),
        text: "queued as 12345".into(),
    };
    let bob = recipient("bob@example.com", ASKED, None);
    let carol = recipient("carol@example.org", ASKED, None);
    let not_asked = recipient("dave@example.com", Notify::Unset, None);
    let remote = remote();
    let dsn = make(
        ReportKind::Success,
        &message(),
        Original::Full(ORIGINAL),
        &[
            reported(&bob, Ending::Delivered, &outcome, None),
            reported(&carol, Ending::Relayed, &outcome, Some(&remote)),
            reported(&not_asked, Ending::Delivered, &outcome, None),
        ],
    )
    .unwrap();
    assert_eq!(dsn.recipients, 2);
    insta::assert_snapshot!(text(&dsn));
}

#[test]
fn an_alias_that_was_expanded() {
    let outcome = Outcome::own(
        Disposition::Delivered,
        EnhancedStatus::new(2, 1, 5),
        "an alias for 3 addresses; the message is on its way to them",
    );
    let team = recipient("team@example.com", ASKED, None);
    let about = [reported(&team, Ending::Expanded, &outcome, None)];
    let dsn = make(ReportKind::Success, &message(), Original::Full(ORIGINAL), &about).unwrap();
    let text = text(&dsn);
    for field in ["Final-Recipient: rfc822; team@example.com", "Action: expanded", "Status: 2.1.5"] {
        assert!(text.contains(field), "{field} in {text}");
    }
    assert!(text.contains("This address stands for several others"), "{text}");
}

#[test]
fn beyond_ascii() {
    let mut message = message();
    message.smtputf8 = true;
    message.reverse_path = Some("dương@việt.example".parse().unwrap());
    let original = "Subject: Thư báo\r\nFrom: dương@việt.example\r\n\r\nChào\r\n".as_bytes();
    message.size = original.len() as u64;
    let bob = recipient("bình@example.com", Notify::Unset, None);
    let outcome = refused("Không có người dùng này");
    let remote = remote();
    let about = [reported(&bob, Ending::Failed, &outcome, Some(&remote))];
    let dsn = make(ReportKind::Failure, &message, Original::Full(original), &about).unwrap();
    assert!(dsn.smtputf8);
    let parts = mime::parts(&dsn.content);
    assert_eq!(parts[1].media_type, "message/global-delivery-status");
    assert_eq!((parts[2].media_type.as_str(), &parts[2].content[..]), ("message/global", original));
    insta::assert_snapshot!(text(&dsn));
    let dsn = make(ReportKind::Failure, &message, Original::Start(original), &about).unwrap();
    let parts = mime::parts(&dsn.content);
    assert_eq!(parts[2].media_type, "message/global-headers");
    assert_eq!(parts[2].content, "Subject: Thư báo\r\nFrom: dương@việt.example\r\n".as_bytes());
}

#[test]
fn nobody_is_told_who_did_not_ask() {
    let outcome = refused("no");
    let about = |notify| {
        let bob = recipient("bob@example.com", notify, None);
        [ReportKind::Failure, ReportKind::Delay, ReportKind::Success].map(|kind| {
            make(
                kind,
                &message(),
                Original::Full(ORIGINAL),
                &[reported(&bob, Ending::Failed, &outcome, None)],
            )
            .is_some()
        })
    };
    assert_eq!(about(Notify::Unset), [true, true, false]);
    assert_eq!(about(Notify::Never), [false, false, false]);
    assert_eq!(about(ASKED), [true, true, true]);
    assert_eq!(about(Notify::On { success: true, failure: false, delay: false }), [false, false, true]);
    assert_eq!(about(Notify::On { success: false, failure: true, delay: false }), [true, false, false]);
}

#[test]
fn a_null_sender_is_told_nothing() {
    let mut message = message();
    message.reverse_path = None;
    let bob = recipient("bob@example.com", ASKED, None);
    let outcome = refused("no");
    for kind in [ReportKind::Failure, ReportKind::Delay, ReportKind::Success] {
        let about = [reported(&bob, Ending::Failed, &outcome, None)];
        assert_eq!(make(kind, &message, Original::Full(ORIGINAL), &about), None);
        assert!(!report::wanted(kind, &message, &bob));
    }
}

#[test]
fn what_comes_back_follows_ret_and_size() {
    let mut message = message();
    let ask = |message: &mail::Message, kind| report::returned(kind, message);
    assert_eq!(ask(&message, ReportKind::Failure), Returned::Full);
    assert_eq!(ask(&message, ReportKind::Delay), Returned::Headers);
    assert_eq!(ask(&message, ReportKind::Success), Returned::Headers);
    message.size = report::RETURN_MAX_UNASKED + 1;
    assert_eq!(ask(&message, ReportKind::Failure), Returned::Headers);
    message.ret = Some(Ret::Full);
    assert_eq!(ask(&message, ReportKind::Failure), Returned::Full);
    message.size = report::RETURN_MAX + 1;
    assert_eq!(ask(&message, ReportKind::Failure), Returned::Headers);
    message.size = 1;
    message.ret = Some(Ret::Headers);
    assert_eq!(ask(&message, ReportKind::Failure), Returned::Headers);

    let bob = recipient("bob@example.com", Notify::Unset, None);
    let outcome = refused("no");
    let about = [reported(&bob, Ending::Failed, &outcome, None)];
    let dsn = make(ReportKind::Failure, &message, Original::Full(ORIGINAL), &about).unwrap();
    let parts = mime::parts(&dsn.content);
    assert_eq!(parts[2].media_type, "text/rfc822-headers");
    let header_section = &ORIGINAL[..ORIGINAL.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 2];
    assert_eq!(parts[2].content, header_section, "headers byte for byte");
}

#[test]
fn eight_bit_content_comes_back_only_when_asked_for_and_declared() {
    let original = b"Subject: x\r\n\r\n\xe9t\xe9\r\n";
    let mut message = message();
    let bob = recipient("bob@example.com", Notify::Unset, None);
    let outcome = refused("no");
    let about = [reported(&bob, Ending::Failed, &outcome, None)];
    let dsn = make(ReportKind::Failure, &message, Original::Full(original), &about).unwrap();
    assert_eq!(dsn.body, Body::SevenBit);
    assert_eq!(mime::parts(&dsn.content)[2].content, b"Subject: x\r\n");
    message.ret = Some(Ret::Full);
    let dsn = make(ReportKind::Failure, &message, Original::Full(original), &about).unwrap();
    assert_eq!(dsn.body, Body::EightBitMime);
    let parts = mime::parts(&dsn.content);
    assert_eq!((parts[2].media_type.as_str(), &parts[2].content[..]), ("message/rfc822", &original[..]));
}

#[test]
fn a_lost_original_is_still_reported() {
    let bob = recipient("bob@example.com", Notify::Unset, None);
    let outcome = refused("no");
    let about = [reported(&bob, Ending::Failed, &outcome, None)];
    let dsn = make(ReportKind::Failure, &message(), Original::Lost, &about).unwrap();
    assert!(mime::parts(&dsn.content)[2].content.is_empty());
}

#[test]
fn an_original_that_holds_our_boundary_stays_inside() {
    let bob = recipient("bob@example.com", Notify::Unset, None);
    let outcome = refused("no");
    let about = [reported(&bob, Ending::Failed, &outcome, None)];
    let first = make(ReportKind::Failure, &message(), Original::Full(ORIGINAL), &about).unwrap();
    let boundary = text(&first).split("boundary=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let evil = format!("Subject: x\r\n\r\n--{boundary}--\r\n--{boundary}\r\n\r\nforged\r\n");
    let dsn = make(ReportKind::Failure, &message(), Original::Full(evil.as_bytes()), &about).unwrap();
    assert_eq!(mime::parts(&dsn.content)[2].content, evil.as_bytes());
}

#[test]
fn who_reports_a_success() {
    let ending = |destination: &str, dsn| Ending::of_success(&destination.parse().unwrap(), dsn);
    assert_eq!(ending("mx:example.com", true), None);
    assert_eq!(ending("mx:example.com", false), Some(Ending::Relayed));
    assert_eq!(ending("smarthost:upstream", false), Some(Ending::Relayed));
    assert_eq!(ending("lmtp:/run/lmtp", false), Some(Ending::Delivered));
    assert_eq!(ending("maildir:/var/mail/{user}", false), Some(Ending::Delivered));
    assert_eq!(ending("discard", false), None);
}
