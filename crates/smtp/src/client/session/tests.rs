use mail::{Address, Body, Disposition, MessageId, Notify, OrgId, Origin, Protocol, Ret, Stream, Timestamp};
use proptest::prelude::*;

use super::*;

mod chunks;

pub(super) fn message() -> Message {
    Message {
        id: MessageId(1),
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: Timestamp(0),
        reverse_path: Some(Address::parse("from@example.com").unwrap()),
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size: 1000,
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

fn recipients(n: u16) -> Vec<(u16, Recipient)> {
    (0..n)
        .map(|i| (i, Recipient::new(Address::parse(&format!("r{i}@d{}.example", i % 3)).unwrap())))
        .collect()
}

fn session(offers: &str) -> Session {
    let reply = mail::Reply { code: 250, enhanced: None, text: format!("x\n{offers}") };
    Session::new(false, Capabilities::parse(&reply), BytesMut::new(), Transcript::default())
}

fn lmtp(offers: &str) -> Session {
    Session { lmtp: true, ..session(offers) }
}

fn by_data(limit: usize) -> Sending<'static> {
    Sending { limit, require_tls: false, chunk: None }
}

fn begin(session: &mut Session, n: u16) -> usize {
    let to = recipients(n);
    session.begin(&message(), to.iter().map(|(n, r)| (*n, r)), by_data(100)).unwrap()
}

fn said(session: &mut Session) -> String {
    String::from_utf8(session.output().split().to_vec()).unwrap()
}

fn hear(session: &mut Session, text: &str) -> Result<Step, Fault> {
    session.input(&mut BytesMut::from(text))
}

/// Outcomes as `number:disposition:code`, and who is postponed.
fn results(session: &mut Session) -> (String, Vec<u16>) {
    let mut results = Results::default();
    session.results(&mut results);
    let show = |o: &RecipientOutcome| {
        let outcome = &o.outcome;
        let letter = match outcome.disposition {
            Disposition::Delivered => '+',
            Disposition::Deferred => '~',
            Disposition::Refused => '-',
        };
        let code = outcome.code.map_or_else(|| outcome.status.to_string(), |c| c.to_string());
        format!("{}{letter}{code}", o.recipient)
    };
    (results.outcomes.iter().map(show).collect::<Vec<_>>().join(" "), results.postponed)
}

#[test]
fn all_in_one_write_with_pipelining() {
    let mut s = session("PIPELINING\nSIZE 100000\nDSN");
    begin(&mut s, 2);
    assert_eq!(
        said(&mut s),
        "MAIL FROM:<from@example.com> SIZE=1000\r\nRCPT TO:<r0@d0.example>\r\nRCPT TO:<r1@d1.example>\r\nDATA\r\n"
    );
    assert_eq!(hear(&mut s, ""), Ok(Step::Read(Wait::Mail)));
    assert_eq!(hear(&mut s, "250 ok\r\n250 ok\r\n"), Ok(Step::Read(Wait::Rcpt)));
    assert_eq!(hear(&mut s, "550 5.1.1 no\r\n"), Ok(Step::Read(Wait::Data)));
    assert_eq!(hear(&mut s, "354 go\r\n"), Ok(Step::Content));
    s.content_sent(1000);
    assert_eq!(hear(&mut s, ""), Ok(Step::Read(Wait::Final)));
    assert_eq!(hear(&mut s, "250 2.0.0 queued\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s), ("0+250 1-550".into(), vec![]));
    assert!(s.is_usable());
    // The next one on the same connection needs no RSET.
    begin(&mut s, 1);
    assert!(said(&mut s).starts_with("MAIL "));
}

#[test]
fn step_by_step_without() {
    let mut s = session("8BITMIME");
    begin(&mut s, 2);
    assert_eq!(said(&mut s), "MAIL FROM:<from@example.com>\r\n");
    for (theirs, ours) in [
        ("250 ok\r\n", "RCPT TO:<r0@d0.example>\r\n"),
        ("450 later\r\n", "RCPT TO:<r1@d1.example>\r\n"),
        ("250 ok\r\n", "DATA\r\n"),
    ] {
        assert!(matches!(hear(&mut s, theirs), Ok(Step::Read(_))));
        assert_eq!(said(&mut s), ours);
    }
    assert_eq!(hear(&mut s, "354 go\r\n"), Ok(Step::Content));
    s.content_sent(3);
    assert_eq!(hear(&mut s, "554 5.6.0 spam\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s), ("0~450 1-554".into(), vec![]));
    assert!(s.is_usable());
}

#[test]
fn a_refused_mail_is_everybodys_outcome() {
    for offers in ["PIPELINING", ""] {
        let mut s = session(offers);
        begin(&mut s, 2);
        let mut step = hear(&mut s, "553 5.1.8 who\r\n").unwrap();
        if !offers.is_empty() {
            step = hear(&mut s, "503 no\r\n503 no\r\n503 no\r\n").unwrap();
        }
        assert_eq!(step, Step::Finished);
        assert_eq!(results(&mut s), ("0-553 1-553".into(), vec![]));
        assert!(s.is_usable());
    }
}

#[test]
fn all_recipients_refused_and_data_let_through_ends_with_a_dot_alone() {
    let mut s = session("PIPELINING");
    begin(&mut s, 2);
    said(&mut s);
    assert_eq!(hear(&mut s, "250 ok\r\n550 no\r\n550 no\r\n354 go\r\n"), Ok(Step::Read(Wait::Final)));
    assert_eq!(said(&mut s), ".\r\n");
    assert_eq!(hear(&mut s, "554 no recipients\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s), ("0-550 1-550".into(), vec![]));
    assert!(s.is_usable());
    // Even a 250 to it delivers nothing to anybody.
    begin(&mut s, 1);
    assert_eq!(hear(&mut s, "250 ok\r\n450 no\r\n354 go\r\n"), Ok(Step::Read(Wait::Final)));
    assert_eq!(hear(&mut s, "250 queued\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s), ("0~450".into(), vec![]));
}

#[test]
fn rset_comes_after_a_transaction_that_was_not_completed() {
    let mut s = session("PIPELINING");
    begin(&mut s, 1);
    said(&mut s);
    assert_eq!(hear(&mut s, "250 ok\r\n550 no\r\n503 no\r\n"), Ok(Step::Finished));
    results(&mut s);
    begin(&mut s, 1);
    assert!(said(&mut s).starts_with("RSET\r\nMAIL FROM"));
    assert_eq!(hear(&mut s, "250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n"), Ok(Step::Content));
    // Step by step, too, and without DATA when nobody is left.
    let mut s = session("");
    begin(&mut s, 1);
    hear(&mut s, "250 ok\r\n").unwrap();
    assert_eq!(hear(&mut s, "550 no\r\n"), Ok(Step::Finished));
    assert!(!said(&mut s).contains("DATA"));
    results(&mut s);
    begin(&mut s, 1);
    assert_eq!(said(&mut s), "RSET\r\n");
    hear(&mut s, "250 ok\r\n").unwrap();
    assert!(said(&mut s).starts_with("MAIL"));
}

#[test]
fn too_many_recipients_wait_for_the_next_transaction() {
    for too_many in ["452 4.5.3 enough", "452 enough", "552 5.5.3 enough"] {
        let mut s = session("PIPELINING");
        begin(&mut s, 3);
        let replies = format!("250 ok\r\n250 ok\r\n{too_many}\r\n{too_many}\r\n354 go\r\n");
        assert_eq!(hear(&mut s, &replies), Ok(Step::Content));
        s.content_sent(1);
        assert_eq!(hear(&mut s, "250 ok\r\n"), Ok(Step::Finished));
        assert_eq!(results(&mut s), ("0+250".into(), vec![1, 2]));
    }
    // With nobody accepted there is no progress to be made.
    let mut s = session("PIPELINING");
    begin(&mut s, 1);
    assert_eq!(hear(&mut s, "250 ok\r\n452 4.5.3 enough\r\n503 no\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s), ("0~452".into(), vec![]));
    // A full mailbox is another matter.
    let mut s = session("PIPELINING");
    begin(&mut s, 2);
    assert_eq!(hear(&mut s, "250 ok\r\n250 ok\r\n452 4.2.2 full\r\n354 go\r\n"), Ok(Step::Content));
    s.content_sent(1);
    hear(&mut s, "250 ok\r\n").unwrap();
    assert_eq!(results(&mut s), ("0+250 1~452".into(), vec![]));
}

#[test]
fn limits_are_kept() {
    let mut s = session("PIPELINING\nLIMITS RCPTMAX=2 MAILMAX=1");
    assert_eq!(begin(&mut s, 5), 2);
    assert_eq!(hear(&mut s, "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"), Ok(Step::Content));
    s.content_sent(1);
    assert_eq!(hear(&mut s, "250 ok\r\n"), Ok(Step::Finished));
    assert!(!s.is_usable());
    let mut s = session("LIMITS RCPTDOMAINMAX=2");
    assert_eq!(begin(&mut s, 5), 2, "the third recipient is in a third domain");
}

#[test]
fn lmtp_answers_once_for_each_accepted_recipient() {
    let mut s = lmtp("PIPELINING");
    begin(&mut s, 4);
    assert_eq!(
        hear(&mut s, "250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
        Ok(Step::Content)
    );
    s.content_sent(1);
    assert_eq!(hear(&mut s, "250 a\r\n452 4.2.2 full\r\n"), Ok(Step::Read(Wait::Final)));
    assert_eq!(hear(&mut s, "550 5.2.1 off\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s), ("0+250 1-550 2~452 3-550".into(), vec![]));
    // Broken off in the middle: what was answered counts.
    begin(&mut s, 2);
    assert_eq!(
        hear(&mut s, "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 a\r\n"),
        Err(Fault::Unasked("250 a??".into()))
    );
    s.lost(&Lost::Closed);
    results(&mut s);
    let mut s = lmtp("PIPELINING");
    begin(&mut s, 2);
    assert_eq!(hear(&mut s, "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"), Ok(Step::Content));
    s.content_sent(1);
    assert_eq!(hear(&mut s, "250 a\r\n"), Ok(Step::Read(Wait::Final)));
    s.lost(&Lost::Closed);
    assert_eq!(results(&mut s), ("0+250 1~4.4.2".into(), vec![]));
    assert!(!s.is_usable());
}

#[test]
fn goodbye_at_any_point() {
    let bye = "421 4.3.2 shutting down\r\n";
    for before in ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n550 no\r\n"] {
        let mut s = session("PIPELINING");
        begin(&mut s, 2);
        assert_eq!(hear(&mut s, &format!("{before}{bye}")), Ok(Step::Finished));
        let refused = if before.contains("550") { "1-550" } else { "1~421" };
        assert_eq!(results(&mut s), (format!("0~421 {refused}"), vec![]), "{before:?}");
        assert!(!s.is_usable());
        assert_eq!(s.was_stale(), before.is_empty());
        assert_eq!(said(&mut s), "");
    }
    let mut s = session("PIPELINING");
    begin(&mut s, 1);
    hear(&mut s, "250 ok\r\n250 ok\r\n354 go\r\n").unwrap();
    s.content_sent(1);
    assert_eq!(hear(&mut s, bye), Ok(Step::Finished));
    assert_eq!(results(&mut s), ("0~421".into(), vec![]));
}

#[test]
fn a_lost_final_reply_is_a_deferral_that_says_so() {
    let mut s = session("PIPELINING");
    begin(&mut s, 1);
    hear(&mut s, "250 ok\r\n250 ok\r\n354 go\r\n").unwrap();
    s.content_sent(1);
    s.lost(&Lost::TimedOut(Duration::from_secs(600)));
    let mut results = Results::default();
    s.results(&mut results);
    let outcome = &results.outcomes[0].outcome;
    assert_eq!((outcome.disposition, outcome.status.to_string()), (Disposition::Deferred, "4.4.2".into()));
    assert!(outcome.text.contains("second time"), "{}", outcome.text);
}

#[test]
fn what_a_peer_says_before_it_hangs_up_counts_if_it_is_a_refusal() {
    for (words, expected) in
        [("552 5.3.4 too big\r\n", "0-552"), ("250 thanks\r\n", "0~4.5.0"), ("", "0~4.4.2")]
    {
        let mut s = session("PIPELINING");
        begin(&mut s, 1);
        hear(&mut s, "250 ok\r\n250 ok\r\n354 go\r\n").unwrap();
        s.content_broken(&mut BytesMut::from(words), &Lost::Closed);
        assert_eq!(results(&mut s).0, expected);
        assert!(!s.is_usable());
    }
}

#[test]
fn senseless_and_superfluous_replies() {
    for replies in ["354 go\r\n", "250 ok\r\n334 what\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n", "hello\r\n"] {
        let mut s = session("PIPELINING");
        begin(&mut s, 1);
        let fault = hear(&mut s, replies).expect_err(replies);
        s.lost(&Lost::Fault(fault));
        assert_eq!(results(&mut s).0, "0~4.5.0", "{replies:?}");
        assert!(!s.is_usable());
    }
    // A refusal that comes with the 354 is one.
    let mut s = session("PIPELINING");
    begin(&mut s, 1);
    assert_eq!(hear(&mut s, "250 ok\r\n250 ok\r\n354 go\r\n550 no\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s).0, "0-550");
    assert!(!s.is_usable());
    // A reply too many at the end: the outcome stands, the connection is not used again.
    let mut s = session("PIPELINING");
    begin(&mut s, 1);
    hear(&mut s, "250 ok\r\n250 ok\r\n354 go\r\n").unwrap();
    s.content_sent(1);
    assert_eq!(hear(&mut s, "250 ok\r\n250 ok\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s).0, "0+250");
    assert!(!s.is_usable());
}

#[test]
fn what_the_peer_cannot_take_is_refused_before_a_word_is_said() {
    type Change = fn(&mut Message);
    let cases: [(&str, Change, &str); 5] = [
        ("PIPELINING", |m| m.body = Body::EightBitMime, "5.6.3"),
        ("8BITMIME", |m| m.smtputf8 = true, "5.6.7"),
        ("8BITMIME", |m| m.reverse_path = Some(Address::parse("ü@example.com").unwrap()), "5.6.7"),
        ("SIZE 999", |_| {}, "5.3.4"),
        ("SIZE 999\n8BITMIME", |m| m.size = 1 << 40, "5.3.4"),
    ];
    for (offers, change, status) in cases {
        let (mut s, mut m) = (session(offers), message());
        change(&mut m);
        let to = recipients(1);
        let outcome = s.begin(&m, to.iter().map(|(n, r)| (*n, r)), by_data(9)).unwrap_err();
        assert_eq!((outcome.disposition, outcome.status.to_string()), (Disposition::Refused, status.into()));
        assert!(s.is_usable() && s.output().is_empty());
    }
}

#[test]
fn one_address_that_needs_utf8_does_not_stop_the_others() {
    let mut s = session("PIPELINING");
    let to = [
        (0, Recipient::new(Address::parse("a@example.com").unwrap())),
        (1, Recipient::new(Address::parse("bücher@example.com").unwrap())),
    ];
    assert_eq!(s.begin(&message(), to.iter().map(|(n, r)| (*n, r)), by_data(9)), Ok(2));
    assert_eq!(said(&mut s).matches("RCPT").count(), 1);
    assert_eq!(hear(&mut s, "550 no\r\n503 no\r\n503 no\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s).0, "0-550 1-5.6.7");
    // And alone, it needs no dialogue.
    assert_eq!(s.begin(&message(), to[1..].iter().map(|(n, r)| (*n, r)), by_data(9)), Ok(1));
    assert_eq!((said(&mut s).as_str(), hear(&mut s, "")), ("", Ok(Step::Finished)));
    assert_eq!(results(&mut s).0, "1-5.6.7");
}

#[test]
fn parameters_go_to_peers_that_know_them() {
    let mut m = message();
    (m.body, m.smtputf8, m.ret) = (Body::EightBitMime, true, Some(Ret::Headers));
    m.envid = Some("QQ314159".into());
    let mut to = recipients(1);
    to[0].1.notify = Notify::On { success: true, failure: true, delay: false };
    to[0].1.orcpt = Some("rfc822;a+2Bb@example.com".into());
    let mut s = session("PIPELINING\nSIZE\n8BITMIME\nSMTPUTF8\nDSN");
    s.begin(&m, to.iter().map(|(n, r)| (*n, r)), by_data(9)).unwrap();
    assert_eq!(
        said(&mut s),
        "MAIL FROM:<from@example.com> SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159\r\n\
         RCPT TO:<r0@d0.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@example.com\r\nDATA\r\n"
    );
    (m.body, m.smtputf8) = (Body::SevenBit, false);
    let mut s = session("PIPELINING");
    s.begin(&m, to.iter().map(|(n, r)| (*n, r)), by_data(9)).unwrap();
    assert_eq!(said(&mut s), "MAIL FROM:<from@example.com>\r\nRCPT TO:<r0@d0.example>\r\nDATA\r\n");
    // Whatever wrote the envelope: nothing in it becomes a command.
    m.envid = Some("x\r\nRCPT TO:<evil@example.com>".into());
    to[0].1.orcpt = Some("rfc822;x RET=FULL".into());
    let mut s = session("PIPELINING\nDSN");
    s.begin(&m, to.iter().map(|(n, r)| (*n, r)), by_data(9)).unwrap();
    assert_eq!(said(&mut s).matches("RCPT").count(), 1);
    assert!(!s.transcript().as_str().contains("ORCPT"));
}

#[test]
fn the_null_sender_and_a_question() {
    let mut m = message();
    m.reverse_path = None;
    let (mut s, to) = (session("PIPELINING"), recipients(1));
    s.begin(&m, to.iter().map(|(n, r)| (*n, r)), by_data(9)).unwrap();
    assert!(said(&mut s).starts_with("MAIL FROM:<>\r\n"));
    for (reply, expected) in [("250 ok", "0+250"), ("550 5.1.1 no", "0-550"), ("452 4.5.3 x", "0~452")] {
        for offers in ["PIPELINING", ""] {
            let mut s = session(offers);
            s.ask(&to[0].1);
            assert!(matches!(hear(&mut s, "250 ok\r\n"), Ok(Step::Read(_))));
            assert_eq!(hear(&mut s, &format!("{reply}\r\n")), Ok(Step::Finished));
            assert_eq!(results(&mut s).0, expected);
            assert!(!said(&mut s).contains("DATA"));
        }
    }
}

/// What a peer may say at any point.
fn any_reply() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("250 ok\r\n".to_owned()),
        2 => Just("354 go\r\n".to_owned()),
        2 => prop::sample::select(vec!["450 4.2.0 x", "452 4.5.3 x", "550 5.1.1 x", "503 x", "552 x", "252 x", "334 x"])
            .prop_map(|l| format!("{l}\r\n")),
        1 => Just("421 bye\r\n".to_owned()),
        1 => Just("250-a\r\n250 b\r\n".to_owned()),
        1 => "[ -~]{0,12}\r\n",
    ]
}

proptest! {
    /// Whatever the peer says and whenever the connection breaks: every recipient ends with exactly one outcome or is
    /// postponed; nobody counts as delivered before the content went out; what is postponed makes progress.
    #[test]
    fn every_recipient_gets_exactly_one_outcome(
        replies in proptest::collection::vec(any_reply(), 0..14),
        n in 1u16..5, pipelining: bool, is_lmtp: bool, by_chunk: bool,
    ) {
        let mut s = session(if pipelining { "PIPELINING\nCHUNKING" } else { "CHUNKING" });
        s.lmtp = is_lmtp;
        let chunk = (by_chunk && !is_lmtp).then_some(b"Subject: x\r\n\r\n".as_slice());
        let to = recipients(n);
        let sending = Sending { chunk, ..by_data(100) };
        let taken = s.begin(&message(), to.iter().map(|(n, r)| (*n, r)), sending).unwrap();
        let (mut sent, mut over) = (false, false);
        let mut replies = replies.into_iter();
        let mut input = BytesMut::new();
        while !over {
            match s.input(&mut input) {
                Ok(Step::Finished) => over = true,
                Ok(Step::Content) => { sent = true; prop_assert!(chunk.is_none()); s.content_sent(10); }
                Ok(Step::Read(_)) => match replies.next() {
                    Some(reply) => input.extend_from_slice(reply.as_bytes()),
                    None => { s.lost(&Lost::Closed); over = true; }
                },
                Err(fault) => { s.lost(&Lost::Fault(fault)); over = true; }
            }
        }
        let mut got = Results::default();
        sent |= s.output().ends_with(b"LAST\r\nSubject: x\r\n\r\n") || chunk.is_some() && s.content_is_out();
        prop_assert!(!sent || s.content_is_out());
        s.results(&mut got);
        let mut numbers: Vec<u16> = got.outcomes.iter().map(|o| o.recipient).chain(got.postponed.iter().copied()).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..u16::try_from(taken).unwrap()).collect::<Vec<_>>());
        let delivered = got.outcomes.iter().filter(|o| o.outcome.disposition == Disposition::Delivered).count();
        prop_assert!(delivered == 0 || sent);
        prop_assert!(got.postponed.is_empty() || got.outcomes.len() + got.postponed.len() == taken && got.postponed.len() < taken);
        // And the record holds no line that we did not mean to write.
        prop_assert!(s.transcript().as_str().lines().all(|l| l.starts_with("> ") || l.starts_with("< ") || l.starts_with("* ")));
    }
}
