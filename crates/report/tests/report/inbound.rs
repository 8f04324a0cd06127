//! Reports that come in: our own, those of other programs, and hostile ones.

use std::time::Duration;

use mail::{BounceClass, Disposition, Notify, ReportKind};
use proptest::prelude::*;
use report::dsn::{self, InboundReport, ReportAction, ReportFormat};
use report::{Classifier, Ending, Original};

use crate::sample::{NOW, ORIGINAL, make, message, recipient, refused, remote, reported};

macro_rules! samples {
    ($($name:literal),*) => { &[$(($name, include_bytes!(concat!("bounces/", $name, ".eml")))),*] };
}

const SAMPLES: &[(&str, &[u8])] = samples!(
    "qmail",
    "exim",
    "exim_delay",
    "postfix",
    "postfix_text",
    "sendmail",
    "exchange",
    "exchange_old",
    "m365",
    "google_old",
    "eai",
    "sloppy",
    "vacation"
);

fn sample(name: &str) -> Option<Vec<InboundReport>> {
    let (_, bytes) = SAMPLES.iter().find(|(known, _)| *known == name).unwrap();
    dsn::read(bytes)
}

/// A recipient in short: `address action status code "words"`.
fn short(report: &InboundReport) -> String {
    let action = format!("{:?}", report.action).to_lowercase();
    let status = report.status.map(|s| s.to_string()).unwrap_or_default();
    let code = report.code.map(|c| c.to_string()).unwrap_or_default();
    let words = report.diagnostic.as_deref().unwrap_or_default();
    format!("{} {action} {status} {code} {words}", report.final_recipient.as_deref().unwrap_or_default())
}

fn check(
    name: &str,
    format: ReportFormat,
    message_id: Option<&str>,
    expected: &[&str],
) -> Vec<InboundReport> {
    let reports = sample(name).unwrap_or_else(|| panic!("{name} is no report"));
    assert_eq!(reports.iter().map(short).collect::<Vec<_>>(), expected, "{name}");
    for report in &reports {
        assert_eq!(report.format, format, "{name}");
        assert_eq!(report.original_message_id().as_deref(), message_id, "{name}");
    }
    reports
}

#[test]
fn qmail_and_its_heirs() {
    let reports = check(
        "qmail",
        ReportFormat::Qmail,
        Some("1485E2DF565C@example.net"),
        &[
            "bob@example.org failed 5.1.1 550 User unknown Giving up on 192.0.2.39.",
            "carol@example.org failed 5.1.1  Sorry, no mailbox here by that name. (#5.1.1)",
        ],
    );
    assert_eq!(reports[0].reporter.as_deref(), Some("gateway01.example.com"));
    assert_eq!(reports[0].original_field("subject").as_deref(), Some("Hello Bob"));
}

#[test]
fn exim_without_a_part_for_programs() {
    let reports = check(
        "exim",
        ReportFormat::Exim,
        Some("exim-1@example.net"),
        &[
            "nataline@rci.example.com failed 5.7.606 550 Access denied, banned sending IP [198.51.100.182]. To request \
             removal from this list please visit https://sender.office.com/",
            "second@rci.example.com failed   Unrouteable address",
        ],
    );
    assert_eq!(reports[0].remote.as_deref(), Some("rci-example-com.mail.protection.outlook.com"));
    check(
        "exim_delay",
        ReportFormat::Exim,
        None,
        &["late@example.org delayed 4.7.1 451 Greylisting in action, please come back later"],
    );
}

#[test]
fn postfix() {
    let reports = check(
        "postfix",
        ReportFormat::Standard,
        Some("postfix-1@example.net"),
        &[
            "kontakt@example.eu failed 5.7.606 550 Access denied, banned sending IP [203.0.113.45]. For more information \
           see AS(1430)",
        ],
    );
    assert_eq!(reports[0].original_recipient.as_deref(), Some("contact@example.eu"));
    assert_eq!(reports[0].remote.as_deref(), Some("example-eu.mail.protection.outlook.com"));
    assert_eq!(reports[0].reporter.as_deref(), Some("mail.example.de"));
    check(
        "postfix_text",
        ReportFormat::Postfix,
        None,
        &[
            "bob@example.org delayed 4.2.0 450 <bob@example.org>: Recipient address rejected: Greylisted (in reply to RCPT \
           TO command)",
        ],
    );
}

