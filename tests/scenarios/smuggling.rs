//! Message smuggling: octets that one server takes for the end of a message and another does not. One refusal, nothing
//! relayed, no second reply; judged by what reaches the far end.

use posthouse_tests::prelude::*;

const ENDS: [&[u8]; 12] = [
    b"\n.\n",
    b"\n.\r",
    b"\r.\n",
    b"\r.\r",
    b"\n.\r\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
];

const SECOND: &[u8] = b"MAIL FROM:<smuggled@client.example>\r\nRCPT TO:<victim@dest.example>\r\nDATA\r\n\
                        X-Proof-Id: smuggled\r\nSubject: smuggled\r\n\r\nowned\r\n.\r\n";

/// Sends a message with a false end and a second message behind it, cut into two segments at `cut`.
fn attack(relay: &Relay, end: &[u8], cut: usize) {
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<attacker@client.example>").expect(250);
    smtp.cmd("RCPT TO:<victim@dest.example>").expect(250);
    smtp.cmd("DATA").expect(354);
    let content = [b"X-Proof-Id: carrier\r\nSubject: carrier\r\n\r\nfirst".as_slice(), end, SECOND].concat();
    let at = content.len() - SECOND.len() - end.len() + cut;
    smtp.send(&content[..at]).unwrap();
    if cut > 0 {
        std::thread::sleep(Duration::from_millis(3));
    }
    let _ = smtp.send(&content[at..]);
    let said = smtp.drain(Duration::from_millis(300));
    let codes: Vec<&str> = said.lines().filter_map(|l| l.get(..3)).collect();
    let shown = format!("{} cut at {cut}: {said:?}", end.escape_ascii());
    assert!(!codes.iter().any(|c| c.starts_with('2') || c.starts_with('3')), "taken: {shown}");
    assert!(codes.len() == 1 && (codes[0].starts_with('5') || codes[0] == "421"), "not one refusal: {shown}");
}

#[test]
fn no_false_end_of_a_message_is_believed() {
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    std::thread::scope(|scope| {
        for end in ENDS {
            let relay = &relay;
            scope.spawn(move || (0..=end.len()).for_each(|cut| attack(relay, end, cut)));
        }
    });
    let letter = Letter::new("honest", 500);
    posthouse_tests::client::send_one(relay.smtp(), "a@client.example", &["b@dest.example"], &letter.bytes)
        .expect(250);
    letter.assert_arrived(&sink.wait_one().data);
    assert_eq!(sink.count(), 1, "something was smuggled: {:?}", sink.messages());
}

#[test]
fn bdat_carries_no_bare_line_ends_to_the_next_hop() {
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    for end in ENDS {
        let mut smtp = Smtp::connect(relay.smtp());
        assert!(smtp.ehlo().mentions("CHUNKING"));
        smtp.cmd("MAIL FROM:<attacker@client.example>").expect(250);
        smtp.cmd("RCPT TO:<victim@dest.example>").expect(250);
        let content = [b"X-Proof-Id: carrier\r\n\r\nfirst".as_slice(), end, b"second\r\n"].concat();
        smtp.send(format!("BDAT {} LAST\r\n", content.len()).as_bytes()).unwrap();
        smtp.send(&content).unwrap();
        let reply = smtp.reply();
        assert!(reply.code >= 500 || reply.code == 250, "{}: {reply}", end.escape_ascii());
        if reply.code == 250 {
            sink.wait(1, Duration::from_secs(10));
        }
    }
    for message in sink.messages() {
        let wire = &message.wire;
        let lone_lf = wire.iter().enumerate().any(|(i, b)| *b == b'\n' && (i == 0 || wire[i - 1] != b'\r'));
        assert!(!lone_lf && !wire.contains(&0), "it left as {}", wire.escape_ascii());
    }
}

#[test]
fn a_refused_bdat_still_eats_its_octets_and_body_lines_never_run_as_commands() {
    let sink = Sink::start();
    let relay =
        Relay::builder().networks(&[]).local(&["local.example"], "any").route(&[], &sink.url()).start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.ehlo();
    let body = "MAIL FROM:<x@y.example>\r\nRCPT TO:<a@local.example>\r\n";
    smtp.send(
        format!("MAIL FROM:<x@y.example>\r\nRCPT TO:<b@far.example>\r\nBDAT {} LAST\r\n{body}", body.len())
            .as_bytes(),
    )
    .unwrap();
    smtp.reply().expect(250);
    assert!(smtp.reply().code >= 500);
    assert!(smtp.reply().code >= 500);
    smtp.cmd("NOOP").expect(250);
    smtp.send(b"RSET\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<b@far.example>\r\nDATA\r\nRSET\r\n").unwrap();
    smtp.reply().expect(250);
    smtp.reply().expect(250);
    assert!(smtp.reply().code >= 500);
    assert!(smtp.reply().code >= 500, "DATA without a recipient");
    // Nothing may follow DATA before its reply (RFC 2920): what does is a body that nobody wanted, and never a command.
    let said = smtp.drain(Duration::from_secs(2));
    assert!(said.is_empty() || said.starts_with("421"), "{said}");
    assert_eq!(sink.count(), 0);
}
