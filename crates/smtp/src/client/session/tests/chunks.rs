//! Content that goes along with the envelope by BDAT; REQUIRETLS; what a peer shows of its limits.

use super::*;

const CONTENT: &[u8] = b"Subject: x\r\n\r\n.MAIL FROM:<evil@example.com>\r\n";

fn begin_with(session: &mut Session, n: u16, content: &[u8]) -> usize {
    let to = recipients(n);
    let sending = Sending { chunk: Some(content), ..by_data(100) };
    session.begin(&message(), to.iter().map(|(n, r)| (*n, r)), sending).unwrap()
}

#[test]
fn with_pipelining_the_whole_transaction_is_one_write() {
    let mut s = session("PIPELINING\nCHUNKING");
    for _ in 0..2 {
        begin_with(&mut s, 2, CONTENT);
        let said = said(&mut s);
        let (commands, content) = said.split_at(said.len() - CONTENT.len());
        assert_eq!(
            commands,
            "MAIL FROM:<from@example.com>\r\nRCPT TO:<r0@d0.example>\r\nRCPT TO:<r1@d1.example>\r\nBDAT 45 LAST\r\n"
        );
        assert_eq!(content.as_bytes(), CONTENT);
        assert_eq!(hear(&mut s, "250 ok\r\n250 ok\r\n550 no\r\n"), Ok(Step::Read(Wait::Final)));
        assert_eq!(hear(&mut s, "250 2.6.0 queued\r\n"), Ok(Step::Finished));
        assert_eq!(results(&mut s).0, "0+250 1-550");
        assert!(s.is_usable());
    }
    let record = s.transcript().as_str();
    assert!(record.contains("> BDAT 45 LAST\n* 45 octets of content sent\n"), "{record}");
    assert!(!record.contains("evil"), "{record}");
}

#[test]
fn without_pipelining_it_goes_with_its_command() {
    let mut s = session("CHUNKING");
    begin_with(&mut s, 1, b"a\r\n\nno line end");
    assert_eq!(said(&mut s), "MAIL FROM:<from@example.com>\r\n");
    hear(&mut s, "250 ok\r\n").unwrap();
    assert_eq!(said(&mut s), "RCPT TO:<r0@d0.example>\r\n");
    assert!(!s.content_is_out());
    assert_eq!(hear(&mut s, "250 ok\r\n"), Ok(Step::Read(Wait::Final)));
    assert_eq!(said(&mut s), "BDAT 17 LAST\r\na\r\n\nno line end\r\n");
    assert!(s.content_is_out());
    assert_eq!(hear(&mut s, "250 ok\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s).0, "0+250");
    // Nobody wants it: it stays here.
    begin_with(&mut s, 1, CONTENT);
    hear(&mut s, "250 ok\r\n").unwrap();
    said(&mut s);
    assert_eq!(hear(&mut s, "550 no\r\n"), Ok(Step::Finished));
    assert_eq!((said(&mut s).as_str(), results(&mut s).0.as_str()), ("", "0-550"));
    assert!(!s.content_is_out());
    begin(&mut s, 1);
    assert_eq!(said(&mut s), "RSET\r\n");
}

/// RFC 3030 section 2: after a refused chunk only RSET makes the session good again.
#[test]
fn a_refused_chunk_is_followed_by_rset() {
    for (replies, expected) in [
        ("250 ok\r\n250 ok\r\n452 4.3.1 full\r\n", "0~452"),
        ("250 ok\r\n550 no\r\n503 no recipients\r\n", "0-550"),
        ("250 ok\r\n550 no\r\n554 no recipients\r\n", "0-550"),
    ] {
        let mut s = session("PIPELINING\nCHUNKING");
        begin_with(&mut s, 1, CONTENT);
        said(&mut s);
        assert_eq!(hear(&mut s, replies), Ok(Step::Finished));
        assert_eq!(results(&mut s).0, expected);
        begin(&mut s, 1);
        assert!(said(&mut s).starts_with("RSET\r\nMAIL"));
    }
    let mut s = session("PIPELINING\nCHUNKING");
    begin_with(&mut s, 1, CONTENT);
    assert_eq!(hear(&mut s, "550 5.7.1 no\r\n503 x\r\n503 x\r\n"), Ok(Step::Finished));
    assert_eq!(results(&mut s).0, "0-550");
}

#[test]
fn a_peer_that_goes_away_may_have_it() {
    let mut s = session("PIPELINING\nCHUNKING");
    begin_with(&mut s, 1, CONTENT);
    said(&mut s);
    hear(&mut s, "250 ok\r\n").unwrap();
    s.lost(&Lost::Closed);
    let mut got = Results::default();
    s.results(&mut got);
    assert!(got.outcomes[0].outcome.text.contains("it may have the message"), "{got:?}");
    // A 354 answers no chunk.
    let mut s = session("PIPELINING\nCHUNKING");
    begin_with(&mut s, 1, CONTENT);
    assert!(matches!(hear(&mut s, "250 ok\r\n250 ok\r\n354 go\r\n"), Err(Fault::Senseless(_))));
}

#[test]
fn requiretls_is_asked_of_those_that_offer_it_and_of_no_others() {
    let to = recipients(1);
    let sending = Sending { require_tls: true, ..by_data(9) };
    let mut s = session("PIPELINING\nREQUIRETLS\nSIZE");
    s.begin(&message(), to.iter().map(|(n, r)| (*n, r)), sending).unwrap();
    assert!(said(&mut s).starts_with("MAIL FROM:<from@example.com> SIZE=1000 REQUIRETLS\r\n"));
    let mut s = session("PIPELINING");
    let outcome = s.begin(&message(), to.iter().map(|(n, r)| (*n, r)), sending).unwrap_err();
    assert_eq!((outcome.disposition, outcome.status.to_string()), (Disposition::Refused, "5.7.30".into()));
    assert!(s.is_usable() && s.output().is_empty());
}

#[test]
fn a_peer_shows_how_many_recipients_it_takes() {
    for (replies, full_after) in [
        ("250 ok\r\n250 ok\r\n452 4.5.3 enough\r\n354 go\r\n", Some(1)),
        ("250 ok\r\n452 4.5.3 enough\r\n452 4.5.3 enough\r\n503 x\r\n", None),
        ("250 ok\r\n250 ok\r\n450 4.2.0 later\r\n354 go\r\n", None),
    ] {
        let mut s = session("PIPELINING");
        begin(&mut s, 2);
        hear(&mut s, replies).unwrap();
        assert_eq!(s.full_after(), full_after, "{replies}");
        assert_eq!(s.transactions(), 1);
    }
}