#[test]
fn sendmail() {
    check(
        "sendmail",
        ReportFormat::Sendmail,
        Some("sendmail-1@example.net"),
        &[
            "bob@example.org failed 5.1.1 550 <bob@example.org>... User unknown",
            "carol@example.com failed 5.2.2 552 <carol@example.com>... Mailbox full",
        ],
    );
}

#[test]
fn microsoft() {
    let reports = check(
        "exchange",
        ReportFormat::Exchange,
        Some("exchange-1@example.net"),
        &["bob@contoso.example failed 5.1.1 550 RESOLVER.ADR.RecipNotFound; not found> #SMTP#"],
    );
    assert_eq!(reports[0].remote.as_deref(), Some("mx.contoso.example"));
    assert_eq!(reports[0].reporter.as_deref(), Some("mail.contoso.example"));
    let old = sample("exchange_old").unwrap();
    assert_eq!(old.len(), 1);
    assert_eq!(old[0].status.unwrap().to_string(), "5.1.1");
    assert!(old[0].diagnostic.as_deref().unwrap().contains("does not exist at the organization"));
    check(
        "m365",
        ReportFormat::Standard,
        Some("m365-1@example.net"),
        &[
            "bob@contoso.example failed 5.1.10 550 RESOLVER.ADR.RecipientNotFound; Recipient bob@contoso.example not found \
           by SMTP address lookup",
        ],
    );
}

#[test]
fn google_before_it_kept_to_the_standard() {
    check(
        "google_old",
        ReportFormat::Google,
        Some("google-1@example.net"),
        &["user@cassandra.example.org failed  552 spam score (6.9) exceeded threshold (state 18)."],
    );
}

#[test]
fn addresses_and_words_beyond_ascii() {
    let reports = check(
        "eai",
        ReportFormat::Standard,
        Some("eai-1@example.net"),
        &["dương@example.vn failed 5.1.1 550 Người dùng không tồn tại", "late@example.vn delayed 4.2.2  "],
    );
    assert_eq!(reports[0].original_recipient.as_deref(), Some("dương@example.vn"));
    assert_eq!(reports[0].envelope_id.as_deref(), Some("QQ+314"));
}

#[test]
fn what_forgets_an_empty_line_is_understood() {
    check(
        "sloppy",
        ReportFormat::Standard,
        None,
        &["one@example.org failed 5.1.1  ", "two@example.org failed 5.2.2  mailbox full"],
    );
}

#[test]
fn a_reply_of_a_person_is_no_report() {
    assert_eq!(sample("vacation"), None);
    assert_eq!(dsn::read(ORIGINAL), None);
    assert_eq!(dsn::read(b""), None);
    // The words of a bounce from somebody who sends none.
    let forged = b"From: a@example.net\r\n\r\nThis is the mail system at host x.example.\r\n\r\n<b@example.org>: 550 5.1.1 no\r\n";
    assert_eq!(dsn::read(forged), None);
}

#[test]
fn our_own_reports_are_read_back() {
    for (kind, ending, action) in [
        (ReportKind::Failure, Ending::Failed, ReportAction::Failed),
        (ReportKind::Failure, Ending::Expired, ReportAction::Failed),
        (ReportKind::Delay, Ending::Delayed { retry_until: NOW }, ReportAction::Delayed),
        (ReportKind::Success, Ending::Delivered, ReportAction::Delivered),
        (ReportKind::Success, Ending::Relayed, ReportAction::Relayed),
    ] {
        let notify = Notify::On { success: true, failure: true, delay: true };
        let bob = recipient("bob@example.com", notify, Some("rfc822;bobby@example.com"));
        let carol = recipient("carol@example.com", notify, None);
        let (outcome, remote) = (refused("No such user here"), remote());
        let about =
            [reported(&bob, ending, &outcome, Some(&remote)), reported(&carol, ending, &outcome, None)];
        let mut message = message();
        message.envid = Some("key+2B1".to_owned());
        let made = make(kind, &message, Original::Full(ORIGINAL), &about).unwrap();
        let read = dsn::read(&made.content).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].action, action);
        assert_eq!(read[0].original_recipient.as_deref(), Some("bobby@example.com"));
        assert_eq!(read[0].final_recipient.as_deref(), Some("bob@example.com"));
        assert_eq!(read[1].final_recipient.as_deref(), Some("carol@example.com"));
        assert_eq!(read[0].envelope_id.as_deref(), Some("key+1"));
        assert_eq!(read[0].reporter.as_deref(), Some("relay.example.net"));
        assert_eq!(read[0].remote.as_deref(), Some("mx1.example.com"));
        assert_eq!(read[0].original_message_id().as_deref(), Some("1@example.net"));
        assert!(read[0].diagnostic.as_deref().unwrap().contains("No such user here"));
        assert_eq!(read[0].code, Some(550), "{:?}", read[0]);
    }
}

