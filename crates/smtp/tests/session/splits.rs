//! Wherever input is cut, a session says and accepts the same.

use proptest::prelude::*;
use smtp::server::{BareNewline, Connection};

use crate::driver::{Accepted, Driver, Now, settings};

/// Everything a session says and accepts, and how it stands in the end.
fn run(input: &[u8], cuts: &[usize], normalise: bool) -> (String, Vec<Accepted>, Now) {
    let mut settings = settings();
    settings.message_size_max = 200;
    if normalise {
        settings.bare_newline = BareNewline::Normalise;
    }
    let mut driver = Driver::new(settings, Connection { tls: true, ..Connection::default() });
    let mut bounds: Vec<usize> = cuts.iter().map(|c| c % (input.len() + 1)).collect();
    bounds.sort_unstable();
    bounds.push(input.len());
    let mut from = 0;
    for bound in bounds {
        driver.feed(&input[from..bound]);
        from = bound;
    }
    let said = driver.said();
    (said, std::mem::take(&mut driver.accepted), driver.now)
}

/// The false ends of the conformance table, each cut at every octet: one refusal, nothing relayed, and what follows
/// the false end is never a command.
#[test]
fn nothing_is_smuggled() {
    let false_ends: [&[u8]; 12] = [
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
    let head = b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nbody";
    let tail = b"MAIL FROM:<x@y.example>\r\nRCPT TO:<z@d.example>\r\nDATA\r\nsmuggled\r\n.\r\nQUIT\r\n";
    for false_end in false_ends {
        let input = [head.as_slice(), false_end, tail].concat();
        for cut in 0..=input.len() {
            let (said, accepted, now) = run(&input, &[cut], false);
            let what = format!("{} cut at {cut}: {said}", false_end.escape_ascii());
            assert!(accepted.is_empty(), "{what}");
            assert_eq!(said.matches("\r\n554 5.6.0").count(), 1, "{what}");
            assert_eq!(said.matches("\r\n250 2.1.0").count(), 1, "the second MAIL was content: {what}");
            assert_eq!(now, Now::Closed, "{what}");
            assert!(said.ends_with("221 2.0.0 Bye\r\n"), "{what}");
        }
    }
}

#[test]
fn an_endless_line_takes_no_memory() {
    let mut driver = Driver::new(settings(), Connection::default());
    for _ in 0..1000 {
        driver.feed(&[b'x'; 4096]);
        assert!(driver.buffer.len() < 8192);
    }
    driver.feed(b"\r\nNOOP\r\n");
    let said = driver.said();
    assert!(said.contains("\r\n500 5.5.2") && said.ends_with("250 2.0.0 OK\r\n"), "{said}");
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let fixed: Vec<&[u8]> = vec![
        b"EHLO a.example\r\n",
        b"MAIL FROM:<a@b.example>\r\n",
        b"MAIL FROM:<>\r\n",
        b"RCPT TO:<c@d.example>\r\n",
        b"RCPT TO:<nobody@d.example>\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"BDAT 5\r\nab\r\nc",
        b"BDAT 4 LAST\r\nd\r\n.",
        b"BDAT 0 LAST\r\n",
        b"BDAT 300 LAST\r\n",
        b"AUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\n",
        b"AUTH PLAIN AHVzZXIAd3Jvbmc=\r\n",
        b"text\r\n",
        b".\r\n",
        b"..\r\n",
        b"bare\nline\r\n",
        b"\r",
        b"\n",
        b"QUIT\r\n",
        b"\x16\x03\x01",
    ];
    // DATA stands before its content: after a refused DATA it is meant to matter what has come already.
    let whole: Vec<&[u8]> = vec![
        b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n",
        b"EHLO a\r\nRSET\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nA: b\r\n\r\n..c\r\n.\r\n",
    ];
    prop_oneof![
        4 => proptest::sample::select(fixed).prop_map(<[u8]>::to_vec),
        2 => proptest::sample::select(whole).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        lines in proptest::collection::vec(line(), 1..14),
        cuts in proptest::collection::vec(any::<usize>(), 0..8),
        normalise: bool,
    ) {
        let input = lines.concat();
        let whole = run(&input, &[], normalise);
        // A refused DATA with its content behind it ends the session at once; cut there, it may end a line later.
        prop_assume!(!whole.0.contains("No message was wanted here"));
        let cut = run(&input, &cuts, normalise);
        prop_assume!(!cut.0.contains("No message was wanted here"));
        prop_assert_eq!(&cut, &whole);
        for message in &whole.1 {
            let mut bare = message.content.clone();
            while let Some(at) = bare.windows(2).position(|w| w == b"\r\n") {
                bare.drain(at..at + 2);
            }
            prop_assert!(!bare.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "only whole line ends get in");
            prop_assert!(message.content.is_empty() || message.content.ends_with(b"\r\n"));
        }
    }
}