#[test]
fn a_report_becomes_an_outcome_with_a_class() {
    let class = |report: &InboundReport| Classifier::builtin().classify(&report.outcome(), None);
    let qmail = sample("qmail").unwrap();
    assert_eq!(qmail[1].outcome().disposition, Disposition::Refused);
    assert_eq!(qmail.iter().map(class).collect::<Vec<_>>(), [BounceClass::Recipient, BounceClass::Recipient]);
    assert_eq!(class(&sample("exim").unwrap()[0]), BounceClass::Reputation);
    assert_eq!(class(&sample("sendmail").unwrap()[1]), BounceClass::Quota);
    assert_eq!(class(&sample("google_old").unwrap()[0]), BounceClass::Content);
    let late = sample("exim_delay").unwrap();
    assert_eq!(late[0].outcome().disposition, Disposition::Deferred);
    assert_eq!(class(&late[0]), BounceClass::Greylist);
    // Given up after days: refused by its action, but its status says try again, and so nobody is suppressed.
    let mut expired = late[0].clone();
    expired.action = ReportAction::Failed;
    expired.diagnostic = Some("user unknown".to_owned());
    assert!(!class(&expired).suppresses());
}

#[test]
fn hostile_reports_cost_little() {
    let nested = (0..200).fold(String::new(), |s, n| {
        s + &format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n")
    });
    let parts =
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(100_000));
    let groups = format!(
        "Content-Type: message/delivery-status\r\n\r\n{}",
        "Final-Recipient: rfc822; a@example.org\r\nStatus: 5.1.1\r\n\r\n".repeat(20_000)
    );
    let glued = format!(
        "Content-Type: message/delivery-status\r\n\r\n{}",
        "Final-Recipient: rfc822; a@example.org\r\n".repeat(25_000)
    );
    let exim = format!(
        "X-Failed-Recipients: {}\r\n\r\n{}",
        (0..20_000).map(|n| format!("a{n}@x.example")).collect::<Vec<_>>().join(","),
        "  a@x.example\r\n    550 no\r\n".repeat(30_000)
    );
    let qmail = format!("\r\nHi. This is the\r\n\r\n{}", "<a@x.example>:\r\nno\r\n\r\n".repeat(40_000));
    let sendmail = format!(
        "Return-Path: <>\r\n\r\n   ----- The following addresses had permanent\r\n{}\r\n----- Transcript of session follows\r\n{}",
        "<a@x.example>\r\n".repeat(15_000),
        "<<< 550 x\r\n".repeat(30_000)
    );
    let folded = format!("Content-Type: multipart/report;{}", "\r\n a=\"\"".repeat(100_000));
    let huge = [b"Subject: ", &vec![b'x'; 20 << 20][..]].concat();
    let texts = [nested, parts, groups, glued, exim, qmail, sendmail, folded].map(String::into_bytes);
    let clock = mail::Clock::system();
    for bytes in texts.iter().chain([&huge]) {
        let begun = clock.mono();
        let read = dsn::read(bytes);
        assert!(read.map_or(0, |reports| reports.len()) <= dsn::REPORT_RECIPIENTS_MAX);
        let took = clock.mono().since(begun);
        assert!(took < Duration::from_secs(5), "{took:?}: {}", String::from_utf8_lossy(&bytes[..60]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        dsn::read(&bytes);
    }

    #[test]
    fn no_damage_makes_it_panic(
        which in 0..SAMPLES.len(),
        cut in 0usize..4000,
        edits in proptest::collection::vec((0usize..4000, any::<u8>()), 0..20),
        repeat in 0usize..4000,
    ) {
        let mut bytes = SAMPLES[which].1.to_vec();
        for (at, byte) in edits {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        let again = bytes[repeat.min(bytes.len())..].to_vec();
        bytes.truncate(cut.max(1));
        bytes.extend(again);
        for report in dsn::read(&bytes).unwrap_or_default() {
            let outcome = report.outcome();
            prop_assert!(outcome.code.is_some());
            prop_assert!(outcome.text.chars().count() <= 1010);
            report.original_message_id();
        }
    }
}
